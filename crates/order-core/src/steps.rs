//! Drives one saga: does what its state says, tries remote calls within their budget, writes what
//! came of them.

use std::time::Duration;

use settle_ports::{CallContext, Database, Durability, Limiter, Verdict, World};
use settle_saga::Saga;
use settle_types::FailureReason;

use crate::driver::{CALL_TIME_MIN, CALL_TRIES_MAX, LEASE, OrderError, Orders, PAYMENT_BREAKER};
use crate::order::Order;
use crate::payments::{Charged, Paid, Payments, PaymentsError};
use crate::saga::{Effect, Event, FinalStep, OrderSaga, Phase};
use crate::store::{Lease, StoreError};

/// Longest wait for one remote call.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// First wait between two tries of one request; doubles.
const CALL_RETRY_WAIT: Duration = Duration::from_millis(100);

impl<W: World, D: Database, P: Payments, L: Limiter> Orders<W, D, P, L> {
    /// Does what the saga says until it waits or rests. `order` ends as the last written view.
    pub(crate) async fn drive(
        &self,
        context: &CallContext,
        order: &mut Order,
        saga: &mut Saga<OrderSaga>,
        mut verdict: Option<Verdict>,
    ) -> Result<(), OrderError> {
        loop {
            let effect = saga.next(self.world.now());
            let event = match effect {
                Effect::Finish => {
                    if !self.wait_for_final_step(context, order, saga).await? {
                        return Ok(());
                    }
                    final_step_of(saga)
                }
                Effect::Charge | Effect::LookUp { .. } | Effect::Undo => {
                    if !self.flush(context, order, saga).await? {
                        return Ok(());
                    }
                    match self.perform(context, saga, &effect, verdict.take()).await {
                        Ok(event) => event,
                        Err(NotTried(wait)) => {
                            let again = self.world.now().plus(wait);
                            self.store.release(order.id, &self.settings.owner, again).await?;
                            return Ok(());
                        }
                    }
                }
                Effect::Wait(until) => {
                    if saga.unwritten().is_empty() {
                        self.store.release(order.id, &self.settings.owner, until).await?;
                        return Ok(());
                    }
                    self.flush(context, order, saga).await?;
                    return Ok(());
                }
                Effect::Rest => {
                    self.flush(context, order, saga).await?;
                    return Ok(());
                }
            };
            saga.record(event, self.world.now())?;
        }
    }

    /// A final step that takes time is begun only after what led to it is written. False as in `flush`.
    async fn wait_for_final_step(
        &self,
        context: &CallContext,
        order: &mut Order,
        saga: &mut Saga<OrderSaga>,
    ) -> Result<bool, OrderError> {
        let takes = saga.state().input.final_step.takes();
        if takes.is_zero() {
            return Ok(true);
        }
        let current = self.flush(context, order, saga).await?;
        if current {
            self.world.sleep(takes).await;
        }
        Ok(current)
    }

    /// Writes what is unwritten. False: another owner was faster, and `order` now shows its view.
    async fn flush(
        &self,
        context: &CallContext,
        order: &mut Order,
        saga: &mut Saga<OrderSaga>,
    ) -> Result<bool, OrderError> {
        if saga.unwritten().is_empty() {
            return Ok(true);
        }
        match self.write(context, order, saga).await {
            Ok(()) => Ok(true),
            Err(error) => {
                self.world.log("warn", &format!("saga write of {}: {error}", order.id), context);
                // Show what is stored, never what we hoped to store; recovery finishes it.
                *order = self.store.find(order.id).await?.ok_or(OrderError::NotFound)?.order;
                Ok(false)
            }
        }
    }

    pub(crate) async fn write(
        &self,
        context: &CallContext,
        order: &mut Order,
        saga: &mut Saga<OrderSaga>,
    ) -> Result<(), StoreError> {
        let must_survive = saga.unwritten().iter().any(|step| step.entry.event.must_survive());
        let durability = if must_survive { Durability::Durable } else { Durability::Relaxed };
        let mut next = order.clone();
        project(&mut next, saga);
        let until = match saga.next(self.world.now()) {
            Effect::Wait(until) => until,
            _ => self.world.now().plus(LEASE),
        };
        let lease = Lease { owner: &self.settings.owner, until };
        self.store.append(&next, saga, lease, context, durability).await?;
        saga.mark_written();
        *order = next;
        Ok(())
    }

