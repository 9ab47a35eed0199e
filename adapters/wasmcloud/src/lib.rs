//! Our ports by wasmCloud 2's interfaces: SQL over its PostgreSQL, settings over the workload's
//! environment, limits in the instance's memory, where instances live long. Plugged into the
//! business components.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod limits;
mod sql;

use bindings::exports::settle::config::store;
use bindings::exports::settle::unary::client;

#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    use super::Adapter;
    wasip3::wit_bindgen::generate!({
        inline: "package settle:wasmcloud-adapter;
                 world adapter {
                   import wasmcloud:postgres/query@0.2.0;
                   export settle:sql/database@0.1.0;
                   export settle:config/store@0.1.0;
                   export settle:limits/limiter@0.1.0;
                   export settle:unary/client@0.1.0;
                 }",
        path: ["wit", "../../wit/sql", "../../wit/config", "../../wit/limits", "../../wit/unary"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
    export!(Adapter with_types_in self);
}

struct Adapter;

impl store::Guest for Adapter {
    async fn get(name: String) -> Result<Option<String>, store::Error> {
        Ok(std::env::var(name).ok().filter(|value| !value.is_empty()))
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
