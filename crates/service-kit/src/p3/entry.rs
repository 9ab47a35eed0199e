//! From a WASI request to a `Call`, and from a `Reply` to a WASI response.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::{StreamResult, spawn_local};
use wasip3::{wit_future, wit_stream};

use super::method;
use crate::http::{self, Call, Head, Reply, header_map};
use crate::ports::GuestWorld;
use crate::problem::{Kind, Problem};

/// How much of a body is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Reads a request, lets `route` answer it, and writes the answer.
pub async fn serve<F, R>(request: Request, world: GuestWorld, route: F) -> Result<Response, ErrorCode>
where
    F: FnOnce(Call) -> R,
    R: Future<Output = Reply>,
{
    let head = head_of(&request);
    let body = read_body(request).await;
    respond(http::answer(head, body, world, route).await)
}

pub fn head_of(request: &Request) -> Head {
    Head {
        method: method::from_wasi(&request.get_method()),
        target: request.get_path_with_query().unwrap_or_default(),
        headers: header_map(request.get_headers().copy_all()),
    }
}

pub async fn read_body(request: Request) -> Result<Vec<u8>, Problem> {
    let (_done, received) = wit_future::new(|| Ok(()));
    let (mut stream, trailers) = Request::consume_body(request, received);
    let mut body = Vec::new();
    loop {
        let (result, chunk) = stream.read(Vec::with_capacity(CHUNK_BYTES)).await;
        body.extend_from_slice(&chunk);
        if body.len() > http::BODY_BYTES_MAX {
            return Err(http::too_large());
        }
        if matches!(result, StreamResult::Dropped) {
            break;
        }
    }
    drop(stream);
    match trailers.await {
        Ok(_) => Ok(body),
        Err(ErrorCode::HttpRequestBodySize(_)) => Err(http::too_large()),
        Err(_) => Err(Problem::new(Kind::MalformedRequest, "The body was cut short.")),
    }
}

pub fn respond(reply: Reply) -> Result<Response, ErrorCode> {
    let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
    let mut headers = reply.headers;
    if reply.trailers.is_none() && reply.status != 204 {
        headers.push(("content-length".to_owned(), reply.body.len().to_string().into_bytes()));
    }
    let fields = Fields::from_list(&headers).map_err(|_| internal("a header of ours is not valid"))?;
    let (trailers_out, trailers_in) = wit_future::new(|| Ok(None));
    let body = (!reply.body.is_empty()).then(|| {
        let (mut out, body) = wit_stream::new();
        spawn_local(async move {
            // A client that went away reads nothing: nothing is lost, the answer is in the database.
            let _unsent = out.write_all(reply.body).await;
            drop(out); // the body ends before its trailers
            if let Some(trailers) = reply.trailers {
                let _unsent = trailers_out.write(Ok(Fields::from_list(&trailers).ok())).await;
            }
        });
        body
    });
    let (response, _sent) = Response::new(fields, body, trailers_in);
    response.set_status_code(reply.status).map_err(|()| internal("a status of ours is not valid"))?;
    Ok(response)
}
