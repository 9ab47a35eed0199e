//! `settle sim`: the shipped components in a simulated world, seed after seed.

mod checker;
mod matrix;
mod run;
mod workload;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;
use settle_host::engine::hex;
use settle_host::sim::{Application, Counts, FAULTS, Fault, Profile};
use sha2::{Digest as _, Sha256};

use run::{Plan, Verdict, simulate};

/// Runs the application's own components in a deterministic world with faults, and checks that every
/// order ends completed or fully undone.
#[derive(Parser)]
#[command(name = "settle sim", version)]
struct Cli {
    /// First and last seed, as A..B (B excluded).
    #[arg(long, default_value = "0..20", value_parser = range)]
    seeds: (u64, u64),
    /// Orders of one seed.
    #[arg(long, default_value_t = 50)]
    orders: u64,
    /// Machines that each run the whole application.
    #[arg(long, default_value_t = 2)]
    hosts: usize,
    /// calm, storm, crash, partition, power or clock.
    #[arg(long, default_value = "storm")]
    profile: String,
    /// Runs one seed, with the services' log and the timeline of every event.
    #[arg(long)]
    replay: Option<u64>,
    /// Crashes at every host call of every path (`single`), and again in the recovery (`pairs`).
    #[arg(long, value_parser = ["single", "pairs"])]
    matrix: Option<String>,
    /// With --matrix: every case, a line each.
    #[arg(long)]
    list: bool,
    /// The summary as JSON.
    #[arg(long)]
    json: bool,
    /// Simulations at once, a core each.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[arg(long, default_value = "spin.toml")]
    manifest: PathBuf,
    /// Compiled components.
    #[arg(long, default_value = ".settle/cache")]
    cache: PathBuf,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{text}` is not A..B");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let range = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if range.0 < range.1 { Ok(range) } else { Err(wrong()) }
}

fn main() -> ExitCode {
    match start(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("settle sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> Result<bool> {
    let Some(profile) = Profile::named(&cli.profile) else {
        bail!("there is no profile `{}`: calm, storm, crash, partition, power, clock", cli.profile)
    };
    if cli.hosts == 0 || cli.orders == 0 {
        bail!("at least one host and one order");
    }
    std::fs::create_dir_all(&cli.cache).with_context(|| cli.cache.display().to_string())?;
    let application = Arc::new(Application::load(&cli.manifest, &cli.cache)?);
    if let Some(kind) = &cli.matrix {
        return crash_matrix(&application, kind == "pairs", cli);
    }
    let plan = Plan { orders: cli.orders, machines: cli.hosts, profile, loud: cli.replay.is_some() };
    if let Some(seed) = cli.replay {
        let verdict = simulate(&application, &plan, seed)?;
        for line in &verdict.timeline {
            println!("{line}");
        }
        println!("seed {seed}: {} host calls, digest {}", verdict.calls, verdict.digest);
        for violation in &verdict.violations {
            println!("VIOLATION {violation}");
        }
        return Ok(verdict.violations.is_empty());
    }
    let total = campaign(&application, &plan, cli)?;
    if cli.json {
        println!("{}", total.json());
    } else {
        total.print(cli);
    }
    Ok(total.failed.is_empty() && total.idle_faults(&plan.profile).is_empty())
}

fn threads(cli: &Cli) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cli.threads == 0 { cores } else { cli.threads }
}

fn crash_matrix(application: &Arc<Application>, pairs: bool, cli: &Cli) -> Result<bool> {
    let started = Instant::now();
    let outcome = matrix::matrix(application, pairs, threads(cli))?;
    let mut by_path: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for case in &outcome.cases {
        by_path.entry(case.path()).or_default().0 += 1;
        if cli.list {
            println!("{}", case.line());
        }
    }
    for (case, _) in &outcome.failed {
        by_path.entry(case.path()).or_default().1 += 1;
    }
    let (cases, failed) = (outcome.cases.len(), outcome.failed.len());
    if cli.json {
        println!("{}", json!({ "cases": cases, "failed": failed, "paths": by_path }));
        return Ok(failed == 0);
    }
    for (case, wrong) in outcome.failed.iter().take(20) {
        println!("FAILED {}\n  {}", case.line(), wrong.join("\n  "));
    }
    println!("{:<34} {:>7} {:>7}", "path", "cases", "failed");
    for (path, (cases, failed)) in by_path {
        println!("{path:<34} {cases:>7} {failed:>7}");
    }
    println!(
        "crash matrix: {cases} cases, {failed} failed, {} second crashes not reached, {:.1} s",
        outcome.unreached,
        started.elapsed().as_secs_f64()
    );
    Ok(failed == 0)
}

/// All seeds, on all cores.
fn campaign(application: &Arc<Application>, plan: &Plan, cli: &Cli) -> Result<Total> {
    let (first, last) = cli.seeds;
    let threads = threads(cli);
    let (next, started) = (AtomicU64::new(first), Instant::now());
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= last {
                    return Ok(());
                }
                let verdict = simulate(application, plan, seed)?;
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.add(verdict, plan);
                if !cli.json && std::io::stderr().is_terminal() {
                    total.progress(last - first, started);
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a simulation panicked"))??;
        }
        Ok(())
    })?;
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.seconds = started.elapsed().as_secs_f64();
    total.threads = threads;
    Ok(total)
}

/// The sum of all seeds.
#[derive(Default)]
struct Total {
    seeds: u64,
    orders: u64,
    calls: u64,
    counts: Counts,
    ends: BTreeMap<String, u64>,
    failed: Vec<(u64, Vec<String>)>,
    /// By seed: threads finish in any order.
    digests: BTreeMap<u64, String>,
    seconds: f64,
    threads: usize,
}

impl Total {
    fn add(&mut self, verdict: Verdict, plan: &Plan) {
        self.seeds += 1;
        self.orders += plan.orders;
        self.calls += verdict.calls;
        self.counts.add(&verdict.counts);
        for (status, count) in verdict.ends {
            *self.ends.entry(status).or_default() += count;
        }
        if !verdict.violations.is_empty() {
            self.failed.push((verdict.seed, verdict.violations));
        }
        self.digests.insert(verdict.seed, verdict.digest);
    }

    fn progress(&self, seeds: u64, started: Instant) {
        let rate = self.orders as f64 / started.elapsed().as_secs_f64();
        eprint!(
            "\r{}/{seeds} seeds, {} orders, {rate:.0}/s, {} failed ",
            self.seeds,
            self.orders,
            self.failed.len()
        );
        if self.seeds == seeds {
            eprintln!();
        }
    }

    fn digest(&self) -> String {
        let mut all = Sha256::new();
        for digest in self.digests.values() {
            all.update(digest);
        }
        hex(&all.finalize())
    }

    fn violations(&self) -> usize {
        self.failed.iter().map(|(_, violations)| violations.len()).sum()
    }

    fn rate(&self) -> f64 {
        self.orders as f64 / self.seconds
    }

    /// Faults of the profile that never changed anything: then the run proves nothing of them.
    fn idle_faults(&self, profile: &Profile) -> Vec<Fault> {
        let effective = |fault: &Fault| self.counts.0.get(fault).is_some_and(|(_, effective)| *effective > 0);
        profile.faults().filter(|fault| !effective(fault)).collect()
    }

    fn print(&self, cli: &Cli) {
        println!("{:<28} {:>10} {:>10}", "fault", "injected", "effective");
        for fault in FAULTS {
            let (injected, effective) = self.counts.0.get(&fault).copied().unwrap_or((0, 0));
            println!("{:<28} {injected:>10} {effective:>10}", fault.name());
        }
        for (status, count) in &self.ends {
            println!("{status:<28} {count:>10}");
        }
        let rate = self.rate();
        println!(
            "{} seeds, {} orders, {} host calls, {:.1} s, {rate:.0} orders/s on {} threads, digest {}",
            self.seeds,
            self.orders,
            self.calls,
            self.seconds,
            self.threads,
            self.digest()
        );
        for (seed, violations) in self.failed.iter().take(10) {
            println!("seed {seed}:");
            for violation in violations.iter().take(10) {
                println!("  VIOLATION {violation}");
            }
            println!(
                "  replay: settle sim --replay {seed} --orders {} --hosts {} --profile {}",
                cli.orders, cli.hosts, cli.profile
            );
        }
        println!("violations: {}", self.violations());
    }

    fn json(&self) -> serde_json::Value {
        let faults: BTreeMap<&str, serde_json::Value> = FAULTS
            .iter()
            .map(|fault| {
                let (injected, effective) = self.counts.0.get(fault).copied().unwrap_or((0, 0));
                (fault.name(), json!({ "injected": injected, "effective": effective }))
            })
            .collect();
        json!({
            "seeds": self.seeds,
            "orders": self.orders,
            "violations": self.violations(),
            "failed_seeds": self.failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>(),
            "digest": self.digest(),
            "orders_per_second": self.rate(),
            "ends": self.ends,
            "faults": faults,
        })
    }
}
