//! Connections: kept open, checked before use, never more than the setting allows.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
pub use deadpool_postgres::Pool;
use deadpool_postgres::{Manager, ManagerConfig, Object, PoolError, QueueMode, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::sql::Error;

pub type Connection = Object;

/// Longest wait for a free connection, and for a new one.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(3);
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(10);
/// Limits of the session, by the server itself. An open transaction would be inherited by the next
/// user of the connection, so none may stay.
const SESSION: &str = "-c statement_timeout=5000 -c lock_timeout=3000 \
                       -c idle_in_transaction_session_timeout=5000 -c client_min_messages=warning";
/// Of all connections of a database, readers have one in this many.
const READERS_SHARE: usize = 3;

/// For one database.
pub fn writers_and_readers(url: &str, connections: usize) -> Result<(Pool, Pool)> {
    let readers = (connections / READERS_SHARE).max(1);
    let writers = connections.saturating_sub(readers).max(1);
    let reading = format!("{SESSION} -c default_transaction_read_only=on");
    Ok((pool(config(url, SESSION)?, writers)?, pool(config(url, &reading)?, readers)?))
}

pub async fn connection(pool: &Pool) -> Result<Connection, Error> {
    pool.get().await.map_err(|error| {
        Error::NotApplied(match error {
            PoolError::Timeout(_) => "no free connection to the database in time".to_owned(),
            PoolError::Backend(error) => format!("the database cannot be reached: {}", chain(&error)),
            other => other.to_string(),
        })
    })
}

/// Closes a connection whose state is not known.
pub fn discard(connection: Connection) {
    drop(Object::take(connection));
}

/// An error with its causes: the driver's own text says little.
pub fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// A URL without its password, for messages.
pub fn shown(config: &Config) -> String {
    let hosts: Vec<String> = config.get_hosts().iter().map(|host| format!("{host:?}")).collect();
    format!("{} at {}", config.get_user().unwrap_or("(no user)"), hosts.join(", "))
}

pub fn config(url: &str, session: &str) -> Result<Config> {
    // The parser's error does not repeat the URL, which holds a password.
    let mut config: Config = url.parse().context("the database's URL cannot be read")?;
    let options = match config.get_options() {
        Some(own) => format!("{own} {session}"),
        None => session.to_owned(),
    };
    config
        .options(options)
        .application_name("settle")
        .connect_timeout(CONNECTION_TIME_MAX)
        .tcp_user_timeout(SILENCE_TIME_MAX)
        .keepalives_idle(SILENCE_TIME_MAX);
    Ok(config)
}

fn pool(config: Config, size: usize) -> Result<Pool> {
    let checked = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match tls(&config)? {
        Some(tls) => Manager::from_config(config, tls, checked),
        None => Manager::from_config(config, NoTls, checked),
    };
    Pool::builder(manager)
        .max_size(size)
        // The one used last: its server process has the statements planned and its pages at hand.
        .queue_mode(QueueMode::Lifo)
        .wait_timeout(Some(CONNECTION_TIME_MAX))
        .create_timeout(Some(CONNECTION_TIME_MAX))
        .runtime(Runtime::Tokio1)
        .build()
        .context("the pool cannot be built")
}

/// With `sslmode=require` the certificate is checked; else the connection is plain.
pub fn tls(config: &Config) -> Result<Option<MakeRustlsConnect>> {
    if matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(anyhow!(
            "sslmode=require needs root certificates, and this system has none: {:?}",
            found.errors
        ));
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let client = versions.with_root_certificates(roots).with_no_client_auth();
    Ok(Some(MakeRustlsConnect::new(client)))
}
