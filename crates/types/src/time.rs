//! Instants, as milliseconds since the Unix epoch.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// An instant in UTC with millisecond resolution. Shown as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// The last instant that RFC 3339 can show: 9999-12-31T23:59:59.999Z.
const MILLIS_MAX: u64 = 253_402_300_799_999;

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis < MILLIS_MAX { millis } else { MILLIS_MAX })
    }

    /// From a signed database column; an instant before the epoch counts as the epoch.
    pub fn from_column(millis: i64) -> Self {
        Self::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    pub fn as_millis(self) -> u64 {
        self.0
    }

    pub fn as_column(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    pub fn plus(self, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Time from `earlier` to this instant; zero when the clock went back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_rfc_3339_and_never_panic() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_795_257_356_123).to_string(), "2026-11-21T10:35:56.123Z");
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_column(-5), Timestamp::default());
        let now = Timestamp::from_column(5_000);
        assert_eq!((now, now.as_column()), (Timestamp::from_millis(5_000), 5_000));
        let later = now.plus(Duration::from_secs(2));
        assert_eq!((later.since(now), now.since(later)), (Duration::from_secs(2), Duration::ZERO));
        assert_eq!(Timestamp::default().since(Timestamp::from_millis(9)), Duration::ZERO);
    }
}
