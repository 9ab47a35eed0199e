//! The payment service as a component: transport and wiring only.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod acquirer;
mod app;
mod problems;
mod routes;
mod rpc;
mod typed;

use settle_service_kit::http::serve;
use wasip3::http::types::{ErrorCode, Request, Response};

#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    use super::Component;
    wasip3::wit_bindgen::generate!({
        inline: "package settle:payment-component;
                 world component {
                     import settle:acquirer/acquirer@0.1.0;
                     export settle:payment/payments@0.1.0;
                     export settle:recovery/recovery@0.1.0;
                 }",
        path: ["../../wit/acquirer", "../../wit/payment", "../../wit/recovery"],
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
