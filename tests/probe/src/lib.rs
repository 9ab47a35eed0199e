//! A component that knows nothing of orders: it answers, and it misbehaves on request.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

/// Requests of this instance.
static SERVED: AtomicU32 = AtomicU32::new(0);

struct Probe;
#[allow(unsafe_code)]
mod service {
    use super::Probe;
    wasip3::http::service::export!(Probe);
}

impl wasip3::exports::http::handler::Guest for Probe {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let served = SERVED.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let path = request.get_path_with_query();
        if let Some(authority) = path.as_deref().and_then(|path| path.strip_prefix("/call?")) {
            call(authority).await?;
        }
        match path.as_deref() {
            Some("/loop") => run_for_ever(),
            Some("/grow") => grow_for_ever(),
            Some("/trap") => std::process::abort(),
            Some("/wait") => wasip3::clocks::monotonic_clock::wait_for(60_000_000_000).await,
            Some("/served") => return answer(served.to_string().into_bytes()),
            _ => {}
        }
        answer(b"hello".to_vec())
    }
}

/// Asks another one of us and waits for its head.
async fn call(authority: &str) -> Result<(), ErrorCode> {
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some("/")).map_err(invalid)?;
    let answer = wasip3::http::client::send(request).await?;
    if answer.get_status_code() == 200 { Ok(()) } else { Err(ErrorCode::HttpProtocolError) }
}

fn run_for_ever() {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn grow_for_ever() {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![1; 1 << 20]));
    }
}

fn answer(text: Vec<u8>) -> Result<Response, ErrorCode> {
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (mut out, body) = wit_stream::new();
    let headers = [("content-length".to_owned(), text.len().to_string().into_bytes())];
    wit_bindgen::spawn_local(async move {
        let _unsent = out.write_all(text).await;
    });
    let headers = Fields::from_list(&headers).map_err(|_| ErrorCode::InternalError(None))?;
    Ok(Response::new(headers, Some(body), no_trailers).0)
}
