//! Builds the components and the host. Nothing is rebuilt without need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::check;

pub const GUEST_TARGET: &str = "wasm32-wasip2";
pub const GUEST_PROFILE: &str = "component";
/// `wasmtime serve`, of the version that we embed.
const WASMTIME_CLI: &str = "48.0.8";
const WASMTIME_FEATURES: &str = "serve,run,cranelift,pooling-allocator,component-model,component-model-async";
pub const DIST_PROFILE: &str = "dist";
/// Of the edition for the wasmCloud 1.x lattice, which lies beside the other.
pub const LATTICE_PROFILE: &str = "lattice";
/// One cargo call each: in a common call features unify, and the components grow.
pub const GUESTS: [&str; 8] = [
    "settle-gateway",
    "settle-identity",
    "settle-order",
    "settle-payment",
    "settle-acquirer-simulator",
    "settle-spin",
    "settle-wasmcloud",
    "settle-probe",
];

/// The services that have an edition for the lattice.
pub const LATTICE: [&str; 3] = ["settle-identity", "settle-order", "settle-payment"];

/// Builds everything; answers the host's path.
pub fn all() -> Result<PathBuf> {
    side_by_side(guests, host)?;
    Ok(env::current_dir()?.join(target_dir()).join("release/settle"))
}

/// Two builds that share no lock: the last step of a guest's keeps one core busy only.
pub fn side_by_side(
    one: impl FnOnce() -> Result<()> + Send,
    other: impl FnOnce() -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        one.join().map_err(|_| anyhow!("a build panicked"))?.and(other)
    })
}

pub fn guests() -> Result<()> {
    let toolchain = guest_toolchain()?;
    for guest in GUESTS {
        let mut build = guest_cargo(&toolchain);
        // As a component alone: for a library's sake every dependency would be built once more.
        build.args(["rustc", "--crate-type", "cdylib", "--profile", GUEST_PROFILE]);
        check(build.args(["--target", GUEST_TARGET, "-p", guest]))?;
    }
    Ok(())
}

pub fn host() -> Result<()> {
    // Of the whole workspace, as the tests are: with other features everything would be built twice.
    let mut host = cargo();
    host.args(["build", "--release", "--bin", "settle", "--bin", "settle-sim", "--bin", "settle-model"])
        .args(["--bin", "settle-explain", "--bin", "settle-reconcile", "--bin", "settle-archive"])
        .args(natives());
    check(&mut host)
}

/// The shipped programs, beside each other; answers the host's path.
pub fn dist() -> Result<PathBuf> {
    all()?;
    build_dist(&["settle", "settle-explain", "settle-reconcile", "settle-archive"])?;
    Ok(env::current_dir()?.join(target_dir()).join(DIST_PROFILE).join("settle"))
}

/// The shipped host, and what it is compared with in our own language, built as it is.
pub fn bench_contenders() -> Result<()> {
    all()?;
    build_dist(&["settle", "raw-saga", "native-saga", "native-hello"])
}

fn build_dist(programs: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--profile", DIST_PROFILE]);
    check(build.args(programs.iter().flat_map(|program| ["--bin", program])).args(natives()))
}

/// The tool that measures.
pub fn bench_tool() -> Result<PathBuf> {
    let mut tool = cargo();
    check(tool.args(["build", "--release", "--bin", "settle-bench"]).args(natives()))?;
    Ok(target_dir().join("release/settle-bench"))
}

/// `wasmtime serve`, which the host is compared with.
pub fn wasmtime() -> Result<()> {
    let features = ["--no-default-features", "--features", WASMTIME_FEATURES];
    cargo_tool("bench-tools", "wasmtime", "wasmtime-cli", WASMTIME_CLI, &features).map(drop)
}

/// A program from crates.io in a folder of the target directory, unless it is there; answers its path.
pub fn cargo_tool(
    folder: &str,
    program: &str,
    package: &str,
    version: &str,
    options: &[&str],
) -> Result<PathBuf> {
    let folder = target_dir().join(folder);
    let path = folder.join("bin").join(program);
    if !path.exists() {
        let mut install = cargo();
        install.args(["install", package, "--version", version, "--locked", "--root"]).arg(folder);
        check(install.args(options))?;
    }
    Ok(path)
}

/// Restate's services, which an order is compared with.
pub fn restate() -> Result<()> {
    let mut restate = cargo();
    restate.args([
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        "bench/peers/restate-rust/Cargo.toml",
    ]);
    check(restate.arg("--target-dir").arg(target_dir().join("restate-rust")))?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir("bench/peers/restate-typescript");
    check(&mut npm)
}

