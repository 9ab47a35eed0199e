//! Wiring: settings and ports make the service, once an instance.

use std::rc::Rc;
use std::time::Duration;

use settle_order_core::{Orders, SCHEMA, Settings};
use settle_ports::World;
use settle_service_kit::auth::{Auth, ServiceToken};
use settle_service_kit::http::PeerHeader;
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::{GuestWorld, HostLimiter, SqlDatabase};
use settle_service_kit::settings;
use settle_service_kit::states::ProviderStates;
use settle_types::Currency;

use crate::payments::RemotePayments;

pub const WORLD: GuestWorld = GuestWorld { service: "order" };

/// An order's own deadline: after it, money is never taken.
const ORDER_DEADLINE: Duration = Duration::from_secs(60);
/// How long a completed order may be cancelled.
const CANCEL_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

pub struct App {
    pub orders: Orders<GuestWorld, SqlDatabase, RemotePayments, HostLimiter>,
    pub auth: Auth,
    pub states: ProviderStates,
    /// Of amounts that have none.
    pub compat_currency: Currency,
    /// Resume due sagas with the traffic: for hosts that call recovery on no timer.
    pub recovery_by_traffic: bool,
}

thread_local! {
    static APP: Slot<App> = const { Slot::new(None) };
}

pub async fn get() -> Result<Rc<App>, StartError> {
    instance::get(&APP, make()).await
}

async fn make() -> Result<App, StartError> {
    let auth = Auth::from_settings(WORLD, "order").await?;
    let identity_url = settings::or_default("identity_url", "http://identity.internal").await?;
    let payments = RemotePayments {
        world: WORLD,
        origin: settings::or_default("payment_url", "http://payment.internal").await?,
        token: ServiceToken::new(
            identity_url,
            "order",
            settings::required("order_client_secret").await?,
            "payment",
        ),
    };
    let settings = Settings {
        owner: owner().await?,
        exclusive: settings::flag("database_exclusive").await?,
        order_deadline: settings::seconds("order_deadline_seconds", ORDER_DEADLINE).await?,
        cancel_window: settings::seconds("cancel_window_seconds", CANCEL_WINDOW).await?,
        fail_product: settings::optional("simulate_fail_product").await?,
        slow_product: settings::optional("simulate_slow_product").await?,
    };
    let database = SqlDatabase::open("order").await?;
    SCHEMA.migrate(&database, WORLD.now()).await?;
    Ok(App {
        orders: Orders::new(WORLD, database, payments, HostLimiter, settings),
        auth,
        states: ProviderStates::from_settings(&PeerHeader::from_settings().await?).await?,
        compat_currency: settings::currency("compat_currency", "USD").await?,
        recovery_by_traffic: settings::flag("recovery_by_traffic").await?,
    })
}

/// The name in leases: the host's run where it tells one, else this instance.
async fn owner() -> Result<String, StartError> {
    Ok(match settings::optional("host_run_id").await? {
        Some(run) => run,
        None => format!("{:016x}", WORLD.random().0),
    })
}
