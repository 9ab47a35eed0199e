//! The timer that lets services finish what was left open: `settle:recovery`, called typed and
//! in process, as the service itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::watch;

use crate::bindings::recovery::Recoverable;
use crate::service::Service;

/// Wait between two rounds.
pub const ROUND_EVERY: Duration = Duration::from_millis(500);
/// Sagas claimed in one round.
const ROUND_SIZE: u32 = 64;

/// Calls recovery of one service until `stop` turns true.
pub async fn run(service: Arc<Service>, every: Duration, mut stop: watch::Receiver<bool>) {
    let mut failing = false;
    loop {
        let more = match round(&service).await {
            Ok(more) => {
                failing = false;
                more
            }
            Err(error) => {
                // Once, not at every round: the readiness probe tells that it goes on.
                if !failing {
                    eprintln!("settle: recovery of `{}`: {error:#}", service.name);
                }
                failing = true;
                false
            }
        };
        let wait = if more { Duration::ZERO } else { every };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One round; true when more are due.
async fn round(service: &Service) -> Result<bool> {
    let (mut store, instance) = service.instance().await?;
    let recoverable = Recoverable::new(&mut store, &instance)?;
    let report = store
        .run_concurrent(async |accessor| {
            recoverable.settle_recovery_recovery().call_resume_due(accessor, ROUND_SIZE).await
        })
        .await??;
    let report = report.map_err(|error| anyhow!("{error:?}"))?;
    Ok(report.more)
}
