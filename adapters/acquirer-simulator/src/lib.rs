//! A test acquirer with a ledger of its own.
//!
//! It keeps every key for good, answers `lookup`, and honours a `void` that arrives before its
//! charge: the three promises of `wit/acquirer`. Its ledger is a database of its own, as a PSP's
//! would be, so what it took survives any crash of ours. It is written `relaxed`: it outlives our
//! processes, and a fsync of the "other company" has no place in the latency of an order.
//!
//! Faults are chosen by the payment method: see `fault.rs`.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod fault;
mod ledger;

use settle_ports::World;
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::{GuestWorld, SqlDatabase};
use settle_service_kit::settings;

use bindings::exports::settle::acquirer::acquirer as port;
use ledger::{Ledger, SCHEMA};

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

async fn get() -> Result<std::rc::Rc<Ledger>, port::Error> {
    instance::get(&LEDGER, make()).await.map_err(|error| port::Error::Unreachable(error.to_string()))
}

impl port::Guest for Component {
    fn remembers_keys() -> bool {
        true
    }

    async fn charge(
        key: String,
        amount: port::Money,
        method: Option<String>,
    ) -> Result<port::ChargeOutcome, port::Error> {
        let ledger = get().await?;
        ledger.charge(&key, &amount, method.as_deref().unwrap_or_default()).await
    }

    async fn lookup(key: String) -> Result<port::Standing, port::Error> {
        get().await?.lookup(&key).await
    }

    async fn refund(
        key: String,
        refund_key: String,
        amount: port::Money,
    ) -> Result<port::RefundOutcome, port::Error> {
        get().await?.refund(&key, &refund_key, &amount).await
    }

    async fn void(key: String) -> Result<port::Standing, port::Error> {
        get().await?.void(&key).await
    }
}
