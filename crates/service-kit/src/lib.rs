//! What every component shares on the guest side: the HTTP and gRPC entry, problem details, the
//! token check, calls to other services, and the ports over the host's imports.
//!
//! Must not know: orders, payments, which host runs it.

pub mod auth;
pub mod context;
pub mod grpc;
pub mod health;
pub mod http;
pub mod instance;
pub mod ports;
pub mod problem;
pub mod settings;

pub use wasip3;
