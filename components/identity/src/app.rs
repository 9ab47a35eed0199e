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
    let signer = signer().await?;
    let verifier = verifier(&signer, &issuer, &audience).await?;
    let settings = Settings { signer, verifier, issuer, audience, clients, service_audiences };
    let database = SqlDatabase::open("identity").await?;
    SCHEMA.migrate(&database, WORLD.now()).await?;
    let identity = Identity { world: WORLD, database, limiter: HostLimiter, settings };
    let app = App {
        identity,
        peer: PeerHeader::from_settings().await?,
        states: ProviderStates::from_settings().await?,
    };
    seed_admin(&app).await?;
    Ok(app)
}

async fn verifier(signer: &Signer, issuer: &str, audience: &str) -> Result<Verifier, StartError> {
    let made = match settings::optional("token_secret").await? {
        Some(secret) if signer.jwks().keys.is_empty() => Verifier::hs256(&secret, issuer, &[audience]),
        _ => Verifier::ed25519(signer.jwks(), issuer, &[audience]),
    };
    made.map_err(|error| StartError::Other(error.to_string()))
}

async fn signer() -> Result<Signer, StartError> {
    let wrong = |name| move |error: settle_token::KeyError| SettingError::Wrong(name, error.to_string());
    match settings::or_default("token_algorithm", "EdDSA").await?.as_str() {
        "EdDSA" => {
            let seed = settings::required("token_signing_key").await?;
            let signer = Signer::ed25519(&seed).map_err(wrong("token_signing_key"))?;
            match settings::optional("token_previous_key").await? {
                Some(seed) => Ok(signer.with_previous(&seed).map_err(wrong("token_previous_key"))?),
                None => Ok(signer),
            }
        }
        "HS256" => {
            let secret = settings::required("token_secret").await?;
            Ok(Signer::hs256(&secret).map_err(wrong("token_secret"))?)
        }
        _ => Err(SettingError::Wrong("token_algorithm", "neither EdDSA nor HS256".to_owned()).into()),
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
