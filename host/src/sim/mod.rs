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
mod server;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::engine::hex;

pub use clock::SimWorld;
pub use faults::{Call, Counts, FAULTS, Fault, PROFILES, Profile, Step, Steps, Struck, plain_steps};
pub use machine::{Application, Disks, Habits, Life, Machine, Machines};
pub use network::{Reply, SimNetwork, ask};
pub use storage::{Disk, SimDatabase};

/// When every simulation begins: 2026-01-01T00:00:00Z, in milliseconds.
pub const EPOCH_MILLIS: u64 = 1_767_225_600_000;

/// What one run is made from.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub profile: Profile,
    /// Keep the history's lines, not only their digest.
    pub keep_trace: bool,
    /// Names what a call is for: faults are counted by it.
    pub steps: Steps,
    /// Faults strike at the chances with these numbers and at no others, whatever the dice say.
    pub only: Option<BTreeSet<u64>>,
}

impl Setup {
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self { seed, profile, keep_trace: false, steps: plain_steps, only: None }
    }
}

/// What all parts of one run share.
pub struct Sim {
    /// Crashes that are planned, not rolled.
    planned: Mutex<Vec<Crash>>,
    /// Host calls, as they were made since crashes were planned; a campaign keeps none.
    made: Mutex<Option<Vec<String>>>,
    dice: Mutex<StdRng>,
    started: Instant,
    profile: Mutex<Profile>,
    pub steps: Steps,
    only: Option<BTreeSet<u64>>,
    /// Chances that faults have had so far, and those they took.
    chances: AtomicU64,
    struck: Mutex<Struck>,
    counts: Mutex<Counts>,
    trace: Mutex<Trace>,
    calls: AtomicU64,
    /// Calls without an answer yet: machine and step, by number.
    in_flight: Mutex<BTreeMap<u64, (usize, Step)>>,
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
    pub fn new(setup: Setup) -> Arc<Self> {
        Arc::new(Self {
            planned: Mutex::default(),
            made: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(setup.seed)),
            started: Instant::now(),
            profile: Mutex::new(setup.profile),
            steps: setup.steps,
            only: setup.only,
            chances: AtomicU64::new(0),
            struck: Mutex::default(),
            counts: Mutex::default(),
            trace: Mutex::new(Trace { digest: Sha256::new(), lines: setup.keep_trace.then(Vec::new) }),
            calls: AtomicU64::new(0),
            in_flight: Mutex::default(),
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
        let number = self.chances.fetch_add(1, Ordering::Relaxed);
        let chance = lock(&self.profile).chance(fault);
        let rolled = self.chance(chance);
        let strikes = self.only.as_ref().map_or(rolled, |only| chance > 0 && only.contains(&number));
        if strikes {
            lock(&self.counts).injected(fault);
            lock(&self.struck).insert(number, fault);
            self.tell(format!("fault {number}: {}", fault.name()));
        }
        strikes
    }

    /// The faults so far.
    pub fn struck(&self) -> Struck {
        lock(&self.struck).clone()
    }

    /// A fault changed what somebody saw or what was kept, in a step.
    pub fn took_effect(&self, fault: Fault, step: Step) {
        let mut counts = lock(&self.counts);
        counts.effective(fault);
        counts.hit(step, fault);
    }

    /// Decides whether a fault happens to a call now; one that does takes effect.
    pub fn hits(&self, fault: Fault, step: Step) -> bool {
        let strikes = self.strikes(fault);
        if strikes {
            self.took_effect(fault, step);
        }
        strikes
    }

    /// A fault changed what happens to all calls under way on some machines.
    pub fn took_effect_on(&self, fault: Fault, machines: impl Fn(usize) -> bool) {
        let mut counts = lock(&self.counts);
        counts.effective(fault);
        for (_, step) in lock(&self.in_flight).values().filter(|(machine, _)| machines(*machine)) {
            counts.hit(step, fault);
        }
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

    /// A host call begins; it is under way until what this answers is dropped.
    fn begin_call(self: &Arc<Self>, machine: usize, what: String, step: Step) -> UnderWay {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.tell(format!("#{number} m{machine} {what}"));
        if let Some(made) = lock(&self.made).as_mut() {
            made.push(what);
        }
        lock(&self.in_flight).insert(number, (machine, step));
        UnderWay { sim: self.clone(), number, step }
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

/// A host call without an answer yet.
pub struct UnderWay {
    sim: Arc<Sim>,
    /// Over all machines.
    pub number: u64,
    pub step: Step,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.sim.in_flight).remove(&self.number);
    }
}

/// Runs one simulation on a runtime of its own: one thread, time that only moves when all wait.
///
/// Errors: the runtime cannot be made.
pub fn run<F: Future>(simulation: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(simulation))
}
