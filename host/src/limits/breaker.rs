//! A circuit breaker: opens at 50 % failures of a window, half-opens after 30 s, with one probe.

use std::time::{Duration, Instant};

use super::wit::Verdict;

/// Calls looked at together.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer calls than this say nothing.
const CALLS_MIN: u32 = 10;
const OPEN_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
    window_start: Option<Instant>,
    calls: u32,
    failures: u32,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        since: Instant,
    },
    /// One probe is under way since then.
    HalfOpen {
        since: Instant,
    },
}

impl Breaker {
    pub fn allow(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed => Verdict::Closed,
            State::Open { since } | State::HalfOpen { since } if now.duration_since(since) < OPEN_TIME => {
                let wait = OPEN_TIME.saturating_sub(now.duration_since(since));
                Verdict::Open(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
            }
            // Also when a probe never reported: the next caller probes.
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { since: now };
                Verdict::Probe
            }
        }
    }

    /// True when this report opened the breaker.
    pub fn report(&mut self, success: bool, now: Instant) -> bool {
        match (&self.state, success) {
            (State::HalfOpen { .. }, true) => {
                *self = Self::default();
                false
            }
            (State::HalfOpen { .. }, false) => {
                self.state = State::Open { since: now };
                true
            }
            // A call from before it opened.
            (State::Open { .. }, _) => false,
            (State::Closed, _) => self.count(success, now),
        }
    }

    fn count(&mut self, success: bool, now: Instant) -> bool {
        let start = *self.window_start.get_or_insert(now);
        if now.duration_since(start) > WINDOW {
            (self.window_start, self.calls, self.failures) = (Some(now), 0, 0);
        }
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(!success));
        let opens = self.calls >= CALLS_MIN && self.failures.saturating_mul(2) >= self.calls;
        if opens {
            *self = Self { state: State::Open { since: now }, ..Self::default() };
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_failures_open_it_and_one_probe_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for call in 0..10 {
            assert!(matches!(breaker.allow(start), Verdict::Closed));
            assert_eq!(breaker.report(call % 2 == 0, start), call == 9, "{call}");
        }
        assert!(matches!(breaker.allow(start), Verdict::Open(30_000)));
        let later = start + OPEN_TIME;
        assert!(matches!(breaker.allow(later), Verdict::Probe));
        assert!(matches!(breaker.allow(later), Verdict::Open(_)), "one probe at a time");
        assert!(breaker.report(false, later), "a failed probe opens it again");
        assert!(matches!(breaker.allow(later + OPEN_TIME), Verdict::Probe));
        assert!(!breaker.report(true, later + OPEN_TIME));
        assert!(matches!(breaker.allow(later + OPEN_TIME), Verdict::Closed));
    }

    #[test]
    fn few_or_old_failures_do_not_open_it() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert!(!breaker.report(false, now));
            now += Duration::from_secs(2);
        }
    }
}
