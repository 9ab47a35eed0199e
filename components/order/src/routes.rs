//! Routes of the order service, one function each.

use std::rc::Rc;

use http::Method;
use serde_json::json;
use settle_order_core::{Order, Status};
use settle_service_kit::auth::{require_admin, require_operator};
use settle_service_kit::health::{self, Probe};
use settle_service_kit::http::{Call, Reply};
use settle_service_kit::instance::StartError;
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::states;
use settle_token::Claims;
use settle_types::OrderId;

use crate::app::{self, App, WORLD};
use crate::requests::{self, caller_of, claim_of, key_of, new_order, problem_of};
use crate::{bodies, compat};

const PAGE_SIZE_DEFAULT: u32 = 50;
const PAGE_SIZE_MAX: u32 = 200;
/// Due sagas that one call of an operator may resume.
const RESUME_MAX: u32 = 64;

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
        Err(error) => Err(error.problem(&WORLD, &call.context)),
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

fn order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|_| Problem::not_found())
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
    let order = new_order(&caller, request.user_id, request.items, request.payment_method)?;
    let claim = claim_of(&caller, "POST /v1/orders", &key, &order)?;
    let placed = requests::place(app, call, order, Some(claim)).await;
    let placed = placed.map_err(|error| problem_of(error, call))?;
    Ok(placed_reply(&placed.order, placed.replayed))
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
