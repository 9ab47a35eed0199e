//! The instances of one component, and the queue of requests that they take from.
//!
//! Few instances serve many requests: each has a memory of its own to fill and tokens of its own to
//! check. Another one begins when all are at work and they are fewer than the cores, when all are full,
//! or when none has taken a request for a while: a guest that computes keeps its instance from
//! everything else.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep, timeout};
use wasmtime::component::{Accessor, Func};
use wasmtime::{AsContextMut as _, Engine, Store};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::handler::{Prepared, Proxy, ProxyPre, Request, Response};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::guest::{Ctx, Grants};
use crate::world::Fuel;

/// Time that a request may take here; services answer within their own, shorter deadline.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(12);
/// A busy instance is ended this long after its request's time.
const GRACE: Duration = Duration::from_secs(1);
/// An instance without work is ended after this.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests that one instance serves in its life: its memory never shrinks.
const REQUESTS_PER_INSTANCE: usize = 20_000;
/// Requests in one instance at once; their fate is shared.
const CONCURRENT_PER_INSTANCE: usize = 64;
/// After this long without a request taken, those that wait get another instance.
const STALL: Duration = Duration::from_millis(10);

/// Why a request got no answer, where it is not the guest's own error.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("no instance can be made: {0}")]
    NoInstance(String),
    #[error("its instance ended")]
    Ended,
}

/// The instances of one component.
#[derive(Clone)]
pub struct Instances(Arc<Shared>);

struct Shared {
    name: String,
    engine: Engine,
    pre: ProxyPre<Ctx>,
    grants: Grants,
    max: usize,
    queue: Mutex<Queue>,
    /// Wakes one instance with room for each request that comes.
    pushed: Notify,
}

struct Queue {
    waiting: VecDeque<Call>,
    /// Requests taken so far; the first waiting one has this number.
    taken: u64,
    /// When a request was taken, or an instance begun.
    moved_at: Instant,
    /// Instances that take requests, and how many of these have room, or nothing to do.
    live: usize,
    open: usize,
    idle: usize,
}

struct Call {
    request: Request,
    answer: oneshot::Sender<wasmtime::Result<Response>>,
}

impl Instances {
    /// At most `max` at once. None is made before the first request.
    pub fn new(name: &str, engine: &Engine, service: ServicePre<Ctx>, grants: Grants, max: usize) -> Self {
        let queue =
            Queue { waiting: VecDeque::new(), taken: 0, moved_at: Instant::now(), live: 0, open: 0, idle: 0 };
        Self(Arc::new(Shared {
            name: name.to_owned(),
            engine: engine.clone(),
            pre: ProxyPre::P3(service),
            grants,
            max,
            queue: Mutex::new(queue),
            pushed: Notify::new(),
        }))
    }

    /// The guest's answer, or its error; `Lost`; or wasmtime's `ExpirationError`.
    pub async fn answer(&self, request: Request) -> wasmtime::Result<Response> {
        let (sender, mut answer) = oneshot::channel();
        let number = self.0.push(Call { request, answer: sender });
        let answer = loop {
            match timeout(STALL, &mut answer).await {
                Ok(answer) => break answer,
                Err(_) if self.0.is_waiting(number) => {}
                Err(_) => break answer.await,
            }
        };
        answer.unwrap_or_else(|_| Err(Lost::Ended.into()))
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the request's number.
    fn push(self: &Arc<Self>, call: Call) -> u64 {
        let mut queue = self.queue();
        let number = queue.taken.saturating_add(queue.waiting.len() as u64);
        queue.waiting.push_back(call);
        let all_work = queue.waiting.len() > queue.idle;
        if queue.open == 0 || (all_work && queue.live < self.grants.world.cores()) {
            self.begin(&mut queue);
        }
        drop(queue);
        // The one that was at work last: the others end when they are not needed.
        self.pushed.notify_last();
        number
    }

    /// Whether nobody has taken a request yet; helps when nobody takes any.
    fn is_waiting(self: &Arc<Self>, number: u64) -> bool {
        let mut queue = self.queue();
        let waiting = number >= queue.taken;
        if waiting && queue.moved_at.elapsed() >= STALL {
            self.begin(&mut queue);
        }
        waiting
    }

    fn begin(self: &Arc<Self>, queue: &mut Queue) {
        if queue.live >= self.max {
            return;
        }
        queue.live = queue.live.saturating_add(1);
        queue.open = queue.open.saturating_add(1);
        queue.idle = queue.idle.saturating_add(1);
        queue.moved_at = Instant::now();
        let shared = self.clone();
        // Its seat is made at its first turn: a runtime that shuts down drops the task here, and a seat
        // that is dropped wants the queue.
        tokio::spawn(async move { run(Seat { shared, calls: Some(0), served: 0 }).await });
    }
}

/// One instance's part in the queue.
struct Seat {
    shared: Arc<Shared>,
    /// Requests at work; `None` once it takes no more.
    calls: Option<usize>,
    served: usize,
}

impl Seat {
    fn has_room(&self) -> bool {
        self.calls.is_some_and(|calls| calls < CONCURRENT_PER_INSTANCE)
    }

