//! One durable order, again and again, by every contender in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use settle_tests::host::root;

use crate::contender::{Alone, Contender};
use crate::disk::{fsyncs, paced_fsyncs, syncs_at};
use crate::drive::{Ended, closed, open};
use crate::phase::{Phase, middle, millis};
use crate::profile::{self, Parts};

/// Part of its own peak at which each contender's open loop arrives.
const OPEN_SHARES: [f64; 4] = [0.25, 0.5, 0.75, 0.9];
const OPEN_CLIENTS: u32 = 256;
/// Times that each of them is measured: the disk stalls now and then, and a phase with a stall is not the
/// usual one.
const OPEN_ROUNDS: u32 = 3;
/// Clients of the peak.
pub const PEAK: u32 = 64;
/// Ourselves.
pub const OURS: &str = "settle, SQLite";
pub const ON_POSTGRES: &str = "settle, PostgreSQL";
/// Two syncs in turn for each of our arrivals.
pub const DISK_ALONE: &str = "the disk alone";
/// Of one measurement of the disk.
pub const DISK_TIME: Duration = Duration::from_millis(500);
/// Between two syncs of one client's order lies about so much.
pub const PAUSE: Duration = Duration::from_millis(1);
/// Warms each contender up.
const FIRST: Duration = Duration::from_secs(2);

/// One contender at one number of clients, in every round.
#[derive(Default)]
pub struct Series {
    pub rates: Vec<f64>,
    pub p50: Vec<f64>,
    pub p99: Vec<f64>,
    /// Processor time of all its processes for each order.
    pub cpu: Vec<f64>,
    pub rss: Vec<f64>,
}

/// An open loop, in every round; times in milliseconds.
#[derive(Default)]
pub struct Open {
    /// Arrivals per second.
    pub rate: f64,
    pub p50: Vec<f64>,
    pub p99: Vec<f64>,
    /// Answered otherwise, or not.
    pub failed: usize,
}

impl Open {
    pub fn add(&mut self, rate: f64, latencies: &Phase, failed: usize) {
        self.rate = rate;
        self.p50.push(millis(latencies.at(0.5)));
        self.p99.push(millis(latencies.at(0.99)));
        self.failed += failed;
    }
}

