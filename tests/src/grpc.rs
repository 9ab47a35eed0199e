//! Unary gRPC calls, as any client makes them: HTTP/2, one frame, status in the trailers.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use prost::Message;

use crate::loopback::connector;

/// Calls a method at `origin`. `Err` carries the gRPC status code.
pub async fn call<A: Message + Default>(
    origin: &str,
    method: &str,
    token: Option<&str>,
    message: &impl Message,
) -> Result<A, String> {
    let http =
        HttpClient::builder(TokioExecutor::new()).http2_only(true).build::<_, Full<Bytes>>(connector());
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let mut request = Request::post(format!("{origin}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = http.request(request.body(Full::new(frame.into())).unwrap()).await;
    let (parts, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let in_trailers = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let status = in_trailers.or_else(|| parts.headers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        Some(code) => return Err(code.to_owned()),
        None => return Err(format!("no gRPC status, HTTP {}", parts.status)),
    }
    let bytes = body.to_bytes();
    let message = bytes.get(5..).ok_or("the frame is cut short")?;
    A::decode(message).map_err(|error| error.to_string())
}
