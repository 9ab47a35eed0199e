//! A role and a schema for each database, made with an administrator's URL.
//!
//! A service cannot read another's tables: each role owns one schema, and has no right in others.
//! The roles' passwords are derived from the administrator's, so that every host with the same
//! URL finds the same roles, and nothing more has to be kept. Operators that rather make roles
//! themselves (`infra/postgres/roles.sql`) give a URL a service instead.

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_postgres::{Client, Config, NoTls};

use super::pool::{chain, config, shown, tls};

/// Hosts that start together make roles one after the other.
const LOCK: i64 = 0x5e77_1e00;

/// The URLs of the named databases, once their roles and schemas exist.
///
/// Errors: the server cannot be reached, is too old, or the role may not do this.
pub async fn provision(url: &str, names: &[String]) -> Result<Vec<(String, String)>> {
    let administrator = config(url, "-c client_min_messages=warning")?;
    let client = connect(&administrator).await?;
    let version: String = client.query_one("SHOW server_version_num", &[]).await?.get(0);
    if version.parse::<u32>().unwrap_or(0) < 150_000 {
        bail!("PostgreSQL 15 or newer is needed; this server is {version}");
    }
    let mut urls = Vec::new();
    let mut made = String::new();
    for name in names {
        let role = role_of(name)?;
        let password = administrator.get_password().map(|password| derived(password, &role));
        made.push_str(&definitions(&role, password.as_deref()));
        urls.push((name.clone(), url_of(url, &role, password.as_deref())?));
    }
    let all = format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK}); {made} COMMIT");
    client.batch_execute(&all).await.map_err(|error| {
        let reason = error.as_db_error().map_or_else(|| chain(&error), |told| told.message().to_owned());
        anyhow::anyhow!(
            "roles and schemas cannot be made by {}: {reason}; give a role that may create both, or make them \
             with infra/postgres/roles.sql and set database_identity, database_order, ... instead",
            shown(&administrator)
        )
    })?;
    Ok(urls)
}

async fn connect(config: &Config) -> Result<Client> {
    let what = || format!("the database cannot be reached as {}", shown(config));
    let client = match tls(config)? {
        Some(tls) => {
            let (client, connection) = config.connect(tls).await.map_err(explain).with_context(what)?;
            tokio::spawn(connection);
            client
        }
        None => {
            let (client, connection) = config.connect(NoTls).await.map_err(explain).with_context(what)?;
            tokio::spawn(connection);
            client
        }
    };
    Ok(client)
}

fn explain(error: tokio_postgres::Error) -> anyhow::Error {
    let hint = match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("28P01" | "28000") => "; check user, password and sslmode in the URL",
        Some("3D000") => "; create the database first",
        Some("53300") => "; raise max_connections or lower database_connections",
        Some(_) => "",
        None => "; check that the server runs and that host and port in the URL are right",
    };
    anyhow::anyhow!("{}{hint}", chain(&error))
}

fn role_of(name: &str) -> Result<String> {
    if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty() {
        Ok(format!("settle_{name}"))
    } else {
        bail!("`{name}` cannot name a database: lower-case letters and _ only")
    }
}

fn derived(password: &[u8], role: &str) -> String {
    let mut mac = match Hmac::<Sha256>::new_from_slice(password) {
        Ok(mac) => mac,
        Err(never) => unreachable!("any length will do: {never}"),
    };
    mac.update(b"settle database role ");
    mac.update(role.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// Made where missing; an existing role keeps its password.
fn definitions(role: &str, password: Option<&str>) -> String {
    let password = password.map(|password| format!(" PASSWORD '{password}'")).unwrap_or_default();
    format!(
        "DO $settle$ BEGIN
           IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
             CREATE ROLE {role} LOGIN NOINHERIT{password};
             ALTER ROLE {role} SET search_path = {role};
           END IF;
           IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{role}') THEN
             GRANT {role} TO CURRENT_USER;
             CREATE SCHEMA {role} AUTHORIZATION {role};
           END IF;
         END $settle$;
         "
    )
}

/// The administrator's URL with another user. Keyword form: every part can be quoted.
fn url_of(url: &str, role: &str, password: Option<&str>) -> Result<String> {
    // Options that come later win over earlier ones in libpq's URL syntax.
    let (before, at) = url.split_once("://").context("the database's URL begins with postgres://")?;
    let (authority, rest) = at.split_at(at.find(['/', '?']).unwrap_or(at.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let secret = password.map(|password| format!(":{password}")).unwrap_or_default();
    Ok(format!("{before}://{role}{secret}@{host}{rest}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_own_url() {
        let rows = [
            ("postgres://a:b@h:1/d?sslmode=require", "postgres://settle_order:x@h:1/d?sslmode=require"),
            ("postgresql://h", "postgresql://settle_order:x@h"),
            ("postgres://a@h1:1,h2:2/d", "postgres://settle_order:x@h1:1,h2:2/d"),
        ];
        for (url, expected) in rows {
            assert_eq!(url_of(url, "settle_order", Some("x")).unwrap(), expected);
        }
        assert!(url_of("host=a", "settle_order", None).is_err());
        assert!(role_of("a\"b").is_err());
        assert_ne!(derived(b"a", "settle_order"), derived(b"a", "settle_payment"));
    }
}