#[derive(Default)]
pub struct Saga {
    /// By contender and clients.
    pub closed: BTreeMap<(&'static str, u32), Series>,
    /// By contender and which rate of its own.
    pub open: BTreeMap<(&'static str, usize), Open>,
    /// Of each round, in milliseconds: the disk's sync, the same as one client asks for it, and a fixed
    /// piece of work.
    pub fsync: Vec<f64>,
    pub fsync_now_and_then: Vec<f64>,
    pub work: Vec<f64>,
    pub missing: Vec<String>,
    /// Where the time of an order on SQLite goes.
    pub parts: Option<Result<Parts>>,
}

impl Saga {
    /// A contender's series; empty when it did not run.
    pub fn at(&self, name: &'static str, clients: u32) -> Option<&Series> {
        self.closed.get(&(name, clients))
    }

    fn open_at(&mut self, name: &'static str, number: usize) -> &mut Open {
        self.open.entry((name, number)).or_default()
    }
}

pub async fn run(folder: &Path, rounds: u32, phase: Duration, clients: &[u32]) -> Result<Saga> {
    let mut saga = Saga::default();
    let started = [
        (OURS, Contender::settle_sqlite(folder, OURS, &root()).await),
        (ON_POSTGRES, Contender::settle_postgres(folder, ON_POSTGRES, &root()).await),
        ("raw PostgreSQL", Contender::raw_postgres(folder).await),
        ("native cores, SQLite", Contender::native(folder).await),
        ("Restate, Rust", Contender::restate_rust(folder).await),
        ("Restate, TypeScript", Contender::restate_typescript(folder).await),
    ];
    let mut contenders = Vec::new();
    for (name, contender) in started {
        match contender {
            Ok(contender) => contenders.push(contender),
            Err(error) => {
                println!("MISSING {name}: {error:#}");
                saga.missing.push(format!("{name}: {error:#}"));
            }
        }
    }
    for contender in &contenders {
        warm_up(contender).await?;
    }
    header();
    for round in 1..=rounds {
        let (sync, work) = (millis(fsyncs(folder, DISK_TIME)?.at(0.5)), work());
        let paced = millis(paced_fsyncs(folder, DISK_TIME, PAUSE)?.at(0.5));
        println!(
            "{round:>5} fsync {sync:.3} ms, now and then {paced:.3} ms, a fixed piece of work {work:.1} ms"
        );
        saga.fsync.push(sync);
        saga.fsync_now_and_then.push(paced);
        saga.work.push(work);
        for &clients in clients {
            for contender in &contenders {
                let _alone = Alone::among(&contenders, contender)?;
                let series = saga.closed.entry((contender.name, clients)).or_default();
                measure(contender, clients, round, phase, series).await?;
            }
        }
    }
    if let Some(ours) = contenders.iter().find(|contender| contender.name == OURS) {
        let _alone = Alone::among(&contenders, ours)?;
        saga.parts = Some(profile::run(ours, PEAK, folder).await);
    }
    for round in 1..=OPEN_ROUNDS {
        for contender in &contenders {
            let _alone = Alone::among(&contenders, contender)?;
            let peak = saga.at(contender.name, PEAK).map(|series| middle(series.rates.clone()));
            for (share, number) in OPEN_SHARES.into_iter().zip(0..) {
                let rate = peak.unwrap_or_default() * share;
                let (latencies, failed) = at_rate(contender, rate, round, phase).await?;
                saga.open_at(contender.name, number).add(rate, &latencies, failed);
                if contender.name == OURS {
                    saga.open_at(DISK_ALONE, number).add(rate, &syncs_at(folder, rate, phase)?, 0);
                }
            }
        }
    }
    Ok(saga)
}

pub async fn warm_up(contender: &Contender) -> Result<()> {
    let first = closed(slice::from_ref(&contender.target), PEAK, "first", FIRST).await;
    first.map(drop).context(contender.name)
}

/// Of the lines that `measure` prints.
pub fn header() {
    println!(
        "{:>5} {:>22} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "round", "", "clients", "per s", "p50 ms", "p99 ms", "CPU ms", "RSS MB"
    );
}

/// One phase of a closed loop.
pub async fn measure(
    contender: &Contender,
    clients: u32,
    round: u32,
    time: Duration,
    series: &mut Series,
) -> Result<()> {
    let before = contender.cpu()?;
    let phase =
        closed(slice::from_ref(&contender.target), clients, &format!("{round}-{clients}"), time).await?;
    let used = contender.cpu()?.saturating_sub(before);
    let cpu = millis(used) / phase.latencies.len().max(1) as f64;
    let (rate, p50, p99) = (phase.rate(), millis(phase.at(0.5)), millis(phase.at(0.99)));
    let rss = contender.rss_megabytes()?;
    println!(
        "{round:>5} {:>22} {clients:>8} {rate:>9.0} {p50:>9.3} {p99:>9.3} {cpu:>9.3} {rss:>8.0}",
        contender.name
    );
    series.rates.push(rate);
    series.p50.push(p50);
    series.p99.push(p99);
    series.cpu.push(cpu);
    series.rss.push(rss);
    Ok(())
}

/// Latencies at a fixed rate, and how many were not answered as wanted.
pub async fn at_rate(contender: &Contender, rate: f64, round: u32, time: Duration) -> Result<(Phase, usize)> {
    let run = format!("open-{round}-{rate:.0}");
    let arrivals = open(slice::from_ref(&contender.target), rate, OPEN_CLIENTS, &run, time).await?;
    let wanted = Ended::Status(contender.target.wanted);
    let failed = arrivals.iter().filter(|one| one.ended != wanted).count();
    let latencies = Phase::new(arrivals.iter().map(|one| one.latency).collect(), time);
    let (p50, p99) = (millis(latencies.at(0.5)), millis(latencies.at(0.99)));
    println!(
        "{round:>5} {:>22} {rate:>6.0}/s {:>9} {p50:>9.3} {p99:>9.3} {failed:>9} failed",
        contender.name, ""
    );
    Ok((latencies, failed))
}

/// Milliseconds of a fixed piece of work on one core: when it changes, a neighbour is busy.
fn work() -> f64 {
    let started = Instant::now();
    let mut mixed = 1_u64;
    for _ in 0..20_000_000 {
        mixed = std::hint::black_box(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
    }
    millis(started.elapsed())
}
