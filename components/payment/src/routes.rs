//! Routes of the payment service, one function each. For administrators and services only.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use settle_payment_core::{Payment, Refunded};
use settle_proto::payment_v1 as wire;
use settle_service_kit::auth::{require_admin, require_operator};
use settle_service_kit::health::{self, Probe};
use settle_service_kit::http::{Call, Reply};
use settle_service_kit::instance::StartError;
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::rpc::Protocol;
use settle_service_kit::states;
use settle_types::{FailureReason, IdempotencyKey, Money, PaymentId, UserId};

use crate::app::{self, App, WORLD};
use crate::problems::problem_of;
use crate::{compat, rpc};

/// Payments of one order that are listed.
const LIST_MAX: u32 = 200;
/// Due payments that one call may resume.
const RESUME_MAX: u32 = 64;

pub async fn route(call: Call) -> Reply {
    match health::probe(&call, "payment") {
        Some(Probe::Live) => return health::live(),
        Some(Probe::Ready) => return health::ready(ready().await),
        None => {}
    }
    if health::is_grpc(&call) {
        return health::grpc(&call, async |name: String| match name.as_str() {
            "" | compat::SERVICE | wire::SERVICE => Some(ready().await.is_ok()),
            _ => None,
        })
        .await;
    }
    if compat::is_method(&call.path) {
        return compat::answer(&call).await;
    }
    if let Some(protocol) = Protocol::of(&call) {
        return rpc::answer(protocol, &call).await;
    }
    let answered = match app::get().await {
        Ok(app) => answer(&app, &call).await,
        Err(error) => Err(error.problem(&WORLD, &call.context)),
    };
    answered.unwrap_or_else(|problem| Reply::problem(&problem, &call.context.correlation_id))
}

async fn ready() -> Result<serde_json::Value, StartError> {
    let app = app::get().await?;
    let oldest = app.payments.oldest_due().await.map_err(|error| StartError::Other(error.to_string()))?;
    Ok(json!({ "database": "ok", "oldest_due_ms": oldest.as_millis() }))
}

async fn answer(app: &App, call: &Call) -> Result<Reply, Problem> {
    if call.path == states::PATH {
        return Ok(app.states.answer(call, async |change| compat::set_up(app, call, change).await).await);
    }
    let path: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let claims = app.auth.authenticate(call).await?;
    match (path.as_slice(), &call.method) {
        (["v1", "payments"], &Method::GET) => require_operator(&claims)?,
        (["v1", "payments", _], &Method::GET) => require_operator(&claims)?,
        (["v1", "payments", _, "refunds"], &Method::POST) => require_admin(&claims)?,
        (["v1", "recovery", "resume-due"], &Method::POST) => require_operator(&claims)?,
        (["v1", "payments"] | ["v1", "payments", _], _) => return Err(Problem::method_not_allowed("GET")),
        (["v1", "payments", _, "refunds"] | ["v1", "recovery", "resume-due"], _) => {
            return Err(Problem::method_not_allowed("POST"));
        }
        _ => return Err(Problem::not_found()),
    }
    match path.as_slice() {
        ["v1", "payments"] => list(app, call).await,
        ["v1", "payments", id] => read(app, id, call).await,
        ["v1", "payments", id, "refunds"] => refund(app, id, call).await,
        _ => resume_due(app, call).await,
    }
}

#[derive(Serialize)]
struct PaymentBody<'a> {
    id: String,
    order_id: &'a str,
    status: &'static str,
    captured: i64,
    refunded: i64,
    currency: &'a str,
    amount: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_reason: Option<&'a str>,
    refunds: Vec<RefundBody<'a>>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct RefundBody<'a> {
    id: String,
    amount: i64,
    status: settle_payment_core::RefundState,
    reason: &'a str,
}

fn body_of(payment: &Payment) -> PaymentBody<'_> {
    let refunds = payment.refunds.iter().map(|refund| RefundBody {
        id: refund.id.to_string(),
        amount: refund.amount_minor,
        status: refund.state,
        reason: refund.reason.as_str(),
    });
    PaymentBody {
        id: payment.id.to_string(),
        order_id: payment.order_id.as_str(),
        status: payment.status.as_str(),
        captured: payment.captured,
        refunded: payment.refunded,
        currency: payment.amount.currency().code(),
        amount: payment.amount,
        decline_reason: payment.decline_reason.as_ref().map(|reason| reason.as_str()),
        refunds: refunds.collect(),
        created_at: payment.created_at.to_string(),
        updated_at: payment.updated_at.to_string(),
    }
}

