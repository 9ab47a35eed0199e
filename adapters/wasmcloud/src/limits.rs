//! `settle:limits` in the instance's memory: each pooled instance counts for itself, so a limit is
//! at most `poolSize` times as wide as asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use settle_limits::{Breaker, Bucket, Rate, Verdict};

use crate::Adapter;
use crate::bindings::exports::settle::limits::limiter as port;

/// Buckets kept at once; past it, full ones are forgotten.
const BUCKETS_MAX: usize = 10_000;

thread_local! {
    static BUCKETS: RefCell<HashMap<String, Bucket>> = RefCell::default();
    static BREAKERS: RefCell<HashMap<String, Breaker>> = RefCell::default();
}

impl port::Guest for Adapter {
    async fn take(name: String, cost: u32, rate: port::Rate) -> Result<u32, u64> {
        let rate = Rate { capacity: rate.capacity, refill_per_minute: rate.refill_per_minute };
        let now = now_millis();
        BUCKETS.with_borrow_mut(|buckets| {
            if buckets.len() >= BUCKETS_MAX {
                buckets.retain(|_, bucket| !bucket.is_full(now));
            }
            buckets.entry(name).or_insert_with(|| Bucket::full(rate, now)).take(cost, rate, now)
        })
    }

    async fn allow(name: String) -> port::Verdict {
        match BREAKERS.with_borrow_mut(|breakers| breakers.entry(name).or_default().allow(now_millis())) {
            Verdict::Closed => port::Verdict::Closed,
            Verdict::Probe => port::Verdict::Probe,
            Verdict::Open(wait) => port::Verdict::Open(wait),
        }
    }

    async fn report(name: String, success: bool) -> bool {
        BREAKERS.with_borrow_mut(|breakers| breakers.entry(name).or_default().report(success, now_millis()))
    }
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