    /// One remote step, with its tries. "No answer" is an event too.
    async fn perform(
        &self,
        context: &CallContext,
        saga: &Saga<OrderSaga>,
        effect: &Effect,
        mut verdict: Option<Verdict>,
    ) -> Result<Event, NotTried> {
        let mut not_tried = Some(NotTried(self.world.jitter(saga.state().backoff())));
        for try_number in 0..CALL_TRIES_MAX {
            let now = self.world.now();
            // A charge never starts after the order's deadline, whatever the reason for the delay.
            let too_late = *effect == Effect::Charge && now >= saga.state().input.deadline;
            if too_late || context.remaining(now) < CALL_TIME_MIN {
                break;
            }
            let allowed = match verdict.take() {
                Some(verdict) => verdict,
                None => self.limiter.allow(PAYMENT_BREAKER).await,
            };
            if let Verdict::Open(wait) = allowed {
                not_tried = not_tried.map(|_| NotTried(self.world.jitter(wait)));
                break;
            }
            not_tried = None;
            match self.call(&context.within(CALL_TIMEOUT, now), saga, effect).await {
                Ok(event) => {
                    self.limiter.report(PAYMENT_BREAKER, true).await;
                    return Ok(event);
                }
                Err(error) => self.call_failed(&error, context).await,
            }
            if try_number.saturating_add(1) < CALL_TRIES_MAX {
                let wait = self.world.jitter(CALL_RETRY_WAIT.saturating_mul(1 << try_number));
                self.world.sleep(wait.min(context.remaining(self.world.now()))).await;
            }
        }
        match not_tried {
            Some(not_tried) => Err(not_tried),
            None => Ok(self.no_answer(saga, effect)),
        }
    }

    async fn call(
        &self,
        context: &CallContext,
        saga: &Saga<OrderSaga>,
        effect: &Effect,
    ) -> Result<Event, PaymentsError> {
        let state = saga.state();
        let (input, key) = (&state.input, state.input.charge_key());
        match effect {
            Effect::Charge => {
                let method = input.method.as_ref();
                let charged =
                    self.payments.process(context, &key, input.order_id, input.total, method).await?;
                Ok(self.event_of(saga, charged))
            }
            Effect::LookUp { deadline_passed } => {
                match self.payments.look_up(context, &key, input.order_id).await? {
                    Paid::NotYet | Paid::Known(Charged::Pending) if *deadline_passed => {
                        Ok(Event::DeadlinePassed)
                    }
                    Paid::NotYet => Ok(self.event_of(saga, Charged::Pending)),
                    Paid::Known(charged) => Ok(self.event_of(saga, charged)),
                }
            }
            Effect::Undo => {
                let reason =
                    state.failure_reason().cloned().unwrap_or_else(|| FailureReason::lossy("undone"));
                let undone = self.payments.undo(context, &key, input.order_id, input.total, &reason).await?;
                Ok(Event::Undone { payment_id: undone.payment_id })
            }
            Effect::Finish | Effect::Wait(_) | Effect::Rest => Ok(final_step_of(saga)),
        }
    }

    fn event_of(&self, saga: &Saga<OrderSaga>, charged: Charged) -> Event {
        match charged {
            Charged::Approved(payment_id) => Event::PaymentApproved { payment_id },
            Charged::Declined(payment_id, reason) => Event::PaymentDeclined { payment_id, reason },
            Charged::Pending => {
                let wait = self.world.jitter(saga.state().backoff());
                saga.state().payment_pending(self.world.now(), wait)
            }
            Charged::Voided => Event::PaymentVoided,
        }
    }

    /// A timeout is unknown, not a failure: the saga waits and asks again with the same key.
    fn no_answer(&self, saga: &Saga<OrderSaga>, effect: &Effect) -> Event {
        let (state, now) = (saga.state(), self.world.now());
        let wait = self.world.jitter(state.backoff());
        match effect {
            Effect::Undo => state.undo_failed(now, wait),
            Effect::Charge | Effect::LookUp { .. } | Effect::Finish | Effect::Wait(_) | Effect::Rest => {
                state.charge_deferred(now, wait)
            }
        }
    }

    async fn call_failed(&self, error: &PaymentsError, context: &CallContext) {
        self.world.log("warn", &error.to_string(), context);
        if self.limiter.report(PAYMENT_BREAKER, error.is_answer()).await {
            self.world.log("warn", "Circuit breaker OPEN for payment", context);
        }
    }

    pub(crate) async fn give_back_probe(&self, verdict: Verdict, context: &CallContext) {
        if verdict == Verdict::Probe && self.limiter.report(PAYMENT_BREAKER, false).await {
            self.world.log("warn", "Circuit breaker OPEN for payment", context);
        }
    }
}

/// No call was made: the breaker is open, or the caller's time is over. Not a try of the budget.
struct NotTried(Duration);

/// The final step as journalled: recovery takes the same decision.
fn final_step_of(saga: &Saga<OrderSaga>) -> Event {
    match &saga.state().input.final_step {
        FinalStep::Succeeds | FinalStep::SucceedsAfter { .. } => Event::FinalStepDone,
        FinalStep::Fails(reason) => Event::FinalStepFailed { reason: reason.clone() },
    }
}

/// The order as its saga's state shows it.
pub(crate) fn project(order: &mut Order, saga: &Saga<OrderSaga>) {
    let state = saga.state();
    order.status = state.status();
    order.failure_reason = state.failure_reason().cloned();
    order.payment_id = state.payment_id();
    order.updated_at = saga.last_at();
    debug_assert!(order.payment_id.is_some() || !matches!(state.phase, Phase::Paid { .. }));
}
