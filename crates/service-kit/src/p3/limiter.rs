//! `settle:limits/limiter`.

use std::time::Duration;

use settle_ports::{Limiter, Rate, Verdict};

use super::bindings::settle::limits::limiter as wit;

/// The host's token buckets and breakers.
#[derive(Clone, Copy, Debug)]
pub struct HostLimiter;

impl Limiter for HostLimiter {
    async fn take(&self, name: &str, cost: u32, rate: Rate) -> Result<u32, Duration> {
        let rate = wit::Rate { capacity: rate.capacity, refill_per_minute: rate.refill_per_minute };
        wit::take(name.to_owned(), cost, rate).await.map_err(Duration::from_millis)
    }

    async fn allow(&self, name: &str) -> Verdict {
        match wit::allow(name.to_owned()).await {
            wit::Verdict::Closed => Verdict::Closed,
            wit::Verdict::Probe => Verdict::Probe,
            wit::Verdict::Open(wait) => Verdict::Open(Duration::from_millis(wait)),
        }
    }

    async fn report(&self, name: &str, success: bool) -> bool {
        wit::report(name.to_owned(), success).await
    }
}
