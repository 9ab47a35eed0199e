//! One request: whose it is, whether it passes, on to the service and back.

use std::time::Duration;

use http::Method;
use serde_json::json;
use settle_gateway_core::{Preflight, SECURED, Upstream, checked, passed_back, passed_on, upstream_of};
use settle_ports::{Limiter as _, Verdict, World as _};
use settle_service_kit::context::headers_of;
use settle_service_kit::health::{self, Probe};
use settle_service_kit::http::{
    Body, CLIENT_HEADER, Call, Departure, Outgoing, Reply, SendError, field_list, pass_on, send,
};
use settle_service_kit::instance::StartError;
use settle_service_kit::ports::HostLimiter;
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::rpc;

use crate::app::{self, App, WORLD};
use crate::docs;
use crate::limits::admit;

/// Longest wait for a service's readiness.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

pub async fn route(call: Call, body: Body) -> Departure {
    match health::probe(&call, "gateway") {
        Some(Probe::Live) => return Departure::Own(health::live()),
        Some(Probe::Ready) => return Departure::Own(health::ready(ready(&call).await)),
        None => {}
    }
    if health::is_grpc(&call) {
        return Departure::Own(grpc_health(call, body).await);
    }
    let app = match app::get().await {
        Ok(app) => app,
        Err(error) => return refused(&call, &error.problem(&WORLD, &call.context)),
    };
    if let Preflight::Answer(fields) = app.cors.preflight(&call.method, &call.headers) {
        let reply = fields
            .into_iter()
            .fold(Reply::new(204, Vec::new()), |reply, (name, text)| reply.header(name, text));
        return Departure::Own(reply);
    }
    let answered = match docs::file(&call) {
        Some(file) => file.map(Departure::Own),
        None => answer(&app, &call, body).await,
    };
    let departure = answered.unwrap_or_else(|problem| refused(&call, &problem));
    dressed(departure, &app.cors.fields(&call.headers))
}

async fn answer(app: &App, call: &Call, body: Body) -> Result<Departure, Problem> {
    checked(&call.path, &call.query).map_err(|refused| Problem::new(Kind::MalformedRequest, refused.0))?;
    let upstream = upstream_of(&call.path).ok_or_else(Problem::not_found)?;
    if !matches!(call.method, Method::GET | Method::POST) {
        return Err(Problem::method_not_allowed("GET, POST"));
    }
    let left = admit(app, call).await?;
    let departure = forward(app, upstream, call, body).await?;
    let fields = left.map(|left| left.fields().to_vec()).unwrap_or_default();
    Ok(fields.iter().fold(departure, |departure, (name, text)| departure.header(name, text)))
}

/// Passes the request on, unless the service's breaker is open.
async fn forward(app: &App, upstream: Upstream, call: &Call, body: Body) -> Result<Departure, Problem> {
    let name = upstream.name();
    if let Verdict::Open(wait) = HostLimiter.allow(name).await {
        let detail = "The service behind this path does not answer at the moment.";
        return Err(Problem::new(Kind::Unavailable, detail).retry_after(wait));
    }
    let target = match call.query.as_str() {
        "" => call.path.clone(),
        query => format!("{}?{query}", call.path),
    };
    let timeout = call.context.remaining(WORLD.now());
    let outgoing = Outgoing {
        method: call.method.clone(),
        origin: app.origin(upstream),
        path: &target,
        headers: fields_on(app, call, timeout),
        body: Vec::new(),
        timeout,
    };
    let answered = pass_on(outgoing, body).await;
    // A service that is over its capacity is well: shedding must not become an outage.
    let is_well = matches!(answered, Ok(_) | Err(SendError::Busy));
    if HostLimiter.report(name, is_well).await {
        WORLD.log("warn", &format!("Circuit breaker OPEN for {name}"), &call.context);
    }
    match answered {
        Ok(Departure::Passed { status, headers, body }) => {
            Ok(Departure::Passed { status, headers: passed_back(&headers), body })
        }
        Ok(own) => Ok(own),
        Err(error) => Err(no_answer(&error, name, call)),
    }
}

