//! A token bucket: `capacity` tokens at most, refilled evenly.

use std::time::{Duration, Instant};

use super::wit::Rate;

const MINUTE: Duration = Duration::from_secs(60);

pub struct Bucket {
    tokens: f64,
    rate: Rate,
    seen: Instant,
}

impl Bucket {
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: f64::from(rate.capacity), rate, seen: now }
    }

    /// Takes `cost` tokens, or says when they will be there.
    pub fn take(&mut self, cost: u32, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.rate = rate;
        self.tokens = self.tokens_at(now);
        self.seen = now;
        let missing = f64::from(cost) - self.tokens;
        if missing <= 0.0 {
            self.tokens -= f64::from(cost);
            return Ok(());
        }
        if rate.refill_per_minute == 0 {
            return Err(MINUTE);
        }
        Err(MINUTE.mul_f64(missing / f64::from(rate.refill_per_minute)))
    }

    pub fn is_full(&self, now: Instant) -> bool {
        self.tokens_at(now) >= f64::from(self.rate.capacity)
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let minutes = now.saturating_duration_since(self.seen).as_secs_f64() / MINUTE.as_secs_f64();
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
        let start = Instant::now();
        let mut bucket = Bucket::full(rate, start);
        assert_eq!(bucket.take(1, rate, start), Ok(()));
        assert_eq!(bucket.take(1, rate, start), Ok(()));
        assert_eq!(bucket.take(1, rate, start), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(1, rate, start + Duration::from_secs(1)), Ok(()));
        assert!(!bucket.is_full(start + Duration::from_secs(1)));
        assert!(bucket.is_full(start + Duration::from_secs(60)));
    }
}
