//! Bodies, read whole.

use http::HeaderMap;
use wasip3::http::types::{ErrorCode, Fields};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};

use crate::grpc;

/// How much of a body of unknown length is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// A body that cannot be had whole.
pub enum Unread {
    TooLarge,
    Broken(ErrorCode),
}

/// Its length, where it is told and no trailers come after it.
pub fn length_of(headers: &HeaderMap) -> Option<usize> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    if text("content-type").is_some_and(|given| given.starts_with(grpc::CONTENT_TYPE)) {
        return None;
    }
    text("content-length")?.parse().ok()
}

/// Reads a body of at most `max` bytes. With a `length` nothing is waited for after its last byte.
pub async fn read(
    mut stream: StreamReader<u8>,
    trailers: FutureReader<Result<Option<Fields>, ErrorCode>>,
    length: Option<usize>,
    max: usize,
) -> Result<(Vec<u8>, Option<Fields>), Unread> {
    if length.is_some_and(|length| length > max) {
        return Err(Unread::TooLarge);
    }
    let mut body = Vec::new();
    while length.is_none_or(|length| body.len() < length) {
        body.reserve_exact(length.map_or(CHUNK_BYTES, |length| length - body.len()));
        let (result, read) = stream.read(body).await;
        body = read;
        if body.len() > max {
            return Err(Unread::TooLarge);
        }
        if matches!(result, StreamResult::Dropped) {
            drop(stream);
            return Ok((body, trailers.await.map_err(Unread::Broken)?));
        }
    }
    Ok((body, None))
}
