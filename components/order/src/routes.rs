//! Routes of the order service, one function each.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use serde_json::json;
use settle_order_core::{Caller, IdempotencyClaim, NewOrder, Order, OrderError, Status};
use settle_ports::World;
use settle_service_kit::auth::{require_admin, require_operator};
use settle_service_kit::context::RETRY_AFTER;
use settle_service_kit::health::{self, Probe};
use settle_service_kit::http::{Call, Reply};
use settle_service_kit::instance::StartError;
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::spawn;
use settle_service_kit::states;
use settle_token::{Claims, Role};
use settle_types::{IdempotencyKey, OrderId, Timestamp};
use sha2::{Digest, Sha256};

use crate::app::{self, App, WORLD};
use crate::{bodies, compat};

/// How long a client may repeat a request with its key.
const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const PAGE_SIZE_DEFAULT: u32 = 50;
const PAGE_SIZE_MAX: u32 = 200;
/// Due sagas that one call of an operator may resume.
const RESUME_MAX: u32 = 64;
/// Due sagas that a request resumes on its way, and how often an instance does so.
const RESUME_BY_TRAFFIC: u32 = 2;
const RESUME_BY_TRAFFIC_EVERY: Duration = Duration::from_secs(1);

pub async fn route(call: Call) -> Reply {
    match health::probe(&call, "order") {
        Some(Probe::Live) => return health::live(),
        Some(Probe::Ready) => return health::ready(ready().await),
        None => {}
    }
    if health::is_grpc(&call) {
        return health::grpc(&call, async |name: String| match name.as_str() {
            "" | compat::SERVICE => Some(ready().await.is_ok()),
            _ => None,
        })
        .await;
    }
    if compat::is_method(&call.path) {
        return compat::answer(&call).await;
    }
    let answered = match app::get().await {
        Ok(app) => answer(&app, &call).await,
        Err(error) => {
            WORLD.log("error", &error.to_string(), &call.context);
            Err(error.problem())
        }
    };
    answered.unwrap_or_else(|problem| Reply::problem(&problem, &call.context.correlation_id))
}

async fn ready() -> Result<serde_json::Value, StartError> {
    let app = app::get().await?;
    let oldest = app.orders.oldest_due().await.map_err(|error| StartError::Other(error.to_string()))?;
    Ok(json!({ "database": "ok", "oldest_due_ms": oldest.as_millis() }))
}

async fn answer(app: &Rc<App>, call: &Call) -> Result<Reply, Problem> {
    if call.path == states::PATH {
        // Every order begins with its own request: nothing is taken for granted.
        return Ok(app.states.answer(call, async |_| Ok(())).await);
    }
    let path: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let allow = match path.as_slice() {
        ["v1", "orders"] => "GET, POST",
        ["v1", "orders", _] | ["v1", "orders", _, "history"] | ["v1", "sagas"] => "GET",
        ["v1", "orders", _, "cancel" | "redrive" | "resolve"] | ["v1", "recovery", "resume-due"] => "POST",
        _ => return Err(Problem::not_found()),
    };
    if !allow.split(", ").any(|method| method == call.method.as_str()) {
        return Err(Problem::method_not_allowed(allow));
    }
    let claims = app.auth.authenticate(call).await?;
    match (path.as_slice(), &call.method) {
        (["v1", "orders"], &Method::POST) => place(app, call, &claims).await,
        (["v1", "orders"], _) => list(app, call, &claims).await,
        (["v1", "orders", id], _) => read(app, call, &claims, id).await,
        (["v1", "orders", id, "history"], _) => history(app, call, &claims, id).await,
        (["v1", "orders", id, "cancel"], _) => cancel(app, call, &claims, id).await,
        (["v1", "orders", id, "redrive"], _) => redrive(app, call, &claims, id).await,
        (["v1", "orders", id, "resolve"], _) => resolve(app, call, &claims, id).await,
        (["v1", "sagas"], _) => sagas(app, call, &claims).await,
        (["v1", "recovery", "resume-due"], _) => resume_due(app, call, &claims).await,
        _ => Err(Problem::not_found()),
    }
}

