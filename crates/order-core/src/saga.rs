//! The order saga: input, steps, definition, undo. Pure.
//!
//! Step 1 takes the payment (undo: `payments.undo`, by the same operation key).
//! Step 2 is the final step; it has nothing to undo, because it is the last.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use settle_saga::Definition;
use settle_types::{
    FailureReason, Money, OperationKey, OrderId, PaymentId, PaymentMethod, Timestamp, UserId,
};

use crate::order::Status;

/// Undo attempts before an order waits for an operator.
pub const UNDO_TRIES_MAX: u32 = 12;
/// Longest wait between two attempts of recovery.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// First wait between two attempts of recovery; doubles with each.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);

// ---- input: journalled with the first write, so that recovery repeats the same decisions ----

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub order_id: OrderId,
    pub total: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<PaymentMethod>,
    /// After this instant money is never taken, only looked up or undone.
    pub deadline: Timestamp,
    /// A completed order may be cancelled until then.
    pub cancel_until: Timestamp,
    pub final_step: FinalStep,
}

/// What the final step will do: decided when the order is placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalStep {
    Succeeds,
    /// It takes a while: the order is seen as `paid` meanwhile.
    SucceedsAfter {
        millis: u64,
    },
    Fails(FailureReason),
}

impl FinalStep {
    /// How long the step takes; what was decided before it is written first.
    pub fn takes(&self) -> Duration {
        match self {
            FinalStep::SucceedsAfter { millis } => Duration::from_millis(*millis),
            FinalStep::Succeeds | FinalStep::Fails(_) => Duration::ZERO,
        }
    }
}

impl Input {
    /// The key of the charge at the payment service: the same for every retry by any owner.
    pub fn charge_key(&self) -> OperationKey {
        OperationKey::charge_of(self.order_id)
    }
}

// ---- events: what the journal records ----

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Placed(Input),
    PaymentApproved {
        payment_id: PaymentId,
    },
    PaymentDeclined {
        payment_id: Option<PaymentId>,
        reason: FailureReason,
    },
    /// The acquirer has not decided; look up at `due_at`.
    PaymentPending {
        due_at: Timestamp,
    },
    /// No answer to the charge; ask again at `due_at`.
    ChargeDeferred {
        due_at: Timestamp,
    },
    /// The order's time is over and the payment is not approved.
    DeadlinePassed,
    /// Payment answered that the key had been undone: nothing is taken any more.
    PaymentVoided,
    CancelRequested {
        by: UserId,
    },
    FinalStepDone,
    FinalStepFailed {
        reason: FailureReason,
    },
    /// Nothing taken, or all of it returned.
    Undone {
        payment_id: Option<PaymentId>,
    },
    UndoDeferred {
        due_at: Timestamp,
    },
    UndoBudgetSpent,
    /// An operator asks to try the undo again.
    Redriven {
        by: UserId,
    },
    /// An operator settled the money by other means.
    ResolvedByHand {
        by: UserId,
        note: FailureReason,
    },
}

impl Event {
    /// Whether its write must survive a power cut before anything is built on it. These decide what
    /// asking again might decide otherwise; all others follow from payment's durable answer.
    pub fn must_survive(&self) -> bool {
        match self {
            Event::Placed(_)
            // The client is told of a failure: no later cancel may hide it.
            | Event::PaymentDeclined { .. }
            // An undo may be on its way: the payment must not be taken up again.
            | Event::DeadlinePassed
            | Event::CancelRequested { .. }
            | Event::Redriven { .. }
            | Event::ResolvedByHand { .. } => true,
            Event::PaymentApproved { .. }
            | Event::PaymentPending { .. }
            | Event::ChargeDeferred { .. }
            | Event::PaymentVoided
            | Event::FinalStepDone
            | Event::FinalStepFailed { .. }
            | Event::Undone { .. }
            | Event::UndoDeferred { .. }
            | Event::UndoBudgetSpent => false,
        }
    }

