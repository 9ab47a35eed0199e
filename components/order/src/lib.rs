//! The order service as a component: transport and wiring only.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod app;
mod bodies;
mod compat;
mod payments;
mod requests;
mod routes;
#[cfg(not(feature = "p2"))]
mod typed;

#[cfg(not(feature = "p2"))]
#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    use super::Component;
    wasip3::wit_bindgen::generate!({
        inline: "package settle:order-component;
                 world component {
                     export settle:order/orders@0.1.0;
                     export settle:recovery/recovery@0.1.0;
                 }",
        path: ["../../wit/order", "../../wit/recovery"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
    export!(Component with_types_in self);
}

struct Component;
settle_service_kit::http_service!(
    Component,
    app::WORLD,
    routes::route,
    &[settle_proto::descriptors::ORDERS, settle_proto::descriptors::HEALTH]
);
