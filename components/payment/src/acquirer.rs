//! The acquirer port, by this component's import.

use settle_ports::{Acquirer, AcquirerError, ChargeOutcome, RefundOutcome, Standing};
use settle_types::{Currency, FailureReason, Money, OperationKey, PaymentMethod};

use crate::bindings::settle::acquirer::acquirer as wit;

pub struct HostAcquirer;

impl Acquirer for HostAcquirer {
    async fn charge(
        &self,
        key: &OperationKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<ChargeOutcome, AcquirerError> {
        let method = method.map(|method| method.to_string());
        let outcome = wit::charge(key.to_string(), money_to(amount), method).await.map_err(error_of)?;
        Ok(match outcome {
            wit::ChargeOutcome::Approved => ChargeOutcome::Approved,
            wit::ChargeOutcome::Declined(reason) => ChargeOutcome::Declined(FailureReason::lossy(&reason)),
            wit::ChargeOutcome::Pending(token) => ChargeOutcome::Pending(token),
            wit::ChargeOutcome::Voided => ChargeOutcome::Voided,
            wit::ChargeOutcome::DifferentAmount => ChargeOutcome::DifferentAmount,
        })
    }

    async fn lookup(&self, key: &OperationKey) -> Result<Standing, AcquirerError> {
        standing_of(wit::lookup(key.to_string()).await.map_err(error_of)?)
    }

    async fn refund(
        &self,
        key: &OperationKey,
        refund_key: &str,
        amount: Money,
    ) -> Result<RefundOutcome, AcquirerError> {
        let outcome = wit::refund(key.to_string(), refund_key.to_owned(), money_to(amount)).await;
        Ok(match outcome.map_err(error_of)? {
            wit::RefundOutcome::Refunded => RefundOutcome::Refunded,
            wit::RefundOutcome::ExceedsRemaining => RefundOutcome::ExceedsRemaining,
            wit::RefundOutcome::NotCaptured => RefundOutcome::NotCaptured,
        })
    }

    async fn void(&self, key: &OperationKey) -> Result<Standing, AcquirerError> {
        standing_of(wit::void(key.to_string()).await.map_err(error_of)?)
    }

    fn remembers_keys(&self) -> bool {
        wit::remembers_keys()
    }
}

fn money_to(money: Money) -> wit::Money {
    wit::Money { minor: money.minor(), currency: money.currency().code().to_owned() }
}

/// An answer in a currency that we do not know is no answer.
fn money_of(money: &wit::Money) -> Result<Money, AcquirerError> {
    let currency = Currency::parse(&money.currency);
    let currency = currency.map_err(|error| AcquirerError::OutcomeUnknown(error.to_string()))?;
    Ok(Money::new(money.minor, currency))
}

fn standing_of(standing: wit::Standing) -> Result<Standing, AcquirerError> {
    Ok(match standing {
        wit::Standing::Unknown => Standing::Unknown,
        wit::Standing::Pending(token) => Standing::Pending(token),
        wit::Standing::Declined(reason) => Standing::Declined(FailureReason::lossy(&reason)),
        wit::Standing::Taken(taken) => {
            Standing::Taken { captured: money_of(&taken.captured)?, returned: money_of(&taken.returned)? }
        }
        wit::Standing::Voided => Standing::Voided,
    })
}

fn error_of(error: wit::Error) -> AcquirerError {
    match error {
        wit::Error::Unreachable(reason) => AcquirerError::Unreachable(reason),
        wit::Error::OutcomeUnknown(reason) => AcquirerError::OutcomeUnknown(reason),
    }
}
