//! Wiring: settings and ports make the service, once an instance.

use std::rc::Rc;

use settle_identity_core::{Client, Identity, Password, SCHEMA, Settings, Username};
use settle_ports::World;
use settle_service_kit::http::PeerHeader;
use settle_service_kit::instance::{self, Slot, StartError};
use settle_service_kit::ports::{GuestWorld, HostLimiter, SqlDatabase};
use settle_service_kit::settings::{self, SettingError};
use settle_service_kit::states::ProviderStates;
use settle_token::{Role, Signer, Verifier};

pub const WORLD: GuestWorld = GuestWorld { service: "identity" };

pub struct App {
    pub identity: Identity<GuestWorld, SqlDatabase, HostLimiter>,
    pub peer: PeerHeader,
    pub states: ProviderStates,
}

thread_local! {
    static APP: Slot<App> = const { Slot::new(None) };
}

pub async fn get() -> Result<Rc<App>, StartError> {
    instance::get(&APP, make()).await
}

async fn make() -> Result<App, StartError> {
    let issuer = settings::or_default("token_issuer", "settle-identity").await?;
    let audience = settings::or_default("token_audience", "settle").await?;
    let clients = match settings::optional("order_client_secret").await? {
        Some(secret) => vec![Client { id: "order".to_owned(), secret }],
        None => Vec::new(),
    };
    let service_audiences = vec!["order".to_owned(), "payment".to_owned()];
    let (signer, verifier) = keys(&issuer, &audience).await?;
    let settings = Settings { signer, verifier, issuer, audience, clients, service_audiences };
    let database = SqlDatabase::open("identity").await?;
    SCHEMA.migrate(&database, WORLD.now()).await?;
    let identity = Identity { world: WORLD, database, limiter: HostLimiter, settings };
    let peer = PeerHeader::from_settings().await?;
    let app = App { identity, states: ProviderStates::from_settings(&peer).await?, peer };
    seed_admin(&app).await?;
    Ok(app)
}

/// What signs tokens, and what verifies our own.
async fn keys(issuer: &str, audience: &str) -> Result<(Signer, Verifier), SettingError> {
    let wrong = |name| move |error: settle_token::KeyError| SettingError::Wrong(name, error.to_string());
    match settings::or_default("token_algorithm", "EdDSA").await?.as_str() {
        "EdDSA" => {
            let name = "token_signing_key";
            let mut signer = Signer::ed25519(&settings::required(name).await?).map_err(wrong(name))?;
            if let Some(seed) = settings::optional("token_previous_key").await? {
                signer = signer.with_previous(&seed).map_err(wrong("token_previous_key"))?;
            }
            let verifier = Verifier::ed25519(signer.jwks(), issuer, &[audience]).map_err(wrong(name))?;
            Ok((signer, verifier))
        }
        "HS256" => {
            let name = "token_secret";
            let secret = settings::required(name).await?;
            let signer = Signer::hs256(&secret).map_err(wrong(name))?;
            Ok((signer, Verifier::hs256(&secret, issuer, &[audience]).map_err(wrong(name))?))
        }
        _ => Err(SettingError::Wrong("token_algorithm", "neither EdDSA nor HS256".to_owned())),
    }
}

/// Makes the first administrator, when the deployment names a password for one.
async fn seed_admin(app: &App) -> Result<(), StartError> {
    let Some(password) = settings::optional("seed_admin_password").await? else { return Ok(()) };
    let other = |error: &dyn std::fmt::Display| StartError::Other(error.to_string());
    let username = Username::parse("admin").map_err(|error| other(&error))?;
    let password = Password::choose(password)
        .map_err(|error| SettingError::Wrong("seed_admin_password", error.to_string()))?;
    app.identity.seed(&username, &password, Role::Admin).await.map_err(|error| other(&error))
}
