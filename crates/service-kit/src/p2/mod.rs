//! A host of WASI 0.2 with interfaces of its own: the wasmCloud 1.x lattice.
//!
//! Its calls block, so that futures here are ready at once; only waiting is not. An instance lives
//! for one request: nothing is kept between two, and no limit or breaker counts (see `limiter`).

mod client;
mod database;
mod entry;
mod executor;
mod limiter;

pub use client::send;
pub use database::SqlDatabase;
pub use entry::serve;
pub use executor::{sleep, spawn};
pub use limiter::HostLimiter;
pub use wasi::random::random::get_random_u64 as random;

use bindings::wasi::config::store;

#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    wasip3::wit_bindgen::generate!({
        inline: "package settle:service-kit;
                 world imports {
                     import wasmcloud:postgres/query@0.1.1-draft;
                     import wasi:config/store@0.2.0-draft;
                 }",
        path: ["wit/postgres.wit", "wit/config.wit"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
}

crate::http::methods!(wasi::http::types::Method);

/// Makes `$component` answer HTTP by `$route`.
#[macro_export]
macro_rules! http_service {
    // Reflection needs a stream in both directions, which this generation has not.
    ($component:ident, $world:expr, $route:path, $files:expr) => {
        $crate::http_service!($component, $world, $route);
    };
    ($component:ident, $world:expr, $route:path) => {
        #[allow(unsafe_code)]
        mod http_service {
            use super::$component;
            $crate::wasi::http::proxy::export!($component with_types_in $crate::wasi);
        }
        impl $crate::wasi::exports::http::incoming_handler::Guest for $component {
            fn handle(
                request: $crate::wasi::http::types::IncomingRequest,
                response: $crate::wasi::http::types::ResponseOutparam,
            ) {
                $crate::http::serve(request, response, $world, $route);
            }
        }
    };
}

/// A setting's text; `Err` says why settings cannot be read.
#[allow(clippy::unused_async)] // as in the other edition
pub async fn setting(name: &str) -> Result<Option<String>, String> {
    store::get(name).map_err(|error| match error {
        store::Error::Upstream(reason) | store::Error::Io(reason) => reason,
    })
}
