//! Requests of guests: in process where this host has the target, over pooled connections
//! otherwise, and only to what the manifest allows.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::{PEER_HEADER, is_grpc};

/// Longest wait for the head of an answer when the guest names none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
const IDLE_PER_HOST_MAX: usize = 64;

pub type Answer = Pin<Box<dyn Future<Output = Result<http::Response<WasiBody>, Error>> + Send>>;

/// A service that answers in this process.
pub trait Local: Send + Sync {
    fn answer(self: Arc<Self>, request: http::Request<WasiBody>) -> Answer;
}

/// Every service of this process, by name.
pub type Locals = HashMap<String, Arc<dyn Local>>;

/// The way to other services.
pub trait Network: Send + Sync {
    fn send(self: Arc<Self>, request: http::Request<WasiBody>) -> Answer;
    /// Whether a service of this name is in this process.
    fn has(&self, service: &str) -> bool;
}

/// Connections to other hosts, and the services of this one.
pub struct Connections {
    http1: Client<HttpConnector, WasiBody>,
    /// gRPC speaks HTTP/2 by prior knowledge.
    http2: Client<HttpConnector, WasiBody>,
    services: OnceLock<Locals>,
}

impl Connections {
    pub fn new() -> Arc<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_PER_HOST_MAX);
        let http1 = builder.build(connector.clone());
        let http2 = builder.http2_only(true).build(connector);
        Arc::new(Self { http1, http2, services: OnceLock::new() })
    }

    /// Tells which services this host has; once, after all are loaded.
    pub fn connect(&self, services: Locals) {
        // Err: told before; there is one application a process.
        let _ = self.services.set(services);
    }

    async fn deliver(&self, mut request: http::Request<WasiBody>) -> Result<http::Response<WasiBody>, Error> {
        request.headers_mut().remove(PEER_HEADER);
        let host = request.uri().host().unwrap_or_default();
        if let Some(name) = local_name(host) {
            let service = self.services.get().and_then(|services| services.get(name));
            let service = service.cloned().ok_or(Error::DestinationNotFound)?;
            request.headers_mut().insert(PEER_HEADER, http::HeaderValue::from_static("in-process"));
            return service.answer(request).await;
        }
        let client = if is_grpc(request.headers()) { &self.http2 } else { &self.http1 };
        let response = client.request(request).await.map_err(|error| {
            if error.is_connect() { Error::ConnectionRefused } else { Error::ConnectionTerminated }
        })?;
        Ok(response.map(|body| body.map_err(Error::Hyper).boxed_unsync()))
    }
}

impl Network for Connections {
    fn send(self: Arc<Self>, request: http::Request<WasiBody>) -> Answer {
        Box::pin(async move { self.deliver(request).await })
    }

    fn has(&self, service: &str) -> bool {
        self.services.get().is_some_and(|services| services.contains_key(service))
    }
}

/// The service that `payment.internal` (or Spin's `payment.spin.internal`) names.
pub fn local_name(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".internal")?;
    Some(name.strip_suffix(".spin").unwrap_or(name))
}

/// One component's way out.
#[derive(Clone)]
pub struct Outbound {
    network: Arc<dyn Network>,
    /// `scheme://host[:port]` each; the port may be `*`.
    allowed: Arc<[String]>,
}

impl Outbound {
    pub fn new(network: Arc<dyn Network>, allowed: Vec<String>) -> Self {
        Self { network, allowed: allowed.into() }
    }

    /// Whether a service of this process answers there.
    pub fn is_local(&self, uri: &http::Uri) -> bool {
        uri.host().and_then(local_name).is_some_and(|service| self.network.has(service))
    }

    /// Sends a request to where this component may send. The head of the answer comes within `time`.
    pub async fn send(
        self,
        request: http::Request<WasiBody>,
        time: Duration,
    ) -> Result<http::Response<WasiBody>, Error> {
        if !self.allows(request.uri()) {
            return Err(Error::HttpRequestDenied);
        }
        let answer = tokio::time::timeout(time, self.network.send(request)).await;
        answer.map_err(|_| Error::HttpResponseTimeout)?
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or("http");
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
        self.allowed.iter().any(|pattern| matches(pattern, scheme, host, port))
    }
}

fn matches(pattern: &str, scheme: &str, host: &str, port: Option<u16>) -> bool {
    let Some((wanted_scheme, rest)) = pattern.trim_end_matches('/').split_once("://") else { return false };
    let (wanted_host, wanted_port) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let default = if scheme == "https" { 443 } else { 80 };
    let port_fits = match wanted_port {
        "*" => true,
        "" => port.unwrap_or(default) == default,
        number => number.parse() == Ok(port.unwrap_or(default)),
    };
    let host_fits = match wanted_host.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|label| label.ends_with('.')),
        None => wanted_host == host,
    };
    wanted_scheme == scheme && host_fits && port_fits
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Io,
    ) -> Sent {
        let outbound = self.clone();
        let time = options.and_then(|options| options.first_byte_timeout).unwrap_or(ANSWER_TIME_MAX);
        Box::new(async move {
            let response = outbound.send(request, time).await?;
            Ok((response, Box::new(async { Ok(()) }) as Io))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_are_reached() {
        let rows = [
            ("http://payment.internal", "http", "payment.internal", None, true),
            ("http://payment.internal", "http", "payment.internal", Some(81), false),
            ("http://payment.internal", "https", "payment.internal", None, false),
            ("http://payment.internal", "http", "evil.internal", None, false),
            ("http://127.0.0.1:50051", "http", "127.0.0.1", Some(50051), true),
            ("http://127.0.0.1:50051", "http", "127.0.0.1", Some(50052), false),
            ("http://127.0.0.1:*", "http", "127.0.0.1", Some(9), true),
            ("https://*.psp.example", "https", "api.psp.example", None, true),
            ("https://*.psp.example", "https", "evilpsp.example", None, false),
            ("nonsense", "http", "payment.internal", None, false),
        ];
        for (pattern, scheme, host, port, expected) in rows {
            assert_eq!(matches(pattern, scheme, host, port), expected, "{pattern} {scheme} {host} {port:?}");
        }
    }

    #[test]
    fn local_services_have_two_names() {
        assert_eq!(local_name("payment.internal"), Some("payment"));
        assert_eq!(local_name("payment.spin.internal"), Some("payment"));
        assert_eq!(local_name("payment.example"), None);
    }
}
