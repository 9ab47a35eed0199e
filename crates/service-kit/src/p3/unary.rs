//! Requests and answers in one piece, on hosts that have them: what `entry` and `client` do, without
//! streams.

use http::{HeaderMap, Method};

use super::bindings::settle::unary::client;
use super::nanos;
use super::unary_bindings::exports::settle::unary::handler::{Request, Response};
use crate::http::{Answer, Call, Head, Outgoing, Reply, SendError, answer, header_map};
use crate::ports::GuestWorld;

/// Lets `route` answer a request.
pub async fn handle<F, R>(request: Request, world: GuestWorld, route: F) -> Response
where
    F: FnOnce(Call) -> R,
    R: Future<Output = Reply>,
{
    let Request { method, target, headers, body } = request;
    // The host lets nothing else than a token pass.
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::TRACE);
    let head = Head { method, target, headers: header_map(headers) };
    let Reply { status, headers, body, .. } = answer(head, Ok(body), world, route).await;
    Response { status, headers, body }
}

/// Whether `send` reaches this origin.
pub fn has(origin: &str) -> bool {
    client::has(origin)
}

/// Asks a service of the same process.
pub async fn send(outgoing: Outgoing<'_>) -> Result<Answer, SendError> {
    let Outgoing { method, origin, path, headers, body, timeout } = outgoing;
    let (method, target) = (method.as_str().to_owned(), path.to_owned());
    let request = client::Request { method, target, headers, body };
    let answer = client::send(origin.to_owned(), request, nanos(timeout)).await;
    let client::Response { status, headers, body } = answer.map_err(|error| match error {
        client::Error::NotSent(reason) => SendError::NotSent(reason),
        client::Error::Busy => SendError::Busy,
        client::Error::OutcomeUnknown(reason) => SendError::OutcomeUnknown(reason),
    })?;
    Ok(Answer { status, headers: header_map(headers), body, trailers: HeaderMap::new() })
}