fn fields_on(app: &App, call: &Call, timeout: Duration) -> Vec<(String, Vec<u8>)> {
    let mut headers = passed_on(&call.headers);
    let ours = headers_of(&call.context, timeout);
    let client = app.peer.client_of(call).map(|client| (CLIENT_HEADER, client.to_owned()));
    for (name, text) in ours.into_iter().chain(client) {
        if let Ok(value) = text.parse() {
            headers.insert(name, value);
        }
    }
    field_list(&headers)
}

fn no_answer(error: &SendError, name: &str, call: &Call) -> Problem {
    WORLD.log("warn", &format!("{name}: {error}"), &call.context);
    let wait = Duration::from_secs(1);
    match error {
        SendError::NotSent(_) | SendError::Busy => {
            Problem::new(Kind::Unavailable, "Nothing was done; try again.")
        }
        SendError::OutcomeUnknown(_) => {
            Problem::new(Kind::OutcomeUnknown, "Repeat the request with the same Idempotency-Key.")
        }
    }
    .retry_after(wait)
}

/// A refusal in the protocol that the client speaks.
fn refused(call: &Call, problem: &Problem) -> Departure {
    Departure::Own(rpc::refuse(call, problem))
}

fn dressed(departure: Departure, cors: &[(&'static str, String)]) -> Departure {
    let secured = SECURED.into_iter().map(|(name, text)| (name, text.to_owned()));
    secured.chain(cors.iter().cloned()).fold(departure, |departure, (name, text)| {
        if departure.has(name) { departure } else { departure.header(name, &text) }
    })
}

/// Ready by itself: one service that is away must not take the others' edge away. Shows them with their
/// breakers; the question is a breaker's probe.
async fn ready(call: &Call) -> Result<serde_json::Value, StartError> {
    let app = app::get().await?;
    let mut services = serde_json::Map::new();
    for upstream in Upstream::ALL {
        let (name, verdict) = (upstream.name(), HostLimiter.allow(upstream.name()).await);
        let breaker = match verdict {
            Verdict::Closed => "closed",
            Verdict::Probe => "half-open",
            Verdict::Open(_) => "open",
        };
        let is_ready = !matches!(verdict, Verdict::Open(_)) && is_ready(&app, upstream, call).await;
        services.insert(name.to_owned(), json!({ "ready": is_ready, "breaker": breaker }));
    }
    Ok(services.into())
}

/// gRPC's health protocol: of the gateway itself, and of each service by its name in the protos.
async fn grpc_health(mut call: Call, body: Body) -> Reply {
    match body.read().await {
        Ok(body) => call.body = body,
        Err(problem) => return Reply::problem(&problem, &call.context.correlation_id),
    }
    let asked = call.clone();
    health::grpc(&call, async |name: String| {
        let upstream = upstream_of(&format!("/{name}/Check"));
        match (name.as_str(), upstream, app::get().await) {
            ("", ..) => Some(true),
            (_, None, _) => None,
            (_, Some(upstream), Ok(app)) => Some(is_ready(&app, upstream, &asked).await),
            (_, Some(_), Err(_)) => Some(false),
        }
    })
    .await
}

async fn is_ready(app: &App, upstream: Upstream, call: &Call) -> bool {
    let headers = headers_of(&call.context, PROBE_TIMEOUT).into_iter();
    let answer = send(Outgoing {
        method: Method::GET,
        origin: app.origin(upstream),
        path: "/health/ready",
        headers: headers.map(|(name, text)| (name.to_owned(), text.into_bytes())).collect(),
        body: Vec::new(),
        timeout: PROBE_TIMEOUT,
    });
    let answer = answer.await;
    HostLimiter.report(upstream.name(), answer.is_ok()).await;
    answer.is_ok_and(|answer| answer.status == 200)
}
