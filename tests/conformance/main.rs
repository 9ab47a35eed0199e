//! One list of cases, every host, every database: `cargo xtask conformance [--host H] [--db D] [--case C]`.
//!
//! A cell of the grid is a host on a database. Every cell runs every case; what a cell cannot run is
//! counted and named. Exit code 1 when a case failed, or when a cell that was asked for is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cases::{CASES, Outcome};
use settle_tests::runners::{CELLS, Cell, Running};

static IN_A_CASE: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Count {
    passed: u32,
    failed: Vec<String>,
    skipped: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // A failed case is told in one line; a host that does not start, in full.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IN_A_CASE.load(Ordering::Relaxed) {
            told(info);
        }
    }));
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let (host, database, case) = (wanted("--host"), wanted("--db"), wanted("--case"));
    let cells: Vec<&Cell> = CELLS
        .iter()
        .filter(|cell| host.is_none_or(|host| host == cell.host))
        .filter(|cell| database.is_none_or(|database| database == cell.database))
        .collect();
    if cells.is_empty() {
        eprintln!("there is no such cell; there are:");
        for cell in CELLS {
            eprintln!("  --host {} --db {}", cell.host, cell.database);
        }
        return ExitCode::FAILURE;
    }
    let (mut table, mut healthy) = (Vec::new(), true);
    for cell in cells {
        let started = Instant::now();
        let name = format!("{} + {}", cell.host, cell.database);
        println!("---- {name}");
        let (count, digests) = match (cell.start)().await {
            Ok(mut running) => (run(&mut running, case).await, running.digests()),
            Err(missing) => {
                println!("SKIPPED: {missing}");
                // Asked for by name, a cell that cannot run is a failure.
                healthy &= host.is_none() && !cell.always;
                let skipped = CASES.iter().map(|case| format!("{}: {missing}", case.name)).collect();
                (Count { skipped, ..Count::default() }, String::new())
            }
        };
        healthy &= count.failed.is_empty();
        table.push(format!(
            "{name:<26} run {:>2}  pass {:>2}  fail {:>2}  skip {:>2}  {:>5.1} s  {digests}",
            CASES.len() - count.skipped.len(),
            count.passed,
            count.failed.len(),
            count.skipped.len(),
            started.elapsed().as_secs_f64(),
        ));
    }
    println!("---- conformance: {} cases in every cell", CASES.len());
    for line in table {
        println!("{line}");
    }
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(running: &mut Running, wanted: Option<&String>) -> Count {
    let mut count = Count::default();
    for case in CASES.iter().filter(|case| wanted.is_none_or(|wanted| wanted == case.name)) {
        IN_A_CASE.store(true, Ordering::Relaxed);
        let outcome = case.run(running).await;
        IN_A_CASE.store(false, Ordering::Relaxed);
        match outcome {
            Outcome::Passed => {
                println!("  ok    {}", case.name);
                count.passed += 1;
            }
            Outcome::Failed(reason) => {
                println!("  FAIL  {}: {reason}", case.name);
                count.failed.push(case.name.to_owned());
            }
            Outcome::Skipped(reason) => {
                println!("  SKIP  {}: {reason}", case.name);
                count.skipped.push(case.name.to_owned());
            }
        }
    }
    count
}
