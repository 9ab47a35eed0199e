//! Clock, randomness, waiting, limits: what a driver may ask of its surroundings.

use std::time::Duration;

use settle_types::{Timestamp, id_bytes_random};

/// Who calls, on whose behalf, and until when: travels with every remote call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallContext {
    /// `X-Correlation-ID`.
    pub correlation_id: String,
    /// W3C Trace Context (`traceparent`); empty when there is none.
    pub traceparent: String,
    /// When the caller stops waiting, on the clock of `World::now`.
    pub deadline: Timestamp,
}

impl CallContext {
    /// The trace id inside `traceparent` (its second field), empty when there is none.
    pub fn trace_id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }

    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.deadline.since(now)
    }

    /// The same call, with at most `limit` from `now`.
    pub fn within(&self, limit: Duration, now: Timestamp) -> Self {
        Self { deadline: self.deadline.min(now.plus(limit)), ..self.clone() }
    }
}

/// Clock, randomness and waiting.
#[allow(async_fn_in_trait)] // guests have one thread
pub trait World {
    /// Wall clock of this machine.
    fn now(&self) -> Timestamp;
    /// Good random bits.
    fn random(&self) -> (u64, u64);
    async fn sleep(&self, wait: Duration);
    /// One line for operators; never tokens, passwords or bodies.
    fn log(&self, level: &'static str, message: &str, context: &CallContext);

    /// The random part of a new id.
    fn id_bytes(&self) -> [u8; 10] {
        id_bytes_random(self.random())
    }

    /// A duration in `half..=full` of `full`: spreads retries ("equal jitter").
    fn jitter(&self, full: Duration) -> Duration {
        let half = full / 2;
        let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_millis(self.random().0.checked_rem(spread).unwrap_or(0))
    }
}

/// A token bucket's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub capacity: u32,
    pub refill_per_minute: u32,
}

/// What a circuit breaker says of the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Closed,
    /// Call: this caller is the one probe.
    Probe,
    /// Do not call for this long.
    Open(Duration),
}

/// See `wit/limits/limiter.wit`.
#[allow(async_fn_in_trait)] // guests have one thread
pub trait Limiter {
    /// Tokens that are left. `Err` says how long to wait; nothing was taken.
    async fn take(&self, name: &str, cost: u32, rate: Rate) -> Result<u32, Duration>;
    async fn allow(&self, name: &str) -> Verdict;
    /// True when this report opened the breaker.
    async fn report(&self, name: &str, success: bool) -> bool;
}

/// What one round of recovery did. See `wit/recovery/recovery.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueReport {
    pub resumed: u32,
    pub ended: u32,
    pub deferred: u32,
    pub more: bool,
    pub oldest_due_ms: u64,
}
