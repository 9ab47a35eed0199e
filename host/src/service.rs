//! One component at work: instances that serve many requests at once, within limits.
//!
//! A trap ends its instance and every request in it; their sagas are resumed later. A caller that
//! goes away does not stop the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Store;
use wasmtime::component::{Component, Instance, Linker};
use wasmtime_wasi_http::handler::ExpirationError;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::guest::{Ctx, Grants};
use crate::http::outbound::{Answer, Local};
use crate::instances::{Instances, Lost};

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
    instances: Instances,
    places: Semaphore,
    waiting: AtomicUsize,
    capacity: Capacity,
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
        let pre = ServicePre::new(pre).map_err(|error| {
            anyhow!("component `{name}` does not export wasi:http/handler@0.3: {error:#}")
        })?;
        Ok(Self {
            name: name.to_owned(),
            instances: Instances::new(name, linker.engine(), pre, grants, capacity.concurrent),
            places: Semaphore::new(capacity.concurrent),
            waiting: AtomicUsize::new(0),
            capacity,
        })
    }

    /// Whether a request that comes now is refused.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) >= self.capacity.waiting
    }

    /// Lets an instance answer a request.
    pub async fn call(&self, request: http::Request<WasiBody>) -> Result<http::Response<WasiBody>, Refusal> {
        let _place = self.place().await?;
        self.instances.answer(request).await.map_err(|error| refusal_of(&error))
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

    /// A fresh store and instance, for a call that is not HTTP.
    pub async fn instance(&self) -> Result<(Store<Ctx>, Instance)> {
        Ok(self.instances.fresh().await?)
    }
}

impl Local for Service {
    fn answer(self: Arc<Self>, request: http::Request<WasiBody>) -> Answer {
        Box::pin(async move { self.call(request).await.map_err(error_of) })
    }
}

fn refusal_of(error: &wasmtime::Error) -> Refusal {
    if let Some(code) = error.downcast_ref::<ErrorCode>() {
        return match code {
            ErrorCode::HttpRequestBodySize(_) => Refusal::BodyTooLarge,
            other => Refusal::Failed(other.to_string()),
        };
    }
    match error.downcast_ref::<Lost>() {
        Some(Lost::NoInstance(_)) => Refusal::Busy,
        None if error.is::<ExpirationError>() => Refusal::TimedOut,
        Some(Lost::Ended) | None => Refusal::Failed(format!("{error:#}")),
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

/// Every service of the application, by name.
pub type Services = std::collections::HashMap<String, Arc<Service>>;
