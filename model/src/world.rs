//! A world around the order saga, small enough that all of it can be looked at: two owners, a journal
//! that loses what was not fsynced, one payment service, requests that arrive late or twice.
//!
//! The saga is the shipped one: `Saga<OrderSaga>` decides and replays. Modelled is what surrounds it:
//! the driver's loop, the storage's promises (`wit/sql`), and payment's (`proto/settle/payment`).
//! There are no leases: any owner may drive at any time, which is more than the real ones may.

use std::fmt::{self, Write};
use std::time::Duration;

use settle_order_core::{Effect, Event, FinalStep, Input, OrderSaga, Status};
use settle_saga::{Entry, Saga};
use settle_types::{Currency, FailureReason, Money, OrderId, PaymentId, Timestamp};

/// One tick of the clock, and every wait.
const TICK: Duration = Duration::from_secs(1);
/// When money is no longer taken, in ticks.
const DEADLINE: u64 = 1;
/// Until when a completed order may be cancelled.
const CANCEL_UNTIL: u64 = 2;
/// The clock stops here, and nobody waits any more.
const LAST_TICK: u64 = 3;

/// How often each thing may happen in one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Owners that die.
    pub crashes: u8,
    /// Servers that lose what was not fsynced.
    pub power_cuts: u8,
    /// Calls that are given up: their request may still arrive, or never.
    pub timeouts: u8,
    /// Requests that arrive twice.
    pub duplicates: u8,
    pub cancels: u8,
    /// Charges that the acquirer has not decided.
    pub pendings: u8,
}

/// What payment is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Process,
    LookUp { deadline_passed: bool },
    Undo,
}

/// What payment answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Approved,
    Declined,
    Pending,
    Voided,
    Unheard,
    Undone,
}

/// One who drives the saga.
#[derive(Clone, Debug, PartialEq)]
enum Owner {
    Idle,
    /// With a saga in memory. `known`: the end that the client knew when it asked; answers that
    /// crossed on the way bind nobody.
    Driving {
        saga: Saga<OrderSaga>,
        known: Option<Status>,
    },
    Asking {
        saga: Saga<OrderSaga>,
        known: Option<Status>,
        ask: Ask,
        answer: Option<Answer>,
    },
}

impl Owner {
    fn write_to(&self, out: &mut String) -> fmt::Result {
        let (saga, known) = match self {
            Owner::Idle => return out.write_str("idle"),
            Owner::Driving { saga, known } => (saga, known),
            Owner::Asking { saga, known, ask, answer } => {
                write!(out, "{ask:?} {answer:?}")?;
                (saga, known)
            }
        };
        let stored = saga.stored().map(|stored| (stored.seq, stored.at, stored.state.status()));
        write!(out, "{known:?} {:?} {stored:?}", saga.state().phase)?;
        write_entries(saga.unwritten().iter().map(|step| &step.entry), out)
    }
}

/// What payment knows of the one charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charge {
    Nothing,
    Pending,
    Captured,
    Declined,
    /// Undone before anything was taken: it never will be.
    Voided,
    Refunded,
}

#[derive(Clone, Debug, PartialEq)]
pub struct World {
    tick: u64,
    journal: Vec<Entry<Event>>,
    /// Entries that no power cut can take.
    durable: usize,
    owners: [Owner; 2],
    charge: Charge,
    captures: u8,
    refunds: u8,
    /// Requests that nobody waits for, still on their way.
    late_processes: u8,
    late_undos: u8,
    /// The last end that the client was told.
    told: Option<Status>,
    left: Bounds,
}

/// A rule that a state breaks.
pub type Broken = &'static str;

/// What every state must fulfil.
pub const PROPERTIES: [Broken; 6] = [
    "money is captured at most once, and returned at most once",
    "a journal can always be replayed",
    "a completed order's money is kept, whatever is still on its way",
    "a failed or cancelled order's money is not kept, and never will be",
    "an end that the client was told is not followed by another that cannot follow it",
    "every order can still end",
];

