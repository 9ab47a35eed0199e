//! The network between machines, services and clients: slow, lossy, sometimes twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::{Error, WasiBody};

use super::machine::{Life, Machine, Machines};
use super::{Fault, Sim, lock};
use crate::http::PEER_HEADER;
use crate::http::outbound::{Answer, Network, local_name};

/// How late a duplicate may come.
const LATE_MILLIS_MAX: u64 = 90_000;
/// How long a client waits for an answer.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(15);

/// An answer, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
}

/// One machine's way to the services of all.
pub struct SimNetwork {
    pub sim: Arc<Sim>,
    pub life: Arc<Life>,
    pub machines: Machines,
}

impl Network for SimNetwork {
    fn send(self: Arc<Self>, request: http::Request<WasiBody>) -> Answer {
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default();
            let service = local_name(host).ok_or(Error::DestinationNotFound)?.to_owned();
            let request = Whole::of(request).await?;
            let number = self.life.call(&format!("send {service} {}", request.head.uri.path())).await;
            let here = self.life.machine;
            let target = self.target(here);
            let answered = transmit(&self.sim, Some(here), target, &service, request).await;
            self.life.called(number).await;
            answered
        })
    }
}

impl SimNetwork {
    /// Mostly the service beside the caller, sometimes another machine's.
    fn target(&self, here: usize) -> Option<Arc<Machine>> {
        let machines = lock(&self.machines);
        let elsewhere = self.sim.below(4) == 0;
        let number = if elsewhere { self.sim.below(machines.len() as u64) } else { here as u64 };
        machines.get(usize::try_from(number).unwrap_or(0))?.upgrade()
    }
}

/// A client's request to a service of a machine. `None`: no answer that it waited for.
pub async fn ask(
    sim: &Arc<Sim>,
    machine: &Arc<Machine>,
    service: &str,
    request: http::Request<Bytes>,
) -> Option<Reply> {
    let (head, body) = request.into_parts();
    let request = Whole { head, body };
    let sent = transmit(sim, None, Some(machine.clone()), service, request);
    let answered = tokio::time::timeout(CLIENT_TIME_MAX, sent).await.ok()?.ok()?;
    let status = answered.status().as_u16();
    let body = answered.into_body().collect().await.ok()?.to_bytes();
    Some(Reply { status, body })
}

async fn transmit(
    sim: &Arc<Sim>,
    from: Option<usize>,
    target: Option<Arc<Machine>>,
    service: &str,
    request: Whole,
) -> Result<http::Response<WasiBody>, Error> {
    let target = target.ok_or(Error::DestinationUnavailable)?;
    let remote = from != Some(target.number);
    tokio::time::sleep(sim.latency()).await;
    if remote && target.is_cut_off() {
        sim.took_effect(Fault::Partition);
        // Nobody says no: the caller waits.
        return std::future::pending().await;
    }
    if remote && sim.strikes(Fault::RequestLost) {
        sim.took_effect(Fault::RequestLost);
        return std::future::pending().await;
    }
    if remote && sim.strikes(Fault::Duplicated) {
        let (again, target, service, sim) =
            (request.clone(), target.clone(), service.to_owned(), sim.clone());
        tokio::spawn(async move {
            // Some come when everybody has forgotten them.
            let late = if sim.below(3) == 0 { sim.below(LATE_MILLIS_MAX) } else { 0 };
            tokio::time::sleep(sim.latency() + Duration::from_millis(late)).await;
            sim.took_effect(Fault::Duplicated);
            let _second = target.answer(&service, again.into_request()).await;
        });
    }
    // A caller that goes away does not stop the callee.
    let (service, callee) = (service.to_owned(), target.clone());
    let working = tokio::spawn(async move { callee.answer(&service, request.into_request()).await });
    let answered = working.await.map_err(|_| Error::ConnectionTerminated)??;
    let (head, body) = answered.into_parts();
    let collected = body.collect().await.map_err(|_| Error::ConnectionTerminated)?;
    tokio::time::sleep(sim.latency()).await;
    if remote && (sim.strikes(Fault::AnswerLost) || target.is_cut_off()) {
        sim.took_effect(Fault::AnswerLost);
        return std::future::pending().await;
    }
    let body = collected.map_err(|never| match never {}).boxed_unsync();
    Ok(http::Response::from_parts(head, body))
}

/// A request that can be delivered twice.
#[derive(Clone)]
struct Whole {
    head: http::request::Parts,
    body: Bytes,
}

impl Whole {
    async fn of(request: http::Request<WasiBody>) -> Result<Self, Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { head, body })
    }

    fn into_request(mut self) -> http::Request<WasiBody> {
        self.head.headers.insert(PEER_HEADER, http::HeaderValue::from_static("simulated"));
        let body = Full::new(self.body).map_err(|never| match never {}).boxed_unsync();
        http::Request::from_parts(self.head, body)
    }
}
