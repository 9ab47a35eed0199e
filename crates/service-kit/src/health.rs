//! Liveness and readiness, the same for every service.

use serde_json::json;

use crate::http::{Call, Reply};
use crate::instance::StartError;

/// What a request asks of a service's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Is the process answering at all?
    Live,
    /// Can it do its work: settings, database, schema?
    Ready,
}

/// The probe that a path names, with or without the service's name before it: hosts with one
/// listener for all services need the name.
pub fn probe(call: &Call, service: &str) -> Option<Probe> {
    let path = call.path.strip_prefix('/')?;
    let path = path.strip_prefix(service).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    match path {
        "health" | "health/ready" => Some(Probe::Ready),
        "health/live" => Some(Probe::Live),
        _ => None,
    }
}

pub fn live() -> Reply {
    Reply::json(200, &json!({ "status": "live" }))
}

/// Ready, with what an operator wants to see beside it; or not, with the reason.
pub fn ready(outcome: Result<serde_json::Value, StartError>) -> Reply {
    match outcome {
        Ok(details) => Reply::json(200, &json!({ "status": "ready", "details": details })),
        Err(error) => Reply::json(503, &json!({ "status": "not_ready", "reason": error.to_string() })),
    }
}
