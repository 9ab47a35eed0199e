//! Ten times what the system can do: how much of its work it still does, what the others are told,
//! and how soon it is itself again.
//!
//! Host and generator have a core each, so that the generator's work is not the host's loss.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use settle_tests::host::{Host, command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::drive::{Arrival, Ended, Target, closed, open};
use crate::phase::{Phase, millis, rss_megabytes};

const OVERLOAD: f64 = 10.0;
/// Of the peak, before and after.
const COMFORTABLE: f64 = 0.5;
/// Clients that find the peak; and those of an open loop.
const PEAK_CLIENTS: u32 = 64;
const OPEN_CLIENTS: u32 = 2000;
/// Recovery and memory are looked at so often.
const WINDOW: Duration = Duration::from_millis(500);
/// So many users, each at an address of its own: nobody is over a limit.
const USERS: u8 = 32;

pub async fn run(folder: &Path, rounds: u32, phase: Duration) -> Result<()> {
    leave_core_0()?;
    for way in ["order", "gateway"] {
        let data = folder.join(way);
        std::fs::create_dir(&data)?;
        let host = Host::spawn(&data, &mut on_core_0(&command(&data)));
        let targets = targets(&host, way).await?;
        println!("{way}: host on one core, generator on the other");
        closed(&targets, PEAK_CLIENTS, "warm", phase).await?;
        for round in 1..=rounds {
            self::round(&host, &targets, round, phase).await?;
        }
    }
    Ok(())
}

async fn round(host: &Host, targets: &[Target], round: u32, phase: Duration) -> Result<()> {
    let peak = closed(targets, PEAK_CLIENTS, &format!("peak-{round}"), phase).await?.rate();
    let calm = |name: &str| {
        let run = format!("{name}-{round}");
        async move { open(targets, peak * COMFORTABLE, OPEN_CLIENTS, &run, phase).await }
    };
    let before = calm("before").await?;
    let watch = RssWatch::start(host.pid());
    let time = phase * 3;
    let flood = open(targets, peak * OVERLOAD, OPEN_CLIENTS, &format!("flood-{round}"), time).await?;
    let after = calm("after").await?;
    let memory = watch.end().await;
    ensure!(before.iter().all(succeeded), "half of the peak was too much");

    println!("round {round}: peak {peak:.0}/s, 64 clients; offered {:.0}/s", peak * OVERLOAD);
    let took = flood.iter().map(|one| one.due + one.latency).max().unwrap_or_default();
    let done = flood.iter().filter(|one| succeeded(one)).count() as f64 / took.as_secs_f64();
    println!(
        "  goodput {done:.0}/s = {:.0} % of the peak, over {:.1} s",
        100.0 * done / peak,
        took.as_secs_f64()
    );
    for (ended, latencies) in by_end(&flood) {
        let name = match ended {
            Ended::Status(status) => status.to_string(),
            Ended::NoAnswer => "no answer".to_owned(),
            Ended::NotSent => "not sent, all 2,000 connections wait".to_owned(),
        };
        let told = Phase::new(latencies, took);
        let (p50, p99, max) = (told.at(0.5), told.at(0.99), told.at(1.0));
        let count = told.latencies.len();
        println!(
            "  {name} {count}:  p50 {:.0}  p99 {:.0}  max {:.0} ms",
            millis(p50),
            millis(p99),
            millis(max)
        );
    }
    let seen: Vec<f64> = memory.iter().copied().step_by(memory.len().div_ceil(8).max(1)).collect();
    println!("  memory from the flood's start on, MB: {seen:.0?}");
    let usual = windows(&before).into_iter().map(|(_, p99)| p99).max().unwrap_or_default();
    let bad = |(succeeded, p99): &(bool, Duration)| !succeeded || *p99 > usual * 2;
    let windows = windows(&after);
    let recovered = windows.iter().rposition(bad).map_or(0, |last| last + 1);
    println!(
        "  then half the peak: {} of {} succeeded, p99 {:.1} ms (before: {:.1}); as before after {:.1} s",
        after.iter().filter(|one| succeeded(one)).count(),
        after.len(),
        millis(latency_at(&after, 0.99)),
        millis(latency_at(&before, 0.99)),
        (WINDOW * u32::try_from(recovered)?).as_secs_f64()
    );
    Ok(())
}

async fn targets(host: &Host, way: &str) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for number in 1..=USERS {
        let from = Ipv4Addr::new(127, 0, 1, number);
        let mut client = host.client().at(from.octets()).register(&format!("user-{number}")).await;
        client.order = host.url(way);
        targets.push(Target { from, ..Target::orders(&client)? });
    }
    Ok(targets)
}

/// The same command on a core of its own: it counts one, and starts as many threads.
fn on_core_0(command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
    pinned.current_dir(settle_tests::host::root());
    pinned
}

/// Every thread of this process goes to another core.
fn leave_core_0() -> Result<()> {
    let output =
        Command::new("taskset").args(["-a", "-c", "-p", "1", &std::process::id().to_string()]).output()?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Memory of a process, seen every half second.
struct RssWatch {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<f64>>,
}

impl RssWatch {
    fn start(pid: u32) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !*stopped.borrow() {
                seen.extend(rss_megabytes(pid));
                // Err: no stop within the half second.
                let _ = tokio::time::timeout(WINDOW, stopped.changed()).await;
            }
            seen
        });
        Self { stop, task }
    }

    async fn end(self) -> Vec<f64> {
        self.stop.send_replace(true);
        self.task.await.unwrap_or_default()
    }
}

fn succeeded(arrival: &Arrival) -> bool {
    arrival.ended == Ended::Status(201)
}

fn latency_at(arrivals: &[Arrival], share: f64) -> Duration {
    Phase::new(arrivals.iter().map(|one| one.latency).collect(), Duration::ZERO).at(share)
}

/// Of each half second: whether all succeeded, and the p99.
fn windows(arrivals: &[Arrival]) -> Vec<(bool, Duration)> {
    let mut windows: BTreeMap<u128, Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        windows.entry(arrival.due.as_millis() / WINDOW.as_millis()).or_default().push(arrival);
    }
    let told = |window: Vec<&Arrival>| {
        let latencies = window.iter().map(|one| one.latency).collect();
        (window.iter().all(|one| succeeded(one)), Phase::new(latencies, WINDOW).at(0.99))
    };
    windows.into_values().map(told).collect()
}

fn by_end(arrivals: &[Arrival]) -> BTreeMap<Ended, Vec<Duration>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for arrival in arrivals {
        all.entry(arrival.ended).or_default().push(arrival.latency);
    }
    all
}