pub fn caller_of(claims: &Claims) -> Result<Caller, Problem> {
    let subject =
        claims.sub.parse().map_err(|_| Problem::new(Kind::Unauthenticated, "The subject is not usable."))?;
    Ok(Caller { issuer: claims.iss.clone(), subject, admin: claims.role == Role::Admin })
}

fn order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|_| Problem::not_found())
}

pub fn invalid(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidField, format!("{error}."))
}

/// 201 when the outcome is known, 202 when not yet; both with the order and its place.
fn placed_reply(order: &Order, replayed: bool) -> Reply {
    let status = if order.status.is_settled() { 201 } else { 202 };
    let reply =
        Reply::json(status, &bodies::order(order)).header("location", format!("/v1/orders/{}", order.id));
    if replayed { reply.header("idempotent-replayed", "true") } else { reply }
}

fn changed_reply(order: &Order) -> Reply {
    let status = if order.status.is_settled() { 200 } else { 202 };
    Reply::json(status, &bodies::order(order))
}

async fn place(app: &Rc<App>, call: &Call, claims: &Claims) -> Result<Reply, Problem> {
    let caller = caller_of(claims)?;
    let key = key_of(call)?;
    let key = key.ok_or_else(|| Problem::new(Kind::MissingIdempotencyKey, "Send an Idempotency-Key."))?;
    let request: bodies::PlaceRequest = call.json()?;
    let order = NewOrder::parse(&caller, request.user_id, request.items, request.payment_method).map_err(
        |error| match error {
            settle_order_core::RuleBroken::ForAnotherUser => {
                Problem::new(Kind::Forbidden, format!("{error}."))
            }
            other => invalid(&other),
        },
    )?;
    let claim = claim_of(&caller, "POST /v1/orders", &key, &order)?;
    let placed = app.orders.place(&call.context, order, Some(claim)).await;
    resume_by_traffic(app);
    let placed = placed.map_err(|error| problem_of(error, call))?;
    Ok(placed_reply(&placed.order, placed.replayed))
}

pub fn key_of(call: &Call) -> Result<Option<IdempotencyKey>, Problem> {
    call.header("idempotency-key").map(str::parse).transpose().map_err(|error| invalid(&error))
}

/// Who may repeat what: issuer, subject, route and key; the fingerprint is of the parsed request.
pub fn claim_of(
    caller: &Caller,
    route: &str,
    key: &IdempotencyKey,
    order: &NewOrder,
) -> Result<IdempotencyClaim, Problem> {
    let mut scope = Sha256::new();
    for part in [&caller.issuer, caller.subject.as_str(), route, key.as_str()] {
        scope.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        scope.update(part);
    }
    let parsed = serde_json::to_vec(order).map_err(|error| invalid(&error))?;
    Ok(IdempotencyClaim {
        scope: scope.finalize().into(),
        fingerprint: Sha256::digest(parsed).into(),
        expires_at: WORLD.now().plus(IDEMPOTENCY_LIFE),
    })
}

/// Where no host calls recovery on a timer, the traffic does, behind the answer.
pub fn resume_by_traffic(app: &Rc<App>) {
    thread_local! {
        static LAST: Cell<Timestamp> = const { Cell::new(Timestamp::from_millis(0)) };
    }
    let now = WORLD.now();
    if !app.recovery_by_traffic || now.since(LAST.get()) < RESUME_BY_TRAFFIC_EVERY {
        return;
    }
    LAST.set(now);
    let app = app.clone();
    spawn(async move {
        // Failures are logged saga by saga; the next request tries again.
        let _ = app.orders.resume_due(RESUME_BY_TRAFFIC).await;
    });
}

async fn list(app: &App, call: &Call, claims: &Claims) -> Result<Reply, Problem> {
    let caller = caller_of(claims)?;
    let [status, after, limit] = call.query(["status", "after", "limit"])?;
    let status = status.map(|text| status_of(&text)).transpose()?;
    let bad = |what: &str| Problem::new(Kind::MalformedRequest, what.to_owned());
    let after =
        after.map(|text| text.parse().map_err(|_| bad("`after` is not a cursor of ours."))).transpose()?;
    let limit = match limit {
        None => PAGE_SIZE_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=PAGE_SIZE_MAX).contains(limit))
            .ok_or_else(|| bad(&format!("`limit` is from 1 to {PAGE_SIZE_MAX}.")))?,
    };
    let page =
        app.orders.list(&caller, status, after, limit).await.map_err(|error| problem_of(error, call))?;
    Ok(Reply::json(200, &bodies::page(&page)))
}

