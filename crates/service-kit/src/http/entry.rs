//! From a WASI request to a `Call`, and from a `Reply` to a WASI response.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wasip3::http::types::{ErrorCode, Fields, Method as WasiMethod, Request, Response};
use wasip3::wit_bindgen::{StreamResult, spawn_local};
use wasip3::{wit_future, wit_stream};

use super::{BODY_BYTES_MAX, Call, Reply};
use crate::context;
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
    let method = method_of(&request.get_method());
    let target = request.get_path_with_query().unwrap_or_default();
    let headers = header_map(request.get_headers().copy_all());
    let context = context::of_request(&headers, &world);
    let correlation_id = context.correlation_id.clone();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let reply = match read_body(request).await {
        Ok(body) => {
            let (path, query) = (own_path(path, world.service).to_owned(), query.to_owned());
            route(Call { method, path, query, headers, body, context }).await
        }
        Err(problem) => Reply::problem(&problem, &correlation_id),
    };
    respond(reply.header(context::CORRELATION_ID, correlation_id))
}

/// Hosts with one listener for all services put the service's name before its paths.
fn own_path<'a>(path: &'a str, service: &str) -> &'a str {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    rest.filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

fn method_of(method: &WasiMethod) -> Method {
    match method {
        WasiMethod::Get => Method::GET,
        WasiMethod::Head => Method::HEAD,
        WasiMethod::Post => Method::POST,
        WasiMethod::Put => Method::PUT,
        WasiMethod::Delete => Method::DELETE,
        WasiMethod::Connect => Method::CONNECT,
        WasiMethod::Options => Method::OPTIONS,
        WasiMethod::Trace => Method::TRACE,
        WasiMethod::Patch => Method::PATCH,
        WasiMethod::Other(name) => Method::from_bytes(name.as_bytes()).unwrap_or(Method::TRACE),
    }
}

pub(super) fn header_map(fields: Vec<(String, Vec<u8>)>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }
    headers
}

async fn read_body(request: Request) -> Result<Vec<u8>, Problem> {
    let (_done, received) = wit_future::new(|| Ok(()));
    let (mut stream, trailers) = Request::consume_body(request, received);
    let mut body = Vec::new();
    loop {
        let (result, chunk) = stream.read(Vec::with_capacity(CHUNK_BYTES)).await;
        body.extend_from_slice(&chunk);
        if body.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        if matches!(result, StreamResult::Dropped) {
            break;
        }
    }
    drop(stream);
    match trailers.await {
        Ok(_) => Ok(body),
        Err(ErrorCode::HttpRequestBodySize(_)) => Err(too_large()),
        Err(_) => Err(Problem::new(Kind::MalformedRequest, "The body was cut short.")),
    }
}

fn too_large() -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("A body has at most {BODY_BYTES_MAX} bytes."))
}

fn respond(reply: Reply) -> Result<Response, ErrorCode> {
    let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
    let mut headers = reply.headers;
    if reply.trailers.is_none() {
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
