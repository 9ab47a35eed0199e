//! What can go wrong, how often, and how often it did.

use std::collections::BTreeMap;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    RequestLost,
    AnswerLost,
    Duplicated,
    Partition,
    StorageRefuses,
    StorageUnknownNotDone,
    StorageUnknownDone,
    StorageSlow,
    StorageCrash,
    HostCrash,
    AllCrash,
    ClockJump,
}

pub const FAULTS: [Fault; 12] = [
    Fault::RequestLost,
    Fault::AnswerLost,
    Fault::Duplicated,
    Fault::Partition,
    Fault::StorageRefuses,
    Fault::StorageUnknownNotDone,
    Fault::StorageUnknownDone,
    Fault::StorageSlow,
    Fault::StorageCrash,
    Fault::HostCrash,
    Fault::AllCrash,
    Fault::ClockJump,
];

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::RequestLost => "request lost",
            Fault::AnswerLost => "answer lost",
            Fault::Duplicated => "duplicated",
            Fault::Partition => "partition",
            Fault::StorageRefuses => "storage refuses",
            Fault::StorageUnknownNotDone => "storage unknown, not done",
            Fault::StorageUnknownDone => "storage unknown, done",
            Fault::StorageSlow => "storage slow",
            Fault::StorageCrash => "storage crash",
            Fault::HostCrash => "host crash",
            Fault::AllCrash => "all hosts crash",
            Fault::ClockJump => "clock jump",
        }
    }
}

/// How often each fault strikes, in millionths of the chances it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile(BTreeMap<Fault, u32>);

impl Profile {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        Self(BTreeMap::new())
    }

    /// By name: calm, storm, crash, partition, power, clock.
    pub fn named(name: &str) -> Option<Self> {
        let rows: &[(Fault, u32)] = match name {
            "calm" => &[],
            "storm" => &[
                (Fault::RequestLost, 15_000),
                (Fault::AnswerLost, 15_000),
                (Fault::Duplicated, 15_000),
                (Fault::Partition, 3_000),
                (Fault::StorageRefuses, 5_000),
                (Fault::StorageUnknownNotDone, 4_000),
                (Fault::StorageUnknownDone, 4_000),
                (Fault::StorageSlow, 4_000),
                (Fault::StorageCrash, 1_000),
                (Fault::HostCrash, 2_000),
                (Fault::AllCrash, 300),
                (Fault::ClockJump, 3_000),
            ],
            "crash" => &[(Fault::HostCrash, 8_000), (Fault::AllCrash, 1_500), (Fault::StorageCrash, 3_000)],
            "partition" => {
                &[(Fault::Partition, 20_000), (Fault::RequestLost, 40_000), (Fault::AnswerLost, 40_000)]
            }
            "power" => &[
                (Fault::StorageCrash, 25_000),
                (Fault::AnswerLost, 20_000),
                (Fault::Duplicated, 20_000),
                (Fault::StorageSlow, 20_000),
            ],
            "clock" => &[(Fault::ClockJump, 30_000), (Fault::AnswerLost, 15_000), (Fault::HostCrash, 2_000)],
            _ => return None,
        };
        Some(Self(rows.iter().copied().collect()))
    }

    pub fn chance(&self, fault: Fault) -> u32 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.0.keys().copied()
    }
}

/// Faults that were injected, and of these, how many changed anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<Fault, (u64, u64)>);

impl Counts {
    pub fn injected(&mut self, fault: Fault) {
        self.0.entry(fault).or_default().0 += 1;
    }

    pub fn effective(&mut self, fault: Fault) {
        self.0.entry(fault).or_default().1 += 1;
    }

    pub fn add(&mut self, other: &Counts) {
        for (fault, (injected, effective)) in &other.0 {
            let sum = self.0.entry(*fault).or_default();
            sum.0 += injected;
            sum.1 += effective;
        }
    }
}
