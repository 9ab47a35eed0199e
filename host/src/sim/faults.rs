//! What can go wrong, how often, and how often it did.

use std::collections::BTreeMap;

use crate::sql::Statement;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    RequestLost,
    AnswerLost,
    /// The answer comes when nobody waits for it any more.
    AnswerLate,
    /// An error, or half an answer, from something in between: the request was done.
    AnswerBroken,
    Duplicated,
    Partition,
    StorageRefuses,
    /// For a while, no write.
    StorageFull,
    /// Another's write was in the way.
    StorageConflict,
    StorageUnknownNotDone,
    StorageUnknownDone,
    StorageSlow,
    StorageCrash,
    /// The server dies while it commits: the write is there afterwards, or not.
    StorageCrashInCommit,
    HostCrash,
    AllCrash,
    ClockJump,
}

pub const FAULTS: [Fault; 17] = [
    Fault::RequestLost,
    Fault::AnswerLost,
    Fault::AnswerLate,
    Fault::AnswerBroken,
    Fault::Duplicated,
    Fault::Partition,
    Fault::StorageRefuses,
    Fault::StorageFull,
    Fault::StorageConflict,
    Fault::StorageUnknownNotDone,
    Fault::StorageUnknownDone,
    Fault::StorageSlow,
    Fault::StorageCrash,
    Fault::StorageCrashInCommit,
    Fault::HostCrash,
    Fault::AllCrash,
    Fault::ClockJump,
];

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::RequestLost => "request lost",
            Fault::AnswerLost => "answer lost",
            Fault::AnswerLate => "answer late",
            Fault::AnswerBroken => "answer broken",
            Fault::Duplicated => "duplicated",
            Fault::Partition => "partition",
            Fault::StorageRefuses => "storage refuses",
            Fault::StorageFull => "storage full",
            Fault::StorageConflict => "storage conflict",
            Fault::StorageUnknownNotDone => "storage unknown, not done",
            Fault::StorageUnknownDone => "storage unknown, done",
            Fault::StorageSlow => "storage slow",
            Fault::StorageCrash => "storage crash",
            Fault::StorageCrashInCommit => "storage crash in commit",
            Fault::HostCrash => "host crash",
            Fault::AllCrash => "all hosts crash",
            Fault::ClockJump => "clock jump",
        }
    }
}

pub const PROFILES: [&str; 6] = ["calm", "storm", "crash", "partition", "power", "clock"];

/// How often each fault strikes, in millionths of the chances it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    name: &'static str,
    chances: BTreeMap<Fault, u32>,
}

impl Profile {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        Self { name: "calm", chances: BTreeMap::new() }
    }

    /// One of `PROFILES`.
    pub fn named(name: &str) -> Option<Self> {
        let name = *PROFILES.iter().find(|known| **known == name)?;
        let rows: &[(Fault, u32)] = match name {
            "storm" => &[
                (Fault::RequestLost, 15_000),
                (Fault::AnswerLost, 15_000),
                (Fault::AnswerLate, 5_000),
                (Fault::AnswerBroken, 5_000),
                (Fault::Duplicated, 15_000),
                (Fault::Partition, 3_000),
                (Fault::StorageRefuses, 5_000),
                (Fault::StorageFull, 500),
                (Fault::StorageConflict, 4_000),
                (Fault::StorageUnknownNotDone, 4_000),
                (Fault::StorageUnknownDone, 4_000),
                (Fault::StorageSlow, 4_000),
                (Fault::StorageCrash, 1_000),
                (Fault::StorageCrashInCommit, 1_000),
                (Fault::HostCrash, 800),
                (Fault::AllCrash, 300),
                (Fault::ClockJump, 3_000),
            ],
            "crash" => &[
                (Fault::HostCrash, 3_000),
                (Fault::AllCrash, 1_500),
                (Fault::StorageCrash, 3_000),
                (Fault::StorageCrashInCommit, 3_000),
            ],
            "partition" => &[
                (Fault::Partition, 20_000),
                (Fault::RequestLost, 40_000),
                (Fault::AnswerLost, 40_000),
                (Fault::AnswerLate, 40_000),
                (Fault::AnswerBroken, 10_000),
            ],
            "power" => &[
                (Fault::StorageCrash, 25_000),
                (Fault::StorageCrashInCommit, 10_000),
                (Fault::AnswerLost, 20_000),
                (Fault::Duplicated, 20_000),
                (Fault::StorageSlow, 20_000),
            ],
            "clock" => &[(Fault::ClockJump, 30_000), (Fault::AnswerLost, 15_000), (Fault::HostCrash, 2_000)],
            _ => &[],
        };
        Some(Self { name, chances: rows.iter().copied().collect() })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn chance(&self, fault: Fault) -> u32 {
        self.chances.get(&fault).copied().unwrap_or(0)
    }

    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.chances.keys().copied()
    }
}

/// Faults that were injected, and of these, how many changed anything; and in which step they did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub faults: BTreeMap<Fault, (u64, u64)>,
    pub cells: BTreeMap<(Step, Fault), u64>,
}

impl Counts {
    pub fn injected(&mut self, fault: Fault) {
        self.faults.entry(fault).or_default().0 += 1;
    }

    pub fn effective(&mut self, fault: Fault) {
        self.faults.entry(fault).or_default().1 += 1;
    }

    pub fn hit(&mut self, step: Step, fault: Fault) {
        *self.cells.entry((step, fault)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Counts) {
        for (fault, (injected, effective)) in &other.faults {
            let sum = self.faults.entry(*fault).or_default();
            sum.0 += injected;
            sum.1 += effective;
        }
        for (cell, count) in &other.cells {
            *self.cells.entry(*cell).or_default() += count;
        }
    }
}

/// What a call is for, in the words of a workload.
pub type Step = &'static str;

/// A call that faults can hit, as a workload sees it to name its step.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Read {
        database: &'a str,
    },
    Write {
        database: &'a str,
        statements: &'a [Statement],
    },
    /// Between services, or from a client.
    Send {
        service: &'a str,
        method: &'a http::Method,
        path: &'a str,
    },
}

/// Names the step of a call.
pub type Steps = fn(&Call<'_>) -> Step;

/// Fits every workload: what kind of call it is.
pub fn plain_steps(call: &Call<'_>) -> Step {
    match call {
        Call::Read { .. } => "read",
        Call::Write { .. } => "write",
        Call::Send { .. } => "send",
    }
}

/// Faults by the number of the chance that they struck at, over the whole run.
pub type Struck = BTreeMap<u64, Fault>;
