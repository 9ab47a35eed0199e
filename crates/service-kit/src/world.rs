//! Clock, randomness, waiting and log lines of this instance.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use settle_ports::{CallContext, World};
use settle_types::Timestamp;

use crate::host;

/// The host's clock and randomness. `service` names the log lines.
#[derive(Clone, Copy, Debug)]
pub struct GuestWorld {
    pub service: &'static str,
}

impl World for GuestWorld {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> (u64, u64) {
        (host::random(), host::random())
    }

    async fn sleep(&self, wait: Duration) {
        host::sleep(wait).await;
    }

    fn log(&self, level: &'static str, message: &str, context: &CallContext) {
        let line = serde_json::json!({
            "at": self.now().to_string(),
            "level": level,
            "service": self.service,
            "correlation_id": context.correlation_id,
            "trace_id": context.trace_id(),
            "message": message,
        });
        // One write, so that the lines of two instances never mix. Err: nobody reads the log.
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}