async fn list(app: &App, call: &Call) -> Result<Reply, Problem> {
    let [order_id] = call.query(["order_id"])?;
    let Some(order_id) = order_id else {
        return Err(Problem::new(Kind::MalformedRequest, "Name the order: ?order_id=."));
    };
    let order_id: UserId =
        order_id.parse().map_err(|error| Problem::new(Kind::MalformedRequest, format!("{error}.")))?;
    let found = app.payments.store.by_order(order_id.as_str(), LIST_MAX).await;
    let found = found.map_err(|error| problem_of(error.into(), call))?;
    Ok(Reply::json(200, &json!({ "data": found.iter().map(body_of).collect::<Vec<_>>() })))
}

async fn read(app: &App, id: &str, call: &Call) -> Result<Reply, Problem> {
    let id: PaymentId = id.parse().map_err(|_| Problem::not_found())?;
    let found = app.payments.store.by_id(id).await.map_err(|error| problem_of(error.into(), call))?;
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(Reply::json(200, &body_of(&found.payment)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundRequest {
    amount: Option<Money>,
    reason: String,
}

async fn refund(app: &App, id: &str, call: &Call) -> Result<Reply, Problem> {
    let id: PaymentId = id.parse().map_err(|_| Problem::not_found())?;
    let key = call.header("idempotency-key");
    let key = key.ok_or_else(|| Problem::new(Kind::MissingIdempotencyKey, "Send an Idempotency-Key."))?;
    let invalid = |error: &dyn std::fmt::Display| Problem::new(Kind::InvalidField, format!("{error}."));
    let key: IdempotencyKey = key.parse().map_err(|error| invalid(&error))?;
    let request: RefundRequest = call.json()?;
    let reason: FailureReason = request.reason.parse().map_err(|error| invalid(&error))?;
    let found = app.payments.store.by_id(id).await.map_err(|error| problem_of(error.into(), call))?;
    let found = found.ok_or_else(Problem::not_found)?;
    let amount = match request.amount {
        None => None,
        Some(amount) if amount.currency() != found.payment.amount.currency() => {
            return Err(Problem::new(
                Kind::InvalidField,
                "The amount is in another currency than the payment.",
            ));
        }
        Some(amount) if amount.minor() <= 0 => {
            return Err(Problem::new(Kind::InvalidField, "The amount must be more than zero."));
        }
        Some(amount) => Some(amount.minor()),
    };
    let outcome = app.payments.refund(&call.context, id, key.as_str(), amount, reason).await;
    match outcome.map_err(|error| problem_of(error, call))? {
        Refunded::Done(payment) => Ok(Reply::json(201, &body_of(&payment))),
        Refunded::Exists(payment) => {
            Ok(Reply::json(201, &body_of(&payment)).header("idempotent-replayed", "true"))
        }
        Refunded::ExistsWithDifferentAmount => {
            Err(Problem::new(Kind::IdempotencyKeyReused, "The key stands for a refund of another amount."))
        }
        Refunded::ExceedsCaptured => {
            Err(Problem::new(Kind::RefundExceedsCaptured, "Less than that is left of the payment."))
        }
        Refunded::NotCaptured => {
            Err(Problem::new(Kind::IllegalTransition, "Nothing was taken to be refunded."))
        }
        Refunded::NotFound => Err(Problem::not_found()),
    }
}

async fn resume_due(app: &App, call: &Call) -> Result<Reply, Problem> {
    let report = app.payments.resume_due(&call.context, RESUME_MAX).await;
    let report = report.map_err(|error| problem_of(error, call))?;
    let body = json!({
        "resumed": report.resumed, "ended": report.ended, "deferred": report.deferred,
        "more": report.more, "oldest_due_ms": report.oldest_due_ms,
    });
    Ok(Reply::json(200, &body))
}
