//! One component at work: instances that serve many requests at once, within limits.
//!
//! A trap ends its instance and every request in it; their sagas are resumed later. A caller that
//! goes away does not stop the guest.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::{Component, GuestTaskId, InstancePre, Linker};
use wasmtime::{Engine, Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    ExpirationError, HandlerState, Instance, InstantiationError, ProxyHandler, ProxyPre, ShouldAccept,
    WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView as _};

use crate::guest::{Ctx, Grants};
use crate::http::outbound::{Answer, Local};
use crate::world::{Fuel, World};

/// Time that a request may take here; services answer within their own, shorter deadline.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(12);
/// A busy instance is ended this long after its request's time.
const GRACE: Duration = Duration::from_secs(1);
/// An instance without work is ended after this.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests that one instance serves in its life: its memory never shrinks.
const REQUESTS_PER_INSTANCE: usize = 20_000;
/// Requests in one instance at once; their fate is shared.
const CONCURRENT_PER_INSTANCE: usize = 16;
/// Longest wait for a place before a request is refused.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);

/// How much of a component runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub concurrent: usize,
    pub waiting: usize,
}

/// Why a request got no answer from the guest.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Over its capacity: come back later. Nothing was done.
    #[error("over capacity")]
    Busy,
    #[error("the request body is over the limit")]
    BodyTooLarge,
    #[error("no answer in time")]
    TimedOut,
    /// The guest trapped, or answered with an error of the protocol.
    #[error("the service failed: {0}")]
    Failed(String),
}

/// A component that serves requests.
pub struct Service {
    pub name: String,
    handler: ProxyHandler<State>,
    places: Semaphore,
    waiting: AtomicUsize,
    capacity: Capacity,
    engine: Engine,
    pre: InstancePre<Ctx>,
    grants: Grants,
}

impl Service {
    /// Links a component. The error names an import that this host does not have.
    pub fn new(
        name: &str,
        linker: &Linker<Ctx>,
        component: &Component,
        grants: Grants,
        capacity: Capacity,
    ) -> Result<Self> {
        let pre = linker
            .instantiate_pre(component)
            .map_err(|error| anyhow!("component `{name}` cannot be linked: {error:#}"))?;
        let service = ServicePre::new(pre.clone()).map_err(|error| {
            anyhow!("component `{name}` does not export wasi:http/handler@0.3: {error:#}")
        })?;
        let state = State {
            name: name.to_owned(),
            engine: linker.engine().clone(),
            pre: ProxyPre::P3(service),
            grants: grants.clone(),
        };
        Ok(Self {
            name: name.to_owned(),
            handler: ProxyHandler::new(state),
            places: Semaphore::new(capacity.concurrent),
            waiting: AtomicUsize::new(0),
            capacity,
            engine: linker.engine().clone(),
            pre,
            grants,
        })
    }

    /// Whether a request that comes now is refused.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) >= self.capacity.waiting
    }

    /// Lets an instance answer a request.
    pub async fn call(&self, request: http::Request<WasiBody>) -> Result<http::Response<WasiBody>, Refusal> {
        let _place = self.place().await?;
        match self.handler.handle((), request).await {
            Ok(response) => Ok(response),
            Err(error) => Err(self.refusal_of(&error)),
        }
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.capacity.waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Busy);
        }
        let place = tokio::time::timeout(QUEUE_TIME_MAX, self.places.acquire()).await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        place.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }

    fn refusal_of(&self, error: &wasmtime::Error) -> Refusal {
        if let Some(code) = error.downcast_ref::<ErrorCode>() {
            return match code {
                ErrorCode::HttpRequestBodySize(_) => Refusal::BodyTooLarge,
                other => Refusal::Failed(other.to_string()),
            };
        }
        if error.is::<ExpirationError>() {
            return Refusal::TimedOut;
        }
        if error.is::<InstantiationError<()>>() {
            return Refusal::Busy;
        }
        Refusal::Failed(format!("{error:#}"))
    }

    /// A fresh store and instance, for a call that is not HTTP.
    pub async fn instance(&self) -> Result<(Store<Ctx>, wasmtime::component::Instance)> {
        let mut store = new_store(&self.engine, &self.grants);
        let instance = self.pre.instantiate_async(&mut store).await?;
        Ok((store, instance))
    }
}

impl Local for Service {
    fn answer(self: Arc<Self>, request: http::Request<WasiBody>) -> Answer {
        Box::pin(async move { self.call(request).await.map_err(error_of) })
    }
}

/// What a refusal looks like to a caller in this process.
fn error_of(refusal: Refusal) -> Error {
    match refusal {
        // Nothing was done: the caller may try again.
        Refusal::Busy => Error::ConnectionLimitReached,
        Refusal::BodyTooLarge => Error::HttpRequestBodySize(None),
        Refusal::TimedOut => Error::HttpResponseTimeout,
        Refusal::Failed(_) => Error::ConnectionTerminated,
    }
}

fn new_store(engine: &Engine, grants: &Grants) -> Store<Ctx> {
    let mut store = Store::new(engine, Ctx::new(grants));
    store.limiter(|ctx| &mut ctx.store_limits);
    if grants.world.fuel().is_some() {
        // Err: the engine counts none, and then nothing is noted.
        let _ = store.set_fuel(Fuel::FULL);
    }
    // A thread advances the epoch; a busy guest yields to the others at each tick.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// How the handler makes instances.
struct State {
    name: String,
    engine: Engine,
    pre: ProxyPre<Ctx>,
    grants: Grants,
}

impl HandlerState for State {
    type StoreData = Ctx;
    type WorkerExpiration = Expiry;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Ctx, Expiry, Worker>> {
        let mut store = new_store(&self.engine, &self.grants);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        let state = Worker { name: self.name.clone(), world: self.grants.world.clone() };
        Ok(Instance { store, proxy, view: Ctx::http, expiration: Expiry::new(), state })
    }
}

/// One instance's limits.
struct Worker {
    name: String,
    world: Arc<dyn World>,
}

impl WorkerState for Worker {
    type StoreData = Ctx;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= REQUESTS_PER_INSTANCE {
            ShouldAccept::Never
        } else if concurrent >= CONCURRENT_PER_INSTANCE {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        store: StoreContextMut<'_, Ctx>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        if let Some(fuel) = self.world.fuel()
            && let Ok(left) = store.get_fuel()
        {
            fuel.note(&self.name, left);
        }
        Box::pin(tokio::time::sleep(REQUEST_TIME_MAX))
    }

    fn drop(&self, _: Store<Ctx>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            self.world.instance_ended(&self.name, &error);
        }
    }
}

/// Ends an instance that is idle or stuck. Polled outside the guest, at an epoch's yield.
struct Expiry {
    seen: Option<(WorkerStatus, Instant)>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Expiry {
    fn new() -> Self {
        Self { seen: None, sleep: Box::pin(tokio::time::sleep(IDLE_TIME_MAX)) }
    }
}

impl WorkerExpiration for Expiry {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        if self.seen.replace((status, start)) != Some((status, start)) {
            let time = match status {
                WorkerStatus::Idle => IDLE_TIME_MAX,
                WorkerStatus::Requests | WorkerStatus::PostReturn => REQUEST_TIME_MAX + GRACE,
            };
            self.sleep.as_mut().reset(tokio::time::Instant::now() + time);
        }
        self.sleep.as_mut().poll(cx)
    }
}

/// Every service of the application, by name.
pub type Services = std::collections::HashMap<String, Arc<Service>>;
