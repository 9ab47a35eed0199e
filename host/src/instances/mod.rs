//! The instances of one component, and the queue of requests that they take from.
//!
//! Few instances serve many requests: each has a memory of its own to fill and tokens of its own to
//! check. Another one begins when all are at work and they are fewer than the cores, when all are full,
//! or when none has taken a request for a while: a guest that computes keeps its instance from
//! everything else.

mod queue;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep, timeout};
use wasmtime::component::{Accessor, Func, Instance};
use wasmtime::{AsContextMut as _, Engine, Store};
use wasmtime_wasi_http::handler::{ExpirationError, Prepared, Proxy, Response};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use self::queue::{Queue, STALL, Seat};
use crate::bindings::unary::{Unary, UnaryPre};
use crate::guest::{Ctx, Grants};
use crate::http::unary;
use crate::turn;
use crate::world::Fuel;

/// Time that a request may take here; services answer within their own, shorter deadline.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(12);
/// A busy instance is ended this long after its request's time.
const GRACE: Duration = Duration::from_secs(1);
/// An instance without work is ended after this.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a request got no answer, where it is not the guest's own error.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("no instance can be made: {0}")]
    NoInstance(String),
    #[error("its instance ended")]
    Ended,
}

/// The instances of one component.
pub struct Instances(Arc<Shared>);

struct Shared {
    name: String,
    engine: Engine,
    pre: ServicePre<Ctx>,
    /// It answers short requests in one piece.
    is_unary: bool,
    grants: Grants,
    queue: Mutex<Queue<Call>>,
    /// Wakes one instance with room for each request that comes.
    pushed: Notify,
}

enum Request {
    Streamed(http::Request<WasiBody>),
    Whole(unary::Request),
}

struct Call {
    request: Request,
    answer: oneshot::Sender<wasmtime::Result<Response>>,
}

impl Instances {
    /// At most `max` at once. None is made before the first request.
    pub fn new(name: &str, engine: &Engine, pre: ServicePre<Ctx>, grants: Grants, max: usize) -> Self {
        let queue = Mutex::new(Queue::new(grants.world.cores(), max));
        let (name, engine) = (name.to_owned(), engine.clone());
        let is_unary = UnaryPre::new(pre.instance_pre().clone()).is_ok();
        Self(Arc::new(Shared { name, engine, pre, is_unary, grants, queue, pushed: Notify::new() }))
    }

    /// A fresh store and instance beside them, for a call that is not HTTP.
    pub async fn fresh(&self) -> wasmtime::Result<(Store<Ctx>, Instance)> {
        let mut store = self.0.new_store();
        let instance = self.0.pre.instance_pre().instantiate_async(&mut store).await?;
        Ok((store, instance))
    }

    /// The guest's answer, or its error; `Lost`; or wasmtime's `ExpirationError`.
    pub async fn answer(&self, request: http::Request<WasiBody>) -> wasmtime::Result<Response> {
        let request = if self.0.is_unary {
            let read = timeout(REQUEST_TIME_MAX, unary::read(request)).await.map_err(|_| ExpirationError)?;
            read.map_or_else(Request::Streamed, Request::Whole)
        } else {
            Request::Streamed(request)
        };
        let (sender, answer) = oneshot::channel();
        self.0.push(Call { request, answer: sender });
        answer.await.unwrap_or_else(|_| Err(Lost::Ended.into()))
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue<Call>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, call: Call) {
        let (seat, unwatched) = self.queue().push(call);
        self.begin(seat);
        if unwatched {
            tokio::spawn(look_after(Arc::downgrade(self)));
        }
        // The one that was at work last: the others end when they are not needed.
        self.pushed.notify_last();
    }

