//! A deterministic world for components: virtual time, seeded randomness, and a network and disks
//! that fail on command. The components are the bytes that ship; the capabilities are the same
//! traits as in the real world.
//!
//! One seed is one run, bit for bit: everything happens on one thread of a runtime whose time only
//! moves when nothing else can. `Sim` is what all parts of a run share. Nothing here knows what the
//! components are about: workload and checker plug in.

mod clock;
mod faults;
mod machine;
mod network;
mod storage;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::engine::hex;

pub use clock::SimWorld;
pub use faults::{Counts, FAULTS, Fault, Profile};
pub use machine::{Application, Habits, Life, Machine, Machines};
pub use network::{Reply, SimNetwork, ask};
pub use storage::{Disk, SimDatabase};

/// When every simulation begins: 2026-01-01T00:00:00Z, in milliseconds.
pub const EPOCH_MILLIS: u64 = 1_767_225_600_000;

/// What all parts of one run share.
pub struct Sim {
    /// Crashes that are planned, not rolled.
    planned: Mutex<Vec<Crash>>,
    /// Host calls, as they were made since crashes were planned; a campaign keeps none.
    made: Mutex<Option<Vec<String>>>,
    dice: Mutex<StdRng>,
    started: Instant,
    profile: Mutex<Profile>,
    counts: Mutex<Counts>,
    trace: Mutex<Trace>,
    calls: AtomicU64,
}

/// A crash of the machine that makes a host call, before or after the call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crash {
    pub call: u64,
    pub after: bool,
}

struct Trace {
    digest: Sha256,
    /// Kept only when somebody will read them.
    lines: Option<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// A new world. Call it inside the paused runtime that the run happens in.
    pub fn new(seed: u64, profile: Profile, keep_trace: bool) -> Arc<Self> {
        Arc::new(Self {
            planned: Mutex::default(),
            made: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            started: Instant::now(),
            profile: Mutex::new(profile),
            counts: Mutex::default(),
            trace: Mutex::new(Trace { digest: Sha256::new(), lines: keep_trace.then(Vec::new) }),
            calls: AtomicU64::new(0),
        })
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        lock(&self.dice).random_range(0..bound.max(1))
    }

    /// True once in `1_000_000 / per_million` times.
    pub fn chance(&self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    fn generator(&self) -> StdRng {
        let seed = lock(&self.dice).next_u64();
        StdRng::seed_from_u64(seed)
    }

    /// Virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A latency: mostly short, with a long tail.
    pub fn latency(&self) -> Duration {
        let micros = match self.below(1000) {
            0..=939 => 50 + self.below(2_000),
            940..=989 => 2_000 + self.below(30_000),
            990..=997 => 50_000 + self.below(500_000),
            _ => 1_000_000 + self.below(3_000_000),
        };
        Duration::from_micros(micros)
    }

    /// Decides whether a fault happens now. Counts it as injected.
    pub fn strikes(&self, fault: Fault) -> bool {
        let chance = lock(&self.profile).chance(fault);
        let strikes = self.chance(chance);
        if strikes {
            lock(&self.counts).injected(fault);
        }
        strikes
    }

    /// A fault changed what somebody saw or what was kept.
    pub fn took_effect(&self, fault: Fault) {
        lock(&self.counts).effective(fault);
    }

    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// From now on nothing goes wrong.
    pub fn calm_down(&self) {
        *lock(&self.profile) = Profile::calm();
    }

    /// One line of the run's history.
    pub fn tell(&self, line: impl AsRef<str>) {
        let line = format!("{:>11.6} {}", self.elapsed().as_secs_f64(), line.as_ref());
        let mut trace = lock(&self.trace);
        trace.digest.update(line.as_bytes());
        trace.digest.update([b'\n']);
        if let Some(lines) = &mut trace.lines {
            lines.push(line);
        }
    }

    /// The number of the next host call, over all machines.
    fn next_call(&self, what: &str) -> u64 {
        if let Some(made) = lock(&self.made).as_mut() {
            made.push(what.to_owned());
        }
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a crash is planned at this point of a call.
    fn is_planned(&self, call: u64, after: bool) -> bool {
        lock(&self.planned).contains(&Crash { call, after })
    }

    /// Machines die at these calls, counted from now, whatever the dice say.
    pub fn plan(&self, crashes: &[Crash]) {
        let now = self.calls();
        let planned = crashes.iter().map(|crash| Crash { call: crash.call + now, ..*crash });
        *lock(&self.planned) = planned.collect();
        *lock(&self.made) = Some(Vec::new());
    }

    /// Every host call since `plan`, by what it was.
    pub fn made(&self) -> Vec<String> {
        lock(&self.made).clone().unwrap_or_default()
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// SHA-256 over the history so far, in hex.
    pub fn digest(&self) -> String {
        hex(&lock(&self.trace).digest.clone().finalize())
    }

    /// The history, if it was kept.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.trace).lines.clone().unwrap_or_default()
    }
}

/// Runs one simulation on a runtime of its own: one thread, time that only moves when all wait.
///
/// Errors: the runtime cannot be made.
pub fn run<F: Future>(simulation: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(simulation))
}