    /// The next request of somebody who still waits for the answer.
    fn take(&mut self) -> Option<Call> {
        let shared = self.shared.clone();
        let mut queue = shared.queue();
        let call = loop {
            let call = queue.waiting.pop_front()?;
            queue.taken = queue.taken.saturating_add(1);
            if !call.answer.is_canceled() {
                break call;
            }
        };
        queue.moved_at = Instant::now();
        self.served = self.served.saturating_add(1);
        let last = self.served >= REQUESTS_PER_INSTANCE;
        let calls = self.calls.map(|calls| calls.saturating_add(1)).filter(|_| !last);
        self.now_has(&mut queue, calls);
        if queue.open == 0 && !queue.waiting.is_empty() {
            shared.begin(&mut queue);
        }
        Some(call)
    }

    /// One request has its answer.
    fn done(&mut self) {
        let shared = self.shared.clone();
        let calls = self.calls.map(|calls| calls.saturating_sub(1));
        self.now_has(&mut shared.queue(), calls);
    }

    /// Takes no more requests.
    fn leave(&mut self) {
        let shared = self.shared.clone();
        self.now_has(&mut shared.queue(), None);
    }

    fn now_has(&mut self, queue: &mut Queue, calls: Option<usize>) {
        let counts = |seat: &Self| (seat.calls.is_some(), seat.has_room(), seat.calls == Some(0));
        let (live, open, idle) = counts(self);
        self.calls = calls;
        let now = counts(self);
        let moved = |count: usize, before: bool, after: bool| {
            count.saturating_sub(before.into()).saturating_add(after.into())
        };
        queue.live = moved(queue.live, live, now.0);
        queue.open = moved(queue.open, open, now.1);
        queue.idle = moved(queue.idle, idle, now.2);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What an instance does and how long it may go on, told by what runs inside its store to what watches
/// from outside: a guest that computes lets nobody in.
struct Watched {
    idle: bool,
    until: Instant,
    /// The guest had its turn since it took a request: it may take another one.
    had_its_turn: bool,
}

impl Watched {
    /// With a request, or with what is left to do after the answers: a body to send, say.
    fn works(&mut self) {
        (self.idle, self.until) = (false, Instant::now() + REQUEST_TIME_MAX + GRACE);
    }

    fn rests(&mut self) {
        if !self.idle {
            (self.idle, self.until) = (true, Instant::now() + IDLE_TIME_MAX);
        }
    }
}

/// The life of one instance.
async fn run(mut seat: Seat) {
    let shared = seat.shared.clone();
    let mut store = new_store(&shared.engine, &shared.grants);
    let proxy = match shared.pre.instantiate_async(&mut store).await {
        Ok(proxy) => proxy,
        Err(error) => return refuse_waiting(seat, &format!("{error:#}")),
    };
    if let Err(error) = serve(&mut seat, &mut store, &proxy).await {
        seat.leave();
        shared.grants.world.instance_ended(&shared.name, &error);
    }
}

/// Without an instance there is nobody to wait for.
fn refuse_waiting(mut seat: Seat, reason: &str) {
    seat.leave();
    let mut queue = seat.shared.queue();
    if queue.live > 0 {
        return;
    }
    queue.taken = queue.taken.saturating_add(queue.waiting.len() as u64);
    for call in queue.waiting.drain(..) {
        // Err: the caller has gone.
        let _ = call.answer.send(Err(Lost::NoInstance(reason.to_owned()).into()));
    }
}

/// Serves until the instance has been idle for long, is used up, is stuck (an error) or trapped.
async fn serve(seat: &mut Seat, store: &mut Store<Ctx>, proxy: &Proxy) -> wasmtime::Result<()> {
    let begun = Watched { idle: true, until: Instant::now() + IDLE_TIME_MAX, had_its_turn: true };
    let watched = Mutex::new(begun);
    let watch = || watched.lock().unwrap_or_else(PoisonError::into_inner);
    let mut inside =
        pin!(store.run_concurrent(async |accessor| serve_inside(seat, accessor, proxy, &watched).await));
    let mut alarm = pin!(sleep(IDLE_TIME_MAX));
    poll_fn(|cx| {
        if let Poll::Ready(ended) = inside.as_mut().poll(cx) {
            return Poll::Ready(ended.flatten());
        }
        let (idle, until) = {
            let watched = watch();
            (watched.idle, watched.until)
        };
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        if alarm.as_mut().poll(cx).is_ready() {
            let stuck = || Err(wasmtime::Error::msg("guest timed out"));
            return Poll::Ready(if idle { Ok(()) } else { stuck() });
        }
        if !std::mem::replace(&mut watch().had_its_turn, true) {
            return inside.as_mut().poll(cx).map(Result::flatten);
        }
        Poll::Pending
    })
    .await
}

async fn serve_inside(
    seat: &mut Seat,
    accessor: &Accessor<Ctx>,
    proxy: &Proxy,
    watched: &Mutex<Watched>,
) -> wasmtime::Result<()> {
    let watch = || watched.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = seat.shared.clone();
    let handler = handler_of(proxy);
    let mut calls = FuturesUnordered::new();
    let mut pushed = pin!(None);
    poll_fn(|cx| {
        loop {
            let answered: Poll<Option<wasmtime::Result<bool>>> = calls.poll_next_unpin(cx);
            match answered {
                Poll::Ready(Some(Ok(in_time))) => {
                    seat.done();
                    if !in_time {
                        seat.leave();
                    }
                    if calls.is_empty() {
                        watch().works();
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) | Poll::Pending => {}
            }
            let ready = accessor.poll_ready_for_concurrent_call(handler, cx).is_ready();
            if !(ready && seat.has_room() && (calls.is_empty() || watch().had_its_turn)) {
                // Not the one to be woken for the next request.
                pushed.set(None);
            } else if let Some(call) = next(seat, &shared, pushed.as_mut(), cx) {
                let mut watched = watch();
                watched.works();
                watched.had_its_turn = false;
                drop(watched);
                calls.push(begin_call(&shared, accessor, proxy, call));
                continue;
            }
            if !calls.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                return Poll::Pending;
            }
            if seat.calls.is_none() || !ready {
                return Poll::Ready(Ok(()));
            }
            watch().rests();
            return Poll::Pending;
        }
    })
    .await
}

/// A request, or the promise to be woken for one.
fn next<'a>(
    seat: &mut Seat,
    shared: &'a Shared,
    mut pushed: Pin<&mut Option<Notified<'a>>>,
    cx: &mut TaskContext<'_>,
) -> Option<Call> {
    loop {
        if pushed.is_none() {
            pushed.set(Some(shared.pushed.notified()));
        }
        let mut notified = pushed.as_mut().as_pin_mut()?;
        // Before the look, so that no request comes between.
        notified.as_mut().enable();
        if let Some(call) = seat.take() {
            return Some(call);
        }
        if notified.poll(cx).is_pending() {
            return None;
        }
        pushed.set(None);
    }
}

/// Whether the guest answered in time.
fn begin_call<'a>(
    shared: &Shared,
    accessor: &'a Accessor<Ctx>,
    proxy: &'a Proxy,
    call: Call,
) -> impl Future<Output = wasmtime::Result<bool>> + use<'a> {
    let prepared = accessor.with(|mut access| {
        let store = access.as_context_mut();
        if let Some(fuel) = shared.grants.world.fuel()
            && let Ok(left) = store.get_fuel()
        {
            fuel.note(&shared.name, left);
        }
        Prepared::new(store, proxy, call.request, Ctx::http, call.answer)
    });
    async move { prepared?.run(accessor, sleep(REQUEST_TIME_MAX)).await }
}

fn handler_of(proxy: &Proxy) -> Func {
    let Proxy::P3(service) = proxy;
    *service.wasi_http_handler().func_handle().func()
}

/// A store for one instance.
pub fn new_store(engine: &Engine, grants: &Grants) -> Store<Ctx> {
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