    /// The event's name in the history.
    pub fn cause(&self) -> &'static str {
        match self {
            Event::Placed(_) => "placed",
            Event::PaymentApproved { .. } => "payment_approved",
            Event::PaymentDeclined { .. } => "payment_declined",
            Event::PaymentPending { .. } => "payment_pending_at_acquirer",
            Event::ChargeDeferred { .. } => "payment_deferred",
            Event::DeadlinePassed => "deadline_passed",
            Event::PaymentVoided => "payment_voided",
            Event::CancelRequested { .. } => "cancel_requested",
            Event::FinalStepDone => "final_step_done",
            Event::FinalStepFailed { .. } => "final_step_failed",
            Event::Undone { .. } => "undone",
            Event::UndoDeferred { .. } => "undo_deferred",
            Event::UndoBudgetSpent => "undo_budget_spent",
            Event::Redriven { .. } => "redriven",
            Event::ResolvedByHand { .. } => "resolved_by_hand",
        }
    }
}

// ---- states ----

/// Attempts so far, and the earliest instant of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    pub tries: u32,
    pub due_at: Timestamp,
}

impl Timer {
    fn again_at(self, due_at: Timestamp) -> Self {
        Self { tries: self.tries.saturating_add(1), due_at }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The charge may or may not have happened. `at_acquirer`: it said "pending", so only look up.
    PaymentPending {
        timer: Timer,
        at_acquirer: bool,
    },
    Paid {
        payment_id: PaymentId,
    },
    Completed {
        payment_id: PaymentId,
    },
    Compensating {
        reason: FailureReason,
        payment_id: Option<PaymentId>,
        timer: Timer,
    },
    NeedsAttention {
        reason: FailureReason,
        payment_id: Option<PaymentId>,
        tries: u32,
    },
    PaymentFailed {
        reason: FailureReason,
        payment_id: Option<PaymentId>,
    },
    Cancelled {
        reason: FailureReason,
        payment_id: Option<PaymentId>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub input: Input,
    pub phase: Phase,
}

impl State {
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::PaymentPending { .. } => Status::PaymentPending,
            Phase::Paid { .. } => Status::Paid,
            Phase::Completed { .. } => Status::Completed,
            Phase::Compensating { .. } => Status::Compensating,
            Phase::NeedsAttention { .. } => Status::NeedsAttention,
            Phase::PaymentFailed { .. } => Status::PaymentFailed,
            Phase::Cancelled { .. } => Status::Cancelled,
        }
    }

    pub fn payment_id(&self) -> Option<PaymentId> {
        match &self.phase {
            Phase::PaymentPending { .. } => None,
            Phase::Paid { payment_id } | Phase::Completed { payment_id } => Some(*payment_id),
            Phase::Compensating { payment_id, .. }
            | Phase::NeedsAttention { payment_id, .. }
            | Phase::PaymentFailed { payment_id, .. }
            | Phase::Cancelled { payment_id, .. } => *payment_id,
        }
    }

    pub fn failure_reason(&self) -> Option<&FailureReason> {
        match &self.phase {
            Phase::PaymentPending { .. } | Phase::Paid { .. } | Phase::Completed { .. } => None,
            Phase::Compensating { reason, .. }
            | Phase::NeedsAttention { reason, .. }
            | Phase::PaymentFailed { reason, .. }
            | Phase::Cancelled { reason, .. } => Some(reason),
        }
    }

    pub fn tries(&self) -> u32 {
        match self.phase {
            Phase::PaymentPending { timer, .. } | Phase::Compensating { timer, .. } => timer.tries,
            Phase::NeedsAttention { tries, .. } => tries,
            Phase::Paid { .. }
            | Phase::Completed { .. }
            | Phase::PaymentFailed { .. }
            | Phase::Cancelled { .. } => 0,
        }
    }

    /// The event for a charge without an answer: wait, but never past the order's deadline.
    pub fn charge_deferred(&self, now: Timestamp, wait: Duration) -> Event {
        Event::ChargeDeferred { due_at: self.before_deadline(now, wait) }
    }

    /// The event for a charge that the acquirer has not decided.
    pub fn payment_pending(&self, now: Timestamp, wait: Duration) -> Event {
        Event::PaymentPending { due_at: self.before_deadline(now, wait) }
    }

    fn before_deadline(&self, now: Timestamp, wait: Duration) -> Timestamp {
        let due_at = now.plus(wait);
        if now < self.input.deadline { due_at.min(self.input.deadline) } else { due_at }
    }

