//! Clocks, randomness and log lines of instances: the machine's, or a simulation's.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use wasmtime_wasi::WasiCtx;

/// Makes what an instance sees of WASI. Nothing else is granted: no files, sockets, environment.
pub trait World: Send + Sync {
    fn wasi(&self) -> WasiCtx;
    /// How many guests can compute at once.
    fn cores(&self) -> usize;
    /// An instance of a service ended by a trap or a timeout; the answers of its requests do not say
    /// why.
    fn instance_ended(&self, service: &str, error: &wasmtime::Error);
    /// Where fuel is noted, when the engine counts it.
    fn fuel(&self) -> Option<&Fuel> {
        None
    }
}

/// What the instances of each service have used up, at the start of each request.
#[derive(Default)]
pub struct Fuel(Mutex<BTreeMap<String, Vec<u64>>>);

impl Fuel {
    /// What every store begins with.
    pub const FULL: u64 = u64::MAX;

    pub fn note(&self, service: &str, left: u64) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.entry(service.to_owned()).or_default().push(Self::FULL - left);
    }

    /// All that was noted since the last time.
    pub fn take(&self) -> BTreeMap<String, Vec<u64>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The machine's clocks and randomness; log lines go to stderr.
pub struct Real;

impl World for Real {
    fn wasi(&self) -> WasiCtx {
        WasiCtx::builder().inherit_stderr().build()
    }

    fn cores(&self) -> usize {
        static CORES: OnceLock<usize> = OnceLock::new();
        *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn instance_ended(&self, service: &str, error: &wasmtime::Error) {
        eprintln!("settle: an instance of `{service}` ended: {error:#}");
    }
}
