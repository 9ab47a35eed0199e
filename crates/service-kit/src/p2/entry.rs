//! From a WASI request to a `Call`, and from a `Reply` to a WASI response.

use wasi::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasi::io::streams::StreamError;

use super::{executor, method};
use crate::http::{self, BODY_BYTES_MAX, Call, Head, Reply, header_map};
use crate::ports::GuestWorld;
use crate::problem::{Kind, Problem};

/// How much of a body is read at once.
const CHUNK_BYTES: u64 = 16 * 1024;
/// Most that one blocking write takes (`wasi:io/streams`).
const WRITE_BYTES_MAX: usize = 4096;

/// Reads a request, lets `route` answer it, writes the answer, and ends what was spawned.
pub fn serve<F, R>(request: IncomingRequest, out: ResponseOutparam, world: GuestWorld, route: F)
where
    F: FnOnce(Call) -> R,
    R: Future<Output = Reply>,
{
    let head = Head {
        method: method::from_wasi(&request.method()),
        target: request.path_with_query().unwrap_or_default(),
        headers: header_map(request.headers().entries()),
    };
    let body = read_body(&request);
    let reply = executor::block_on(http::answer(head, body, world, route));
    match response_of(&reply) {
        Ok((response, body)) => {
            ResponseOutparam::set(out, Ok(response));
            // A client that went away reads nothing: nothing is lost, the answer is in the database.
            let _unsent = write(body, &reply.body);
        }
        Err(error) => ResponseOutparam::set(out, Err(error)),
    }
    executor::run_spawned();
}

fn read_body(request: &IncomingRequest) -> Result<Vec<u8>, Problem> {
    let cut_short = || Problem::new(Kind::MalformedRequest, "The body was cut short.");
    let incoming = request.consume().map_err(|()| cut_short())?;
    let stream = incoming.stream().map_err(|()| cut_short())?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(_)) => return Err(cut_short()),
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(http::too_large());
        }
    }
}

fn response_of(reply: &Reply) -> Result<(OutgoingResponse, OutgoingBody), ErrorCode> {
    let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
    let mut headers = reply.headers.clone();
    headers.push(("content-length".to_owned(), reply.body.len().to_string().into_bytes()));
    let fields = Fields::from_list(&headers).map_err(|_| internal("a header of ours is not valid"))?;
    let response = OutgoingResponse::new(fields);
    response.set_status_code(reply.status).map_err(|()| internal("a status of ours is not valid"))?;
    let body = response.body().map_err(|()| internal("the body is taken"))?;
    Ok((response, body))
}

/// Writes a whole body and ends it.
pub fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), ErrorCode> {
    let unsent = |_| ErrorCode::ConnectionTerminated;
    let stream = body.write().map_err(|()| ErrorCode::ConnectionTerminated)?;
    for chunk in bytes.chunks(WRITE_BYTES_MAX) {
        stream.blocking_write_and_flush(chunk).map_err(unsent)?;
    }
    drop(stream);
    OutgoingBody::finish(body, None)
}
