//! Load by k6: the described system's profiles against a host of our own.

use std::process::Command;

use anyhow::{Context, Result, bail};
use settle_tests::host::{Host, target};

const PROFILES: [&str; 5] = ["smoke", "load", "stress", "spike", "grpc"];

/// Runs a profile, or all of them.
///
/// `--short`: a minute each. `--both`: also past the gateway. `--described`: the thresholds of the
/// described system instead of ours.
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
        let host = Host::start(&[]);
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
