//! The load generator: one connection a client and no pool, so that what is driven has the machine.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use settle_tests::client::{Client, one_item};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::phase::Phase;

/// Longest wait for an answer; what takes longer counts as none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest wait of an arrival for a free client.
const FREE_TIME_MAX: Duration = Duration::from_secs(1);

/// What is asked again and again, each time under a fresh key.
#[derive(Clone)]
pub struct Target {
    pub url: Uri,
    /// Another name than the URL's, for a server of several hosts.
    pub host: Option<String>,
    pub method: Method,
    pub authorization: String,
    pub body: Bytes,
    /// Status of a success.
    pub wanted: u16,
    /// Where its connections come from: servers count clients by address.
    pub from: Ipv4Addr,
}

impl Target {
    /// A small order at `client`'s order service.
    pub fn orders(client: &Client) -> Result<Self> {
        Ok(Self {
            url: format!("{}/v1/orders", client.order).parse()?,
            host: None,
            method: Method::POST,
            authorization: format!("Bearer {}", client.token),
            body: one_item("book", 1250).to_string().into(),
            wanted: 201,
            from: Ipv4Addr::LOCALHOST,
        })
    }

    fn request(&self, key: &str) -> Result<Request<Full<Bytes>>> {
        let authority = self.url.authority().context("a target without an authority")?;
        let path = self.url.path_and_query().context("a target without a path")?;
        let mut request = Request::builder()
            .method(&self.method)
            .uri(path.as_str())
            .header("host", self.host.as_deref().unwrap_or(authority.as_str()))
            .header("content-type", "application/json")
            .header("idempotency-key", key);
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

/// A client: its target and its connection, made anew after it broke.
struct Caller {
    target: Target,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Caller {
    fn new(target: &Target) -> Self {
        Self { target: target.clone(), connection: None }
    }

    /// The answer's status.
    async fn ask(&mut self, key: &str) -> Result<u16> {
        let asked = tokio::time::timeout(ANSWER_TIME_MAX, self.try_ask(key)).await;
        let answered = asked.context("no answer in time").flatten();
        if answered.is_err() {
            self.connection = None;
        }
        answered
    }

    async fn try_ask(&mut self, key: &str) -> Result<u16> {
        let request = self.target.request(key)?;
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.connection = Some(connect(&self.target).await?);
        }
        let connection = self.connection.as_mut().context("no connection")?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        Ok(status)
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>> {
    let port = target.url.port_u16().context("a target without a port")?;
    let socket = TcpSocket::new_v4()?;
    socket.bind((target.from, 0).into())?;
    let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Err: the server went away; the sender says so.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// Closed loop: each client places one order after the other, the targets in turn. Any other answer
/// than a success ends it.
pub async fn closed(targets: &[Target], clients: u32, run: &str, time: Duration) -> Result<Phase> {
    let (started, mut callers) = (Instant::now(), JoinSet::new());
    for (number, target) in (0..clients).zip(targets.iter().cycle()) {
        let (mut caller, run) = (Caller::new(target), run.to_owned());
        callers.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < time {
                let begun = Instant::now();
                let status = caller.ask(&format!("{run}-{number}-{}", latencies.len())).await?;
                if status != caller.target.wanted {
                    bail!("{} answered with {status}", caller.target.url);
                }
                latencies.push(begun.elapsed());
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = callers.join_next().await {
        latencies.extend(done??);
    }
    Ok(Phase::new(latencies, started.elapsed()))
}

/// One arrival of an open loop.
pub struct Arrival {
    /// When it was due, since the start.
    pub due: Duration,
    /// From then on: waiting for a free client counts, or a slow system would look fast.
    pub latency: Duration,
    pub ended: Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    Status(u16),
    NoAnswer,
    /// No client was free in time.
    NotSent,
}

/// Open loop: arrivals at a fixed rate per second, whatever the answers take.
pub async fn open(
    targets: &[Target],
    rate: f64,
    clients: u32,
    run: &str,
    time: Duration,
) -> Result<Vec<Arrival>> {
    let (started, tickets, mut callers) = (Instant::now(), Arc::new(AtomicU64::new(0)), JoinSet::new());
    for (_, target) in (0..clients).zip(targets.iter().cycle()) {
        let (mut caller, run, tickets) = (Caller::new(target), run.to_owned(), tickets.clone());
        callers.spawn(async move {
            let mut arrivals = Vec::new();
            loop {
                let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                let due = Duration::from_secs_f64(ticket as f64 / rate);
                if due > time {
                    return arrivals;
                }
                let mut begun = started + due;
                if begun > Instant::now() {
                    tokio::time::sleep_until(begun.into()).await;
                    begun = Instant::now(); // the timer's lag is not the system's
                }
                if begun.elapsed() > FREE_TIME_MAX {
                    arrivals.push(Arrival { due, latency: begun.elapsed(), ended: Ended::NotSent });
                    continue;
                }
                let status = caller.ask(&format!("{run}-{ticket}")).await;
                let ended = status.map_or(Ended::NoAnswer, Ended::Status);
                arrivals.push(Arrival { due, latency: begun.elapsed(), ended });
            }
        });
    }
    let mut arrivals = Vec::new();
    while let Some(done) = callers.join_next().await {
        arrivals.extend(done?);
    }
    Ok(arrivals)
}
