//! `settle:unary`: requests and answers in one piece. A stream costs more than the short body in it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Body as _;
use tokio::time::Instant;
use wasmtime::component::{Accessor, HasData, Linker};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, WasiBody};

use super::{BODY_BYTES_MAX, declared_length, is_grpc, whole};
use crate::bindings::settle::unary::client;
pub use crate::bindings::unary::exports::settle::unary::handler::{Request, Response};
use crate::guest::Ctx;

/// Longest answer that a guest may ask for in one piece.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Reads a short request. `Err`: it is for a stream, as it was, or with the error that its body ended in.
pub async fn read(request: http::Request<WasiBody>) -> Result<Request, http::Request<WasiBody>> {
    if !is_short(&request) {
        return Err(request);
    }
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        Bytes::new()
    } else {
        match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                let error = error
                    .downcast::<Error>()
                    .map_or_else(|_| Error::HttpRequestBodySize(Some(BODY_BYTES_MAX as u64)), |error| *error);
                let body = StreamBody::new(stream::iter([Err(error)]));
                return Err(http::Request::from_parts(head, body.boxed_unsync()));
            }
        }
    };
    Ok(Request {
        method: head.method.as_str().to_owned(),
        target: head.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
        headers: fields_of(&head.headers),
        body: body.into(),
    })
}

/// Whether it has no trailers to come and tells how long it is.
fn is_short(request: &http::Request<WasiBody>) -> bool {
    let length = request.body().size_hint().exact().or_else(|| declared_length(request.headers()));
    !is_grpc(request.headers()) && length.is_some_and(|length| length <= BODY_BYTES_MAX as u64)
}

/// A guest's answer. Errors: a status or a header of it is not valid.
pub fn write(response: Response) -> Result<http::Response<WasiBody>, Error> {
    let invalid = |error: http::Error| Error::InternalError(Some(error.to_string()));
    let headers = headers_of(response.headers).map_err(invalid)?;
    let length = response.body.len();
    let answer = http::Response::builder().status(response.status).body(whole(response.body));
    let mut answer = answer.map_err(invalid)?;
    *answer.headers_mut() = headers;
    if answer.status() != StatusCode::NO_CONTENT {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    Ok(answer)
}

/// What a guest may see; the rest is between two hosts.
fn fields_of(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let seen = headers.iter().filter(|(name, _)| !DEFAULT_FORBIDDEN_HEADERS.contains(*name));
    seen.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Without what is between two hosts.
fn headers_of(fields: Vec<(String, Vec<u8>)>) -> http::Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        if !DEFAULT_FORBIDDEN_HEADERS.contains(&name) {
            headers.append(name, HeaderValue::from_maybe_shared(Bytes::from(value))?);
        }
    }
    Ok(headers)
}

/// Marks the port in the linker.
pub struct UnaryPort;

impl HasData for UnaryPort {
    type Data<'a> = &'a mut Ctx;
}

pub fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    client::add_to_linker::<_, UnaryPort>(linker, |ctx| ctx)
}

impl client::Host for Ctx {
    fn has(&mut self, origin: String) -> bool {
        origin.parse::<Uri>().is_ok_and(|origin| self.outbound.is_local(&origin))
    }
}

impl<T: Send> client::HostWithStore<T> for UnaryPort {
    async fn send(
        accessor: &Accessor<T, Self>,
        origin: String,
        request: client::Request,
        timeout: u64,
    ) -> Result<client::Response, client::Error> {
        let outbound = accessor.with(|mut access| access.get().outbound.clone());
        let request = request_of(&origin, request).map_err(not_sent)?;
        let (began, time) = (Instant::now(), Duration::from_nanos(timeout));
        let answer = outbound.send(request, time).await.map_err(error_of)?;
        let (head, body) = answer.into_parts();
        let body = body_of(body, time.saturating_sub(began.elapsed())).await?;
        Ok(client::Response {
            status: head.status.as_u16(),
            headers: fields_of(&head.headers),
            body: body.into(),
        })
    }
}

