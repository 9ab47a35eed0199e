//! From a WASI request to a `Call`, and from a `Reply` to a WASI response.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

use super::body::{self, Unread};
use super::method;
use crate::http::{self, Call, Head, Reply, header_map};
use crate::ports::GuestWorld;
use crate::problem::{Kind, Problem};

/// Reads a request, lets `route` answer it, and writes the answer.
pub async fn serve<F, R>(request: Request, world: GuestWorld, route: F) -> Result<Response, ErrorCode>
where
    F: FnOnce(Call) -> R,
    R: Future<Output = Reply>,
{
    let head = head_of(&request);
    let body = read_body(request, body::length_of(&head.headers)).await;
    respond(http::answer(head, body, world, route).await)
}

pub fn head_of(request: &Request) -> Head {
    Head {
        method: method::from_wasi(&request.get_method()),
        target: request.get_path_with_query().unwrap_or_default(),
        headers: header_map(request.get_headers().copy_all()),
    }
}

/// `length`: where it is told.
pub async fn read_body(request: Request, length: Option<usize>) -> Result<Vec<u8>, Problem> {
    let (_done, received) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Request::consume_body(request, received);
    match body::read(stream, trailers, length, http::BODY_BYTES_MAX).await {
        Ok((body, _)) => Ok(body),
        Err(Unread::TooLarge | Unread::Broken(ErrorCode::HttpRequestBodySize(_))) => Err(http::too_large()),
        Err(Unread::Broken(_)) => Err(Problem::new(Kind::MalformedRequest, "The body was cut short.")),
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