    /// The event for an undo without an answer: wait, or give up when the budget is spent.
    pub fn undo_failed(&self, now: Timestamp, wait: Duration) -> Event {
        if self.tries().saturating_add(1) >= UNDO_TRIES_MAX {
            Event::UndoBudgetSpent
        } else {
            Event::UndoDeferred { due_at: now.plus(wait) }
        }
    }

    /// The full wait before the next attempt: doubles with each, up to a limit. Callers add jitter.
    pub fn backoff(&self) -> Duration {
        let doubling = 1u32.checked_shl(self.tries()).unwrap_or(u32::MAX);
        BACKOFF_FIRST.saturating_mul(doubling).min(BACKOFF_MAX)
    }
}

// ---- effects: what the driver does ----

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Take the payment. Only ever before the order's deadline.
    Charge,
    /// Ask what became of the payment; take nothing.
    LookUp { deadline_passed: bool },
    /// Run the final step.
    Finish,
    /// Undo the payment.
    Undo,
    /// Nothing to do until then.
    Wait(Timestamp),
    /// Nothing to do.
    Rest,
}

// ---- definition ----

/// The saga of one order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderSaga;

fn reason(text: &str) -> FailureReason {
    FailureReason::lossy(text)
}

impl Definition for OrderSaga {
    type Event = Event;
    type State = State;
    type Effect = Effect;

    const VERSION: u16 = 1;

    fn begin(event: &Event, at: Timestamp) -> Option<State> {
        let Event::Placed(input) = event else { return None };
        let timer = Timer { tries: 0, due_at: at };
        Some(State { input: input.clone(), phase: Phase::PaymentPending { timer, at_acquirer: false } })
    }

    fn transition(state: &State, event: &Event, at: Timestamp) -> Option<State> {
        let phase = match &state.phase {
            Phase::PaymentPending { timer, at_acquirer } => {
                from_payment_pending(&state.input, *timer, *at_acquirer, event, at)
            }
            Phase::Paid { payment_id } => from_paid(*payment_id, event, at),
            Phase::Completed { payment_id } => from_completed(&state.input, *payment_id, event, at),
            Phase::Compensating { reason, payment_id, timer } => {
                from_compensating(reason, *payment_id, *timer, event)
            }
            Phase::NeedsAttention { reason, payment_id, .. } => {
                from_needs_attention(reason, *payment_id, event, at)
            }
            Phase::PaymentFailed { .. } | Phase::Cancelled { .. } => None,
        }?;
        Some(State { input: state.input.clone(), phase })
    }

    fn next(state: &State, now: Timestamp) -> Effect {
        match &state.phase {
            Phase::PaymentPending { timer, .. } if now < timer.due_at => Effect::Wait(timer.due_at),
            Phase::PaymentPending { at_acquirer, .. } => {
                let deadline_passed = now >= state.input.deadline;
                if deadline_passed || *at_acquirer {
                    Effect::LookUp { deadline_passed }
                } else {
                    Effect::Charge
                }
            }
            Phase::Paid { .. } => Effect::Finish,
            Phase::Compensating { timer, .. } if now < timer.due_at => Effect::Wait(timer.due_at),
            Phase::Compensating { .. } => Effect::Undo,
            Phase::Completed { .. }
            | Phase::NeedsAttention { .. }
            | Phase::PaymentFailed { .. }
            | Phase::Cancelled { .. } => Effect::Rest,
        }
    }
}

fn from_payment_pending(
    input: &Input,
    timer: Timer,
    at_acquirer: bool,
    event: &Event,
    at: Timestamp,
) -> Option<Phase> {
    let undo =
        |reason| Phase::Compensating { reason, payment_id: None, timer: Timer { tries: 0, due_at: at } };
    match event {
        Event::PaymentApproved { payment_id } => Some(Phase::Paid { payment_id: *payment_id }),
        Event::PaymentDeclined { payment_id, reason } => {
            Some(Phase::PaymentFailed { reason: reason.clone(), payment_id: *payment_id })
        }
        Event::PaymentPending { due_at } => {
            Some(Phase::PaymentPending { timer: timer.again_at(*due_at), at_acquirer: true })
        }
        Event::ChargeDeferred { due_at } => {
            Some(Phase::PaymentPending { timer: timer.again_at(*due_at), at_acquirer })
        }
        Event::DeadlinePassed => Some(undo(reason("payment was not approved in time"))),
        Event::PaymentVoided => Some(undo(match &input.final_step {
            // Our own undo after a failed final step, whose relaxed journal entry was lost.
            FinalStep::Fails(reason) => reason.clone(),
            FinalStep::Succeeds | FinalStep::SucceedsAfter { .. } => reason("payment was undone"),
        })),
        Event::CancelRequested { .. } => Some(undo(reason("cancelled by request"))),
        _ => None,
    }
}

