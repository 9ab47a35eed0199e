//! HTTP in and out of the host.

pub mod inbound;
pub mod outbound;
pub mod unary;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::WasiBody;

/// The peer's address, set by the host and stripped from what comes in: `wasi:http` carries none.
pub const PEER_HEADER: &str = "x-settle-peer";
/// Largest request body.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest header block.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// A body that is there as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> WasiBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// How long the body is, as its sender says.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a message is gRPC's, which ends in trailers.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
