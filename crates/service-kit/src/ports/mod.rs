//! The ports of the cores, by this component's imports.

mod database;
mod limiter;
mod world;

pub use database::SqlDatabase;
pub use limiter::HostLimiter;
pub use world::GuestWorld;

/// Generated from `wit/`; a component that calls nothing of an interface does not import it.
#[allow(unsafe_code, clippy::all, clippy::pedantic, clippy::restriction, clippy::indexing_slicing)]
pub(crate) mod bindings {
    wasip3::wit_bindgen::generate!({
        inline: "package settle:service-kit;
                 world imports {
                     import settle:sql/database@0.1.0;
                     import settle:config/store@0.1.0;
                     import settle:limits/limiter@0.1.0;
                 }",
        path: ["../../wit/sql", "../../wit/config", "../../wit/limits"],
        runtime_path: "wasip3::wit_bindgen::rt",
        generate_all,
    });
}
