//! The order service's operations: place, read, cancel, recover. `steps.rs` drives each saga.
//!
//! The order of things is the promise: a durable intent before money moves, the same key on every
//! retry, no charge after the order's deadline, and an undo that is repeated until it answers.

use std::time::Duration;

use futures_util::future::join_all;
use settle_ports::{CallContext, Database, DueReport, Limiter, SqlError, Verdict, World};
use settle_saga::{IllegalEvent, Saga};
use settle_types::{FailureReason, OrderId, Timestamp, UserId};

use crate::claims::SagaSummary;
use crate::order::{Caller, NewOrder, Order, Status};
use crate::payments::{Charged, Paid, Payments};
use crate::saga::{Event, FinalStep, Input, OrderSaga};
use crate::steps::{CALL_TIMEOUT, project};
use crate::store::{HistoryEntry, IdempotencyClaim, Lease, OwnedOrder, Page, Store, StoreError};

/// Tries of one remote call within one request.
pub(crate) const CALL_TRIES_MAX: u32 = 3;
/// A call with less time than this is not worth starting.
pub(crate) const CALL_TIME_MIN: Duration = Duration::from_millis(50);
/// Longer than all tries of one step: others leave the saga alone meanwhile.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How often a duplicate looks whether the first request is done.
const DUPLICATE_POLL: Duration = Duration::from_millis(15);
/// Time that one recovered saga may take.
const RESUME_DEADLINE: Duration = Duration::from_secs(10);
/// When a client may ask again for an order that payment had to be asked about.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A saga whose journal cannot be replayed is looked at again after this.
const UNREADABLE_RETRY: Duration = Duration::from_secs(3600);
/// How long the final step of the simulation's slow product takes.
const SLOW_STEP_MILLIS: u64 = 1000;
/// The name of the circuit breaker around payment.
pub(crate) const PAYMENT_BREAKER: &str = "payment";

/// What the deployment decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names this process in leases; new at every start.
    pub owner: String,
    /// No other host uses this database: whatever another owner left is due at once.
    pub exclusive: bool,
    /// After this, an order is only looked up or undone.
    pub order_deadline: Duration,
    /// How long a completed order can be cancelled.
    pub cancel_window: Duration,
    /// Orders with this product fail in the final step (simulation; absent in production).
    pub fail_product: Option<String>,
    /// The final step of orders with this product takes a second (simulation).
    pub slow_product: Option<String>,
}

/// What came of a request to place an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub order: Order,
    /// The same request had been made before.
    pub replayed: bool,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("no such order")]
    NotFound,
    #[error("the idempotency key was used with another request")]
    KeyReused,
    #[error("an order that is {} does not allow this", .0.as_str())]
    Illegal(Status),
    /// Nothing was written; retryable after the given time.
    #[error("temporarily unavailable: {reason}")]
    Unavailable { reason: String, retry_after: Duration },
    /// The write may have happened; repeat with the same idempotency key.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// A defect or a damaged database.
    #[error("internal: {0}")]
    Internal(String),
}

impl OrderError {
    /// The same once something is written: it can no longer be said that nothing was.
    fn after_a_write(self) -> Self {
        match self {
            Self::Unavailable { reason, .. } => Self::OutcomeUnknown(reason),
            other => other,
        }
    }
}

impl From<StoreError> for OrderError {
    fn from(error: StoreError) -> Self {
        let retry_after = Duration::from_secs(1);
        match error {
            StoreError::Stale => OrderError::Unavailable { reason: error.to_string(), retry_after },
            StoreError::Sql(SqlError::NotApplied(reason)) => OrderError::Unavailable { reason, retry_after },
            StoreError::Sql(SqlError::OutcomeUnknown(reason)) => OrderError::OutcomeUnknown(reason),
            StoreError::Sql(_) | StoreError::Journal(..) | StoreError::Unreadable(..) => {
                OrderError::Internal(error.to_string())
            }
        }
    }
}