impl World {
    /// The intent is durable, and the first owner drives.
    pub fn new(left: Bounds, final_step: FinalStep) -> Result<Self, Broken> {
        let currency = Currency::parse("EUR").map_err(|_| "a currency")?;
        let input = Input {
            order_id: OrderId::new(at(0), [1; 10]),
            total: Money::new(1, currency),
            method: None,
            deadline: at(DEADLINE),
            cancel_until: at(CANCEL_UNTIL),
            final_step,
        };
        let mut saga = Saga::begin(Event::Placed(input), at(0)).map_err(|_| "a first event")?;
        let journal = saga.unwritten().iter().map(|step| step.entry.clone()).collect();
        saga.mark_written();
        Ok(Self {
            tick: 0,
            journal,
            durable: 1,
            owners: [Owner::Driving { saga, known: None }, Owner::Idle],
            charge: Charge::Nothing,
            captures: 0,
            refunds: 0,
            late_processes: 0,
            late_undos: 0,
            told: None,
            left,
        })
    }

    fn now(&self) -> Timestamp {
        at(self.tick)
    }

    fn wait(&self) -> Duration {
        if self.tick < LAST_TICK { TICK } else { Duration::ZERO }
    }

    fn stored(&self) -> Result<Saga<OrderSaga>, Broken> {
        Saga::replay(self.journal.iter().cloned()).map_err(|_| PROPERTIES[1])
    }

