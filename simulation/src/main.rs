//! `settle sim`: the shipped components in a simulated world, seed after seed.

mod campaign;
mod checker;
mod cost;
mod matrix;
mod run;
mod shrink;
mod steps;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;
use settle_host::sim::{Application, PROFILES, Profile};

use run::{Plan, simulate};

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
    /// With --replay: on this PostgreSQL server instead of in memory, in an empty database, by a role
    /// that may create roles and schemas.
    #[arg(long, requires = "replay")]
    postgres: Option<String>,
    /// With --replay: only these orders, by number.
    #[arg(long, requires = "replay", value_parser = numbers)]
    only_orders: Option<BTreeSet<u64>>,
    /// With --replay: only these faults, by the number of their chance.
    #[arg(long, requires = "replay", value_parser = numbers)]
    only_faults: Option<BTreeSet<u64>>,
    /// Crashes at every host call of every path (`single`), and again in the recovery (`pairs`).
    #[arg(long, value_parser = ["single", "pairs"])]
    matrix: Option<String>,
    /// What one completed order costs, in counts that do not depend on the machine, as JSON.
    #[arg(long)]
    cost: bool,
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

/// `3,17,40`, or nothing for none.
fn numbers(text: &str) -> Result<BTreeSet<u64>, String> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| format!("`{part}` is not a number"))).collect()
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
        bail!("there is no profile `{}`; there are {}", cli.profile, PROFILES.join(", "))
    };
    if cli.hosts == 0 || cli.orders == 0 {
        bail!("at least one host and one order");
    }
    std::fs::create_dir_all(&cli.cache).with_context(|| cli.cache.display().to_string())?;
    if cli.cost {
        let application = Application::load_counting(&cli.manifest, &cli.cache)?;
        println!("{:#}", serde_json::to_value(cost::cost(Arc::new(application))?)?);
        return Ok(true);
    }
    let application = Arc::new(Application::load(&cli.manifest, &cli.cache)?);
    if let Some(kind) = &cli.matrix {
        return crash_matrix(&application, kind == "pairs", cli);
    }
    let mut plan = Plan::new(cli.orders, cli.hosts, profile);
    let Some(seed) = cli.replay else {
        let total = campaign::run(&application, &plan, cli.seeds, threads(cli), !cli.json)?;
        if cli.json {
            println!("{}", total.json());
        } else {
            total.print();
            if let Some(seed) = total.first_failed() {
                shrink::shrink(&application, &plan, seed)?.print();
            }
        }
        return Ok(total.is_convincing());
    };
    plan.loud = true;
    plan.server = cli.postgres.clone();
    plan.only_orders = cli.only_orders.clone();
    plan.only_faults = cli.only_faults.clone();
    let verdict = simulate(&application, &plan, seed)?;
    for line in &verdict.timeline {
        println!("{line}");
    }
    println!("seed {seed}: {} host calls, digest {}", verdict.calls, verdict.digest);
    for violation in &verdict.violations {
        println!("VIOLATION {violation}");
    }
    Ok(verdict.violations.is_empty())
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
