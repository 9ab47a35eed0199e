//! `raw-saga URL CONNECTIONS`: the order saga written by hand over PostgreSQL; prints its address.
//!
//! The honest lower limit: the commits of an order as ours makes them, in the same tables, with no
//! component, no token, no recovery, no service of its own for payments. The statements are those
//! that `pgbench` sends, with the key as their parameter.

#[path = "shared/serve.rs"]
mod serve;

use std::sync::LazyLock;

use anyhow::{Context, Result};
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

const COMMITS: &str = include_str!("../commits.sql");

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("a database URL")?;
    let connections = args.next().context("a number of connections")?.parse()?;
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(url.parse()?, NoTls, recycling);
    let pool = Pool::builder(manager).max_size(connections).build()?;
    let listener = serve::listen().await?;
    loop {
        let (stream, pool) = (serve::accept(&listener).await?, pool.clone());
        tokio::spawn(serve::serve(stream, move |request| answer(pool.clone(), request)));
    }
}

async fn answer(pool: Pool, request: Request<Incoming>) -> Response<Full<Bytes>> {
    serve::order(place(pool, request).await)
}

async fn place(pool: Pool, request: Request<Incoming>) -> Result<Value> {
    let key = request.headers().get("idempotency-key").context("no idempotency key")?.to_str()?.to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let order: Value = serde_json::from_slice(&body)?;
    let items = order.get("items").context("no items")?;
    let client = pool.get().await?;
    for statement in STATEMENTS.iter() {
        let prepared = client.prepare_cached(statement).await?;
        client.query(&prepared, &[&key]).await?;
    }
    Ok(json!({ "id": format!("b-{key}"), "status": "completed", "items": items }))
}

/// Each statement with `$1` for its key.
static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let code = COMMITS.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\'));
    let code = code.collect::<Vec<_>>().join("\n").replace(":n", "$1");
    code.split(';').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
});
