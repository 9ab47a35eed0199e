//! A journal and a step function: how a saga remembers and what it does next.
//!
//! Pure: no IO, no clock, no randomness. Replay after a crash goes through the same functions
//! as the first run, so the two cannot differ. An impossible journal is an error, never a guess.
//! This crate must not know what a saga is about.

use std::fmt;

use settle_types::Timestamp;

/// One fact that a saga has made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<E> {
    /// Position in the journal, from 0. `(saga, seq)` is the storage's primary key: a duplicate
    /// means that another owner was faster, and the whole write is refused (fencing).
    pub seq: u32,
    /// The release of the definition that wrote it.
    pub version: u16,
    /// Never earlier than the entry before it.
    pub at: Timestamp,
    pub event: E,
}

/// What a saga is: its states, what moves it, and what it does in each state.
pub trait Definition: Sized {
    type Event: Clone + fmt::Debug + PartialEq;
    type State: Clone + fmt::Debug + PartialEq;
    type Effect: fmt::Debug + PartialEq;

    /// The newest entry version that this release writes and understands.
    const VERSION: u16;

    /// The state after the first entry; `None` when `event` cannot be a first one.
    fn begin(event: &Self::Event, at: Timestamp) -> Option<Self::State>;

    /// The total transition function; `None` when `state` does not take `event`.
    fn transition(state: &Self::State, event: &Self::Event, at: Timestamp) -> Option<Self::State>;

    /// What to do next in `state` at `now`.
    fn next(state: &Self::State, now: Timestamp) -> Self::Effect;
}

/// A state does not take an event. Names both, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not a legal event in state {state}")]
pub struct IllegalEvent {
    pub state: String,
    pub event: String,
}

/// A stored journal that cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("the journal is empty")]
    Empty,
    #[error("entry {found} stands where entry {wanted} belongs")]
    Gap { wanted: u32, found: u32 },
    #[error("entry {seq} has version {found}; this release understands up to {known}")]
    TooNew { seq: u32, found: u16, known: u16 },
    #[error("entry {seq} is earlier than the one before it")]
    TimeWentBack { seq: u32 },
    #[error("entry {seq}: {illegal}")]
    Illegal { seq: u32, illegal: IllegalEvent },
}

/// An entry not yet written, with the state that it leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<D: Definition> {
    pub entry: Entry<D::Event>,
    pub after: D::State,
}

/// Where the stored journal ends: what the next write must find. A storage that lost entries may
/// hold others in their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<S> {
    /// Of the last entry.
    pub seq: u32,
    pub at: Timestamp,
    /// The state that it leads to.
    pub state: S,
}

/// A saga in memory: where its journal has brought it, and entries not yet written.
#[derive(Clone, Debug, PartialEq)]
pub struct Saga<D: Definition> {
    state: D::State,
    last_at: Timestamp,
    /// Seq of the next entry.
    next_seq: u32,
    /// `None` before the first write.
    stored: Option<Stored<D::State>>,
    unwritten: Vec<Step<D>>,
}

impl<D: Definition> Saga<D> {
    /// A new saga from its first event, not written yet.
    pub fn begin(event: D::Event, now: Timestamp) -> Result<Self, IllegalEvent> {
        let illegal = || IllegalEvent { state: "(none)".to_owned(), event: format!("{event:?}") };
        let state = D::begin(&event, now).ok_or_else(illegal)?;
        let entry = Entry { seq: 0, version: D::VERSION, at: now, event };
        let first = Step { entry, after: state.clone() };
        Ok(Self { state, last_at: now, next_seq: 1, stored: None, unwritten: vec![first] })
    }

    /// The saga that a stored journal tells of, oldest entry first.
    pub fn replay(entries: impl IntoIterator<Item = Entry<D::Event>>) -> Result<Self, ReplayError> {
        let mut saga: Option<Self> = None;
        for entry in entries {
            let wanted = saga.as_ref().map_or(0, |s| s.next_seq);
            saga = Some(Self::replay_one(saga, wanted, entry)?);
        }
        saga.ok_or(ReplayError::Empty)
    }

    fn replay_one(saga: Option<Self>, wanted: u32, entry: Entry<D::Event>) -> Result<Self, ReplayError> {
        let seq = entry.seq;
        if seq != wanted {
            return Err(ReplayError::Gap { wanted, found: seq });
        }
        if entry.version > D::VERSION {
            return Err(ReplayError::TooNew { seq, found: entry.version, known: D::VERSION });
        }
        let mut next = match saga {
            None => Self::begin(entry.event, entry.at),
            Some(saga) if entry.at < saga.last_at => return Err(ReplayError::TimeWentBack { seq }),
            Some(mut saga) => saga.record(entry.event, entry.at).map(|()| saga),
        }
        .map_err(|illegal| ReplayError::Illegal { seq, illegal })?;
        next.mark_written();
        Ok(next)
    }

