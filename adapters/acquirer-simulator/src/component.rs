//! `settle:acquirer/acquirer`, exported.

use settle_ports::{Acquirer as _, AcquirerError, ChargeOutcome, RefundOutcome, Standing};
use settle_types::{Currency, Money, OperationKey, PaymentMethod};

use crate::Simulator;
use bindings::exports::settle::acquirer::acquirer as port;

#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    use super::Component;
    wasip3::wit_bindgen::generate!({
        inline: "package settle:acquirer-simulator;
                 world component { export settle:acquirer/acquirer@0.1.0; }",
        path: ["../../wit/acquirer"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
    export!(Component with_types_in self);
}

struct Component;

impl port::Guest for Component {
    fn remembers_keys() -> bool {
        Simulator.remembers_keys()
    }

    async fn charge(
        key: String,
        amount: port::Money,
        method: Option<String>,
    ) -> Result<port::ChargeOutcome, port::Error> {
        let method = method.map(|text| text.parse::<PaymentMethod>().map_err(|error| refused(&error)));
        let method = method.transpose()?;
        let charged = Simulator.charge(&key_of(&key)?, money_of(&amount)?, method.as_ref()).await;
        Ok(match charged.map_err(error_to)? {
            ChargeOutcome::Approved => port::ChargeOutcome::Approved,
            ChargeOutcome::Declined(reason) => port::ChargeOutcome::Declined(reason.to_string()),
            ChargeOutcome::Pending(token) => port::ChargeOutcome::Pending(token),
            ChargeOutcome::Voided => port::ChargeOutcome::Voided,
            ChargeOutcome::DifferentAmount => port::ChargeOutcome::DifferentAmount,
        })
    }

    async fn lookup(key: String) -> Result<port::Standing, port::Error> {
        Simulator.lookup(&key_of(&key)?).await.map(standing_to).map_err(error_to)
    }

    async fn refund(
        key: String,
        refund_key: String,
        amount: port::Money,
    ) -> Result<port::RefundOutcome, port::Error> {
        let refunded = Simulator.refund(&key_of(&key)?, &refund_key, money_of(&amount)?).await;
        Ok(match refunded.map_err(error_to)? {
            RefundOutcome::Refunded => port::RefundOutcome::Refunded,
            RefundOutcome::ExceedsRemaining => port::RefundOutcome::ExceedsRemaining,
            RefundOutcome::NotCaptured => port::RefundOutcome::NotCaptured,
        })
    }

    async fn void(key: String) -> Result<port::Standing, port::Error> {
        Simulator.void(&key_of(&key)?).await.map(standing_to).map_err(error_to)
    }
}

/// Nothing of ours sends what does not parse: nothing happened.
fn refused(error: &dyn std::fmt::Display) -> port::Error {
    port::Error::Unreachable(error.to_string())
}

fn key_of(text: &str) -> Result<OperationKey, port::Error> {
    text.parse().map_err(|error| refused(&error))
}

fn money_of(money: &port::Money) -> Result<Money, port::Error> {
    let currency = Currency::parse(&money.currency).map_err(|error| refused(&error))?;
    Ok(Money::new(money.minor, currency))
}

fn money_to(money: Money) -> port::Money {
    port::Money { minor: money.minor(), currency: money.currency().code().to_owned() }
}

fn standing_to(standing: Standing) -> port::Standing {
    match standing {
        Standing::Unknown => port::Standing::Unknown,
        Standing::Pending(token) => port::Standing::Pending(token),
        Standing::Declined(reason) => port::Standing::Declined(reason.to_string()),
        Standing::Taken { captured, returned } => {
            port::Standing::Taken(port::Taken { captured: money_to(captured), returned: money_to(returned) })
        }
        Standing::Voided => port::Standing::Voided,
    }
}

fn error_to(error: AcquirerError) -> port::Error {
    match error {
        AcquirerError::Unreachable(reason) => port::Error::Unreachable(reason),
        AcquirerError::OutcomeUnknown(reason) => port::Error::OutcomeUnknown(reason),
    }
}
