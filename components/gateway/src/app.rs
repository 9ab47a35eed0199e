//! Wiring: settings make the gateway, once an instance.

use std::rc::Rc;

use settle_gateway_core::{Cors, Upstream};
use settle_ports::Rate;
use settle_service_kit::auth::Auth;
use settle_service_kit::http::PeerHeader;
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::GuestWorld;
use settle_service_kit::settings::{self, SettingError};

pub const WORLD: GuestWorld = GuestWorld { service: "gateway" };

/// Requests a minute of one client address, and of one user, when nobody sets another number.
const CLIENT_PER_MINUTE: u32 = 60_000;
const USER_PER_MINUTE: u32 = 30_000;
/// A full bucket holds this part of a minute's requests: two seconds.
const BURST_PART: u32 = 30;
const BURST_MIN: u32 = 10;

pub struct App {
    pub auth: Auth,
    pub cors: Cors,
    pub peer: PeerHeader,
    pub client_rate: Option<Rate>,
    pub user_rate: Option<Rate>,
    origins: [String; 3],
}

impl App {
    /// `http://authority` of a service.
    pub fn origin(&self, upstream: Upstream) -> &str {
        let [identity, order, payment] = &self.origins;
        match upstream {
            Upstream::Identity => identity,
            Upstream::Order => order,
            Upstream::Payment => payment,
        }
    }
}

thread_local! {
    static APP: Slot<App> = const { Slot::new(None) };
}

pub async fn get() -> Result<Rc<App>, StartError> {
    instance::get(&APP, make()).await
}

async fn make() -> Result<App, StartError> {
    let origins = settings::or_default("cors_origins", "").await?;
    let cors = Cors::parse(&origins, settings::flag("cors_credentials").await?)
        .map_err(|error| SettingError::Wrong("cors_origins", error.to_string()))?;
    Ok(App {
        auth: Auth::from_settings(WORLD, "gateway").await?,
        cors,
        peer: PeerHeader::from_settings().await?,
        client_rate: rate("client_requests_per_minute", CLIENT_PER_MINUTE).await?,
        user_rate: rate("user_requests_per_minute", USER_PER_MINUTE).await?,
        origins: [
            settings::or_default("identity_url", "http://identity.internal").await?,
            settings::or_default("order_url", "http://order.internal").await?,
            settings::or_default("payment_url", "http://payment.internal").await?,
        ],
    })
}

/// `None`: not limited, which `0` says.
async fn rate(name: &'static str, default: u32) -> Result<Option<Rate>, SettingError> {
    let per_minute = match settings::optional(name).await? {
        None => default,
        Some(text) => {
            text.parse().map_err(|_| SettingError::Wrong(name, "not a number of requests".to_owned()))?
        }
    };
    let capacity = per_minute.checked_div(BURST_PART).unwrap_or(0).max(BURST_MIN);
    Ok((per_minute > 0).then_some(Rate { capacity, refill_per_minute: per_minute }))
}
