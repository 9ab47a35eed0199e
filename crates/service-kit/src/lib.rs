//! What every component shares on the guest side: the HTTP and RPC entry, problem details, the
//! token check, calls to other services, and the ports over the host's imports.
//!
//! Two editions fit two generations of hosts behind the same names: `p3` (WASI 0.3, our ports as
//! imports) and, with the feature `p2`, `p2` (WASI 0.2, the wasmCloud 1.x lattice's own interfaces).
//!
//! Must not know: orders, payments, which host runs it.

pub mod auth;
pub mod connect;
pub mod context;
pub mod grpc;
pub mod health;
pub mod http;
pub mod instance;
#[cfg(any(test, target_family = "wasm"))]
mod memory;
pub mod problem;
pub mod rpc;
pub mod settings;
pub mod states;

#[cfg(feature = "p2")]
#[path = "p2/mod.rs"]
mod host;
#[cfg(not(feature = "p2"))]
#[path = "p3/mod.rs"]
mod host;
mod world;

/// The ports of the cores, by this component's imports.
pub mod ports {
    pub use crate::host::{HostLimiter, SqlDatabase};
    pub use crate::world::GuestWorld;
}

pub use host::spawn;
#[cfg(not(feature = "p2"))]
pub use host::{reflection, unary, unary_bindings};

#[cfg(feature = "p2")]
pub use wasi;
#[cfg(not(feature = "p2"))]
pub use wasip3;
