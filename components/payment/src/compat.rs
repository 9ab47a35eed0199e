//! `payments.PaymentService` of the described system: keyed by order, amounts without a currency.

use std::rc::Rc;

use settle_payment_core::{Charge, Payment, Processed, Refunded};
use settle_proto::compat::payments as wire;
use settle_service_kit::auth::require_operator;
use settle_service_kit::http::{Call, Reply};
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::rpc;
use settle_service_kit::states::Change;
use settle_types::{FailureReason, OperationKey, PaymentId, UserId};

use crate::app::{self, App, WORLD};
use crate::problems::problem_of;

pub use wire::SERVICE;

/// The one refund that this interface makes of a payment.
const REFUND_KEY: &str = "RefundPayment";

/// Whether a path names a method of the service, with its package or without.
pub fn is_method(path: &str) -> bool {
    path.starts_with("/payments.PaymentService/") || path.starts_with("/PaymentService/")
}

pub async fn answer(call: &Call) -> Reply {
    let app = match admitted(call).await {
        Ok(app) => app,
        Err(problem) => return rpc::refuse(call, &problem),
    };
    if call.path.ends_with("/RefundPayment") {
        rpc::answer(call, |request| refund(call, &app, request)).await
    } else {
        rpc::answer(call, |request| process(call, &app, request)).await
    }
}

/// The service, for somebody who may use it. Nothing of the body is read before.
async fn admitted(call: &Call) -> Result<Rc<App>, Problem> {
    if !(call.path.ends_with("/ProcessPayment") || call.path.ends_with("/RefundPayment")) {
        return Err(Problem::new(Kind::MethodNotAllowed, "Unknown method."));
    }
    if call.method != http::Method::POST {
        return Err(Problem::method_not_allowed("POST"));
    }
    let app = app::get().await.map_err(|error| error.problem(&WORLD, &call.context))?;
    let trusted = app.open_to_loopback && app.peer.is_loopback(call);
    if call.header("authorization").is_some() || !trusted {
        let claims = app.auth.authenticate(call).await?;
        require_operator(&claims)?;
    }
    Ok(app)
}

async fn process(
    call: &Call,
    app: &App,
    request: wire::PaymentRequest,
) -> Result<wire::PaymentResponse, Problem> {
    let order_id: UserId = request.order_id.parse().map_err(|_| bad_order_id())?;
    let amount = rpc::amount_of(request.amount, app.compat_currency)?;
    let charge = Charge { key: key_of(&order_id)?, order_id, amount, method: None };
    let processed = app.payments.process(&call.context, &charge).await;
    Ok(match processed.map_err(|error| problem_of(error, call))? {
        Processed::Captured(payment) => response(&payment, true, "Payment processed"),
        Processed::Declined(payment) => {
            let reason = payment.decline_reason.as_ref().map(ToString::to_string).unwrap_or_default();
            response(&payment, false, &format!("Payment declined: {reason}"))
        }
        Processed::Pending(payment) => response(&payment, false, "Payment pending; ask again"),
        Processed::Voided(payment) => response(&payment, false, "Payment was undone"),
        Processed::ExistsWithDifferentAmount(payment) => {
            response(&payment, false, "already paid with another amount")
        }
    })
}

/// `a payment exists`, of `order_id` over `amount` in major units.
pub async fn set_up(app: &App, call: &Call, change: &Change) -> Result<(), Problem> {
    if change.state != "a payment exists" {
        return Ok(());
    }
    let amount = change.params.get("amount").and_then(serde_json::Value::as_f64).unwrap_or(10.0);
    let order_id = change.text("order_id", "pact").to_owned();
    process(call, app, wire::PaymentRequest { order_id, amount, user_id: String::new() }).await.map(drop)
}

async fn refund(
    call: &Call,
    app: &App,
    request: wire::RefundRequest,
) -> Result<wire::PaymentResponse, Problem> {
    let id: PaymentId = request.payment_id.parse().map_err(|_| Problem::not_found())?;
    let reason = match request.reason.as_str() {
        "" => FailureReason::lossy("refund requested"),
        reason => reason.parse().map_err(|error| Problem::new(Kind::InvalidField, format!("{error}.")))?,
    };
    let refunded = app.payments.refund(&call.context, id, REFUND_KEY, None, reason).await;
    let refused = |message: &str| wire::PaymentResponse {
        payment_id: id.to_string(),
        success: false,
        status_message: message.to_owned(),
    };
    Ok(match refunded.map_err(|error| problem_of(error, call))? {
        Refunded::Done(payment) | Refunded::Exists(payment) => response(&payment, true, "Payment refunded"),
        Refunded::ExistsWithDifferentAmount | Refunded::ExceedsCaptured => {
            refused("Nothing is left to refund")
        }
        Refunded::NotCaptured => refused("Nothing was taken"),
        Refunded::NotFound => return Err(Problem::not_found()),
    })
}

fn bad_order_id() -> Problem {
    Problem::new(Kind::InvalidField, "order_id must be a text of 1 to 128 bytes.")
}

/// The key of an order's charge: that of our own order service, where the id is one of its orders.
fn key_of(order_id: &UserId) -> Result<OperationKey, Problem> {
    let text = order_id.as_str();
    let key = if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        format!("{text}/charge")
    } else {
        format!("{}/charge/hex", hex_of(text))
    };
    key.parse().map_err(|_| bad_order_id())
}

/// Ids of other alphabets, in one that a key may have; longer ones would not fit.
fn hex_of(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn response(payment: &Payment, success: bool, message: &str) -> wire::PaymentResponse {
    wire::PaymentResponse { payment_id: payment.id.to_string(), success, status_message: message.to_owned() }
}