fn status_of(text: &str) -> Result<Status, Problem> {
    text.parse().map_err(|()| Problem::new(Kind::MalformedRequest, "Unknown status."))
}

async fn read(app: &App, call: &Call, claims: &Claims, id: &str) -> Result<Reply, Problem> {
    let order = app.orders.read(&call.context, &caller_of(claims)?, order_id(id)?).await;
    Ok(Reply::json(200, &bodies::order(&order.map_err(|error| problem_of(error, call))?)))
}

async fn history(app: &App, call: &Call, claims: &Claims, id: &str) -> Result<Reply, Problem> {
    let entries = app.orders.history(&caller_of(claims)?, order_id(id)?).await;
    Ok(Reply::json(200, &bodies::history(&entries.map_err(|error| problem_of(error, call))?)))
}

async fn cancel(app: &App, call: &Call, claims: &Claims, id: &str) -> Result<Reply, Problem> {
    let order = app.orders.cancel(&call.context, &caller_of(claims)?, order_id(id)?).await;
    Ok(changed_reply(&order.map_err(|error| problem_of(error, call))?))
}

async fn redrive(app: &App, call: &Call, claims: &Claims, id: &str) -> Result<Reply, Problem> {
    require_admin(claims)?;
    let order = app.orders.redrive(&call.context, &caller_of(claims)?.subject, order_id(id)?).await;
    Ok(changed_reply(&order.map_err(|error| problem_of(error, call))?))
}

async fn resolve(app: &App, call: &Call, claims: &Claims, id: &str) -> Result<Reply, Problem> {
    require_admin(claims)?;
    let request: bodies::ResolveRequest = call.json()?;
    let by = caller_of(claims)?.subject;
    let order = app.orders.resolve(&call.context, &by, order_id(id)?, request.note).await;
    Ok(changed_reply(&order.map_err(|error| problem_of(error, call))?))
}

async fn sagas(app: &App, call: &Call, claims: &Claims) -> Result<Reply, Problem> {
    require_admin(claims)?;
    let [state] = call.query(["state"])?;
    let state = state.map(|text| status_of(&text)).transpose()?;
    let summaries = app.orders.sagas(state, PAGE_SIZE_MAX).await.map_err(|error| problem_of(error, call))?;
    Ok(Reply::json(200, &bodies::sagas(&summaries)))
}

async fn resume_due(app: &App, call: &Call, claims: &Claims) -> Result<Reply, Problem> {
    require_operator(claims)?;
    let report = app.orders.resume_due(RESUME_MAX).await.map_err(|error| problem_of(error, call))?;
    Ok(Reply::json(200, &bodies::due_report(&report)))
}

/// The one place where an error of the domain becomes a status.
pub fn problem_of(error: OrderError, call: &Call) -> Problem {
    match error {
        OrderError::NotFound => Problem::not_found(),
        OrderError::KeyReused => {
            Problem::new(Kind::IdempotencyKeyReused, "The Idempotency-Key was used with another request.")
        }
        OrderError::Illegal(status) => {
            Problem::new(Kind::IllegalTransition, format!("The order is {}.", status.as_str()))
        }
        OrderError::Unavailable { reason, retry_after } => {
            WORLD.log("warn", &reason, &call.context);
            Problem::new(Kind::Unavailable, "Nothing was written; try again.").retry_after(retry_after)
        }
        OrderError::OutcomeUnknown(reason) => {
            WORLD.log("warn", &reason, &call.context);
            Problem::new(Kind::OutcomeUnknown, "Repeat the request with the same Idempotency-Key.")
                .retry_after(RETRY_AFTER)
        }
        OrderError::Internal(reason) => {
            WORLD.log("error", &reason, &call.context);
            Problem::new(Kind::Internal, "The failure was logged under the correlation id.")
        }
    }
}