    /// For one instance.
    fn new_store(&self) -> Store<Ctx> {
        let mut store = Store::new(&self.engine, Ctx::new(&self.grants));
        store.limiter(|ctx| &mut ctx.store_limits);
        if self.grants.world.fuel().is_some() {
            // Err: the engine counts none, and then nothing is noted.
            let _ = store.set_fuel(Fuel::FULL);
        }
        // A thread advances the epoch; a busy guest yields to the others at each tick.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }

    /// Not with the queue locked: a runtime that shuts down drops the task here.
    fn begin(self: &Arc<Self>, seat: Option<Seat>) {
        if let Some(seat) = seat {
            turn::spawn(run(Member { shared: self.clone(), seat }));
        }
    }
}

/// Sees that no request waits for long, while there are any. A timer for each request would wake the thread
/// that waits for timers each time, since it would be the next to go off.
async fn look_after(shared: Weak<Shared>) {
    loop {
        sleep(STALL).await;
        let Some(shared) = shared.upgrade() else { return };
        let looked = shared.queue().look();
        let ControlFlow::Continue(seat) = looked else { return };
        shared.begin(seat);
    }
}

/// An instance in its queue, until it is dropped.
struct Member {
    shared: Arc<Shared>,
    seat: Seat,
}

impl Member {
    /// The next request of somebody who still waits for the answer.
    fn take(&mut self) -> Option<Call> {
        let taken = self.shared.queue().take(&mut self.seat, |call| !call.answer.is_canceled());
        let (call, seat) = taken?;
        self.shared.begin(seat);
        Some(call)
    }

    /// One request was answered, in time or not; with one that was not, the guest is stuck.
    fn done(&mut self, in_time: bool) {
        let mut queue = self.shared.queue();
        queue.done(&mut self.seat);
        if !in_time {
            queue.leave(&mut self.seat);
        }
    }

