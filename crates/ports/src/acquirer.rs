//! `settle:acquirer/acquirer`: takes and returns money, by our keys. See `wit/acquirer`.

use settle_types::{FailureReason, Money, OperationKey, PaymentMethod};

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeOutcome {
    Approved,
    Declined(FailureReason),
    /// Not decided; ask `lookup`.
    Pending(String),
    /// The key was voided before.
    Voided,
    /// The key was used with another amount.
    DifferentAmount,
}

/// All that the acquirer knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    Pending(String),
    Declined(FailureReason),
    Taken { captured: Money, returned: Money },
    Voided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundOutcome {
    Refunded,
    ExceedsRemaining,
    NotCaptured,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquirerError {
    /// Nothing reached it.
    #[error("acquirer unreachable: {0}")]
    Unreachable(String),
    /// It may have happened; repeat with the same key, or look up.
    #[error("acquirer did not answer: {0}")]
    OutcomeUnknown(String),
}

/// See `wit/acquirer/acquirer.wit`.
#[allow(async_fn_in_trait)] // guests have one thread
pub trait Acquirer {
    async fn charge(
        &self,
        key: &OperationKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<ChargeOutcome, AcquirerError>;
    async fn lookup(&self, key: &OperationKey) -> Result<Standing, AcquirerError>;
    async fn refund(
        &self,
        key: &OperationKey,
        refund_key: &str,
        amount: Money,
    ) -> Result<RefundOutcome, AcquirerError>;
    async fn void(&self, key: &OperationKey) -> Result<Standing, AcquirerError>;
    /// Whether it keeps keys for good, answers `lookup`, and honours a `void` before its charge.
    fn remembers_keys(&self) -> bool;
}
