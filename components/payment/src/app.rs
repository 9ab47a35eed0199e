//! Wiring: settings and ports make the service, once an instance.

use std::rc::Rc;

use settle_payment_core::{Payments, SCHEMA};
use settle_ports::World;
use settle_service_kit::auth::Auth;
use settle_service_kit::http::PeerHeader;
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::{GuestWorld, SqlDatabase};
use settle_service_kit::settings;
use settle_service_kit::states::ProviderStates;
use settle_types::Currency;

#[cfg(not(feature = "p2"))]
use crate::acquirer::HostAcquirer;
/// There the acquirer is linked in: components of the lattice are not composed.
#[cfg(feature = "p2")]
use settle_acquirer_simulator::Simulator as HostAcquirer;

pub const WORLD: GuestWorld = GuestWorld { service: "payment" };

pub struct App {
    pub payments: Payments<GuestWorld, SqlDatabase, HostAcquirer>,
    pub auth: Auth,
    /// Of amounts that have none.
    pub compat_currency: Currency,
    pub peer: PeerHeader,
    /// The described system's clients on this machine send no token. In development only.
    pub open_to_loopback: bool,
    pub states: ProviderStates,
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
    let peer = PeerHeader::from_settings().await?;
    Ok(App {
        payments: Payments::new(WORLD, database, HostAcquirer),
        auth,
        compat_currency: settings::currency("compat_currency", "USD").await?,
        open_to_loopback: settings::flag("payment_open_to_loopback").await?,
        states: ProviderStates::from_settings(&peer).await?,
        peer,
    })
}
