//! A token bucket: `capacity` tokens at most, refilled evenly.

use serde::{Deserialize, Serialize};

const MINUTE_MILLIS: f64 = 60_000.0;

/// A bucket's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Tokens that a full bucket holds.
    pub capacity: u32,
    /// Tokens added each minute.
    pub refill_per_minute: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bucket {
    tokens: f64,
    rate: Rate,
    seen_millis: u64,
}

impl Bucket {
    pub fn full(rate: Rate, now_millis: u64) -> Self {
        Self { tokens: f64::from(rate.capacity), rate, seen_millis: now_millis }
    }

    /// Takes `cost` tokens and says how many are left, or after how many milliseconds they will be there.
    pub fn take(&mut self, cost: u32, rate: Rate, now_millis: u64) -> Result<u32, u64> {
        self.rate = rate;
        self.tokens = self.tokens_at(now_millis);
        self.seen_millis = now_millis;
        let missing = f64::from(cost) - self.tokens;
        if missing <= 0.0 {
            self.tokens -= f64::from(cost);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most the capacity
            return Ok(self.tokens as u32);
        }
        let refill = f64::from(rate.refill_per_minute.max(1));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // both are small and positive
        Err((MINUTE_MILLIS * missing / refill).ceil() as u64)
    }

    pub fn is_full(&self, now_millis: u64) -> bool {
        self.tokens_at(now_millis) >= f64::from(self.rate.capacity)
    }

    fn tokens_at(&self, now_millis: u64) -> f64 {
        #[allow(clippy::cast_precision_loss)] // an interval, not a date
        let minutes = now_millis.saturating_sub(self.seen_millis) as f64 / MINUTE_MILLIS;
        let refilled = self.tokens + minutes * f64::from(self.rate.refill_per_minute);
        refilled.min(f64::from(self.rate.capacity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills_evenly() {
        let rate = Rate { capacity: 2, refill_per_minute: 60 };
        let mut bucket = Bucket::full(rate, 5);
        assert_eq!(bucket.take(1, rate, 5), Ok(1));
        assert_eq!(bucket.take(1, rate, 5), Ok(0));
        assert_eq!(bucket.take(1, rate, 5), Err(1000));
        assert_eq!(bucket.take(1, rate, 1005), Ok(0));
        assert!(!bucket.is_full(1005));
        assert!(bucket.is_full(60_005));
    }
}