/// All of an answer's body, within `time`.
async fn body_of(body: WasiBody, time: Duration) -> Result<Bytes, client::Error> {
    let collected = tokio::time::timeout(time, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
    let unknown = |error: &dyn std::fmt::Display| client::Error::OutcomeUnknown(error.to_string());
    let collected = collected.map_err(|_| unknown(&Error::HttpResponseTimeout))?;
    Ok(collected.map_err(|error| unknown(&error))?.to_bytes())
}

fn request_of(origin: &str, request: client::Request) -> http::Result<http::Request<WasiBody>> {
    let (scheme, authority) = origin.split_once("://").unwrap_or(("http", origin));
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(request.target).build()?;
    let headers = headers_of(request.headers)?;
    let mut asked =
        http::Request::builder().method(request.method.as_str()).uri(uri).body(whole(request.body))?;
    *asked.headers_mut() = headers;
    Ok(asked)
}

fn not_sent(error: impl std::fmt::Display) -> client::Error {
    client::Error::NotSent(error.to_string())
}

/// What is left of an error that `wasi:http` would tell by name.
fn error_of(error: Error) -> client::Error {
    match error {
        Error::DestinationNotFound
        | Error::DestinationUnavailable
        | Error::ConnectionRefused
        | Error::HttpRequestDenied => not_sent(error),
        Error::ConnectionLimitReached => client::Error::Busy,
        other => client::Error::OutcomeUnknown(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn request(headers: &[(&str, &str)], body: WasiBody) -> http::Request<WasiBody> {
        let mut request = http::Request::post("http://order.internal/v1/orders?a=b").body(body).unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        request
    }

    /// A body of unknown length.
    fn streamed(parts: Vec<Result<&'static str, Error>>) -> WasiBody {
        let frames = parts.into_iter().map(|part| part.map(|text| hyper::body::Frame::data(text.into())));
        StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
    }

    #[tokio::test]
    async fn a_short_request_of_known_length_comes_in_one_piece() {
        let headers = [("x-a", "1"), ("host", "order"), ("x-a", "2"), ("connection", "close")];
        let read = read(request(&headers, whole(b"body".to_vec()))).await.unwrap();
        assert_eq!((read.method.as_str(), read.target.as_str()), ("POST", "/v1/orders?a=b"));
        assert_eq!(read.body, b"body");
        let seen = [("x-a".to_owned(), b"1".to_vec()), ("x-a".to_owned(), b"2".to_vec())];
        assert_eq!(read.headers, seen, "what is between two hosts stays there");

        let declared = [("content-length", "2")];
        assert!(super::read(request(&declared, streamed(vec![Ok("o"), Ok("k")]))).await.is_ok());
        let other = [
            request(&[], streamed(vec![Ok("ok")])),
            request(&[("content-length", "65537")], streamed(vec![])),
            request(&[("content-type", "application/grpc+proto")], whole(b"body".to_vec())),
            request(&[], whole(vec![0; BODY_BYTES_MAX + 1])),
        ];
        for request in other {
            assert!(super::read(request).await.is_err());
        }
    }

    #[tokio::test]
    async fn the_guest_hears_of_a_body_that_is_cut_short_or_longer_than_told() {
        let told = [("content-length", "10")];
        let cut = streamed(vec![Ok("half"), Err(Error::ConnectionTerminated)]);
        let left = read(request(&told, cut)).await.unwrap_err();
        assert_eq!(left.headers().len(), 1);
        assert!(matches!(left.into_body().collect().await, Err(Error::ConnectionTerminated)));

        let long = "x".repeat(BODY_BYTES_MAX + 1).leak();
        let left = read(request(&told, streamed(vec![Ok(long)]))).await.unwrap_err();
        assert!(matches!(left.into_body().collect().await, Err(Error::HttpRequestBodySize(_))));
    }

    #[test]
    fn an_answer_tells_its_length_and_a_wrong_one_is_an_error() {
        let respond = |status, name: &str, value: &str| {
            let headers = vec![(name.to_owned(), value.as_bytes().to_vec())];
            write(Response { status, headers, body: b"four".to_vec() })
        };
        let answer = respond(201, "transfer-encoding", "chunked").unwrap();
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers().len(), 1);
        assert_eq!(answer.headers()[CONTENT_LENGTH], "4");
        assert!(!respond(204, "x-a", "b").unwrap().headers().contains_key(CONTENT_LENGTH));
        assert!(respond(99, "x-a", "b").is_err());
        assert!(respond(200, "x a", "b").is_err());
        assert!(respond(200, "x-a", "b\n").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_whose_body_does_not_come_in_time_is_unknown() {
        let time = Duration::from_secs(3);
        assert_eq!(body_of(whole(b"all".to_vec()), Duration::ZERO).await.unwrap(), "all");
        let never = StreamBody::new(stream::pending::<Result<hyper::body::Frame<Bytes>, Error>>());
        let late = body_of(never.boxed_unsync(), time).await;
        assert!(matches!(late, Err(client::Error::OutcomeUnknown(_))), "{late:?}");
        let long = body_of(whole(vec![0; ANSWER_BYTES_MAX + 1]), time).await;
        assert!(matches!(long, Err(client::Error::OutcomeUnknown(_))), "{long:?}");
    }

    #[test]
    fn a_request_to_a_service_keeps_what_it_asks() {
        let ask = |origin, target: &str| {
            let (method, target) = ("POST".to_owned(), target.to_owned());
            request_of(origin, client::Request { method, target, headers: vec![], body: vec![] })
        };
        let asked = ask("http://payment.internal", "/a?b").unwrap();
        assert_eq!(asked.uri(), "http://payment.internal/a?b");
        assert!(ask("http://payment.internal", "/a b").is_err());
        assert!(ask("http://pay ment", "/").is_err());
    }
}
