//! HTTP in and out of the host.

pub mod inbound;
pub mod outbound;

/// The peer's address, set by the host and stripped from what comes in: `wasi:http` carries none.
pub const PEER_HEADER: &str = "x-settle-peer";
/// Largest request body.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest header block.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
