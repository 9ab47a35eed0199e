//! The same service as typed WIT: tests and composed deployments call it without HTTP.

use std::time::Duration;

use settle_order_core::{Caller, IdempotencyClaim, Item, NewOrder, Order, OrderError, Status};
use settle_ports::{CallContext, World};
use settle_service_kit::context::REQUEST_DEADLINE;
use settle_types::{Currency, Money, OrderId};
use sha2::{Digest, Sha256};

use crate::Component;
use crate::app::{self, WORLD};
use crate::bindings::exports::settle::order::orders as port;
use crate::bindings::exports::settle::recovery::recovery;

/// Most sagas claimed in one round.
const RESUME_MAX: u32 = 64;
/// How long a caller may repeat a request with its key.
const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

fn context() -> CallContext {
    let deadline = WORLD.now().plus(REQUEST_DEADLINE);
    CallContext { correlation_id: "typed-call".to_owned(), traceparent: String::new(), deadline }
}

impl port::Guest for Component {
    async fn place(order: port::NewOrder) -> Result<port::Order, port::Error> {
        let app = app::get().await.map_err(|_| port::Error::Unavailable(1000))?;
        let caller = caller_of(order.caller)?;
        let items = order.items.into_iter().map(item_of).collect::<Result<Vec<_>, _>>()?;
        let user_id = order.user_id.map(|id| id.parse().map_err(|error| invalid(&error))).transpose()?;
        let method = order.payment_method.map(|m| m.parse().map_err(|error| invalid(&error))).transpose()?;
        let request = NewOrder::parse(&caller, user_id, items, method).map_err(|error| invalid(&error))?;
        let claim = order.idempotency_key.map(|key| claim_of(&caller, &key, &request)).transpose()?;
        let placed = app.orders.place(&context(), request, claim).await.map_err(error_of)?;
        Ok(order_to(&placed.order))
    }

    async fn get(caller: port::Caller, id: String) -> Result<port::Order, port::Error> {
        let app = app::get().await.map_err(|_| port::Error::Unavailable(1000))?;
        let id: OrderId = id.parse().map_err(|_| port::Error::NotFound)?;
        let order = app.orders.read(&context(), &caller_of(caller)?, id).await.map_err(error_of)?;
        Ok(order_to(&order))
    }

    async fn cancel(caller: port::Caller, id: String) -> Result<port::Order, port::Error> {
        let app = app::get().await.map_err(|_| port::Error::Unavailable(1000))?;
        let id: OrderId = id.parse().map_err(|_| port::Error::NotFound)?;
        let order = app.orders.cancel(&context(), &caller_of(caller)?, id).await.map_err(error_of)?;
        Ok(order_to(&order))
    }
}

impl recovery::Guest for Component {
    async fn resume_due(limit: u32) -> Result<recovery::Report, recovery::Error> {
        let unavailable = |error: &dyn std::fmt::Display| recovery::Error::Unavailable(error.to_string());
        let app = app::get().await.map_err(|error| unavailable(&error))?;
        let report = app.orders.resume_due(limit.clamp(1, RESUME_MAX)).await;
        let report = report.map_err(|error| unavailable(&error))?;
        Ok(recovery::Report {
            resumed: report.resumed,
            ended: report.ended,
            deferred: report.deferred,
            more: report.more,
            oldest_due_ms: report.oldest_due_ms,
        })
    }
}

fn invalid(error: &dyn std::fmt::Display) -> port::Error {
    port::Error::Invalid(error.to_string())
}

fn caller_of(caller: port::Caller) -> Result<Caller, port::Error> {
    let subject = caller.subject.parse().map_err(|error| invalid(&error))?;
    Ok(Caller { issuer: caller.issuer, subject, admin: caller.admin })
}

fn claim_of(caller: &Caller, key: &str, request: &NewOrder) -> Result<IdempotencyClaim, port::Error> {
    let parsed = serde_json::to_vec(request).map_err(|error| invalid(&error))?;
    let scope = format!("{}\0{}\0typed place\0{key}", caller.issuer, caller.subject);
    Ok(IdempotencyClaim {
        scope: Sha256::digest(scope).into(),
        fingerprint: Sha256::digest(parsed).into(),
        expires_at: WORLD.now().plus(IDEMPOTENCY_LIFE),
    })
}

fn item_of(item: port::Item) -> Result<Item, port::Error> {
    let currency = Currency::parse(&item.unit_price.currency).map_err(|error| invalid(&error))?;
    Ok(Item {
        product_id: item.product_id.parse().map_err(|error| invalid(&error))?,
        quantity: item.quantity,
        unit_price: Money::new(item.unit_price.minor, currency),
    })
}

fn money_to(money: Money) -> port::Money {
    port::Money { minor: money.minor(), currency: money.currency().code().to_owned() }
}

fn status_to(status: Status) -> port::Status {
    match status {
        Status::PaymentPending => port::Status::PaymentPending,
        Status::Paid => port::Status::Paid,
        Status::Completed => port::Status::Completed,
        Status::Compensating => port::Status::Compensating,
        Status::NeedsAttention => port::Status::NeedsAttention,
        Status::PaymentFailed => port::Status::PaymentFailed,
        Status::Cancelled => port::Status::Cancelled,
    }
}

fn order_to(order: &Order) -> port::Order {
    let item = |item: &Item| port::Item {
        product_id: item.product_id.to_string(),
        quantity: item.quantity,
        unit_price: money_to(item.unit_price),
    };
    port::Order {
        id: order.id.to_string(),
        user_id: order.user_id.to_string(),
        status: status_to(order.status),
        failure_reason: order.failure_reason.as_ref().map(ToString::to_string),
        total: money_to(order.total),
        items: order.items.iter().map(item).collect(),
        payment_id: order.payment_id.map(|id| id.to_string()),
        created_at: order.created_at.as_millis(),
        updated_at: order.updated_at.as_millis(),
    }
}

fn error_of(error: OrderError) -> port::Error {
    match error {
        OrderError::NotFound => port::Error::NotFound,
        OrderError::KeyReused => port::Error::KeyReused,
        OrderError::Illegal(status) => port::Error::Illegal(status_to(status)),
        OrderError::Unavailable { retry_after, .. } => {
            port::Error::Unavailable(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX))
        }
        OrderError::OutcomeUnknown(_) | OrderError::Internal(_) => port::Error::OutcomeUnknown,
    }
}
