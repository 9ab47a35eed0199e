//! `native-hello`: answers as the probe component does, without any component; prints its address.

#[path = "shared/serve.rs"]
#[allow(dead_code)] // it takes no orders
mod serve;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

type Http = Client<HttpConnector, Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Http = Client::builder(TokioExecutor::new()).build(connector);
    let listener = serve::listen().await?;
    loop {
        let (stream, client) = (serve::accept(&listener).await?, client.clone());
        tokio::spawn(serve::serve(stream, move |request| answer(client.clone(), request)));
    }
}

async fn answer(client: Http, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let next = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix("/call?"));
    let asked = match next.and_then(|authority| format!("http://{authority}/").parse().ok()) {
        Some(url) => client.get(url).await.map(|answer| answer.status()),
        None => Ok(StatusCode::OK),
    };
    serve::response(asked.unwrap_or(StatusCode::BAD_GATEWAY), "hello")
}
