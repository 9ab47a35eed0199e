//! The payment service as the saga sees it.

use settle_ports::CallContext;
use settle_types::{FailureReason, Money, OperationKey, OrderId, PaymentId, PaymentMethod};

/// What a charge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charged {
    Approved(PaymentId),
    Declined(Option<PaymentId>, FailureReason),
    /// The acquirer has not decided; look up later.
    Pending,
    /// The key was undone before; nothing is taken.
    Voided,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paid {
    /// The service has an answer of its own.
    Known(Charged),
    /// Neither payment nor the acquirer knows the key, or the outcome is still open.
    NotYet,
}

/// All that was taken under the key has been returned, and nothing will be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    pub payment_id: Option<PaymentId>,
}

/// No answer to rely on. All mean "ask again with the same key".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentsError {
    /// The service is alive and could not do it: its acquirer, say, did not answer for this key.
    #[error("payment could not do it: {0}")]
    Refused(String),
    /// The call did not reach the payment service.
    #[error("payment is unreachable: {0}")]
    Unreachable(String),
    /// It may have happened.
    #[error("payment did not answer: {0}")]
    OutcomeUnknown(String),
}

impl PaymentsError {
    /// Whether the service answered at all. One key that fails again and again says nothing of the
    /// service: it must not open the breaker for all the others.
    pub fn is_answer(&self) -> bool {
        match self {
            PaymentsError::Refused(_) => true,
            PaymentsError::Unreachable(_) | PaymentsError::OutcomeUnknown(_) => false,
        }
    }
}

/// The three calls of the saga. Every one may be repeated with the same key.
#[allow(async_fn_in_trait)] // guests have one thread
pub trait Payments {
    async fn process(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<Charged, PaymentsError>;

    async fn look_up(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
    ) -> Result<Paid, PaymentsError>;

    /// `amount` describes a tombstone; how much is returned is what the acquirer took.
    async fn undo(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
        amount: Money,
        reason: &FailureReason,
    ) -> Result<Undone, PaymentsError>;
}
