//! `settle:limits`: token buckets and circuit breakers, in host memory.
//!
//! Every component has its own; counts live as long as the process.

mod breaker;
mod bucket;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::{Accessor, HasData, Linker};

use crate::bindings::settle::limits::limiter as wit;
use crate::guest::Ctx;
use breaker::Breaker;
use bucket::Bucket;

/// Buckets kept at once; past it, full ones are forgotten.
const BUCKETS_MAX: usize = 100_000;

/// The limits of one component.
#[derive(Default)]
pub struct Limits {
    buckets: Mutex<HashMap<String, Bucket>>,
    breakers: Mutex<HashMap<String, Breaker>>,
}

impl Limits {
    fn take(&self, name: String, cost: u32, rate: wit::Rate, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        buckets.entry(name).or_insert_with(|| Bucket::full(rate, now)).take(cost, rate, now)
    }

    fn allow(&self, name: String, now: Instant) -> wit::Verdict {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.entry(name).or_default().allow(now)
    }

    fn report(&self, name: String, success: bool, now: Instant) -> bool {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.entry(name).or_default().report(success, now)
    }
}

/// Marks the port in the linker.
pub struct LimitsPort;

impl HasData for LimitsPort {
    type Data<'a> = &'a mut Ctx;
}

pub fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    wit::add_to_linker::<_, LimitsPort>(linker, |ctx| ctx)
}

impl wit::Host for Ctx {}

impl<T: Send> wit::HostWithStore<T> for LimitsPort {
    async fn take(accessor: &Accessor<T, Self>, name: String, cost: u32, rate: wit::Rate) -> Result<(), u64> {
        let limits = accessor.with(|mut access| access.get().limits.clone());
        let taken = limits.take(name, cost, rate, Instant::now());
        taken.map_err(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    async fn allow(accessor: &Accessor<T, Self>, name: String) -> wit::Verdict {
        let limits = accessor.with(|mut access| access.get().limits.clone());
        limits.allow(name, Instant::now())
    }

    async fn report(accessor: &Accessor<T, Self>, name: String, success: bool) -> bool {
        let limits = accessor.with(|mut access| access.get().limits.clone());
        limits.report(name, success, Instant::now())
    }
}
