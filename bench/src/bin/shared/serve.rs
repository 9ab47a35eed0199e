//! The least that a program needs to be asked for orders: HTTP/1.1, one kind of request.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

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

/// Answers each request on a connection with the order that `place` makes of it.
pub async fn serve<F: Future<Output = Result<Value>>>(
    stream: TcpStream,
    place: impl Fn(Request<Incoming>) -> F,
) {
    let answer = service_fn(|request| {
        let placed = place(request);
        async move { Ok::<_, Infallible>(answer(placed.await)) }
    });
    // Err: the client went away.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

fn answer(placed: Result<Value>) -> Response<Full<Bytes>> {
    let (status, body) = match placed {
        Ok(order) => (StatusCode::CREATED, order),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": format!("{error:#}") })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
}
