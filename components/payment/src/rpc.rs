//! `settle.payment.v1.PaymentService` over gRPC and Connect.

use settle_payment_core::{Charge, Payment, Processed, Status};
use settle_proto::payment_v1 as wire;
use settle_service_kit::auth::require_operator;
use settle_service_kit::http::{Call, Reply};
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::rpc::Protocol;
use settle_types::{Currency, FailureReason, Money, OperationKey, UserId};

use crate::app::{self, App, WORLD};
use crate::problems::problem_of;

pub async fn answer(protocol: Protocol, call: &Call) -> Reply {
    let refused = |problem| protocol.reply(Err::<wire::Money, _>(problem));
    let app = match app::get().await {
        Ok(app) => app,
        Err(error) => return refused(error.problem(&WORLD, &call.context)),
    };
    let allowed = app.auth.authenticate(call).await.and_then(|claims| require_operator(&claims));
    if let Err(problem) = allowed {
        return refused(problem);
    }
    let method = call.path.strip_prefix('/').and_then(|path| path.strip_prefix(wire::SERVICE));
    match method {
        Some("/Process") => protocol.reply(process(&app, protocol, call).await),
        Some("/LookUp") => protocol.reply(look_up(&app, protocol, call).await),
        Some("/Undo") => protocol.reply(undo(&app, protocol, call).await),
        _ => refused(Problem::new(Kind::MethodNotAllowed, "Unknown method.")),
    }
}

async fn process(app: &App, protocol: Protocol, call: &Call) -> Result<wire::ProcessResponse, Problem> {
    let request: wire::ProcessRequest = protocol.request(call)?;
    let method = match request.method.as_str() {
        "" => None,
        method => Some(method.parse().map_err(|error| invalid(&error))?),
    };
    let amount = amount_of(request.amount.as_ref())?;
    let amount = Money::positive(amount.minor(), amount.currency()).map_err(|error| invalid(&error))?;
    let charge =
        Charge { key: key_of(&request.key)?, order_id: order_of(&request.order_id)?, amount, method };
    let processed = app.payments.process(&call.context, &charge).await;
    let (outcome, payment) = match processed.map_err(|error| problem_of(error, call))? {
        Processed::Captured(payment) => (wire::ProcessOutcome::Captured, payment),
        Processed::Declined(payment) => (wire::ProcessOutcome::Declined, payment),
        Processed::Pending(payment) => (wire::ProcessOutcome::Pending, payment),
        Processed::Voided(payment) => (wire::ProcessOutcome::Voided, payment),
        Processed::ExistsWithDifferentAmount(payment) => {
            (wire::ProcessOutcome::ExistsWithDifferentAmount, payment)
        }
    };
    Ok(wire::ProcessResponse { outcome: outcome.into(), payment: Some(payment_to(&payment)) })
}

async fn look_up(app: &App, protocol: Protocol, call: &Call) -> Result<wire::LookUpResponse, Problem> {
    let request: wire::LookUpRequest = protocol.request(call)?;
    let (key, order_id) = (key_of(&request.key)?, order_of(&request.order_id)?);
    let found = app.payments.look_up(&call.context, &key, &order_id).await;
    let found = found.map_err(|error| problem_of(error, call))?;
    Ok(wire::LookUpResponse { payment: found.as_ref().map(payment_to) })
}

async fn undo(app: &App, protocol: Protocol, call: &Call) -> Result<wire::UndoResponse, Problem> {
    let request: wire::UndoRequest = protocol.request(call)?;
    let (key, order_id) = (key_of(&request.key)?, order_of(&request.order_id)?);
    let amount = amount_of(request.amount.as_ref())?;
    let reason = FailureReason::lossy(&request.reason);
    let undone = app.payments.undo(&call.context, &key, &order_id, &reason, amount).await;
    let undone = undone.map_err(|error| problem_of(error, call))?;
    Ok(wire::UndoResponse { payment: Some(payment_to(&undone)) })
}

fn invalid(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidField, format!("{error}."))
}

fn key_of(text: &str) -> Result<OperationKey, Problem> {
    text.parse().map_err(|error| invalid(&error))
}

fn order_of(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|error| invalid(&error))
}

fn amount_of(amount: Option<&wire::Money>) -> Result<Money, Problem> {
    let amount = amount.ok_or_else(|| Problem::new(Kind::InvalidField, "amount is missing."))?;
    let currency = Currency::parse(&amount.currency).map_err(|error| invalid(&error))?;
    Ok(Money::new(amount.minor, currency))
}

fn payment_to(payment: &Payment) -> wire::Payment {
    let status = match payment.status {
        Status::Authorizing => wire::PaymentStatus::Authorizing,
        Status::Unknown => wire::PaymentStatus::Unknown,
        Status::Captured => wire::PaymentStatus::Captured,
        Status::Declined => wire::PaymentStatus::Declined,
        Status::Voided => wire::PaymentStatus::Voided,
        Status::PartiallyRefunded => wire::PaymentStatus::PartiallyRefunded,
        Status::Refunded => wire::PaymentStatus::Refunded,
    };
    let currency = payment.amount.currency().code().to_owned();
    wire::Payment {
        id: payment.id.to_string(),
        key: payment.key.to_string(),
        order_id: payment.order_id.to_string(),
        status: status.into(),
        amount: Some(wire::Money { minor: payment.amount.minor(), currency }),
        captured: payment.captured,
        refunded: payment.refunded,
        decline_reason: payment.decline_reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        undone: payment.undone,
    }
}
