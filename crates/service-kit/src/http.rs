//! HTTP in and out: plain requests and replies on our side, WASI streams on the host's.

#[cfg(not(feature = "p2"))]
pub use crate::host::{Body, Departure, pass_on, serve_unread};
pub use crate::host::{send, serve};

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::DeserializeOwned;
use serde_json::json;
use settle_ports::CallContext;

use crate::context;
use crate::ports::GuestWorld;
use crate::problem::{Kind, Problem};
use crate::settings::{self, SettingError};

/// Largest request body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest answer of another service that is read.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub context: CallContext,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the media type of the body is `wanted`, whatever its parameters.
    pub fn has_content_type(&self, wanted: &str) -> bool {
        let given = self.header("content-type").unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
    }

    /// The body as JSON of a known shape; unknown fields are the shape's to refuse.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if !self.has_content_type("application/json") {
            return Err(Problem::new(Kind::UnsupportedMediaType, "Send application/json."));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let kind = if error.is_data() { Kind::InvalidField } else { Kind::MalformedRequest };
            Problem::new(kind, format!("The body: {error}."))
        })
    }

    /// The query's fields, each at most once and none but `known`.
    pub fn query<const N: usize>(&self, known: [&str; N]) -> Result<[Option<String>; N], Problem> {
        let mut values = [const { None }; N];
        for (name, value) in form_fields(&self.query)? {
            let slot = known.iter().position(|known| *known == name).and_then(|at| values.get_mut(at));
            match slot {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => {
                    return Err(Problem::new(Kind::MalformedRequest, format!("`{name}` is given twice.")));
                }
                None => {
                    return Err(Problem::new(Kind::MalformedRequest, format!("Unknown parameter `{name}`.")));
                }
            }
        }
        Ok(values)
    }
}

/// The header in which this host says who connected; it takes it out of what comes in. `wasi:http`
/// has no other place for it, so without the setting nobody is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerHeader(Option<String>);

/// What the host says of a service in its own process.
const IN_PROCESS: &str = "in-process";
/// In which a gateway in this process names its client.
pub const CLIENT_HEADER: &str = "x-settle-client";

impl PeerHeader {
    pub async fn from_settings() -> Result<Self, SettingError> {
        Ok(Self(settings::optional("host_peer_header").await?))
    }

    /// Whose connection it is: an address, or `in-process`.
    pub fn peer_of<'a>(&self, call: &'a Call) -> Option<&'a str> {
        self.0.as_deref().and_then(|name| call.header(name))
    }

    /// The address of the client, before any gateway in this process.
    pub fn client_of<'a>(&self, call: &'a Call) -> Option<&'a str> {
        match self.peer_of(call)? {
            IN_PROCESS => call.header(CLIENT_HEADER),
            peer => Some(peer),
        }
    }

    /// Whether a process on this machine connected, by itself and not through a gateway.
    pub fn is_loopback(&self, call: &Call) -> bool {
        let peer = self.peer_of(call).and_then(|peer| peer.parse::<std::net::IpAddr>().ok());
        peer.is_some_and(|peer| peer.is_loopback())
    }
}

/// Methods of WASI's generated type, which each edition has its own of, and back.
macro_rules! methods {
    ($wasi:ty) => {
        mod method {
            use http::Method;
            type Wasi = $wasi;

            pub fn from_wasi(method: &Wasi) -> Method {
                match method {
                    Wasi::Get => Method::GET,
                    Wasi::Head => Method::HEAD,
                    Wasi::Post => Method::POST,
                    Wasi::Put => Method::PUT,
                    Wasi::Delete => Method::DELETE,
                    Wasi::Connect => Method::CONNECT,
                    Wasi::Options => Method::OPTIONS,
                    Wasi::Trace => Method::TRACE,
                    Wasi::Patch => Method::PATCH,
                    Wasi::Other(name) => Method::from_bytes(name.as_bytes()).unwrap_or(Method::TRACE),
                }
            }

            pub fn to_wasi(method: &Method) -> Wasi {
                match method.as_str() {
                    "GET" => Wasi::Get,
                    "HEAD" => Wasi::Head,
                    "POST" => Wasi::Post,
                    "PUT" => Wasi::Put,
                    "DELETE" => Wasi::Delete,
                    "OPTIONS" => Wasi::Options,
                    "PATCH" => Wasi::Patch,
                    other => Wasi::Other(other.to_owned()),
                }
            }
        }
    };
}
pub(crate) use methods;

/// Whether a request that failed may have been carried out: yes, unless it cannot have left. For
/// WASI's generated type, which each edition has its own of.
macro_rules! send_errors {
    ($wasi:ty) => {
        pub(crate) fn send_error(error: $wasi) -> SendError {
            type Wasi = $wasi;
            match error {
                Wasi::DnsTimeout
                | Wasi::DnsError(_)
                | Wasi::DestinationNotFound
                | Wasi::DestinationUnavailable
                | Wasi::DestinationIpProhibited
                | Wasi::DestinationIpUnroutable
                | Wasi::ConnectionRefused
                | Wasi::ConnectionTimeout
                | Wasi::TlsCertificateError
                | Wasi::HttpRequestDenied
                | Wasi::HttpRequestUriInvalid => SendError::NotSent(error.to_string()),
                Wasi::ConnectionLimitReached => SendError::Busy,
                other => SendError::OutcomeUnknown(other.to_string()),
            }
        }
    };
}
pub(crate) use send_errors;

