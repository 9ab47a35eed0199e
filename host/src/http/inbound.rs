//! Listeners: HTTP/1.1 and HTTP/2 (h2c by prior knowledge) on one port, each for one service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::uri::Uri;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{BODY_BYTES_MAX, HEADER_BYTES_MAX, PEER_HEADER, declared_length, whole};
use crate::service::{Refusal, Service};
use crate::turn;

/// Connections of one listener at once.
const CONNECTIONS_MAX: usize = 4096;
/// Longest time for a request's head.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// Requests on one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;
/// Refusals of one listener a second that are told at once. Each costs some 5 % of what an order costs:
/// in a flood, the orders would have to pay for them.
const REFUSALS_PER_SECOND: u32 = 1000;
/// Longest time that a refusal waits for its turn.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);
/// Wait after an accept that failed (out of file descriptors, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves a listener until `stop` turns true, then lets the requests in flight finish.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let refusals = Arc::new(Pace::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Err: the sender is gone, which is a stop as well.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue; // over the limit: the connection closes
        };
        let (service, builder, refusals) = (service.clone(), builder.clone(), refusals.clone());
        let watcher = graceful.watcher();
        turn::spawn(async move {
            let connection = connection(&builder, stream, peer, service, refusals);
            // Err: the client broke the protocol or went away.
            let _ = watcher.watch(connection).await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        eprintln!("settle: requests were still open after {drain:?}; their sagas resume at the next start");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<Service>,
    refusals: Arc<Pace>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + use<>
{
    // Err: the client is gone already; the connection will say so.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let (service, refusals) = (service.clone(), refusals.clone());
        async move {
            // Before any work: there may be many.
            if service.is_full() {
                tokio::time::sleep(refusals.wait(Instant::now())).await;
                return Ok(refuse(&Refusal::Busy, &service.name));
            }
            Ok::<_, Infallible>(answer(&service, request, peer).await)
        }
    });
    builder.serve_connection(TokioIo::new(stream), answer).into_owned()
}

async fn answer(service: &Service, request: Request<Incoming>, peer: SocketAddr) -> Response<WasiBody> {
    if declared_length(request.headers()).is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        let mut response = refuse(&Refusal::BodyTooLarge, &service.name);
        if request.version() < Version::HTTP_2 {
            // Its body stays unread, so the connection cannot be used again; tell the client.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    let Some(request) = prepare(request, peer) else {
        return problem(StatusCode::BAD_REQUEST, "malformed-request", "The request target is not valid.");
    };
    match service.call(request).await {
        Ok(response) => response,
        Err(refusal) => refuse(&refusal, &service.name),
    }
}

/// Gives each refusal its turn.
#[derive(Default)]
struct Pace {
    /// When the turn after the last given one begins.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// How long a refusal waits that is due `now`.
    fn wait(&self, now: Instant) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.unwrap_or(now).max(now);
        let wait = turn.duration_since(now);
        if wait >= REFUSAL_TIME_MAX {
            return REFUSAL_TIME_MAX;
        }
        *next = Some(turn + Duration::from_secs(1) / REFUSALS_PER_SECOND);
        wait
    }
}

/// The request as a guest gets it: authority in the URI, trusted peer, bounded body.
fn prepare(request: Request<Incoming>, peer: SocketAddr) -> Option<Request<WasiBody>> {
    let (mut parts, body) = request.into_parts();
    if !names_one_host(&parts) {
        return None;
    }
    if parts.uri.authority().is_none() {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let path = parts.uri.path_and_query()?.clone();
        parts.uri = Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok()?;
    }
    parts.headers.insert(PEER_HEADER, HeaderValue::from_str(&peer.ip().to_string()).ok()?);
    let body = Limited::new(body, BODY_BYTES_MAX).map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => Error::Hyper(*error),
        Err(_) => Error::HttpRequestBodySize(Some(BODY_BYTES_MAX as u64)),
    });
    Some(Request::from_parts(parts, body.boxed_unsync()))
}

/// Whether the target and at most one `Host` agree (RFC 9112, section 3.2): two readers must not see
/// two hosts.
fn names_one_host(parts: &http::request::Parts) -> bool {
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next(), parts.uri.authority()) {
        (Some(_), Some(_), _) => false,
        (Some(host), None, Some(authority)) => {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        }
        _ => true,
    }
}

fn refuse(refusal: &Refusal, service: &str) -> Response<WasiBody> {
    match refusal {
        Refusal::Busy => {
            let detail = "The service is over its capacity; nothing was done.";
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        Refusal::BodyTooLarge => {
            let detail = format!("A body has at most {BODY_BYTES_MAX} bytes.");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", &detail)
        }
        Refusal::TimedOut => {
            let detail = "No answer in time; repeat the request with the same Idempotency-Key.";
            problem(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", detail)
        }
        Refusal::Failed(reason) => {
            eprintln!("settle: `{service}` gave no answer: {reason}");
            let detail = "No answer; repeat the request with the same Idempotency-Key.";
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", detail);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

/// Problem details (RFC 9457), for what the host itself refuses.
fn problem(status: StatusCode, name: &str, detail: &str) -> Response<WasiBody> {
    let body = serde_json::json!({
        "type": format!("urn:settle:problem:{name}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = Response::new(whole(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_at_once_or_in_turn_and_always_in_time() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(start), Duration::ZERO);
        assert_eq!(pace.wait(start), Duration::from_millis(1));
        let calm = start + Duration::from_secs(5);
        assert_eq!(pace.wait(calm), Duration::ZERO, "unused turns are not saved, nor owed");
        let waits: Vec<_> = (0..5000).map(|_| pace.wait(calm)).collect();
        assert_eq!(waits.iter().max(), Some(&REFUSAL_TIME_MAX));
        assert!(waits.is_sorted());
    }
}
