//! Clocks, randomness and log lines of instances: the machine's, or a simulation's.

use wasmtime_wasi::WasiCtx;

/// Makes what an instance sees of WASI. Nothing else is granted: no files, sockets, environment.
pub trait World: Send + Sync {
    fn wasi(&self) -> WasiCtx;
}

/// The machine's clocks and randomness; log lines go to stderr.
pub struct Real;

impl World for Real {
    fn wasi(&self) -> WasiCtx {
        WasiCtx::builder().inherit_stderr().build()
    }
}