fn from_paid(payment_id: PaymentId, event: &Event, at: Timestamp) -> Option<Phase> {
    let undo = |reason| Phase::Compensating {
        reason,
        payment_id: Some(payment_id),
        timer: Timer { tries: 0, due_at: at },
    };
    match event {
        Event::FinalStepDone => Some(Phase::Completed { payment_id }),
        Event::FinalStepFailed { reason } => Some(undo(reason.clone())),
        Event::CancelRequested { .. } => Some(undo(reason("cancelled by request"))),
        _ => None,
    }
}

fn from_completed(input: &Input, payment_id: PaymentId, event: &Event, at: Timestamp) -> Option<Phase> {
    match event {
        Event::CancelRequested { .. } if at <= input.cancel_until => Some(Phase::Compensating {
            reason: reason("cancelled by request"),
            payment_id: Some(payment_id),
            timer: Timer { tries: 0, due_at: at },
        }),
        _ => None,
    }
}

fn from_compensating(
    reason: &FailureReason,
    payment_id: Option<PaymentId>,
    timer: Timer,
    event: &Event,
) -> Option<Phase> {
    let reason = reason.clone();
    match event {
        Event::Undone { payment_id: undone } => {
            Some(Phase::Cancelled { reason, payment_id: payment_id.or(*undone) })
        }
        Event::UndoDeferred { due_at } => {
            Some(Phase::Compensating { reason, payment_id, timer: timer.again_at(*due_at) })
        }
        Event::UndoBudgetSpent => {
            Some(Phase::NeedsAttention { reason, payment_id, tries: timer.tries.saturating_add(1) })
        }
        _ => None,
    }
}

