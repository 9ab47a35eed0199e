//! Where the processor's time of an order goes, sampled by `perf` while the shipped host is at work.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::slice;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::contender::Contender;
use crate::drive::closed;

const TIME: Duration = Duration::from_secs(5);
/// Samples a second of each core; odd, so that nothing periodic is in step with it.
const RATE: &str = "997";

/// Shares of all samples, in percent, by part.
pub struct Parts(BTreeMap<&'static str, f64>);

/// Samples a contender's first process under load.
///
/// Errors: there is no `perf`, or it may not look.
pub async fn run(contender: &Contender, clients: u32, folder: &Path) -> Result<Parts> {
    let data = folder.join("perf.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "-F", RATE, "-p", &contender.main_process()?.to_string(), "-o"]).arg(&data);
    perf.args(["--", "sleep", &TIME.as_secs().to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut perf = perf.spawn().context("perf is not installed (Debian: linux-perf)")?;
    closed(slice::from_ref(&contender.target), clients, "profile", TIME + Duration::from_secs(1)).await?;
    ensure!(perf.wait()?.success(), "perf may not sample here");
    let mut report = Command::new("perf");
    report.args(["report", "--no-children", "--sort", "dso,symbol", "-t", "\t", "-i"]).arg(&data);
    let told = report.stderr(Stdio::null()).output()?;
    let mut parts = BTreeMap::new();
    for line in String::from_utf8_lossy(&told.stdout).lines() {
        if let Some((share, part)) = sample(line) {
            *parts.entry(part).or_default() += share;
        }
    }
    ensure!(!parts.is_empty(), "perf saw nothing");
    Ok(Parts(parts))
}

/// A line of the report: share, object, `[kind] symbol`.
fn sample(line: &str) -> Option<(f64, &'static str)> {
    let mut fields = line.trim().split('\t').map(str::trim);
    let share = fields.next()?.trim_end_matches('%').parse().ok()?;
    let (object, symbol) = (fields.next()?, fields.next()?);
    Some((share, part_of(object, symbol.get(4..).unwrap_or_default())))
}

fn part_of(object: &str, symbol: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| symbol.contains(word));
    if object.ends_with(".cwasm") {
        "components"
    } else if object.starts_with("[kernel") {
        "kernel: disk, network, threads"
    } else if object != "settle" {
        "libc: memory, locks"
    } else if has(&["wasmtime_wasi_http", "hyper", "http"]) {
        "http"
    } else if has(&["wasmtime", "component"]) {
        "wasmtime"
    } else if has(&["rusqlite"]) || !has(&["::", "<", "_R"]) {
        "SQLite"
    } else if has(&["tokio", "futures"]) {
        "tokio, futures"
    } else {
        "the host itself"
    }
}

impl Parts {
    /// `cpu_ms`: processor time of an order.
    pub fn markdown(&self, cpu_ms: f64) -> Result<String> {
        let mut parts: Vec<_> = self.0.iter().collect();
        parts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let all: f64 = self.0.values().sum();
        let mut out = String::from("| part | share | ms an order |\n|---|---|---|\n");
        for (part, share) in parts {
            writeln!(out, "| {part} | {:.0} % | {:.3} |", 100.0 * share / all, cpu_ms * share / all)?;
        }
        Ok(out)
    }
}
