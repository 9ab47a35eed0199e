//! The least that a program needs to be asked: HTTP/1.1 on a free port.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

/// As in the host that it is compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A free port; prints its address.
pub async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(listener)
}

pub async fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Lets `answer` answer each request on a connection.
pub async fn serve<F: Future<Output = Response<Full<Bytes>>>>(
    stream: TcpStream,
    answer: impl Fn(Request<Incoming>) -> F,
) {
    let answer = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    // Err: the client went away.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

pub fn response(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// The answer to an order that was placed, or was not.
pub fn order(placed: Result<Value>) -> Response<Full<Bytes>> {
    match placed {
        Ok(order) => response(StatusCode::CREATED, order.to_string()),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
    }
}