impl From<IllegalEvent> for OrderError {
    fn from(error: IllegalEvent) -> Self {
        OrderError::Internal(error.to_string())
    }
}

/// How long a duplicate leaves an order on a shared database to its owner.
const OWNER_PATIENCE: Duration = Duration::from_millis(500);

/// The order service, over its ports.
pub struct Orders<W, D, P, L> {
    pub world: W,
    pub store: Store<D>,
    pub payments: P,
    pub limiter: L,
    pub settings: Settings,
}

impl<W: World, D: Database, P: Payments, L: Limiter> Orders<W, D, P, L> {
    pub fn new(world: W, database: D, payments: P, limiter: L, settings: Settings) -> Self {
        Self { world, store: Store { database }, payments, limiter, settings }
    }

    // ---- what clients ask for ----

    /// Places an order and drives its saga until it settles or the caller's time is over.
    pub async fn place(
        &self,
        context: &CallContext,
        request: NewOrder,
        claim: Option<IdempotencyClaim>,
    ) -> Result<Placed, OrderError> {
        let verdict = self.limiter.allow(PAYMENT_BREAKER).await;
        if let Verdict::Open(retry_after) = verdict {
            return self.place_while_open(context, claim, retry_after).await;
        }
        let now = self.world.now();
        let id = OrderId::new(now, self.world.id_bytes());
        let mut saga = Saga::<OrderSaga>::begin(Event::Placed(self.input_of(id, &request, now)), now)?;
        let mut order = Order {
            id,
            user_id: request.user_id().clone(),
            status: saga.state().status(),
            failure_reason: None,
            total: request.total(),
            items: request.items().to_vec(),
            payment_id: None,
            created_at: now,
            updated_at: now,
        };
        let placed = self.store.place(&order, &saga, claim.as_ref(), self.lease(now), context).await;
        if !matches!(placed, Ok(Ok(()))) {
            // The probe was not used: give it back as a failure, so that the breaker stays shut.
            self.give_back_probe(verdict, context).await;
        }
        match placed? {
            Ok(()) => saga.mark_written(),
            Err(earlier) if !earlier.same_request => return Err(OrderError::KeyReused),
            Err(earlier) => return self.await_first(context, earlier.order_id).await,
        }
        let driven = self.drive(context, &mut order, &mut saga, Some(verdict)).await;
        driven.map_err(OrderError::after_a_write)?;
        if !saga.unwritten().is_empty() {
            // The end may be stored nevertheless, and seen by a duplicate.
            order = self.shown(context, order).await.map_err(OrderError::after_a_write)?;
        }
        Ok(Placed { order, replayed: false })
    }

    /// Reads an order. One whose owner is gone is brought up to date first, so that a client's
    /// view never goes backwards, not even after the machine lost a relaxed write.
    pub async fn read(
        &self,
        context: &CallContext,
        caller: &Caller,
        id: OrderId,
    ) -> Result<Order, OrderError> {
        let owned = self.find_for(caller, id).await?;
        self.up_to_date(context, owned).await
    }