    /// Takes an event: the one way in which a saga moves. The entry waits in `unwritten`.
    pub fn record(&mut self, event: D::Event, now: Timestamp) -> Result<(), IllegalEvent> {
        let at = now.max(self.last_at);
        let Some(state) = D::transition(&self.state, &event, at) else {
            return Err(IllegalEvent { state: format!("{:?}", self.state), event: format!("{event:?}") });
        };
        let entry = Entry { seq: self.next_seq, version: D::VERSION, at, event };
        self.unwritten.push(Step { entry, after: state.clone() });
        self.state = state;
        self.last_at = at;
        self.next_seq = self.next_seq.saturating_add(1);
        Ok(())
    }

    pub fn state(&self) -> &D::State {
        &self.state
    }

    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// What to do next. Time never runs back for a saga.
    pub fn next(&self, now: Timestamp) -> D::Effect {
        D::next(&self.state, now.max(self.last_at))
    }

    pub fn unwritten(&self) -> &[Step<D>] {
        &self.unwritten
    }

    /// The end of the journal without the unwritten entries; `None` when nothing is written.
    pub fn stored(&self) -> Option<&Stored<D::State>> {
        self.stored.as_ref()
    }

    /// Forgets the unwritten entries: they are in the storage now.
    pub fn mark_written(&mut self) {
        if let Some(last) = self.unwritten.drain(..).next_back() {
            self.stored = Some(Stored { seq: last.entry.seq, at: last.entry.at, state: last.after });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens once, closes once.
    #[derive(Debug, PartialEq)]
    struct Door;
    #[derive(Clone, Debug, PartialEq)]
    enum DoorEvent {
        Opened,
        Closed,
    }

    impl Definition for Door {
        type Event = DoorEvent;
        type State = bool;
        type Effect = &'static str;
        const VERSION: u16 = 2;

        fn begin(event: &DoorEvent, _: Timestamp) -> Option<bool> {
            (*event == DoorEvent::Opened).then_some(true)
        }
        fn transition(open: &bool, event: &DoorEvent, _: Timestamp) -> Option<bool> {
            (*open && *event == DoorEvent::Closed).then_some(false)
        }
        fn next(open: &bool, _: Timestamp) -> &'static str {
            if *open { "close" } else { "rest" }
        }
    }

    fn entry(seq: u32, version: u16, at: u64, event: DoorEvent) -> Entry<DoorEvent> {
        Entry { seq, version, at: Timestamp::from_millis(at), event }
    }

    #[test]
    fn replay_gives_what_the_first_run_gave() {
        let mut first = Saga::<Door>::begin(DoorEvent::Opened, Timestamp::from_millis(5)).unwrap();
        assert_eq!(first.next(Timestamp::default()), "close");
        first.record(DoorEvent::Closed, Timestamp::from_millis(3)).unwrap();
        assert_eq!(first.last_at(), Timestamp::from_millis(5), "time never runs back");
        let journal: Vec<_> = first.unwritten().iter().map(|step| step.entry.clone()).collect();
        assert_eq!(first.stored(), None, "nothing is written");
        first.mark_written();
        assert!(first.unwritten().is_empty());
        let last = Stored { seq: 1, at: Timestamp::from_millis(5), state: false };
        assert_eq!(first.stored(), Some(&last));
        assert_eq!(Saga::<Door>::replay(journal).unwrap(), first);
    }

    #[test]
    fn impossible_journals_are_errors() {
        use DoorEvent::{Closed, Opened};
        let rows = [
            (vec![], ReplayError::Empty),
            (vec![entry(1, 1, 0, Opened)], ReplayError::Gap { wanted: 0, found: 1 }),
            (vec![entry(0, 1, 0, Opened), entry(2, 1, 0, Closed)], ReplayError::Gap { wanted: 1, found: 2 }),
            (vec![entry(0, 3, 0, Opened)], ReplayError::TooNew { seq: 0, found: 3, known: 2 }),
            (vec![entry(0, 1, 9, Opened), entry(1, 1, 8, Closed)], ReplayError::TimeWentBack { seq: 1 }),
        ];
        for (journal, expected) in rows {
            assert_eq!(Saga::<Door>::replay(journal), Err(expected));
        }
        let illegal = [vec![entry(0, 1, 0, Closed)], vec![entry(0, 1, 0, Opened), entry(1, 1, 0, Opened)]];
        for journal in illegal {
            assert!(matches!(Saga::<Door>::replay(journal), Err(ReplayError::Illegal { .. })));
        }
    }
}
