//! HTTP in and out of the host.

pub mod inbound;
pub mod outbound;
pub mod unary;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The peer's address, set by the host and stripped from what comes in: `wasi:http` carries none.
pub const PEER_HEADER: &str = "x-settle-peer";
/// Largest request body.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest header block.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// Whether a message is gRPC's, which ends in trailers.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
