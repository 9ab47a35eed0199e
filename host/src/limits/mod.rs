//! `settle:limits`: token buckets and circuit breakers, in host memory.
//!
//! Every component has its own; counts live as long as the process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use settle_limits::{Breaker, Bucket, Rate, Verdict};
use tokio::time::Instant;
use wasmtime::component::{Accessor, HasData, Linker};

use crate::bindings::settle::limits::limiter as wit;
use crate::guest::Ctx;

/// Buckets kept at once; past it, full ones are forgotten.
const BUCKETS_MAX: usize = 100_000;

/// The limits of one component.
pub struct Limits {
    started: Instant,
    buckets: Mutex<HashMap<String, Bucket>>,
    breakers: Mutex<HashMap<String, Breaker>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { started: Instant::now(), buckets: Mutex::default(), breakers: Mutex::default() }
    }
}

impl Limits {
    fn now_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn take(&self, name: String, cost: u32, rate: Rate) -> Result<u32, u64> {
        let now = self.now_millis();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        buckets.entry(name).or_insert_with(|| Bucket::full(rate, now)).take(cost, rate, now)
    }

    fn allow(&self, name: String) -> Verdict {
        let now = self.now_millis();
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.entry(name).or_default().allow(now)
    }

    fn report(&self, name: String, success: bool) -> bool {
        let now = self.now_millis();
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
    async fn take(
        accessor: &Accessor<T, Self>,
        name: String,
        cost: u32,
        rate: wit::Rate,
    ) -> Result<u32, u64> {
        let limits = accessor.with(|mut access| access.get().limits.clone());
        limits.take(name, cost, Rate { capacity: rate.capacity, refill_per_minute: rate.refill_per_minute })
    }

    async fn allow(accessor: &Accessor<T, Self>, name: String) -> wit::Verdict {
        let limits = accessor.with(|mut access| access.get().limits.clone());
        match limits.allow(name) {
            Verdict::Closed => wit::Verdict::Closed,
            Verdict::Probe => wit::Verdict::Probe,
            Verdict::Open(wait) => wit::Verdict::Open(wait),
        }
    }

    async fn report(accessor: &Accessor<T, Self>, name: String, success: bool) -> bool {
        let limits = accessor.with(|mut access| access.get().limits.clone());
        limits.report(name, success)
    }
}