/// The packages that run on this machine: all but the guests.
pub fn natives() -> Vec<&'static str> {
    let excluded = GUESTS.iter().flat_map(|guest| ["--exclude", guest]);
    ["--workspace"].into_iter().chain(excluded).collect()
}

/// What another host needs beside the business components, which stay the same bytes.
pub fn for_host(host: &str) -> Result<()> {
    let settle = all()?;
    match host {
        "spin" => spin(&settle),
        "wasmcloud" => wasmcloud(&settle),
        "lattice" => lattice(),
        other => bail!("there is no host `{other}`; there are: spin, wasmcloud, lattice"),
    }
}

pub fn for_every_host() -> Result<()> {
    let settle = all()?;
    spin(&settle)?;
    wasmcloud(&settle)?;
    lattice()
}

/// Spin plugs its adapter in by the manifest; only a plug of a plug is composed here.
fn spin(settle: &Path) -> Result<()> {
    compose(settle, "settle_acquirer_simulator", &["settle_spin"], "acquirer_simulator_on_spin")?;
    let file = Path::new(".env");
    if !file.exists() {
        write_private(file, &spin_variables()?)?;
        println!("wrote .env: fresh secrets and the development profile, for `spin up` on this machine");
    }
    Ok(())
}

/// wasmCloud gets one component a service, adapter and all.
fn wasmcloud(settle: &Path) -> Result<()> {
    let adapter = "settle_wasmcloud";
    compose(settle, "settle_identity", &[adapter], "identity_on_wasmcloud")?;
    compose(settle, "settle_order", &[adapter], "order_on_wasmcloud")?;
    compose(settle, "settle_acquirer_simulator", &[adapter], "acquirer_simulator_on_wasmcloud")?;
    compose(settle, "settle_payment", &["acquirer_simulator_on_wasmcloud", adapter], "payment_on_wasmcloud")
}

/// The wasmCloud 1.x lattice has WASI 0.2 only: another edition of the same services.
pub fn lattice() -> Result<()> {
    let toolchain = guest_toolchain()?;
    for service in LATTICE {
        let mut build = guest_cargo(&toolchain);
        build.args(["build", "--profile", LATTICE_PROFILE, "--target", GUEST_TARGET, "--features", "p2"]);
        check(build.args(["-p", service]))?;
    }
    Ok(())
}

fn compose(settle: &Path, socket: &str, plugs: &[&str], out: &str) -> Result<()> {
    let file = |name: &str| target_dir().join(GUEST_TARGET).join(GUEST_PROFILE).join(format!("{name}.wasm"));
    let mut compose = Command::new(settle);
    compose.arg("compose").arg(file(socket));
    for plug in plugs {
        compose.arg("--plug").arg(file(plug));
    }
    check(compose.arg("--out").arg(file(out)))
}

fn spin_variables() -> Result<String> {
    let mut text = String::from(
        "# Made by `cargo xtask build --for spin`; Spin reads it. Delete it for other values.\n",
    );
    for name in ["TOKEN_SIGNING_KEY", "ORDER_CLIENT_SECRET"] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
        text.push_str(&format!("SPIN_VARIABLE_{name}={}\n", URL_SAFE_NO_PAD.encode(bytes)));
    }
    for (name, value) in [
        ("SEED_ADMIN_PASSWORD", "password"),
        ("SIMULATE_FAIL_PRODUCT", "fail-me"),
        ("SIMULATE_SLOW_PRODUCT", "slow-me"),
    ] {
        text.push_str(&format!("SPIN_VARIABLE_{name}={value}\n"));
    }
    Ok(text)
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut out = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes()).context("writing .env")
}

pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// The toolchain that has the guests' target; empty for the active one. Installs what is missing.
pub fn guest_toolchain() -> Result<String> {
    let mut setup = Command::new("bash");
    setup.args(["xtask/setup-wasm-toolchain.sh", "--print"]).stderr(std::process::Stdio::inherit());
    let output = setup.output().context("starting xtask/setup-wasm-toolchain.sh")?;
    if !output.status.success() {
        bail!("the {GUEST_TARGET} toolchain could not be set up (see above)");
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Cargo as a developer would start it. The variables that `cargo run` gave this process would be
/// news to some packages' build scripts, and everything that depends on them would be built twice.
pub fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Cargo with the guests' toolchain, whatever toolchain runs this.
pub fn guest_cargo(toolchain: &str) -> Command {
    let mut cargo = cargo();
    if !toolchain.is_empty() {
        cargo.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    cargo
}
