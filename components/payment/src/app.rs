//! Wiring: settings and ports make the service, once an instance.

use std::rc::Rc;

use settle_payment_core::{Payments, SCHEMA};
use settle_ports::World;
use settle_service_kit::auth::Auth;
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::{GuestWorld, SqlDatabase};

#[cfg(not(feature = "p2"))]
use crate::acquirer::HostAcquirer;
/// There the acquirer is linked in: components of the lattice are not composed.
#[cfg(feature = "p2")]
use settle_acquirer_simulator::Simulator as HostAcquirer;

pub const WORLD: GuestWorld = GuestWorld { service: "payment" };

pub struct App {
    pub payments: Payments<GuestWorld, SqlDatabase, HostAcquirer>,
    pub auth: Auth,
}

thread_local! {
    static APP: Slot<App> = const { Slot::new(None) };
}

pub async fn get() -> Result<Rc<App>, StartError> {
    instance::get(&APP, make()).await
}

async fn make() -> Result<App, StartError> {
    let auth = Auth::from_settings(WORLD, "payment").await?;
    let database = SqlDatabase::open("payment").await?;
    SCHEMA.migrate(&database, WORLD.now()).await?;
    Ok(App { payments: Payments::new(WORLD, database, HostAcquirer), auth })
}
