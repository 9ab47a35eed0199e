//! The embedded host: runs the application of a `spin.toml` in one process.
//!
//! It knows components, capabilities and listeners, and nothing of orders or payments. Each
//! capability of `wit/` has a folder; `guest.rs` is what one instance sees of them.

pub mod bindings;
pub mod compose;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod guest;
pub mod http;
pub mod instances;
pub mod limits;
pub mod manifest;
pub mod recovery;
pub mod secrets;
pub mod service;
pub mod sim;
pub mod sql;
mod turn;
pub mod up;
pub mod world;
