//! Builds the components and the host. Nothing is rebuilt without need.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::check;

pub const GUEST_TARGET: &str = "wasm32-wasip2";
pub const GUEST_PROFILE: &str = "component";
/// One cargo call each: in a common call features unify, and the components grow.
pub const GUESTS: [&str; 5] =
    ["settle-identity", "settle-order", "settle-payment", "settle-acquirer-simulator", "settle-probe"];

/// Builds everything; answers the host's path.
pub fn all() -> Result<PathBuf> {
    let toolchain = guest_toolchain()?;
    for guest in GUESTS {
        let mut build = guest_cargo(&toolchain);
        check(build.args(["build", "--profile", GUEST_PROFILE, "--target", GUEST_TARGET, "-p", guest]))?;
    }
    // Of the whole workspace, as the tests are: with other features everything would be built twice.
    let mut host = Command::new("cargo");
    host.args(["build", "--release", "--bin", "settle"]).args(natives());
    check(&mut host)?;
    Ok(env::current_dir()?.join(target_dir()).join("release/settle"))
}

/// The packages that run on this machine: all but the guests.
pub fn natives() -> Vec<&'static str> {
    let excluded = GUESTS.iter().flat_map(|guest| ["--exclude", guest]);
    ["--workspace"].into_iter().chain(excluded).collect()
}

fn target_dir() -> PathBuf {
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

/// Cargo with the guests' toolchain, whatever toolchain runs this.
pub fn guest_cargo(toolchain: &str) -> Command {
    let mut cargo = Command::new("cargo");
    if !toolchain.is_empty() {
        cargo.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    cargo
}
