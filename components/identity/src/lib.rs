//! The identity service as a component: transport and wiring only.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod app;
mod routes;

use settle_identity_core::{IdentityError, Password, Username};
use settle_service_kit::http::serve;
use wasip3::http::types::{ErrorCode, Request, Response};

use bindings::exports::settle::identity::tokens as port;

#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    use super::Component;
    wasip3::wit_bindgen::generate!({
        inline: "package settle:identity-component;
                 world component { export settle:identity/tokens@0.1.0; }",
        path: ["../../wit/identity"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
    export!(Component with_types_in self);
}

struct Component;
#[allow(unsafe_code)]
mod service {
    use super::Component;
    wasip3::http::service::export!(Component);
}

impl wasip3::exports::http::handler::Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        serve(request, app::WORLD, routes::route).await
    }
}

impl port::Guest for Component {
    async fn issue(username: String, password: String) -> Result<port::Token, port::Error> {
        let app = app::get().await.map_err(|error| port::Error::Unavailable(error.to_string()))?;
        let username = Username::parse(&username).map_err(|_| port::Error::WrongCredentials)?;
        let password = Password::attempt(password).map_err(|_| port::Error::WrongCredentials)?;
        match app.issue(&username, &password).await {
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
        serde_json::to_string(app.jwks()).map_err(|error| port::Error::Unavailable(error.to_string()))
    }
}