    pub async fn list(
        &self,
        caller: &Caller,
        status: Option<Status>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Page, OrderError> {
        let user = (!caller.admin).then_some(&caller.subject);
        Ok(self.store.page(user, status, after, limit).await?)
    }

    pub async fn history(&self, caller: &Caller, id: OrderId) -> Result<Vec<HistoryEntry>, OrderError> {
        self.find_for(caller, id).await?;
        Ok(self.store.history(id).await?)
    }

    /// Asks for the order to be undone. Idempotent; durable before the answer.
    pub async fn cancel(
        &self,
        context: &CallContext,
        caller: &Caller,
        id: OrderId,
    ) -> Result<Order, OrderError> {
        self.find_for(caller, id).await?;
        let by = caller.subject.clone();
        let decide = |status| match status {
            Status::Cancelled | Status::Compensating => None,
            Status::PaymentPending
            | Status::Paid
            | Status::Completed
            | Status::PaymentFailed
            | Status::NeedsAttention => Some(Event::CancelRequested { by: by.clone() }),
        };
        let order = self.intervene(context, id, decide).await?;
        self.shown(context, order).await.map_err(OrderError::after_a_write)
    }

    // ---- what operators ask for ----

    /// Tries the undo of a parked order again.
    pub async fn redrive(
        &self,
        context: &CallContext,
        by: &UserId,
        id: OrderId,
    ) -> Result<Order, OrderError> {
        self.intervene(context, id, |_| Some(Event::Redriven { by: by.clone() })).await
    }

    /// Ends a parked order whose money was settled by other means.
    pub async fn resolve(
        &self,
        context: &CallContext,
        by: &UserId,
        id: OrderId,
        note: FailureReason,
    ) -> Result<Order, OrderError> {
        self.intervene(context, id, |_| Some(Event::ResolvedByHand { by: by.clone(), note: note.clone() }))
            .await
    }

    pub async fn sagas(&self, state: Option<Status>, limit: u32) -> Result<Vec<SagaSummary>, OrderError> {
        Ok(self.store.sagas(state, limit).await?)
    }

    /// Age of the oldest due saga: recovery works when it stays near zero.
    pub async fn oldest_due(&self) -> Result<Duration, OrderError> {
        let now = self.store.database.now().await.map_err(StoreError::from)?;
        Ok(self.store.oldest_due(now).await?)
    }

    /// Claims at most `limit` due sagas and drives each as far as it goes.
    pub async fn resume_due(&self, limit: u32) -> Result<DueReport, OrderError> {
        let now = self.store.database.now().await.map_err(StoreError::from)?;
        let oldest_due_ms = u64::try_from(self.store.oldest_due(now).await?.as_millis()).unwrap_or(u64::MAX);
        let due = self.store.claim_due(self.lease(now), now, self.settings.exclusive, limit).await?;
        let claimed = u32::try_from(due.len()).unwrap_or(u32::MAX);
        let mut report = DueReport { oldest_due_ms, more: claimed == limit, ..DueReport::default() };
        report.resumed = claimed;
        // Together: one that waits for a slow answer does not hold up the others.
        let ended = join_all(due.into_iter().map(|owned| self.resume_claimed(owned))).await;
        report.ended = u32::try_from(ended.iter().filter(|ended| **ended).count()).unwrap_or(u32::MAX);
        report.deferred = claimed.saturating_sub(report.ended);
        Ok(report)
    }

    /// True when the saga reached an end.
    async fn resume_claimed(&self, owned: OwnedOrder) -> bool {
        let context = self.recovery_context(&owned);
        match self.resume(&context, owned.order).await {
            Ok(order) => order.status.is_settled(),
            Err(error) => {
                self.world.log("error", &format!("recovery: {error}"), &context);
                false
            }
        }
    }

    // ---- duplicates ----

    /// The breaker is open and nothing of this request was written: only a duplicate gets an order.
    async fn place_while_open(
        &self,
        context: &CallContext,
        claim: Option<IdempotencyClaim>,
        retry_after: Duration,
    ) -> Result<Placed, OrderError> {
        if let Some(claim) = claim
            && let Some(earlier) = self.store.find_claim(&claim, self.world.now()).await?
        {
            if !earlier.same_request {
                return Err(OrderError::KeyReused);
            }
            return self.await_first(context, earlier.order_id).await;
        }
        Err(OrderError::Unavailable { reason: "payment is unreachable".to_owned(), retry_after })
    }

    /// Waits for the first request with the same key, until this caller's own deadline.
    async fn await_first(&self, context: &CallContext, id: OrderId) -> Result<Placed, OrderError> {
        let patient_until = self.world.now().plus(OWNER_PATIENCE);
        loop {
            let owned = self.store.find(id).await?.ok_or(OrderError::NotFound)?;
            let now = self.world.now();
            let out_of_time = context.remaining(now) <= CALL_TIME_MIN;
            if owned.order.status.is_settled() || (self.settings.exclusive && out_of_time) {
                return Ok(Placed { order: owned.order, replayed: true });
            }
            if self.owner_is_gone(&owned, now)
                || out_of_time
                || (!self.settings.exclusive && now >= patient_until)
            {
                let order = self.up_to_date(context, owned).await?;
                return Ok(Placed { order, replayed: true });
            }
            self.world.sleep(DUPLICATE_POLL).await;
        }
    }

    // ---- ownership ----

    async fn find_for(&self, caller: &Caller, id: OrderId) -> Result<OwnedOrder, OrderError> {
        let owned = self.store.find(id).await?.ok_or(OrderError::NotFound)?;
        // Another user's order does not exist for this caller.
        if caller.may_access(&owned.order) { Ok(owned) } else { Err(OrderError::NotFound) }
    }

    fn owner_is_gone(&self, owned: &OwnedOrder, now: Timestamp) -> bool {
        let of_another = self.settings.exclusive && owned.owner != self.settings.owner;
        of_another || owned.due_at.is_some_and(|due| due <= now)
    }

    /// The order as a client may see it: never behind what it has seen before.
    async fn up_to_date(&self, context: &CallContext, owned: OwnedOrder) -> Result<Order, OrderError> {
        let order = self.take_over(context, owned).await?;
        self.shown(context, order).await
    }

    /// Drives an order whose owner is gone.
    async fn take_over(&self, context: &CallContext, owned: OwnedOrder) -> Result<Order, OrderError> {
        let now = self.store.database.now().await.map_err(StoreError::from)?;
        let (id, gone) = (owned.order.id, self.owner_is_gone(&owned, now));
        if !gone {
            Ok(owned.order)
        } else if self.store.claim(id, self.lease(now), now, self.settings.exclusive).await? {
            self.resume(context, owned.order).await
        } else {
            Ok(self.store.find(id).await?.ok_or(OrderError::NotFound)?.order)
        }
    }

    /// What is stored of an order, as a client may see it. On a shared database an order under way
    /// may have ended: the server may have lost the relaxed write of it, and this client may have
    /// seen it.
    async fn shown(&self, context: &CallContext, order: Order) -> Result<Order, OrderError> {
        if order.status.is_settled() || self.settings.exclusive {
            return Ok(order);
        }
        self.as_payment_knows(context, order).await
    }

    /// Takes over an end that payment knows of. Without its answer, nothing is shown.
    async fn as_payment_knows(&self, context: &CallContext, mut order: Order) -> Result<Order, OrderError> {
        let mut reason = "the order changes".to_owned();
        for _ in 0..CALL_TRIES_MAX {
            let mut saga = self.store.saga(order.id).await?;
            project(&mut order, &saga);
            if order.status.is_settled() {
                return Ok(order);
            }
            // What follows a payment follows again; whether there is one, payment remembers.
            if order.status != Status::Paid {
                let (key, now) = (saga.state().input.charge_key(), self.world.now());
                let asked = self.payments.look_up(&context.within(CALL_TIMEOUT, now), &key, order.id).await;
                let known = match asked {
                    Ok(known) => known,
                    Err(error) => {
                        reason = error.to_string();
                        break;
                    }
                };
                let events = end_of(order.status, known);
                if events.is_empty() {
                    return Ok(order);
                }
                for event in events {
                    saga.record(event, now)?;
                }
            }
            self.drive(context, &mut order, &mut saga, None).await?;
            if saga.unwritten().is_empty() {
                return Ok(order);
            }
        }
        Err(OrderError::Unavailable { reason, retry_after: LOOK_AGAIN_AFTER })
    }

    /// Drives a claimed order from its journal.
    async fn resume(&self, context: &CallContext, mut order: Order) -> Result<Order, OrderError> {
        let mut saga = match self.store.saga(order.id).await {
            Ok(saga) => saga,
            Err(error @ (StoreError::Journal(..) | StoreError::Unreadable(..))) => {
                // One bad saga parks alone: it must not be claimed again with every round.
                let again = self.world.now().plus(UNREADABLE_RETRY);
                self.store.release(order.id, &self.settings.owner, again).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        project(&mut order, &saga);
        self.drive(context, &mut order, &mut saga, None).await?;
        Ok(order)
    }

    /// Records an operator's or a client's decision, durably, then drives on. `decide` answers
    /// `None` when there is nothing to record.
    async fn intervene(
        &self,
        context: &CallContext,
        id: OrderId,
        decide: impl Fn(Status) -> Option<Event>,
    ) -> Result<Order, OrderError> {
        for _ in 0..CALL_TRIES_MAX {
            let mut owned = self.store.find(id).await?.ok_or(OrderError::NotFound)?;
            let mut saga = self.store.saga(id).await?;
            let status = saga.state().status();
            let Some(event) = decide(status) else {
                return self.take_over(context, owned).await;
            };
            if saga.record(event, self.world.now()).is_err() {
                return Err(OrderError::Illegal(status));
            }
            match self.write(context, &mut owned.order, &mut saga).await {
                Ok(()) => {
                    let driven = self.drive(context, &mut owned.order, &mut saga, None).await;
                    return driven.map(|()| owned.order).map_err(OrderError::after_a_write);
                }
                Err(StoreError::Stale) => {} // the saga moved on meanwhile: decide again
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    // ---- small decisions ----

    fn input_of(&self, id: OrderId, request: &NewOrder, now: Timestamp) -> Input {
        let has = |product: &String| request.items().iter().any(|item| item.product_id.as_str() == product);
        let final_step = if self.settings.fail_product.as_ref().is_some_and(has) {
            FinalStep::Fails(FailureReason::lossy("final step failed"))
        } else if self.settings.slow_product.as_ref().is_some_and(has) {
            FinalStep::SucceedsAfter { millis: SLOW_STEP_MILLIS }
        } else {
            FinalStep::Succeeds
        };
        Input {
            order_id: id,
            total: request.total(),
            method: request.method().cloned(),
            deadline: now.plus(self.settings.order_deadline),
            cancel_until: now.plus(self.settings.cancel_window),
            final_step,
        }
    }

    fn lease(&self, now: Timestamp) -> Lease<'_> {
        Lease { owner: &self.settings.owner, until: now.plus(LEASE) }
    }

    /// Recovery speaks for the service, with the order's own correlation id.
    fn recovery_context(&self, owned: &OwnedOrder) -> CallContext {
        CallContext {
            correlation_id: owned.correlation_id.clone(),
            traceparent: String::new(),
            deadline: self.world.now().plus(RESUME_DEADLINE),
        }
    }
}

/// What payment's answer decides of an order with this status; empty: nothing.
fn end_of(status: Status, known: Paid) -> Vec<Event> {
    let undone = Event::Undone { payment_id: None };
    match (status, known) {
        (Status::PaymentPending, Paid::Known(Charged::Approved(payment_id))) => {
            vec![Event::PaymentApproved { payment_id }]
        }
        (Status::PaymentPending, Paid::Known(Charged::Declined(payment_id, reason))) => {
            vec![Event::PaymentDeclined { payment_id, reason }]
        }
        (Status::PaymentPending, Paid::Known(Charged::Voided)) => vec![Event::PaymentVoided, undone],
        // Nothing was taken, or all of it returned.
        (Status::Compensating, Paid::Known(Charged::Voided | Charged::Declined(..))) => vec![undone],
        _ => vec![],
    }
}
