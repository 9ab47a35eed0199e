//! Calls to other services through the host: in process where it has the target, over a pooled
//! connection otherwise.

use std::time::Duration;

use http::Method;
use wasip3::http::types::{ErrorCode, Fields, Request, RequestOptions, Response, Scheme};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

use super::body::{self, Unread};
use super::{method, nanos, unary};
use crate::http::{ANSWER_BYTES_MAX, Answer, Outgoing, SendError, header_map};

/// Sends a request and reads the whole answer.
pub async fn send(outgoing: Outgoing<'_>) -> Result<Answer, SendError> {
    if unary::has(outgoing.origin) {
        return unary::send(outgoing).await;
    }
    let request = request_of(outgoing)?;
    let response = wasip3::http::client::send(request).await.map_err(send_error)?;
    let status = response.get_status_code();
    let headers = header_map(response.get_headers().copy_all());
    let (_done, received) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Response::consume_body(response, received);
    let read = body::read(stream, trailers, body::length_of(&headers), ANSWER_BYTES_MAX).await;
    let (body, trailers) = read.map_err(|unread| {
        SendError::OutcomeUnknown(match unread {
            Unread::TooLarge => "the answer is too large".to_owned(),
            Unread::Broken(error) => error.to_string(),
        })
    })?;
    let trailers = trailers.map(|fields| header_map(fields.copy_all())).unwrap_or_default();
    Ok(Answer { status, headers, body, trailers })
}

fn request_of(outgoing: Outgoing<'_>) -> Result<Request, SendError> {
    let invalid = |what: &str| SendError::NotSent(format!("{what} is not valid"));
    let mut headers = outgoing.headers;
    if !outgoing.body.is_empty() {
        headers.push(("content-length".to_owned(), outgoing.body.len().to_string().into_bytes()));
    }
    let fields = Fields::from_list(&headers).map_err(|_| invalid("a header"))?;
    let (_no_trailers, trailers) = wit_future::new(|| Ok(None));
    let body = (!outgoing.body.is_empty()).then(|| {
        let (mut out, body) = wit_stream::new();
        let bytes = outgoing.body;
        // The host tells by its answer whether the body arrived.
        spawn_local(async move {
            let _unsent = out.write_all(bytes).await;
        });
        body
    });
    let (request, _sent) = Request::new(fields, body, trailers, Some(options_of(outgoing.timeout)?));
    address(&request, &outgoing.method, outgoing.origin, outgoing.path)?;
    Ok(request)
}

pub fn options_of(timeout: Duration) -> Result<RequestOptions, SendError> {
    let invalid = || SendError::NotSent("the timeout is not valid".to_owned());
    let options = RequestOptions::new();
    let nanos = nanos(timeout);
    options.set_connect_timeout(Some(nanos)).map_err(|_| invalid())?;
    options.set_first_byte_timeout(Some(nanos)).map_err(|_| invalid())?;
    Ok(options)
}

/// Says what is asked, and of whom. `origin` is `http://authority`, without a path.
pub fn address(request: &Request, method: &Method, origin: &str, path: &str) -> Result<(), SendError> {
    let invalid = |what: &str| SendError::NotSent(format!("{what} is not valid"));
    let (scheme, authority) = match origin.split_once("://") {
        Some(("http", authority)) => (Scheme::Http, authority),
        Some(("https", authority)) => (Scheme::Https, authority),
        _ => return Err(invalid("the origin")),
    };
    request.set_method(&method::to_wasi(method)).map_err(|()| invalid("the method"))?;
    request.set_scheme(Some(&scheme)).map_err(|()| invalid("the scheme"))?;
    request.set_authority(Some(authority)).map_err(|()| invalid("the authority"))?;
    request.set_path_with_query(Some(path)).map_err(|()| invalid("the path"))
}

crate::http::send_errors!(ErrorCode);
