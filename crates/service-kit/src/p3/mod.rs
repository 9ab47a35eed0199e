//! A host of WASI 0.3 with our ports.

mod body;
mod client;
mod database;
mod entry;
mod forward;
mod limiter;
pub mod reflection;
pub mod unary;

use std::time::Duration;

pub use client::send;
pub use database::SqlDatabase;
pub use entry::serve;
pub use forward::{Body, Departure, pass_on, serve_unread};
pub use limiter::HostLimiter;
pub use wasip3::random::random::get_random_u64 as random;

use bindings::settle::config::store;

/// Generated from `wit/`; a component that calls nothing of an interface does not import it.
#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
mod bindings {
    wasip3::wit_bindgen::generate!({
        inline: "package settle:service-kit;
                 world imports {
                     import settle:sql/database@0.1.0;
                     import settle:config/store@0.1.0;
                     import settle:limits/limiter@0.1.0;
                     import settle:unary/client@0.1.0;
                 }",
        path: ["../../wit/sql", "../../wit/config", "../../wit/limits", "../../wit/unary"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
}

/// Answers that are given whole; `export!` makes a component give them.
#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
pub mod unary_bindings {
    wasip3::wit_bindgen::generate!({
        inline: "package settle:service-kit;
                 world unary { export settle:unary/handler@0.1.0; }",
        path: ["../../wit/unary"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
        pub_export_macro: true,
    });
}

crate::http::methods!(wasip3::http::types::Method);

/// Makes `$component` answer HTTP by `$route`.
#[macro_export]
macro_rules! http_service {
    ($component:ident, $world:expr, $route:path) => {
        $crate::http_service!($component, $world, $route, &[]);
    };
    // Also answers reflection about these `.proto` files.
    ($component:ident, $world:expr, $route:path, $files:expr) => {
        #[allow(unsafe_code)]
        mod http_service {
            use super::$component;
            $crate::wasip3::http::service::export!($component with_types_in $crate::wasip3);
            $crate::unary_bindings::export!($component with_types_in $crate::unary_bindings);
        }
        impl $crate::unary_bindings::exports::settle::unary::handler::Guest for $component {
            async fn handle(
                request: $crate::unary_bindings::exports::settle::unary::handler::Request,
            ) -> $crate::unary_bindings::exports::settle::unary::handler::Response {
                $crate::unary::handle(request, $world, $route).await
            }
        }
        impl $crate::wasip3::exports::http::handler::Guest for $component {
            async fn handle(
                request: $crate::wasip3::http::types::Request,
            ) -> Result<$crate::wasip3::http::types::Response, $crate::wasip3::http::types::ErrorCode> {
                match request.get_path_with_query() {
                    Some(path) if $crate::reflection::is_reflection(&path) => {
                        $crate::reflection::serve(request, $files)
                    }
                    _ => $crate::http::serve(request, $world, $route).await,
                }
            }
        }
    };
}

/// Runs beside this request, and may outlive it.
pub fn spawn(work: impl Future<Output = ()> + 'static) {
    wasip3::wit_bindgen::spawn_local(work);
}

pub async fn sleep(wait: Duration) {
    wasip3::clocks::monotonic_clock::wait_for(nanos(wait)).await;
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A setting's text; `Err` says why settings cannot be read.
pub async fn setting(name: &str) -> Result<Option<String>, String> {
    store::get(name.to_owned()).await.map_err(|store::Error::Unavailable(reason)| reason)
}
