//! From a `.wasm` file to a component that can be instantiated: compilation and its cache.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, iter};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::compose::compose;
use crate::guest::Ctx;
use crate::http::unary;
use crate::{config, limits, sql};

/// Instances that live at once, of all components together.
const INSTANCES_MAX: u32 = 256;
/// Address space of one memory; how much an instance may really use is in `guest.rs`.
const MEMORY_RESERVED_BYTES: usize = 128 << 20;
/// Memory of an ended instance that is kept for the next one.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// The engine that all components of the process share.
pub fn engine() -> Result<Engine> {
    Ok(Engine::new(&config())?)
}

/// An engine that also counts what guests do, in fuel: some 10 % slower.
pub fn counting_engine() -> Result<Engine> {
    Ok(Engine::new(config().consume_fuel(true))?)
}

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(INSTANCES_MAX * 8)
        .total_memories(INSTANCES_MAX * 2)
        .total_tables(INSTANCES_MAX * 4)
        .total_stacks(INSTANCES_MAX * 4)
        .max_core_instances_per_component(32)
        .max_memories_per_component(4)
        .max_tables_per_component(16)
        .max_memory_size(MEMORY_RESERVED_BYTES)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Everything that a component may import from this host.
pub fn linker(engine: &Engine) -> Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sql::add_to_linker(&mut linker)?;
    config::add_to_linker(&mut linker)?;
    limits::add_to_linker(&mut linker)?;
    unary::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// A component's file, and the files that are plugged into its imports.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub path: PathBuf,
    pub plugs: Vec<PathBuf>,
}

/// A compiled component and the digest of its own file (without plugs).
pub struct Loaded {
    pub component: Component,
    pub sha256: String,
}

/// Where a component is compiled that the cache does not have.
#[derive(Clone, Copy, Debug)]
pub enum Compiler {
    /// In this process, which keeps some of the memory that it takes.
    Here,
    /// In a process of its own, for `settle` alone: `settle compile`.
    Apart,
}

/// Loads a component; compiles it only when the cache has no artifact of these very bytes.
pub fn load(engine: &Engine, source: &Source, cache: &Path, compiler: Compiler) -> Result<Loaded> {
    let bytes = source.read()?;
    let artifact = cache.join(bytes.artifact_name(engine));
    if !artifact.exists() {
        match compiler {
            Compiler::Here => bytes.compile(engine, &source.name, &artifact)?,
            Compiler::Apart => compile_apart(source, cache)?,
        }
    }
    let component = deserialize(engine, &artifact)?;
    Ok(Loaded { component, sha256: hex(&Sha256::digest(&bytes.own)) })
}

/// Compiles a component for the cache, whether it is there or not.
pub fn compile(engine: &Engine, source: &Source, cache: &Path) -> Result<()> {
    let bytes = source.read()?;
    bytes.compile(engine, &source.name, &cache.join(bytes.artifact_name(engine)))
}

fn compile_apart(source: &Source, cache: &Path) -> Result<()> {
    let mut compile = Command::new(env::current_exe()?);
    compile.args(["compile", "--name", &source.name, "--cache"]).arg(cache).arg(&source.path);
    compile.args(source.plugs.iter().flat_map(|plug| [OsStr::new("--plug"), plug.as_os_str()]));
    let ended = compile.output().context("starting the compiler")?;
    if ended.status.success() {
        return Ok(());
    }
    match String::from_utf8_lossy(&ended.stderr).trim().trim_start_matches("settle: ") {
        "" => bail!("the compiler of component `{}` ended with {}", source.name, ended.status),
        said => bail!("{said}"),
    }
}

/// What a component is made of.
struct Bytes {
    own: Vec<u8>,
    plugs: Vec<Vec<u8>>,
}

impl Source {
    fn read(&self) -> Result<Bytes> {
        let read = |path: &PathBuf| {
            fs::read(path).with_context(|| {
                let (name, path) = (&self.name, path.display());
                format!("component `{name}`: {path} is missing; build it with `cargo xtask build`")
            })
        };
        Ok(Bytes { own: read(&self.path)?, plugs: self.plugs.iter().map(read).collect::<Result<_>>()? })
    }
}

impl Bytes {
    /// Says all that an artifact depends on: bytes, compiler, settings, CPU.
    fn artifact_name(&self, engine: &Engine) -> String {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut compiler = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut compiler);
        let mut digest = Sha256::new();
        for part in iter::once(&self.own).chain(&self.plugs) {
            digest.update(Sha256::digest(part));
        }
        format!("{}-{:016x}.cwasm", hex(&digest.finalize()), compiler.finish())
    }

    fn compile(&self, engine: &Engine, name: &str, artifact: &Path) -> Result<()> {
        let composed = compose(name, &self.own, &self.plugs)?;
        let compiled = engine
            .precompile_component(&composed)
            .map_err(|error| anyhow!("component `{name}` does not compile: {error:#}"))?;
        store(artifact, &compiled)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes under a name of its own first: nobody sees half an artifact, and two may write the same.
fn store(artifact: &Path, compiled: &[u8]) -> Result<()> {
    static STORED: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), STORED.fetch_add(1, Ordering::Relaxed));
    let unfinished = artifact.with_extension(format!("{process}-{number}.tmp"));
    let written = fs::write(&unfinished, compiled).and_then(|()| fs::rename(&unfinished, artifact));
    written.with_context(|| format!("writing the compile cache {}", artifact.display()))
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, artifact: &Path) -> Result<Component> {
    // SAFETY: the cache directory is ours (mode 0700) and holds only what `store` wrote whole;
    // wasmtime checks the artifact's version and settings itself.
    let component = unsafe { Component::deserialize_file(engine, artifact) };
    component.map_err(|error| anyhow!("the compile cache {} is unusable: {error:#}", artifact.display()))
}
