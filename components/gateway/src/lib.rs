//! The gateway as a component: one origin for all services, and the rules of its edge.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod app;
mod docs;
mod limits;
mod routes;

use settle_proto::descriptors::{HEALTH, ORDERS, PAYMENTS};
use settle_service_kit::http::serve_unread;
use settle_service_kit::reflection;
use wasip3::http::types::{ErrorCode, Request, Response};

struct Component;

#[allow(unsafe_code)]
mod http_service {
    use super::Component;
    wasip3::http::service::export!(Component with_types_in wasip3);
}

impl wasip3::exports::http::handler::Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        match request.get_path_with_query() {
            Some(path) if reflection::is_reflection(&path) => {
                reflection::serve(request, &[ORDERS, PAYMENTS, HEALTH])
            }
            _ => serve_unread(request, app::WORLD, routes::route).await,
        }
    }
}