/// Fields of `application/x-www-form-urlencoded` text (a query, or a form's body).
pub fn form_fields(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((percent_decode(name)?, percent_decode(value)?))
        })
        .collect()
}

/// Decodes `%XX` and `+`; refuses anything that is not UTF-8 afterwards.
fn percent_decode(text: &str) -> Result<String, Problem> {
    let bad = || Problem::new(Kind::MalformedRequest, "A parameter is not percent-encoded UTF-8.");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().ok_or_else(bad)?, rest.next().ok_or_else(bad)?];
                let digits = std::str::from_utf8(&digits).map_err(|_| bad())?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// An answer, written whole. `trailers` are for gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Option<Vec<(String, Vec<u8>)>>,
}

impl Reply {
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, trailers: None }
    }

    pub fn json(status: u16, body: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self::new(status, body).header("content-type", "application/json"),
            // Our own shapes always serialise; a defect must not end the instance.
            Err(_) => Self::new(500, Vec::new()),
        }
    }

    /// The answer for this problem. The correlation id lets an operator find the cause.
    pub fn problem(problem: &Problem, correlation_id: &str) -> Self {
        let (name, status, title) = (problem.kind.name(), problem.kind.status(), problem.kind.title());
        let body = json!({
            "type": format!("urn:settle:problem:{name}"),
            "title": title,
            "status": status,
            "detail": problem.detail,
            "correlation_id": correlation_id,
        });
        let mut reply = Self::new(status, body.to_string().into_bytes());
        reply = reply.header("content-type", "application/problem+json");
        if let Some(wait) = problem.retry_after {
            // Whole seconds, rounded up: the header knows no smaller unit.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            reply = reply.header("retry-after", seconds.to_string());
        }
        if let Some(allow) = problem.allow {
            reply = reply.header("allow", allow);
        }
        if status == 401 {
            reply = reply.header("www-authenticate", "Bearer");
        }
        reply
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into().into_bytes()));
        self
    }
}

/// A request to another service.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    pub method: Method,
    /// `http://authority`, without a path.
    pub origin: &'a str,
    pub path: &'a str,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub timeout: Duration,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The request did not leave, or nobody took it.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It is well but over its capacity, and did nothing.
    #[error("over its capacity")]
    Busy,
    /// It may have been carried out.
    #[error("no answer: {0}")]
    OutcomeUnknown(String),
}

/// A request as the host hands it over, its body apart.
pub(crate) struct Head {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
}

/// Lets `route` answer a request.
pub(crate) async fn answer<F, R>(
    head: Head,
    body: Result<Vec<u8>, Problem>,
    world: GuestWorld,
    route: F,
) -> Reply
where
    F: FnOnce(Call) -> R,
    R: Future<Output = Reply>,
{
    let mut call = head.into_call(&world);
    let correlation_id = call.context.correlation_id.clone();
    let reply = match body {
        Ok(body) => {
            call.body = body;
            route(call).await
        }
        Err(problem) => Reply::problem(&problem, &correlation_id),
    };
    reply.header(context::CORRELATION_ID, correlation_id)
}

impl Head {
    /// The call, without its body.
    pub(crate) fn into_call(self, world: &GuestWorld) -> Call {
        let Head { method, target, headers } = self;
        let context = context::of_request(&headers, world);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (own_path(path, world.service).to_owned(), query.to_owned());
        Call { method, path, query, headers, body: Vec::new(), context }
    }
}

/// Hosts with one listener for all services put the service's name before its paths.
fn own_path<'a>(path: &'a str, service: &str) -> &'a str {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    rest.filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// The fields as WASI takes them; back by `header_map`.
pub fn field_list(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

pub(crate) fn header_map(fields: Vec<(String, Vec<u8>)>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let value = HeaderValue::from_maybe_shared(Bytes::from(value));
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value) {
            headers.append(name, value);
        }
    }
    headers
}

pub(crate) fn too_large() -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("A body has at most {BODY_BYTES_MAX} bytes."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(content_type: &str, body: &str, query: &str) -> Call {
        Call {
            method: Method::POST,
            path: "/".into(),
            query: query.into(),
            headers: [("content-type".parse().unwrap(), content_type.parse().unwrap())].into_iter().collect(),
            body: body.as_bytes().to_vec(),
            context: CallContext::default(),
        }
    }

    #[test]
    fn bodies_are_refused_by_what_is_wrong_with_them() {
        let kind = |content_type, body| call(content_type, body, "").json::<Vec<u8>>().map_err(|p| p.kind);
        assert_eq!(kind("application/json; charset=utf-8", "[1]"), Ok(vec![1]));
        assert_eq!(kind("text/plain", "[1]"), Err(Kind::UnsupportedMediaType));
        assert_eq!(kind("application/json", "[1"), Err(Kind::MalformedRequest));
        assert_eq!(kind("application/json", "[999]"), Err(Kind::InvalidField));
        assert_eq!(kind("application/json", ""), Err(Kind::MalformedRequest));
    }

    #[test]
    fn queries_take_known_fields_once() {
        let ask = |query| call("", "", query).query(["a", "b"]).map_err(|p| p.kind);
        assert_eq!(ask("b=x%20y+z"), Ok([None, Some("x y z".into())]));
        for bad in ["c=1", "a=1&a=2", "a=%zz", "a=%ff", "a=%2"] {
            assert_eq!(ask(bad), Err(Kind::MalformedRequest), "{bad}");
        }
    }
}