    fn leave(&mut self) {
        self.shared.queue().leave(&mut self.seat);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What an instance does and how long it may go on, told by what runs inside its store to what watches
/// from outside: a guest that computes lets nobody in.
struct Watch(Mutex<Watched>);

#[derive(Clone, Copy)]
struct Watched {
    idle: bool,
    until: Instant,
    /// The guest had its turn since it took a request: it may take another one.
    had_its_turn: bool,
}

impl Watch {
    fn begin() -> Self {
        Self(Mutex::new(Watched { idle: true, until: Instant::now() + IDLE_TIME_MAX, had_its_turn: true }))
    }

    fn now(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took_a_request(&self) {
        *self.now() = Watched { idle: false, until: Self::work_ends(), had_its_turn: false };
    }

    /// Every answer is given, and something may be left to do: a body to send, say.
    fn answered(&self) {
        let mut watched = self.now();
        (watched.idle, watched.until) = (false, Self::work_ends());
    }

    fn rests(&self) {
        let mut watched = self.now();
        if !watched.idle {
            (watched.idle, watched.until) = (true, Instant::now() + IDLE_TIME_MAX);
        }
    }

    /// What it was before the guest has this turn.
    fn turn(&self) -> Watched {
        let mut watched = self.now();
        let before = *watched;
        watched.had_its_turn = true;
        before
    }

    fn work_ends() -> Instant {
        Instant::now() + REQUEST_TIME_MAX + GRACE
    }
}

/// What an instance exports.
struct Guest {
    proxy: Proxy,
    unary: Option<Unary>,
}

impl Guest {
    async fn begin(shared: &Shared, store: &mut Store<Ctx>) -> wasmtime::Result<Self> {
        let instance = shared.pre.instance_pre().instantiate_async(&mut *store).await?;
        let unary = if shared.is_unary { Some(Unary::new(&mut *store, &instance)?) } else { None };
        Ok(Self { proxy: Proxy::P3(Service::new(store, &instance)?), unary })
    }
}

/// The life of one instance.
async fn run(mut member: Member) {
    let shared = member.shared.clone();
    let mut store = shared.new_store();
    let guest = match Guest::begin(&shared, &mut store).await {
        Ok(guest) => guest,
        Err(error) => return refuse_waiting(member, &format!("{error:#}")),
    };
    if let Err(error) = serve(&mut member, &mut store, &guest).await {
        member.leave();
        shared.grants.world.instance_ended(&shared.name, &error);
    }
}

/// Without an instance there is nobody to wait for.
fn refuse_waiting(mut member: Member, reason: &str) {
    member.leave();
    let abandoned = member.shared.queue().abandoned();
    for call in abandoned {
        // Err: the caller has gone.
        let _ = call.answer.send(Err(Lost::NoInstance(reason.to_owned()).into()));
    }
}

/// Serves until the instance has been idle for long, is used up, is stuck (an error) or trapped.
async fn serve(member: &mut Member, store: &mut Store<Ctx>, guest: &Guest) -> wasmtime::Result<()> {
    let watch = Watch::begin();
    let mut inside =
        pin!(store.run_concurrent(async |accessor| serve_inside(member, accessor, guest, &watch).await));
    let mut alarm = pin!(sleep(IDLE_TIME_MAX));
    poll_fn(|cx| {
        if let Poll::Ready(ended) = inside.as_mut().poll(cx) {
            return Poll::Ready(ended.flatten());
        }
        let Watched { idle, until, had_its_turn } = watch.turn();
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        if alarm.as_mut().poll(cx).is_ready() {
            let stuck = || Err(wasmtime::Error::msg("guest timed out"));
            return Poll::Ready(if idle { Ok(()) } else { stuck() });
        }
        if !had_its_turn {
            return inside.as_mut().poll(cx).map(Result::flatten);
        }
        Poll::Pending
    })
    .await
}

async fn serve_inside(
    member: &mut Member,
    accessor: &Accessor<Ctx>,
    guest: &Guest,
    watch: &Watch,
) -> wasmtime::Result<()> {
    let shared = member.shared.clone();
    let handler = handler_of(&guest.proxy);
    let mut calls = FuturesUnordered::new();
    let mut pushed = pin!(None);
    poll_fn(|cx| {
        loop {
            let answered: Poll<Option<wasmtime::Result<bool>>> = calls.poll_next_unpin(cx);
            match answered {
                Poll::Ready(Some(Ok(in_time))) => {
                    member.done(in_time);
                    if calls.is_empty() {
                        watch.answered();
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) | Poll::Pending => {}
            }
            let ready = accessor.poll_ready_for_concurrent_call(handler, cx).is_ready();
            if !(ready && member.seat.has_room() && (calls.is_empty() || watch.now().had_its_turn)) {
                // Not the one to be woken for the next request.
                pushed.set(None);
            } else if let Some(call) = next(member, &shared, pushed.as_mut(), cx) {
                watch.took_a_request();
                calls.push(begin_call(&shared, accessor, guest, call));
                continue;
            }
            if !calls.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                return Poll::Pending;
            }
            if !(ready && member.seat.is_open()) {
                return Poll::Ready(Ok(()));
            }
            watch.rests();
            return Poll::Pending;
        }
    })
    .await
}

/// A request, or the promise to be woken for one.
fn next<'a>(
    member: &mut Member,
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
        if let Some(call) = member.take() {
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
    guest: &'a Guest,
    call: Call,
) -> impl Future<Output = wasmtime::Result<bool>> + use<'a> {
    if let Some(fuel) = shared.grants.world.fuel() {
        let left = accessor.with(|mut access| access.as_context_mut().get_fuel());
        // Err: the engine counts none.
        let _ = left.map(|left| fuel.note(&shared.name, left));
    }
    async move {
        match (call.request, &guest.unary) {
            (Request::Whole(request), Some(unary)) => {
                let asked = unary.settle_unary_handler().call_handle(accessor, request);
                let answered = timeout(REQUEST_TIME_MAX, asked).await;
                let in_time = answered.is_ok();
                let answer = answered.unwrap_or_else(|_| Err(ExpirationError.into()));
                // Err: the caller has gone.
                let _ = call.answer.send(answer.and_then(|answer| Ok(unary::write(answer)?)));
                Ok(in_time)
            }
            (Request::Streamed(request), _) => {
                let prepared = accessor.with(|mut access| {
                    Prepared::new(access.as_context_mut(), &guest.proxy, request, Ctx::http, call.answer)
                });
                prepared?.run(accessor, sleep(REQUEST_TIME_MAX)).await
            }
            (Request::Whole(_), None) => Err(wasmtime::Error::msg("a request in one piece is not for it")),
        }
    }
}

fn handler_of(proxy: &Proxy) -> Func {
    let Proxy::P3(service) = proxy;
    *service.wasi_http_handler().func_handle().func()
}
