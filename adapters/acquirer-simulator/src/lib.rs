//! A test acquirer with a ledger of its own.
//!
//! It keeps every key for good, answers `lookup`, and honours a `void` that arrives before its
//! charge: the three promises of `wit/acquirer`. Its ledger is a database of its own, as a PSP's
//! would be, so what it took survives any crash of ours. It is written `relaxed`: it outlives our
//! processes, and a fsync of the "other company" has no place in the latency of an order.
//!
//! Faults are chosen by the payment method: see `fault.rs`.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

#[cfg(not(feature = "p2"))]
mod component;
mod fault;
mod ledger;

use std::rc::Rc;

use settle_ports::{Acquirer, AcquirerError, ChargeOutcome, RefundOutcome, Standing, World};
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::{GuestWorld, SqlDatabase};
use settle_service_kit::settings;
use settle_types::{Money, OperationKey, PaymentMethod};

use ledger::{Ledger, SCHEMA};

const WORLD: GuestWorld = GuestWorld { service: "acquirer-simulator" };

thread_local! {
    static LEDGER: Slot<Ledger> = const { Slot::new(None) };
}

async fn make() -> Result<Ledger, StartError> {
    let database = SqlDatabase::open("acquirer").await?;
    SCHEMA.migrate(&database, WORLD.now()).await?;
    let limits = settings::or_default("acquirer_limits", "default=1000").await?;
    Ok(Ledger { database, limits: ledger::parse_limits(&limits).map_err(StartError::Other)? })
}

async fn ledger() -> Result<Rc<Ledger>, AcquirerError> {
    let made = instance::get(&LEDGER, make()).await;
    made.map_err(|error| AcquirerError::Unreachable(error.to_string()))
}

/// The acquirer.
#[derive(Clone, Copy, Debug)]
pub struct Simulator;

impl Acquirer for Simulator {
    async fn charge(
        &self,
        key: &OperationKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<ChargeOutcome, AcquirerError> {
        let method = method.map(ToString::to_string).unwrap_or_default();
        ledger().await?.charge(&key.to_string(), amount, &method).await
    }

    async fn lookup(&self, key: &OperationKey) -> Result<Standing, AcquirerError> {
        ledger().await?.lookup(&key.to_string()).await
    }

    async fn refund(
        &self,
        key: &OperationKey,
        refund_key: &str,
        amount: Money,
    ) -> Result<RefundOutcome, AcquirerError> {
        ledger().await?.refund(&key.to_string(), refund_key, amount).await
    }

    async fn void(&self, key: &OperationKey) -> Result<Standing, AcquirerError> {
        ledger().await?.void(&key.to_string()).await
    }

    fn remembers_keys(&self) -> bool {
        true
    }
}
