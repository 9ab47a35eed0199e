//! Load by k6: the described system's profiles against a host of our own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use settle_tests::host::{Host, target};

use crate::disk::paced_fsyncs;
use crate::phase::millis;

/// A file system that never waits.
const MEMORY: &str = "/dev/shm";
/// The disk is asked as often as these profiles ask it.
const SYNC_TIME: Duration = Duration::from_secs(5);
const SYNC_PAUSE: Duration = Duration::from_millis(4);

const PROFILES: [&str; 5] = ["smoke", "load", "stress", "spike", "grpc"];

/// Runs a profile, or all of them.
///
/// `--short`: a minute each. `--both`: also past the gateway. `--described`: the thresholds of the
/// described system instead of ours. `--memory`: data in memory, to see what is not the disk's.
pub fn run(args: &[String]) -> Result<()> {
    let profile = args.iter().find(|arg| !arg.starts_with("--")).map_or("smoke", String::as_str);
    let profiles = match profile {
        "all" => PROFILES.to_vec(),
        known if PROFILES.contains(&known) => vec![known],
        other => bail!("there is no profile `{other}`; there are: all, {}", PROFILES.join(", ")),
    };
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let mut missed = Vec::new();
    for profile in profiles {
        let data = if has("--memory") { tempfile::tempdir_in(MEMORY)? } else { tempfile::tempdir()? };
        tell_disk(data.path())?;
        let host = Host::start_in(data.path(), &[]);
        let ways = if has("--both") && profile != "grpc" { &["gateway", "order"][..] } else { &["gateway"] };
        for way in ways {
            let mut k6 = Command::new(target().join("load-tools/bin/k6"));
            // Clients have addresses of their own.
            k6.args(["run", "--quiet", "--no-usage-report", "--local-ips", "127.0.1.1-127.0.1.20"]);
            k6.arg("tests/load/profiles.js");
            k6.env("PROFILE", profile).env("SHORT", if has("--short") { "1" } else { "0" });
            k6.env("THRESHOLDS", if has("--described") { "described" } else { "ours" });
            k6.env("GATEWAY", host.url("gateway")).env("GRPC", host.url("gateway_grpc"));
            k6.env("ORDERS", host.url(way));
            if !k6.status().context("k6 does not start")?.success() {
                missed.push(format!("{profile} ({way})"));
            }
        }
    }
    if !missed.is_empty() {
        bail!("thresholds were missed: {}", missed.join(", "));
    }
    Ok(())
}

/// What the disk alone takes, at the load's pace: no order is faster than two of these.
fn tell_disk(folder: &Path) -> Result<()> {
    let syncs = paced_fsyncs(folder, SYNC_TIME, SYNC_PAUSE)?;
    let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| millis(syncs.at(share)));
    println!("disk: fsync of 8 KiB, ms   p(50) {p50:.2}  p(95) {p95:.2}  p(99) {p99:.2}  max {max:.2}");
    Ok(())
}
