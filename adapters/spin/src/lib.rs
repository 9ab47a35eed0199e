//! Our ports by Spin's interfaces: SQL over its SQLite and PostgreSQL, settings over its variables,
//! limits over its key-value store. Plugged into the business components; keeps nothing itself.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod limits;
mod postgres;
mod sql;
mod sqlite;

use bindings::exports::settle::config::store;
use bindings::exports::settle::unary::client;
use spin_sdk::variables;

#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    use super::Adapter;
    spin_sdk::wit_bindgen::generate!({
        inline: "package settle:spin-adapter;
                 world adapter {
                   export settle:sql/database@0.1.0;
                   export settle:config/store@0.1.0;
                   export settle:limits/limiter@0.1.0;
                   export settle:unary/client@0.1.0;
                 }",
        path: ["../../wit/sql", "../../wit/config", "../../wit/limits", "../../wit/unary"],
        runtime_path: "spin_sdk::wit_bindgen::rt",
        generate_all,
    });
    export!(Adapter with_types_in self);
}

struct Adapter;

impl store::Guest for Adapter {
    async fn get(name: String) -> Result<Option<String>, store::Error> {
        match variables::get(&name).await {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(variables::Error::Undefined(_)) => Ok(None),
            Err(error) => Err(store::Error::Unavailable(error.to_string())),
        }
    }
}

/// Every service is reached by `wasi:http`.
impl client::Guest for Adapter {
    fn has(_origin: String) -> bool {
        false
    }

    async fn send(
        _origin: String,
        _request: client::Request,
        _timeout: u64,
    ) -> Result<client::Response, client::Error> {
        Err(client::Error::NotSent("no service is in this process".to_owned()))
    }
}
