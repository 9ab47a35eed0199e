//! Clocks that show virtual time, and randomness from the seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use super::{EPOCH_MILLIS, Sim};
use crate::world::{Fuel, World};

/// What the instances of one machine see: its wall clock may be off.
pub struct SimWorld {
    sim: Arc<Sim>,
    /// Milliseconds that the wall clock is ahead; negative when behind.
    skew_millis: Arc<AtomicI64>,
    /// Guests' log lines go to stderr.
    loud: bool,
    /// Given where the engine counts it.
    fuel: Option<Fuel>,
}

impl SimWorld {
    pub fn new(sim: Arc<Sim>, loud: bool, fuel: Option<Fuel>) -> Self {
        Self { sim, skew_millis: Arc::default(), loud, fuel }
    }

    /// Sets the wall clock; instances that run see it jump.
    pub fn set_skew(&self, millis: i64) {
        self.skew_millis.store(millis, Ordering::Relaxed);
    }
}

impl World for SimWorld {
    fn wasi(&self) -> WasiCtx {
        let mut builder = WasiCtx::builder();
        builder
            .wall_clock(Wall { sim: self.sim.clone(), skew_millis: self.skew_millis.clone() })
            .monotonic_clock(Monotonic(self.sim.clone()))
            .secure_random(self.sim.generator())
            .insecure_random(self.sim.generator())
            .insecure_random_seed(u128::from(self.sim.below(u64::MAX)));
        if self.loud {
            builder.inherit_stderr();
        }
        builder.build()
    }

    /// The same on every machine that simulates.
    fn cores(&self) -> usize {
        2
    }

    /// Instances of dead machines end when their time is over: that is no event.
    fn instance_ended(&self, _service: &str, _error: &wasmtime::Error) {}

    fn fuel(&self) -> Option<&Fuel> {
        self.fuel.as_ref()
    }
}

struct Wall {
    sim: Arc<Sim>,
    skew_millis: Arc<AtomicI64>,
}

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        let now = Duration::from_millis(EPOCH_MILLIS) + self.sim.elapsed();
        let skew = self.skew_millis.load(Ordering::Relaxed);
        let off = Duration::from_millis(skew.unsigned_abs());
        if skew < 0 { now.saturating_sub(off) } else { now + off }
    }
}

struct Monotonic(Arc<Sim>);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