    /// Writes what tells this world from others. The input of the saga is the same in all.
    pub fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        let Self { tick, journal, durable, owners, charge, captures, refunds, .. } = self;
        write!(
            out,
            "{tick} {durable} {charge:?} {captures} {refunds} {} {}",
            self.late_processes, self.late_undos
        )?;
        write!(out, "{:?} {:?}", self.told, self.left)?;
        write_entries(journal.iter(), out)?;
        // Which owner is which makes no difference.
        let mut texts = [String::new(), String::new()];
        for (owner, text) in owners.iter().zip(&mut texts) {
            owner.write_to(text)?;
        }
        texts.sort();
        texts.iter().try_for_each(|text| out.write_str(text))
    }

    /// The stored order has ended, and nobody is about to change it.
    pub fn is_at_rest(&self) -> bool {
        self.owners.iter().all(|owner| *owner == Owner::Idle)
            && self.stored().is_ok_and(|saga| saga.state().status().is_settled())
    }

    /// The rule that this state breaks, if any. The last property is one of all states together.
    pub fn broken(&self) -> Option<Broken> {
        if self.captures > 1 || self.refunds > self.captures {
            return Some(PROPERTIES[0]);
        }
        let Ok(saga) = self.stored() else { return Some(PROPERTIES[1]) };
        let can_still_undo = self.late_undos > 0
            || self
                .owners
                .iter()
                .any(|owner| matches!(owner, Owner::Asking { ask: Ask::Undo, answer: None, .. }));
        match saga.state().status() {
            Status::Completed if self.charge != Charge::Captured || can_still_undo => Some(PROPERTIES[2]),
            Status::Cancelled
                if !matches!(self.charge, Charge::Voided | Charge::Refunded | Charge::Declined) =>
            {
                Some(PROPERTIES[3])
            }
            Status::PaymentFailed if !matches!(self.charge, Charge::Declined | Charge::Voided) => {
                Some(PROPERTIES[3])
            }
            _ => None,
        }
    }

    /// Everything that can happen next: what it is, and the world afterwards or the rule it breaks.
    pub fn next(&self) -> Vec<(String, Result<World, Broken>)> {
        let mut all = Vec::new();
        if self.tick < LAST_TICK {
            all.push(("a tick".to_owned(), Ok(World { tick: self.tick + 1, ..self.clone() })));
        }
        for number in 0..self.owners.len() {
            self.owner_acts(number, &mut all);
        }
        self.late_requests_arrive(&mut all);
        if self.left.power_cuts > 0 {
            for kept in self.durable..self.journal.len() {
                let mut world = self.clone();
                world.left.power_cuts -= 1;
                world.journal.truncate(kept);
                world.durable = kept;
                all.push((format!("the server loses all but {kept} entries"), Ok(world)));
            }
        }
        all
    }

    fn with_owner(&self, number: usize, owner: Owner) -> World {
        let mut world = self.clone();
        if let Some(slot) = world.owners.get_mut(number) {
            *slot = owner;
        }
        world
    }

    fn owner_acts(&self, number: usize, all: &mut Vec<(String, Result<World, Broken>)>) {
        let Some(owner) = self.owners.get(number) else { return };
        let mut say = |what: String, world| all.push((format!("owner {number} {what}"), world));
        match owner {
            Owner::Idle => {
                let saga = match self.stored() {
                    Ok(saga) => saga,
                    Err(broken) => return say("loads".to_owned(), Err(broken)),
                };
                let status = saga.state().status();
                if !status.is_settled() {
                    let loaded = Owner::Driving { saga: saga.clone(), known: self.told };
                    say("takes the saga up".to_owned(), Ok(self.with_owner(number, loaded)));
                } else {
                    let (mut world, known) = (self.clone(), self.told);
                    say(format!("reads {status:?}"), world.tell(status, known).map(|()| world));
                }
                if self.left.cancels > 0 {
                    self.is_asked_to_cancel(number, saga, &mut say);
                }
            }
            Owner::Driving { saga, known } => {
                let (what, world) = self.drives(number, saga, *known);
                say(what, world);
            }
            Owner::Asking { saga, known, ask, answer } => {
                self.waits(number, saga, *known, *ask, *answer, &mut say)
            }
        }
        if self.left.crashes > 0 && *owner != Owner::Idle {
            let mut world = self.with_owner(number, Owner::Idle);
            world.left.crashes -= 1;
            if let Owner::Asking { ask, answer: None, .. } = owner {
                world.is_late(*ask);
            }
            say("dies".to_owned(), Ok(world));
        }
    }

    /// One that has asked payment: it is answered, hears the answer, or gives up.
    fn waits(
        &self,
        number: usize,
        saga: &Saga<OrderSaga>,
        known: Option<Status>,
        ask: Ask,
        answer: Option<Answer>,
        say: &mut impl FnMut(String, Result<World, Broken>),
    ) {
        if let Some(answer) = answer {
            let event = self.event_of(answer, saga, ask);
            say(format!("hears {answer:?}"), self.records(number, saga, known, event));
        } else {
            for (answer, world) in self.asked(ask) {
                let asking = Owner::Asking { saga: saga.clone(), known, ask, answer: Some(answer) };
                let answered = world.with_owner(number, asking);
                if self.left.duplicates > 0 && !matches!(ask, Ask::LookUp { .. }) {
                    let mut twice = answered.clone();
                    twice.left.duplicates -= 1;
                    twice.is_late(ask);
                    say(format!("is answered {answer:?}, its {ask:?} stays on the way"), Ok(twice));
                }
                say(format!("is answered {answer:?} to {ask:?}"), Ok(answered));
            }
        }
        if self.left.timeouts > 0 {
            let event = match ask {
                Ask::Undo => saga.state().undo_failed(self.now(), self.wait()),
                Ask::Process | Ask::LookUp { .. } => saga.state().charge_deferred(self.now(), self.wait()),
            };
            let world = self.records(number, saga, known, event).map(|mut world| {
                world.left.timeouts -= 1;
                if answer.is_none() {
                    world.is_late(ask);
                }
                world
            });
            say(format!("gives up its {ask:?}"), world);
        }
    }

    /// One step of the driver's loop.
    fn drives(
        &self,
        number: usize,
        saga: &Saga<OrderSaga>,
        known: Option<Status>,
    ) -> (String, Result<World, Broken>) {
        let effect = saga.next(self.now());
        let ask = match effect {
            Effect::Finish => {
                let event = match &saga.state().input.final_step {
                    FinalStep::Succeeds | FinalStep::SucceedsAfter { .. } => Event::FinalStepDone,
                    FinalStep::Fails(reason) => Event::FinalStepFailed { reason: reason.clone() },
                };
                return ("runs the final step".to_owned(), self.records(number, saga, known, event));
            }
            Effect::Charge => Some(Ask::Process),
            Effect::LookUp { deadline_passed } => Some(Ask::LookUp { deadline_passed }),
            Effect::Undo => Some(Ask::Undo),
            Effect::Wait(_) | Effect::Rest => None,
        };
        if !saga.unwritten().is_empty() {
            return self.writes(number, saga, known);
        }
        match ask {
            Some(ask) => {
                let asking = Owner::Asking { saga: saga.clone(), known, ask, answer: None };
                (format!("sends {ask:?}"), Ok(self.with_owner(number, asking)))
            }
            None => {
                let mut world = self.with_owner(number, Owner::Idle);
                let status = saga.state().status();
                (format!("answers {status:?}"), world.tell(status, known).map(|()| world))
            }
        }
    }

    /// Records the client's decision on what is stored, unless it comes too late.
    fn is_asked_to_cancel(
        &self,
        number: usize,
        mut saga: Saga<OrderSaga>,
        say: &mut impl FnMut(String, Result<World, Broken>),
    ) {
        let Ok(by) = "client".parse() else { return };
        let under_way = matches!(saga.state().status(), Status::Cancelled | Status::Compensating);
        if under_way || saga.record(Event::CancelRequested { by }, self.now()).is_err() {
            return;
        }
        let mut world = self.with_owner(number, Owner::Driving { saga, known: self.told });
        world.left.cancels -= 1;
        say("is asked to cancel".to_owned(), Ok(world));
    }

    /// A write, fenced: the entry before the first must be the last that is stored, of the same time
    /// and with the same status after it.
    fn writes(
        &self,
        number: usize,
        saga: &Saga<OrderSaga>,
        known: Option<Status>,
    ) -> (String, Result<World, Broken>) {
        let fits = saga.stored().is_some_and(|before| {
            let last = self.journal.last();
            let same_place = last.is_some_and(|last| (last.seq, last.at) == (before.seq, before.at));
            same_place && self.stored().is_ok_and(|stored| stored.state().status() == before.state.status())
        });
        if !fits {
            let dropped = self.with_owner(number, Owner::Idle);
            return ("writes and is refused".to_owned(), Ok(dropped));
        }
        let mut saga = saga.clone();
        let mut world = self.clone();
        let events: Vec<&str> = saga.unwritten().iter().map(|step| step.entry.event.cause()).collect();
        let durably = saga.unwritten().iter().any(|step| step.entry.event.must_survive());
        let what = format!("writes {}{}", events.join(", "), if durably { ", durably" } else { "" });
        world.journal.extend(saga.unwritten().iter().map(|step| step.entry.clone()));
        if durably {
            world.durable = world.journal.len();
        }
        saga.mark_written();
        (what, Ok(world.with_owner(number, Owner::Driving { saga, known })))
    }

    /// What an answer means to the saga.
    fn event_of(&self, answer: Answer, saga: &Saga<OrderSaga>, ask: Ask) -> Event {
        let payment_id = PaymentId::new(at(0), [2; 10]);
        let too_late = ask == Ask::LookUp { deadline_passed: true };
        match answer {
            Answer::Approved => Event::PaymentApproved { payment_id },
            Answer::Declined => {
                Event::PaymentDeclined { payment_id: None, reason: FailureReason::lossy("declined") }
            }
            Answer::Pending | Answer::Unheard if too_late => Event::DeadlinePassed,
            Answer::Pending | Answer::Unheard => saga.state().payment_pending(self.now(), self.wait()),
            Answer::Voided => Event::PaymentVoided,
            Answer::Undone => Event::Undone { payment_id: None },
        }
    }

    fn records(
        &self,
        number: usize,
        saga: &Saga<OrderSaga>,
        known: Option<Status>,
        event: Event,
    ) -> Result<World, Broken> {
        let mut saga = saga.clone();
        saga.record(event, self.now()).map_err(|_| "an answer is always a legal event")?;
        Ok(self.with_owner(number, Owner::Driving { saga, known }))
    }

    /// The client is told a status, which must be able to follow the end that it knew when it asked.
    /// Only ends bind: an order under way may be shown as of before.
    fn tell(&mut self, status: Status, known: Option<Status>) -> Result<(), Broken> {
        if !status.is_settled() {
            return Ok(());
        }
        self.told = Some(status);
        let follows = match known {
            None => true,
            Some(known) => known == status || (known == Status::Completed && status == Status::Cancelled),
        };
        if follows { Ok(()) } else { Err(PROPERTIES[4]) }
    }

    fn is_late(&mut self, ask: Ask) {
        match ask {
            Ask::Process => self.late_processes += 1,
            Ask::Undo => self.late_undos += 1,
            // It changes nothing, and nobody hears the answer.
            Ask::LookUp { .. } => {}
        }
    }

    fn late_requests_arrive(&self, all: &mut Vec<(String, Result<World, Broken>)>) {
        if self.late_processes > 0 {
            for (answer, mut world) in self.asked(Ask::Process) {
                world.late_processes -= 1;
                all.push((format!("a late Process arrives: {answer:?}"), Ok(world)));
            }
        }
        if self.late_undos > 0 {
            for (answer, mut world) in self.asked(Ask::Undo) {
                world.late_undos -= 1;
                all.push((format!("a late Undo arrives: {answer:?}"), Ok(world)));
            }
        }
    }

    /// Payment's answers to a request, with what each does.
    fn asked(&self, ask: Ask) -> Vec<(Answer, World)> {
        let becomes = |answer, charge| {
            let mut world = World { charge, ..self.clone() };
            world.captures += u8::from(charge == Charge::Captured && self.charge != Charge::Captured);
            world.refunds += u8::from(charge == Charge::Refunded && self.charge != Charge::Refunded);
            (answer, world)
        };
        let decided =
            || vec![becomes(Answer::Approved, Charge::Captured), becomes(Answer::Declined, Charge::Declined)];
        match (ask, self.charge) {
            (Ask::Process, Charge::Nothing) => {
                let mut all = decided();
                if self.left.pendings > 0 {
                    let (answer, mut world) = becomes(Answer::Pending, Charge::Pending);
                    world.left.pendings -= 1;
                    all.push((answer, world));
                }
                all
            }
            (Ask::Process, Charge::Pending) => vec![becomes(Answer::Pending, Charge::Pending)],
            (Ask::LookUp { .. }, Charge::Pending) => {
                let mut all = decided();
                all.push(becomes(Answer::Pending, Charge::Pending));
                all
            }
            (Ask::LookUp { .. }, Charge::Nothing) => vec![becomes(Answer::Unheard, Charge::Nothing)],
            (Ask::Process | Ask::LookUp { .. }, Charge::Captured) => {
                vec![becomes(Answer::Approved, Charge::Captured)]
            }
            (Ask::Process | Ask::LookUp { .. }, Charge::Declined) => {
                vec![becomes(Answer::Declined, Charge::Declined)]
            }
            (Ask::Process | Ask::LookUp { .. }, Charge::Voided | Charge::Refunded) => {
                vec![becomes(Answer::Voided, self.charge)]
            }
            (Ask::Undo, Charge::Nothing | Charge::Pending | Charge::Voided) => {
                vec![becomes(Answer::Undone, Charge::Voided)]
            }
            (Ask::Undo, Charge::Captured | Charge::Refunded) => {
                vec![becomes(Answer::Undone, Charge::Refunded)]
            }
            (Ask::Undo, Charge::Declined) => vec![becomes(Answer::Undone, Charge::Declined)],
        }
    }
}

fn write_entries<'a>(entries: impl Iterator<Item = &'a Entry<Event>>, out: &mut impl Write) -> fmt::Result {
    for entry in entries {
        write!(out, "|{}", entry.at.as_millis())?;
        match &entry.event {
            Event::Placed(_) => {}
            event => write!(out, "{event:?}")?,
        }
    }
    Ok(())
}

fn at(tick: u64) -> Timestamp {
    Timestamp::from_millis(0).plus(TICK.saturating_mul(u32::try_from(tick).unwrap_or(u32::MAX)))
}
