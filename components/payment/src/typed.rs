//! The same service as typed WIT: tests and composed deployments call it without HTTP.

use std::time::Duration;

use settle_payment_core::{Charge, Payment, PaymentError, Processed, Refunded, Status};
use settle_ports::{CallContext, World};
use settle_service_kit::context::REQUEST_DEADLINE;
use settle_types::{Currency, FailureReason, Money, OperationKey, PaymentId, UserId};

use crate::Component;
use crate::app::{self, WORLD};
use crate::bindings::exports::settle::payment::payments as port;
use crate::bindings::exports::settle::recovery::recovery;

/// Time that one round of recovery has.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);
/// Most payments claimed in one round.
const RESUME_MAX: u32 = 64;

fn context(limit: Duration) -> CallContext {
    let deadline = WORLD.now().plus(limit);
    CallContext { correlation_id: "typed-call".to_owned(), traceparent: String::new(), deadline }
}

impl port::Guest for Component {
    async fn process(charge: port::Charge) -> Result<port::ProcessOutcome, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        let charge = charge_of(charge)?;
        let processed = app.payments.process(&context(REQUEST_DEADLINE), &charge).await.map_err(error_of)?;
        Ok(match processed {
            Processed::Captured(payment) => port::ProcessOutcome::Captured(payment_to(&payment)),
            Processed::Declined(payment) => port::ProcessOutcome::Declined(payment_to(&payment)),
            Processed::Pending(payment) => port::ProcessOutcome::Pending(payment_to(&payment)),
            Processed::Voided(payment) => port::ProcessOutcome::Voided(payment_to(&payment)),
            Processed::ExistsWithDifferentAmount(payment) => {
                port::ProcessOutcome::ExistsWithDifferentAmount(payment_to(&payment))
            }
        })
    }

    async fn look_up(key: String, order_id: String) -> Result<Option<port::Payment>, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        let (key, order_id) = (key_of(&key)?, order_of(&order_id)?);
        let found = app.payments.look_up(&context(REQUEST_DEADLINE), &key, &order_id).await;
        Ok(found.map_err(error_of)?.as_ref().map(payment_to))
    }

    async fn undo(
        key: String,
        order_id: String,
        amount: port::Money,
        reason: String,
    ) -> Result<port::Payment, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        let (key, order_id, amount) = (key_of(&key)?, order_of(&order_id)?, money_of(&amount)?);
        let reason = FailureReason::lossy(&reason);
        let undone = app.payments.undo(&context(REQUEST_DEADLINE), &key, &order_id, &reason, amount).await;
        Ok(payment_to(&undone.map_err(error_of)?))
    }

    async fn refund(
        payment_id: String,
        refund_key: String,
        amount: Option<i64>,
        reason: String,
    ) -> Result<port::RefundOutcome, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        let id: PaymentId = payment_id.parse().map_err(|error| invalid(&error))?;
        let reason = FailureReason::lossy(&reason);
        let refunded = app.payments.refund(&context(REQUEST_DEADLINE), id, &refund_key, amount, reason).await;
        Ok(match refunded.map_err(error_of)? {
            Refunded::Done(payment) => port::RefundOutcome::Refunded(payment_to(&payment)),
            Refunded::Exists(payment) => port::RefundOutcome::Exists(payment_to(&payment)),
            Refunded::ExistsWithDifferentAmount => port::RefundOutcome::ExistsWithDifferentAmount,
            Refunded::ExceedsCaptured => port::RefundOutcome::ExceedsCaptured,
            Refunded::NotCaptured => port::RefundOutcome::NotCaptured,
            Refunded::NotFound => port::RefundOutcome::NotFound,
        })
    }
}

impl recovery::Guest for Component {
    async fn resume_due(limit: u32) -> Result<recovery::Report, recovery::Error> {
        let unavailable = |error: &dyn std::fmt::Display| recovery::Error::Unavailable(error.to_string());
        let app = app::get().await.map_err(|error| unavailable(&error))?;
        let limit = limit.clamp(1, RESUME_MAX);
        let report = app.payments.resume_due(&context(RECOVERY_DEADLINE), limit).await;
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

fn key_of(text: &str) -> Result<OperationKey, port::Error> {
    text.parse().map_err(|error| invalid(&error))
}

fn order_of(text: &str) -> Result<UserId, port::Error> {
    text.parse().map_err(|error| invalid(&error))
}

fn money_of(money: &port::Money) -> Result<Money, port::Error> {
    let currency = Currency::parse(&money.currency).map_err(|error| invalid(&error))?;
    Ok(Money::new(money.minor, currency))
}

fn charge_of(charge: port::Charge) -> Result<Charge, port::Error> {
    let amount = money_of(&charge.amount)?;
    let amount = Money::positive(amount.minor(), amount.currency()).map_err(|error| invalid(&error))?;
    let method = charge.method.map(|method| method.parse().map_err(|error| invalid(&error))).transpose()?;
    Ok(Charge { key: key_of(&charge.key)?, order_id: order_of(&charge.order_id)?, amount, method })
}

fn payment_to(payment: &Payment) -> port::Payment {
    let status = match payment.status {
        Status::Authorizing => port::Status::Authorizing,
        Status::Unknown => port::Status::Unknown,
        Status::Captured => port::Status::Captured,
        Status::Declined => port::Status::Declined,
        Status::Voided => port::Status::Voided,
        Status::PartiallyRefunded => port::Status::PartiallyRefunded,
        Status::Refunded => port::Status::Refunded,
    };
    port::Payment {
        id: payment.id.to_string(),
        key: payment.key.to_string(),
        order_id: payment.order_id.to_string(),
        status,
        amount: port::Money {
            minor: payment.amount.minor(),
            currency: payment.amount.currency().code().to_owned(),
        },
        captured: payment.captured,
        refunded: payment.refunded,
        decline_reason: payment.decline_reason.as_ref().map(ToString::to_string),
    }
}

fn error_of(error: PaymentError) -> port::Error {
    match error {
        PaymentError::Unavailable(reason) => port::Error::Unavailable(reason),
        PaymentError::AmountMismatch => port::Error::Invalid(error.to_string()),
        PaymentError::OutcomeUnknown(reason) | PaymentError::Internal(reason) => {
            port::Error::OutcomeUnknown(reason)
        }
    }
}
