//! Clocks, randomness and log lines of instances: the machine's, or a simulation's.

use wasmtime_wasi::WasiCtx;

/// Makes what an instance sees of WASI. Nothing else is granted: no files, sockets, environment.
pub trait World: Send + Sync {
    fn wasi(&self) -> WasiCtx;
    /// An instance of a service ended by a trap or a timeout; the answers of its requests do not say
    /// why.
    fn instance_ended(&self, service: &str, error: &wasmtime::Error);
}

/// The machine's clocks and randomness; log lines go to stderr.
pub struct Real;

impl World for Real {
    fn wasi(&self) -> WasiCtx {
        WasiCtx::builder().inherit_stderr().build()
    }

    fn instance_ended(&self, service: &str, error: &wasmtime::Error) {
        eprintln!("settle: an instance of `{service}` ended: {error:#}");
    }
}
