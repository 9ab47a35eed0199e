//! Unary calls of the Connect protocol: the protobuf message is the body of a plain HTTP request,
//! an error is JSON with a code by name. Source: connectrpc.com/docs/protocol.

use prost::Message;
use serde::Deserialize;
use serde_json::json;
use settle_ports::{CallContext, World};

use crate::http::{Answer, Call, Reply};
use crate::problem::{Kind, Problem};
use crate::rpc::{CallError, Remote, post};

pub const CONTENT_TYPE: &str = "application/proto";

/// gRPC's codes by number, as Connect names them.
const CODES: [&str; 17] = [
    "ok",
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The message of a unary call.
pub fn request<M: Message + Default>(call: &Call) -> Result<M, Problem> {
    M::decode(call.body.as_slice()).map_err(|error| {
        Problem::new(Kind::MalformedRequest, format!("The request does not decode: {error}."))
    })
}

/// The answer to a unary call.
pub fn reply(result: Result<impl Message, Problem>) -> Reply {
    match result {
        Ok(message) => Reply::new(200, message.encode_to_vec()).header("content-type", CONTENT_TYPE),
        Err(problem) => {
            let code = CODES.get(usize::from(problem.kind.code() as u8));
            let body = json!({ "code": code, "message": problem.detail });
            Reply::json(problem.kind.status(), &body)
        }
    }
}

/// Calls a unary method of another service.
pub async fn call<A: Message + Default>(
    remote: Remote<'_>,
    message: &impl Message,
    context: &CallContext,
    world: &impl World,
) -> Result<A, CallError> {
    let own = [("content-type", CONTENT_TYPE), ("connect-protocol-version", "1")];
    answer_of(&post(remote, own, message.encode_to_vec(), context, world).await?)
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    #[serde(default)]
    message: String,
}

fn answer_of<A: Message + Default>(answer: &Answer) -> Result<A, CallError> {
    let unknown = |what: String| CallError::OutcomeUnknown(what);
    let content_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
    if answer.status == 200 && content_type == Some(CONTENT_TYPE) {
        return A::decode(answer.body.as_slice()).map_err(|error| unknown(error.to_string()));
    }
    let told = serde_json::from_slice::<ErrorBody>(&answer.body).ok();
    let code = told.as_ref().and_then(|told| CODES.iter().position(|name| *name == told.code));
    match (code.and_then(|code| u8::try_from(code).ok()), told) {
        (Some(code), Some(told)) if code > 0 && answer.status != 200 => {
            Err(CallError::Refused { code, message: told.message })
        }
        // Without a code of the service, somebody before it answered.
        _ if answer.status == 429 || answer.status == 503 => {
            Err(CallError::NotSent(format!("HTTP status {}", answer.status)))
        }
        _ => Err(unknown(format!("HTTP status {}", answer.status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &str, body: &[u8]) -> Result<String, CallError> {
        let headers = [("content-type".parse().unwrap(), content_type.parse().unwrap())];
        let trailers = http::HeaderMap::new();
        answer_of(&Answer { status, headers: headers.into_iter().collect(), body: body.to_vec(), trailers })
    }

    #[test]
    fn an_answer_that_cannot_be_relied_on_never_counts_as_approval() {
        let message = "yes".to_owned().encode_to_vec();
        assert_eq!(answer(200, CONTENT_TYPE, &message), Ok("yes".to_owned()));
        let unknown = |answer| matches!(answer, Err(CallError::OutcomeUnknown(_)));
        assert!(unknown(answer(200, "text/html", b"<p>")));
        assert!(unknown(answer(200, CONTENT_TYPE, b"\xff\xff")));
        assert!(unknown(answer(200, "application/json", br#"{"code":"unavailable"}"#)));
        assert!(unknown(answer(500, "application/json", br#"{"code":"no such code"}"#)));
        assert!(unknown(answer(504, "text/html", b"")));
        assert!(matches!(answer(503, "text/html", b""), Err(CallError::NotSent(_))));
        let told = br#"{"code":"unavailable","message":"m"}"#;
        assert!(matches!(answer(503, "application/json", told), Err(CallError::Refused { code: 14, .. })));
    }

    #[test]
    fn problems_are_told_by_the_code_s_name() {
        let reply = reply(Err::<String, _>(Problem::new(Kind::Unauthenticated, "who?")));
        assert_eq!(reply.status, 401);
        assert_eq!(reply.body, br#"{"code":"unauthenticated","message":"who?"}"#);
    }
}
