//! The network between machines, services and clients: slow, lossy, sometimes twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{Error, WasiBody};

use super::machine::{Life, Machine, Machines};
use super::{Call, Fault, Sim, Step, lock};
use crate::http::outbound::{Answer, Network, local_name};
use crate::http::{PEER_HEADER, whole};

/// How late a duplicate may come.
const LATE_MILLIS_MAX: u64 = 90_000;
/// A late answer comes after this time at least.
const LATE_MILLIS_MIN: u64 = 1_500;
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
            let what = format!("send {service} {}", request.head.uri.path());
            let call = self.life.call(request.as_call(&service), what).await;
            let here = self.life.machine;
            let target = self.target(here);
            let answered = transmit(&self.sim, Some(here), target, &service, call.step, request).await;
            self.life.called(&call).await;
            answered
        })
    }

    /// Every machine has the whole application.
    fn has(&self, _service: &str) -> bool {
        true
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
    let step = (sim.steps)(&request.as_call(service));
    let sent = transmit(sim, None, Some(machine.clone()), service, step, request);
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
    step: Step,
    request: Whole,
) -> Result<http::Response<WasiBody>, Error> {
    let target = target.ok_or(Error::DestinationUnavailable)?;
    let remote = from != Some(target.number);
    let strikes = |fault| remote && sim.hits(fault, step);
    tokio::time::sleep(sim.latency()).await;
    if remote && target.is_cut_off() {
        sim.took_effect(Fault::Partition, step);
        // Nobody says no: the caller waits.
        return std::future::pending().await;
    }
    if strikes(Fault::RequestLost) {
        return std::future::pending().await;
    }
    if remote && sim.strikes(Fault::Duplicated) {
        let (again, target, service, sim) =
            (request.clone(), target.clone(), service.to_owned(), sim.clone());
        tokio::spawn(async move {
            // Some come when everybody has forgotten them.
            let late = if sim.below(3) == 0 { sim.below(LATE_MILLIS_MAX) } else { 0 };
            tokio::time::sleep(sim.latency() + Duration::from_millis(late)).await;
            sim.took_effect(Fault::Duplicated, step);
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
    if strikes(Fault::AnswerLost) {
        return std::future::pending().await;
    }
    if remote && target.is_cut_off() {
        sim.took_effect(Fault::Partition, step);
        return std::future::pending().await;
    }
    if strikes(Fault::AnswerLate) {
        let late = LATE_MILLIS_MIN + sim.below(LATE_MILLIS_MAX);
        tokio::time::sleep(Duration::from_millis(late)).await;
    }
    if strikes(Fault::AnswerBroken) {
        return broken(sim);
    }
    let body = collected.map_err(|never| match never {}).boxed_unsync();
    Ok(http::Response::from_parts(head, body))
}

/// What a proxy answers of its own, or half an answer: the caller cannot know what was done.
fn broken(sim: &Sim) -> Result<http::Response<WasiBody>, Error> {
    if sim.below(2) == 0 {
        return Err(Error::HttpResponseIncomplete);
    }
    let page = whole("<html>bad gateway</html>");
    let answer = http::Response::builder().status(http::StatusCode::BAD_GATEWAY).body(page);
    answer.map_err(|error| Error::InternalError(Some(error.to_string())))
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

    fn as_call<'a>(&'a self, service: &'a str) -> Call<'a> {
        Call::Send { service, method: &self.head.method, path: self.head.uri.path() }
    }

    fn into_request(mut self) -> http::Request<WasiBody> {
        self.head.headers.insert(PEER_HEADER, http::HeaderValue::from_static("simulated"));
        http::Request::from_parts(self.head, whole(self.body))
    }
}