fn from_needs_attention(
    reason: &FailureReason,
    payment_id: Option<PaymentId>,
    event: &Event,
    at: Timestamp,
) -> Option<Phase> {
    let reason = reason.clone();
    match event {
        Event::Redriven { .. } => {
            Some(Phase::Compensating { reason, payment_id, timer: Timer { tries: 0, due_at: at } })
        }
        Event::ResolvedByHand { .. } => Some(Phase::Cancelled { reason, payment_id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settle_saga::Saga;
    use settle_types::Currency;

    const T0: u64 = 1_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(T0 + seconds * 1000)
    }

    fn input() -> Input {
        Input {
            order_id: OrderId::new(at(0), [1; 10]),
            total: Money::new(500, Currency::parse("EUR").unwrap()),
            method: None,
            deadline: at(60),
            cancel_until: at(3600),
            final_step: FinalStep::Succeeds,
        }
    }

    fn payment() -> PaymentId {
        PaymentId::new(at(0), [2; 10])
    }

    fn why() -> FailureReason {
        reason("why")
    }

    /// Every event that is not the first, once.
    fn all_events() -> Vec<Event> {
        let by: UserId = "ops".parse().unwrap();
        let events = vec![
            Event::PaymentApproved { payment_id: payment() },
            Event::PaymentDeclined { payment_id: None, reason: why() },
            Event::PaymentPending { due_at: at(5) },
            Event::ChargeDeferred { due_at: at(5) },
            Event::DeadlinePassed,
            Event::PaymentVoided,
            Event::CancelRequested { by: by.clone() },
            Event::FinalStepDone,
            Event::FinalStepFailed { reason: why() },
            Event::Undone { payment_id: None },
            Event::UndoDeferred { due_at: at(5) },
            Event::UndoBudgetSpent,
            Event::Redriven { by: by.clone() },
            Event::ResolvedByHand { by, note: why() },
        ];
        events.into_iter().chain([Event::Placed(input())]).collect()
    }

    #[test]
    fn waits_double_and_end_at_the_deadline_but_not_after_it() {
        let wait = Duration::from_millis(500);
        let pending = |tries| State {
            input: input(),
            phase: Phase::PaymentPending { timer: Timer { tries, due_at: at(0) }, at_acquirer: false },
        };
        let deferred = Event::ChargeDeferred { due_at: at(7) };
        let again = OrderSaga::transition(&pending(2), &deferred, at(5)).unwrap();
        assert_eq!((again.tries(), OrderSaga::next(&again, at(6))), (3, Effect::Wait(at(7))));
        assert_eq!(
            [0, 1, 3, 40].map(|tries| pending(tries).backoff()),
            [wait, wait * 2, wait * 8, BACKOFF_MAX]
        );
        let deadline = input().deadline;
        let due = |now| pending(0).charge_deferred(now, wait);
        let before = Timestamp::from_millis(deadline.as_millis() - 1);
        assert_eq!(due(before), Event::ChargeDeferred { due_at: deadline });
        assert_eq!(due(deadline), Event::ChargeDeferred { due_at: deadline.plus(wait) });
    }

    /// The table of states and events of the design, whole: what is not listed is illegal.
    #[test]
    fn only_listed_events_are_legal_in_each_state() {
        let timer = Timer { tries: 0, due_at: at(0) };
        let (reason, payment_id) = (why(), Some(payment()));
        let rows: Vec<(Phase, &[(&str, Status)])> = vec![
            (
                Phase::PaymentPending { timer, at_acquirer: false },
                &[
                    ("payment_approved", Status::Paid),
                    ("payment_declined", Status::PaymentFailed),
                    ("payment_pending_at_acquirer", Status::PaymentPending),
                    ("payment_deferred", Status::PaymentPending),
                    ("deadline_passed", Status::Compensating),
                    ("payment_voided", Status::Compensating),
                    ("cancel_requested", Status::Compensating),
                ],
            ),
            (
                Phase::Paid { payment_id: payment() },
                &[
                    ("final_step_done", Status::Completed),
                    ("final_step_failed", Status::Compensating),
                    ("cancel_requested", Status::Compensating),
                ],
            ),
            (Phase::Completed { payment_id: payment() }, &[("cancel_requested", Status::Compensating)]),
            (
                Phase::Compensating { reason: reason.clone(), payment_id, timer },
                &[
                    ("undone", Status::Cancelled),
                    ("undo_deferred", Status::Compensating),
                    ("undo_budget_spent", Status::NeedsAttention),
                ],
            ),
            (
                Phase::NeedsAttention { reason: reason.clone(), payment_id, tries: 12 },
                &[("redriven", Status::Compensating), ("resolved_by_hand", Status::Cancelled)],
            ),
            (Phase::PaymentFailed { reason: reason.clone(), payment_id }, &[]),
            (Phase::Cancelled { reason, payment_id }, &[]),
        ];
        for (phase, legal) in rows {
            let state = State { input: input(), phase };
            for event in all_events() {
                let next = OrderSaga::transition(&state, &event, at(1)).map(|s| s.status());
                let listed =
                    legal.iter().find(|(cause, _)| *cause == event.cause()).map(|(_, status)| *status);
                assert_eq!(next, listed, "{:?} on {}", state.status(), event.cause());
            }
        }
    }

    #[test]
    fn every_unhappy_state_names_its_reason() {
        for event in all_events() {
            let start = OrderSaga::begin(&Event::Placed(input()), at(0)).unwrap();
            let Some(next) = OrderSaga::transition(&start, &event, at(1)) else { continue };
            let happy = matches!(next.status(), Status::PaymentPending | Status::Paid | Status::Completed);
            assert_eq!(next.failure_reason().is_none(), happy, "{}", event.cause());
        }
    }

    fn effect_after(events: Vec<Event>, now: Timestamp) -> Effect {
        let mut saga = Saga::<OrderSaga>::begin(Event::Placed(input()), at(0)).unwrap();
        for event in events {
            saga.record(event, at(1)).unwrap();
        }
        saga.next(now)
    }

    #[test]
    fn after_the_deadline_a_payment_is_only_looked_up_or_undone() {
        let deferred = || vec![Event::ChargeDeferred { due_at: at(5) }];
        assert_eq!(effect_after(vec![], at(0)), Effect::Charge);
        assert_eq!(effect_after(deferred(), at(4)), Effect::Wait(at(5)));
        assert_eq!(effect_after(deferred(), at(5)), Effect::Charge);
        assert_eq!(effect_after(deferred(), at(59)), Effect::Charge);
        assert_eq!(effect_after(deferred(), at(60)), Effect::LookUp { deadline_passed: true });
        assert_eq!(effect_after(vec![], at(3600)), Effect::LookUp { deadline_passed: true });
        assert_eq!(effect_after(vec![Event::DeadlinePassed], at(61)), Effect::Undo);
    }

    #[test]
    fn a_payment_that_is_pending_at_the_acquirer_is_looked_up_not_sent_again() {
        let pending = vec![Event::PaymentPending { due_at: at(5) }, Event::ChargeDeferred { due_at: at(6) }];
        assert_eq!(effect_after(pending, at(6)), Effect::LookUp { deadline_passed: false });
    }

    #[test]
    fn undo_backs_off_and_parks_when_its_budget_is_spent() {
        let mut saga = Saga::<OrderSaga>::begin(Event::Placed(input()), at(0)).unwrap();
        saga.record(Event::CancelRequested { by: "u".parse().unwrap() }, at(1)).unwrap();
        let mut waits = Vec::new();
        while saga.state().status() == Status::Compensating {
            let wait = saga.state().backoff();
            waits.push(wait);
            saga.record(saga.state().undo_failed(at(1), wait), at(1)).unwrap();
        }
        assert_eq!(u32::try_from(waits.len()).unwrap(), UNDO_TRIES_MAX);
        assert_eq!(waits.first(), Some(&BACKOFF_FIRST));
        assert!(waits.is_sorted() && waits.iter().all(|wait| *wait <= BACKOFF_MAX));
        assert_eq!(saga.state().status(), Status::NeedsAttention);
        assert_eq!(saga.state().tries(), UNDO_TRIES_MAX);
    }

    #[test]
    fn a_completed_order_can_be_cancelled_only_within_the_window() {
        let done = State { input: input(), phase: Phase::Completed { payment_id: payment() } };
        let cancel = Event::CancelRequested { by: "u".parse().unwrap() };
        assert!(OrderSaga::transition(&done, &cancel, at(3600)).is_some());
        assert!(OrderSaga::transition(&done, &cancel, at(3601)).is_none());
    }

    #[test]
    fn a_wait_before_the_deadline_never_ends_after_it() {
        let state = OrderSaga::begin(&Event::Placed(input()), at(0)).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(state.charge_deferred(at(1), hour), Event::ChargeDeferred { due_at: at(60) });
        assert_eq!(
            state.charge_deferred(at(61), Duration::from_secs(1)),
            Event::ChargeDeferred { due_at: at(62) }
        );
    }

    /// Journals of every release stay replayable: these bytes were written by version 1.
    #[test]
    fn journals_of_version_1_replay() {
        let id = "00000000-03e8-7101-8101-010101010101";
        let placed = format!(
            r#"{{"placed":{{"order_id":"{id}","total":{{"minor":500,"currency":"EUR"}},"deadline":1060000,"cancel_until":4600000,"final_step":{{"fails":"why"}}}}}}"#
        );
        let rows = [
            placed.as_str(),
            r#"{"payment_pending":{"due_at":1001000}}"#,
            r#"{"charge_deferred":{"due_at":1002000}}"#,
            r#"{"payment_approved":{"payment_id":"00000000-03e8-7202-8202-020202020202"}}"#,
            r#"{"final_step_failed":{"reason":"why"}}"#,
            r#"{"undo_deferred":{"due_at":1003000}}"#,
            r#""undo_budget_spent""#,
            r#"{"redriven":{"by":"ops"}}"#,
            r#"{"undone":{"payment_id":null}}"#,
        ];
        let entries = rows.iter().zip(0..).map(|(text, seq)| settle_saga::Entry {
            seq,
            version: 1,
            at: at(u64::from(seq)),
            event: serde_json::from_str(text).unwrap(),
        });
        let saga = Saga::<OrderSaga>::replay(entries).unwrap();
        assert_eq!(saga.state().status(), Status::Cancelled);
        assert_eq!(saga.state().failure_reason(), Some(&why()));
    }
}
