//! Liveness and readiness, the same for every service.

use serde_json::json;
use settle_proto::health_v1 as wire;

use crate::http::{Call, Reply};
use crate::instance::StartError;
use crate::problem::{Kind, Problem};
use crate::rpc::Protocol;

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

/// Whether it is a call of gRPC's health protocol.
pub fn is_grpc(call: &Call) -> bool {
    call.path.strip_prefix('/').is_some_and(|path| path.starts_with(wire::SERVICE))
}

/// Answers it. `is_ready` says of a service whether it is, `None` of one that is not here; the empty name
/// is the whole server's.
pub async fn grpc(call: &Call, is_ready: impl AsyncFnOnce(String) -> Option<bool>) -> Reply {
    let Some(protocol) = Protocol::of(call) else {
        let problem = Problem::new(Kind::UnsupportedMediaType, "Send application/grpc.");
        return Reply::problem(&problem, &call.context.correlation_id);
    };
    if !call.path.ends_with("/Check") {
        // The protocol lets a server without a stream say so; clients then ask again and again.
        return protocol.refuse(&Problem::new(Kind::MethodNotAllowed, "Only Check is here."));
    }
    let request: wire::HealthCheckRequest = match protocol.request(call) {
        Ok(request) => request,
        Err(problem) => return protocol.refuse(&problem),
    };
    let status = match is_ready(request.service).await {
        Some(true) => wire::ServingStatus::Serving,
        Some(false) => wire::ServingStatus::NotServing,
        None => return protocol.refuse(&Problem::new(Kind::NotFound, "There is no such service here.")),
    };
    protocol.reply(Ok(wire::HealthCheckResponse { status: status.into() }))
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
