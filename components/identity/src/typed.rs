//! `settle:identity/tokens`, without HTTP.

use settle_identity_core::{Attempt, IdentityError, Password, Username};

use crate::bindings::exports::settle::identity::tokens as port;
use crate::{Component, app};

impl port::Guest for Component {
    async fn issue(username: String, password: String) -> Result<port::Token, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        let username = Username::parse(&username).map_err(|_| port::Error::WrongCredentials)?;
        let password = Password::attempt(password).map_err(|_| port::Error::WrongCredentials)?;
        match app.identity.issue(&username, &password, Attempt { client: None }).await {
            Ok(issued) => Ok(port::Token {
                jwt: issued.jwt,
                expires_in_seconds: u32::try_from(issued.expires_in.as_secs()).unwrap_or(u32::MAX),
            }),
            Err(IdentityError::WrongCredentials) => Err(port::Error::WrongCredentials),
            Err(IdentityError::Throttled(wait)) => {
                Err(port::Error::Throttled(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
            }
            Err(error) => Err(port::Error::Unavailable(error.to_string())),
        }
    }

    async fn jwks() -> Result<String, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        serde_json::to_string(app.identity.jwks())
            .map_err(|error| port::Error::Unavailable(error.to_string()))
    }
}
