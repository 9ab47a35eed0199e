//! Settings by name, and how a wrong one is told.

use std::time::Duration;

use settle_types::Currency;

use crate::host;

/// A setting is missing, wrong, or could not be read. Names the setting, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("setting `{0}` is not set")]
    Missing(&'static str),
    #[error("setting `{0}`: {1}")]
    Wrong(&'static str, String),
    #[error("settings are unavailable: {0}")]
    Unavailable(String),
}

/// A setting; `None` when it is not set or empty.
pub async fn optional(name: &'static str) -> Result<Option<String>, SettingError> {
    let value = host::setting(name).await.map_err(SettingError::Unavailable)?;
    Ok(value.filter(|value| !value.is_empty()))
}

pub async fn required(name: &'static str) -> Result<String, SettingError> {
    optional(name).await?.ok_or(SettingError::Missing(name))
}

pub async fn or_default(name: &'static str, default: &str) -> Result<String, SettingError> {
    Ok(optional(name).await?.unwrap_or_else(|| default.to_owned()))
}

/// A whole number of seconds.
pub async fn seconds(name: &'static str, default: Duration) -> Result<Duration, SettingError> {
    let Some(text) = optional(name).await? else { return Ok(default) };
    let seconds =
        text.parse().map_err(|_| SettingError::Wrong(name, "not a number of seconds".to_owned()))?;
    Ok(Duration::from_secs(seconds))
}

/// An ISO 4217 code.
pub async fn currency(name: &'static str, default: &str) -> Result<Currency, SettingError> {
    let code = or_default(name, default).await?;
    Currency::parse(&code).map_err(|error| SettingError::Wrong(name, error.to_string()))
}

pub async fn flag(name: &'static str) -> Result<bool, SettingError> {
    match optional(name).await?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(SettingError::Wrong(name, "neither true nor false".to_owned())),
    }
}
