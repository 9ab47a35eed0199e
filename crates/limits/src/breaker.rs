//! A circuit breaker: opens at 50 % failures of a window, half-opens after 30 s, with one probe.

use serde::{Deserialize, Serialize};

/// Calls looked at together.
const WINDOW_MILLIS: u64 = 10_000;
/// Fewer calls than this say nothing.
const CALLS_MIN: u32 = 10;
const OPEN_MILLIS: u64 = 30_000;

/// What a breaker says of the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Closed,
    /// This caller is the one probe.
    Probe,
    /// Milliseconds until the next probe.
    Open(u64),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    state: State,
    window_start: Option<u64>,
    calls: u32,
    failures: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Closed,
    Open {
        since: u64,
    },
    /// One probe is under way since then.
    HalfOpen {
        since: u64,
    },
}

impl Breaker {
    pub fn allow(&mut self, now: u64) -> Verdict {
        match self.state {
            State::Closed => Verdict::Closed,
            State::Open { since } | State::HalfOpen { since } if now < since.saturating_add(OPEN_MILLIS) => {
                Verdict::Open(since.saturating_add(OPEN_MILLIS).saturating_sub(now))
            }
            // Also when a probe never reported: the next caller probes.
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { since: now };
                Verdict::Probe
            }
        }
    }

    /// True when this report opened the breaker.
    pub fn report(&mut self, success: bool, now: u64) -> bool {
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

    fn count(&mut self, success: bool, now: u64) -> bool {
        let start = *self.window_start.get_or_insert(now);
        if now.saturating_sub(start) > WINDOW_MILLIS {
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
        let start = 7;
        let mut breaker = Breaker::default();
        for call in 0..10 {
            assert!(matches!(breaker.allow(start), Verdict::Closed));
            assert_eq!(breaker.report(call % 2 == 0, start), call == 9, "{call}");
        }
        assert!(matches!(breaker.allow(start), Verdict::Open(30_000)));
        let later = start + OPEN_MILLIS;
        assert!(matches!(breaker.allow(later), Verdict::Probe));
        assert!(matches!(breaker.allow(later), Verdict::Open(_)), "one probe at a time");
        assert!(breaker.report(false, later), "a failed probe opens it again");
        assert!(matches!(breaker.allow(later + OPEN_MILLIS), Verdict::Probe));
        assert!(!breaker.report(true, later + OPEN_MILLIS));
        assert!(matches!(breaker.allow(later + OPEN_MILLIS), Verdict::Closed));
    }

    #[test]
    fn few_or_old_failures_do_not_open_it() {
        let mut now = 7;
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert!(!breaker.report(false, now));
            now += 2000;
        }
    }
}
