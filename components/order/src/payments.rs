//! The payment service: by Connect in process where the host has it, by gRPC over a socket otherwise.

use settle_order_core::{Charged, Paid, Payments, PaymentsError, Undone};
use settle_ports::CallContext;
use settle_proto::payment_v1 as wire;
use settle_service_kit::auth::ServiceToken;
use settle_service_kit::ports::GuestWorld;
use settle_service_kit::rpc::{self, CallError, Remote};
use settle_types::{FailureReason, Money, OperationKey, OrderId, PaymentId, PaymentMethod};

pub struct RemotePayments {
    pub world: GuestWorld,
    /// `http://authority` of the payment service.
    pub origin: String,
    pub token: ServiceToken,
}

impl RemotePayments {
    async fn call<A: prost::Message + Default>(
        &self,
        context: &CallContext,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<A, PaymentsError> {
        let token = self.token.get(context, &self.world).await.map_err(PaymentsError::Unreachable)?;
        let path = format!("/{}/{method}", wire::SERVICE);
        let remote = Remote { origin: &self.origin, path: &path, token: &token };
        let answer = rpc::call(remote, request, context, &self.world).await;
        answer.map_err(|error| match error {
            CallError::NotSent(reason) => PaymentsError::Unreachable(reason),
            CallError::OutcomeUnknown(reason) => PaymentsError::OutcomeUnknown(reason),
            CallError::Refused { .. } => PaymentsError::Refused(error.to_string()),
        })
    }
}

impl Payments for RemotePayments {
    async fn process(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<Charged, PaymentsError> {
        let request = wire::ProcessRequest {
            key: key.to_string(),
            order_id: order.to_string(),
            amount: Some(money_to(amount)),
            method: method.map(ToString::to_string).unwrap_or_default(),
        };
        let answer: wire::ProcessResponse = self.call(context, "Process", &request).await?;
        let payment = answer.payment.as_ref();
        // Fail closed: only a complete, known answer counts.
        match wire::ProcessOutcome::try_from(answer.outcome) {
            Ok(wire::ProcessOutcome::Captured) => approved(payment, Some(amount)),
            Ok(wire::ProcessOutcome::Declined) => Ok(declined(payment)),
            Ok(wire::ProcessOutcome::Pending) => Ok(Charged::Pending),
            Ok(wire::ProcessOutcome::Voided) => Ok(Charged::Voided),
            Ok(wire::ProcessOutcome::ExistsWithDifferentAmount | wire::ProcessOutcome::Unspecified)
            | Err(_) => Err(unusable("outcome")),
        }
    }

    async fn look_up(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
    ) -> Result<Paid, PaymentsError> {
        let request = wire::LookUpRequest { key: key.to_string(), order_id: order.to_string() };
        let answer: wire::LookUpResponse = self.call(context, "LookUp", &request).await?;
        let Some(payment) = answer.payment.as_ref() else { return Ok(Paid::NotYet) };
        if payment.undone {
            return Ok(Paid::Known(Charged::Voided));
        }
        match wire::PaymentStatus::try_from(payment.status) {
            Ok(
                wire::PaymentStatus::Captured
                | wire::PaymentStatus::PartiallyRefunded
                | wire::PaymentStatus::Refunded,
            ) => approved(Some(payment), None).map(Paid::Known),
            Ok(wire::PaymentStatus::Declined) => Ok(Paid::Known(declined(Some(payment)))),
            Ok(wire::PaymentStatus::Voided) => Ok(Paid::Known(Charged::Voided)),
            Ok(wire::PaymentStatus::Authorizing) => Ok(Paid::Known(Charged::Pending)),
            Ok(wire::PaymentStatus::Unknown) => Ok(Paid::NotYet),
            Ok(wire::PaymentStatus::Unspecified) | Err(_) => Err(unusable("status")),
        }
    }

    async fn undo(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
        amount: Money,
        reason: &FailureReason,
    ) -> Result<Undone, PaymentsError> {
        let request = wire::UndoRequest {
            key: key.to_string(),
            order_id: order.to_string(),
            amount: Some(money_to(amount)),
            reason: reason.to_string(),
        };
        let answer: wire::UndoResponse = self.call(context, "Undo", &request).await?;
        let payment = answer.payment.as_ref().ok_or_else(|| unusable("undo"))?;
        let declined = wire::PaymentStatus::try_from(payment.status) == Ok(wire::PaymentStatus::Declined);
        if payment.captured != payment.refunded || !(payment.undone || declined) {
            return Err(unusable("undo"));
        }
        Ok(Undone { payment_id: payment.id.parse().ok() })
    }
}

fn money_to(money: Money) -> wire::Money {
    wire::Money { minor: money.minor(), currency: money.currency().code().to_owned() }
}

/// An approval counts only with a payment id, and with the amount that was asked for.
fn approved(payment: Option<&wire::Payment>, asked: Option<Money>) -> Result<Charged, PaymentsError> {
    let payment = payment.ok_or_else(|| unusable("approval"))?;
    let id: PaymentId = payment.id.parse().map_err(|_| unusable("payment id"))?;
    if asked.is_some_and(|asked| payment.captured != asked.minor()) {
        return Err(unusable("amount"));
    }
    Ok(Charged::Approved(id))
}

fn declined(payment: Option<&wire::Payment>) -> Charged {
    let reason = payment.map(|payment| payment.decline_reason.as_str()).filter(|reason| !reason.is_empty());
    let id = payment.and_then(|payment| payment.id.parse().ok());
    Charged::Declined(id, FailureReason::lossy(reason.unwrap_or("declined")))
}

fn unusable(what: &str) -> PaymentsError {
    PaymentsError::OutcomeUnknown(format!("payment's answer has no usable {what}"))
}
