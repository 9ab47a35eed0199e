//! Requests that are passed on, and answers that are passed back: heads are read, bodies stream
//! through without a copy here.

use http::{HeaderMap, Method};
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_future;

use super::{client, entry};
use crate::context::CORRELATION_ID;
use crate::http::{Call, Outgoing, Reply, SendError, field_list, header_map};
use crate::ports::GuestWorld;
use crate::problem::Problem;

/// The body of a request that was not read.
pub struct Body(Request);

impl Body {
    /// All of it, for an answer of our own.
    pub async fn read(self) -> Result<Vec<u8>, Problem> {
        entry::read_body(self.0, None).await
    }
}

/// What goes back to the client.
pub enum Departure {
    /// An answer of our own.
    Own(Reply),
    /// Another service's, under a head that we may have changed.
    Passed { status: u16, headers: HeaderMap, body: Response },
}

impl Departure {
    pub fn header(mut self, name: &'static str, text: &str) -> Self {
        match &mut self {
            Departure::Own(reply) => reply.headers.push((name.to_owned(), text.as_bytes().to_vec())),
            Departure::Passed { headers, .. } => {
                if let Ok(value) = text.parse() {
                    headers.insert(name, value);
                }
            }
        }
        self
    }

    /// Whether the answer has such a header already.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Departure::Own(reply) => reply.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)),
            Departure::Passed { headers, .. } => headers.contains_key(name),
        }
    }
}

/// Lets `route` answer a request by its head; the call's own body is empty.
pub async fn serve_unread<F, R>(request: Request, world: GuestWorld, route: F) -> Result<Response, ErrorCode>
where
    F: FnOnce(Call, Body) -> R,
    R: Future<Output = Departure>,
{
    let call = entry::head_of(&request).into_call(&world);
    let correlation_id = call.context.correlation_id.clone();
    match route(call, Body(request)).await.header(CORRELATION_ID, &correlation_id) {
        Departure::Own(reply) => entry::respond(reply),
        Departure::Passed { status, headers, body } => {
            let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
            let (_done, received) = wit_future::new(|| Ok(()));
            let (stream, trailers) = Response::consume_body(body, received);
            let fields = Fields::from_list(&field_list(&headers))
                .map_err(|_| internal("a header of an answer is not valid"))?;
            let (response, _sent) = Response::new(fields, Some(stream), trailers);
            response.set_status_code(status).map_err(|()| internal("a status is not valid"))?;
            Ok(response)
        }
    }
}

/// Passes a request on; its own body follows `outgoing`'s head, as it comes.
///
/// The answer's body is not read yet.
pub async fn pass_on(outgoing: Outgoing<'_>, body: Body) -> Result<Departure, SendError> {
    let Outgoing { method, origin, path, headers, timeout, .. } = outgoing;
    let fields =
        Fields::from_list(&headers).map_err(|_| SendError::NotSent("a header is not valid".into()))?;
    let options = client::options_of(timeout)?;
    let request = if matches!(method, Method::GET | Method::HEAD) {
        let (_no_trailers, trailers) = wit_future::new(|| Ok(None));
        Request::new(fields, None, trailers, Some(options)).0
    } else {
        let (_done, received) = wit_future::new(|| Ok(()));
        let (stream, trailers) = Request::consume_body(body.0, received);
        Request::new(fields, Some(stream), trailers, Some(options)).0
    };
    client::address(&request, &method, origin, path)?;
    let response = wasip3::http::client::send(request).await.map_err(client::send_error)?;
    let headers = header_map(response.get_headers().copy_all());
    Ok(Departure::Passed { status: response.get_status_code(), headers, body: response })
}
