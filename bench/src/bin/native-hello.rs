//! `native-hello`: answers as the probe component does, without any component; prints its address.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Http = Client<HttpConnector, Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Http = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(client.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new();
            // Err: the client went away.
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(client: Http, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let next = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix("/call?"));
    let asked = match next.and_then(|authority| format!("http://{authority}/").parse().ok()) {
        Some(url) => client.get(url).await.map(|answer| answer.status()),
        None => Ok(StatusCode::OK),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
    *response.status_mut() = asked.unwrap_or(StatusCode::BAD_GATEWAY);
    Ok(response)
}
