//! gRPC unary calls over HTTP: frames, codes, `google.rpc.Status` details.

use prost::Message;
use settle_ports::{CallContext, World};

use crate::http::{Answer, Call, Reply};
use crate::problem::{Kind, Problem};
use crate::rpc::{CallError, Remote, post};

pub(crate) const CONTENT_TYPE: &str = "application/grpc";
pub(crate) const FRAME_HEAD_BYTES: usize = 5;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// Whether a call speaks gRPC.
pub fn is_grpc(call: &Call) -> bool {
    call.header("content-type").is_some_and(|given| {
        given == CONTENT_TYPE || given == "application/grpc+proto" || given.starts_with("application/grpc;")
    })
}

/// The message of a unary call.
pub fn request<M: Message + Default>(call: &Call) -> Result<M, Problem> {
    let malformed = |what: &str| Problem::new(Kind::MalformedRequest, format!("The gRPC request {what}."));
    let (head, message) =
        call.body.split_at_checked(FRAME_HEAD_BYTES).ok_or_else(|| malformed("is cut short"))?;
    let [compressed, length @ ..] = head else { return Err(malformed("is cut short")) };
    if *compressed != 0 {
        return Err(malformed("is compressed, which is not supported"));
    }
    let length = <[u8; 4]>::try_from(length).map(u32::from_be_bytes).unwrap_or(u32::MAX);
    if usize::try_from(length).ok() != Some(message.len()) {
        return Err(malformed("is cut short or carries more than one message"));
    }
    M::decode(message).map_err(|error| malformed(&format!("does not decode: {error}")))
}

/// The answer to a unary call.
pub fn reply(result: Result<impl Message, Problem>) -> Reply {
    match result {
        Ok(message) => {
            let mut reply = Reply::new(200, frame(&message)).header("content-type", CONTENT_TYPE);
            reply.trailers = Some(vec![("grpc-status".to_owned(), b"0".to_vec())]);
            reply
        }
        Err(problem) => trailers_only(&problem),
    }
}

pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut body = Vec::with_capacity(length.saturating_add(FRAME_HEAD_BYTES));
    body.push(0);
    body.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // Writing to a vector cannot fail.
    let _ = message.encode(&mut body);
    body
}

fn trailers_only(problem: &Problem) -> Reply {
    let code = problem.kind.code();
    let info = ErrorInfo { reason: problem.kind.name().to_owned(), domain: "settle".to_owned() };
    let detail =
        Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: info.encode_to_vec() };
    let status =
        RpcStatus { code: i32::from(code as u8), message: problem.detail.clone(), details: vec![detail] };
    Reply::new(200, Vec::new())
        .header("content-type", CONTENT_TYPE)
        .header("grpc-status", (code as u8).to_string())
        .header("grpc-message", percent_encode(&problem.detail))
        .header("grpc-status-details-bin", base64(&status.encode_to_vec()))
}

/// `grpc-message` is percent-encoded outside printable ASCII.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            printable => encoded.push(char::from(printable)),
        }
    }
    encoded
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

/// Calls a unary method of another service.
pub async fn call<A: Message + Default>(
    remote: Remote<'_>,
    message: &impl Message,
    context: &CallContext,
    world: &impl World,
) -> Result<A, CallError> {
    let own = [("content-type", CONTENT_TYPE), ("te", "trailers")];
    answer_of(&post(remote, own, frame(message), context, world).await?)
}

fn answer_of<A: Message + Default>(answer: &Answer) -> Result<A, CallError> {
    let text = |name: &str| {
        let value = answer.trailers.get(name).or_else(|| answer.headers.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    let status: Option<u8> = text("grpc-status").and_then(|status| status.parse().ok());
    match status {
        Some(0) => {}
        // Without a status of the service, somebody before it answered.
        None if answer.status == 429 || answer.status == 503 => {
            return Err(CallError::NotSent(format!("HTTP status {}", answer.status)));
        }
        None => return Err(CallError::OutcomeUnknown(format!("HTTP status {}", answer.status))),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default().to_owned();
            return Err(CallError::Refused { code, message });
        }
    }
    let message = answer.body.get(FRAME_HEAD_BYTES..).unwrap_or_default();
    A::decode(message).map_err(|error| CallError::OutcomeUnknown(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call_with(body: Vec<u8>) -> Call {
        Call {
            method: http::Method::POST,
            path: String::new(),
            query: String::new(),
            headers: http::HeaderMap::new(),
            body,
            context: CallContext::default(),
        }
    }

    #[test]
    fn frames_that_are_cut_short_are_refused() {
        let info = ErrorInfo { reason: "r".into(), domain: "d".into() };
        let whole = frame(&info);
        assert_eq!(request::<ErrorInfo>(&call_with(whole.clone())).unwrap(), info);
        for cut in 0..whole.len() {
            let refused = request::<ErrorInfo>(&call_with(whole[..cut].to_vec())).unwrap_err();
            assert_eq!(refused.kind, Kind::MalformedRequest, "{cut}");
        }
        let twice = [whole.clone(), whole.clone()].concat();
        assert!(request::<ErrorInfo>(&call_with(twice)).is_err());
        let compressed = [vec![1], whole[1..].to_vec()].concat();
        assert!(request::<ErrorInfo>(&call_with(compressed)).is_err());
    }

    #[test]
    fn an_answer_that_cannot_be_relied_on_never_counts_as_approval() {
        let answer = |status, grpc: Option<&str>, body: &[u8]| {
            let headers = grpc.map(|code| ("grpc-status".parse().unwrap(), code.parse().unwrap()));
            let trailers = headers.into_iter().collect();
            let answer = Answer { status, headers: http::HeaderMap::new(), body: body.to_vec(), trailers };
            answer_of::<ErrorInfo>(&answer)
        };
        assert_eq!(answer(200, Some("0"), &frame(&ErrorInfo::default())), Ok(ErrorInfo::default()));
        assert!(matches!(answer(200, None, b""), Err(CallError::OutcomeUnknown(_))));
        assert!(matches!(answer(503, None, b""), Err(CallError::NotSent(_))));
        assert!(matches!(answer(500, None, b""), Err(CallError::OutcomeUnknown(_))));
        assert!(matches!(answer(200, Some("0"), b"\0\0\0\0\x01\xff"), Err(CallError::OutcomeUnknown(_))));
        assert!(matches!(answer(200, Some("14"), b""), Err(CallError::Refused { code: 14, .. })));
        assert!(matches!(answer(200, Some("16"), b""), Err(CallError::Refused { code: 16, .. })));
        assert!(matches!(answer(200, Some("junk"), b""), Err(CallError::OutcomeUnknown(_))));
    }
}
