//! Orders per second and their latency, beside the disk's fsync rate measured in the same rounds.
//!
//! Rounds interleave: fsync, one client, many clients, again. The order path is the shipped binary
//! with its default settings. Arguments: rounds, seconds a phase.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use settle_tests::client::{Client, one_item};
use settle_tests::host::Host;

const CLIENTS: [u32; 2] = [1, 64];
const FSYNC_BYTES: usize = 8192;

/// Latencies of one phase, sorted.
struct Phase {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Phase {
    fn new(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort();
        Self { latencies, took }
    }

    fn at(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share) as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds: u32 = args.next().map_or(Ok(5), |text| text.parse()).context("rounds")?;
    let seconds: u64 = args.next().map_or(Ok(3), |text| text.parse()).context("seconds")?;
    let phase = Duration::from_secs(seconds);
    let folder = tempfile::Builder::new().prefix("settle-bench").tempdir_in(".")?;
    drop(Host::start_in(folder.path(), &[])); // compiles, migrates, seeds
    let started = Instant::now();
    let host = Host::start_in(folder.path(), &[]);
    println!("start to ready, warm cache: {:.1} ms", millis(started.elapsed()));
    println!("rss idle: {:.1} MB", rss_megabytes(host.pid())?);
    let client = host.client().admin().await;
    let (mut syncs, mut orders) = (Vec::new(), CLIENTS.map(|_| Vec::new()));
    println!(
        "{:>5} {:>10} {:>9} {:>11} {:>9} {:>9} {:>9}",
        "round", "", "per s", "p50 ms", "p99 ms", "max ms", ""
    );
    for round in 1..=rounds {
        let sync = fsyncs(folder.path(), Duration::from_secs(1))?;
        show(round, "fsync", &sync);
        let length = sync.at(0.5);
        syncs.push(sync);
        for (clients, done) in CLIENTS.iter().zip(orders.iter_mut()) {
            let measured = place_orders(&client, *clients, round, phase).await?;
            show(round, &format!("{clients} clients"), &measured);
            if *clients == 1 {
                let goal = length.mul_f64(2.5) + Duration::from_millis(1);
                println!(
                    "{:>5} {:>10} p50 - (2.5 fsync + 1 ms) = {:+.2} ms",
                    "",
                    "",
                    millis(measured.at(0.5)) - millis(goal)
                );
            }
            done.push(measured);
        }
    }
    println!("median of {rounds} rounds:");
    median("fsync", &syncs);
    for (clients, done) in CLIENTS.iter().zip(&orders) {
        median(&format!("{clients} clients"), done);
    }
    println!("rss after load: {:.1} MB", rss_megabytes(host.pid())?);
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn show(round: u32, what: &str, phase: &Phase) {
    let (p50, p99, max) = (phase.at(0.5), phase.at(0.99), phase.at(1.0));
    println!(
        "{round:>5} {what:>10} {:>9.0} {:>11.3} {:>9.3} {:>9.3}",
        phase.rate(),
        millis(p50),
        millis(p99),
        millis(max)
    );
}

fn median(what: &str, phases: &[Phase]) {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let rate = middle(phases.iter().map(Phase::rate).collect());
    let at = |share| middle(phases.iter().map(|phase| millis(phase.at(share))).collect());
    println!("{what:>16} {rate:>9.0}/s  p50 {:.3} ms  p99 {:.3} ms", at(0.5), at(0.99));
}

/// Writes a page and syncs it, over and over: what a durable commit cannot be faster than.
fn fsyncs(folder: &Path, time: Duration) -> Result<Phase> {
    let path = folder.join("fsync-probe");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; FSYNC_BYTES * 64])?;
    file.sync_all()?;
    let (page, started, mut latencies) = (vec![1; FSYNC_BYTES], Instant::now(), Vec::new());
    while started.elapsed() < time {
        let begun = Instant::now();
        file.write_all_at(&page, (latencies.len() % 64 * FSYNC_BYTES) as u64)?;
        file.sync_data()?;
        latencies.push(begun.elapsed());
    }
    fs::remove_file(path)?;
    Ok(Phase::new(latencies, started.elapsed()))
}

async fn place_orders(client: &Client, clients: u32, round: u32, time: Duration) -> Result<Phase> {
    let started = Instant::now();
    let shoppers: Vec<_> = (0..clients)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let (body, mut latencies) = (one_item("book", 1250), Vec::new());
                while started.elapsed() < time {
                    let key = format!("{round}-{clients}-{number}-{}", latencies.len());
                    let begun = Instant::now();
                    let answer = client.place(&key, &body).await;
                    if answer.status != 201 {
                        bail!("an order was answered with {}: {:?}", answer.status, answer.json());
                    }
                    latencies.push(begun.elapsed());
                }
                Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for shopper in shoppers {
        latencies.extend(shopper.await??);
    }
    Ok(Phase::new(latencies, started.elapsed()))
}

fn rss_megabytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}
