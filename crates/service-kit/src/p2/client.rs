//! Calls to other services through the lattice's HTTP client.

use http::HeaderMap;
use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, OutgoingRequest, RequestOptions, Scheme};
use wasi::io::streams::StreamError;

use super::entry::write;
use super::method;
use crate::http::{ANSWER_BYTES_MAX, Answer, Outgoing, SendError, header_map};

const CHUNK_BYTES: u64 = 16 * 1024;

/// Sends a request and reads the whole answer.
#[allow(clippy::unused_async)] // as in the other edition
pub async fn send(outgoing: Outgoing<'_>) -> Result<Answer, SendError> {
    let unknown = |what: &str| SendError::OutcomeUnknown(what.to_owned());
    let request = request_of(&outgoing)?;
    let body = request.body().map_err(|()| SendError::NotSent("the body is taken".to_owned()))?;
    let options = options_of(&outgoing)?;
    let answered = outgoing_handler::handle(request, Some(options)).map_err(send_error)?;
    write(body, &outgoing.body).map_err(send_error)?;
    answered.subscribe().block();
    let response = match answered.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(error))) => return Err(send_error(error)),
        Some(Err(())) | None => return Err(unknown("the answer is taken")),
    };
    let (status, headers) = (response.status(), header_map(response.headers().entries()));
    let incoming = response.consume().map_err(|()| unknown("the answer's body is taken"))?;
    let stream = incoming.stream().map_err(|()| unknown("the answer's body is taken"))?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(unknown(&error.to_debug_string())),
        }
        if body.len() > ANSWER_BYTES_MAX {
            return Err(unknown("the answer is too large"));
        }
    }
    Ok(Answer { status, headers, body, trailers: HeaderMap::new() })
}

fn invalid(what: &str) -> SendError {
    SendError::NotSent(format!("{what} is not valid"))
}

fn request_of(outgoing: &Outgoing<'_>) -> Result<OutgoingRequest, SendError> {
    let (scheme, authority) = match outgoing.origin.split_once("://") {
        Some(("http", authority)) => (Scheme::Http, authority),
        Some(("https", authority)) => (Scheme::Https, authority),
        _ => return Err(invalid("the origin")),
    };
    let mut headers = outgoing.headers.clone();
    headers.push(("content-length".to_owned(), outgoing.body.len().to_string().into_bytes()));
    let fields = Fields::from_list(&headers).map_err(|_| invalid("a header"))?;
    let request = OutgoingRequest::new(fields);
    request.set_method(&method::to_wasi(&outgoing.method)).map_err(|()| invalid("the method"))?;
    request.set_scheme(Some(&scheme)).map_err(|()| invalid("the scheme"))?;
    request.set_authority(Some(authority)).map_err(|()| invalid("the authority"))?;
    request.set_path_with_query(Some(outgoing.path)).map_err(|()| invalid("the path"))?;
    Ok(request)
}

fn options_of(outgoing: &Outgoing<'_>) -> Result<RequestOptions, SendError> {
    let options = RequestOptions::new();
    let nanos = u64::try_from(outgoing.timeout.as_nanos()).unwrap_or(u64::MAX);
    options.set_connect_timeout(Some(nanos)).map_err(|()| invalid("the timeout"))?;
    options.set_first_byte_timeout(Some(nanos)).map_err(|()| invalid("the timeout"))?;
    Ok(options)
}

crate::http::send_errors!(ErrorCode);
