//! Create, read and list, recovery's scan and a restart, while the database grows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use settle_tests::client::{Client, one_item};
use settle_tests::host::Host;

use crate::disk::fsyncs;
use crate::drive::{Target, closed};
use crate::phase::{Phase, millis};
use crate::plot::{Line, plot};

/// Where it stops to measure.
const STOPS: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Of one measurement.
const MEASURE: Duration = Duration::from_secs(4);
const FILLERS: u32 = 64;
/// Filled in parts, each under a token of its own: one is good for an hour.
const FILL_PART: Duration = Duration::from_secs(20);
/// Orders per second that a part is cut for, so that it ends near a stop.
const FILL_RATE: f64 = 1500.0;

/// Medians of one client, in milliseconds.
struct Stop {
    orders: u64,
    fsync: f64,
    create: f64,
    read: f64,
    list: f64,
    restart: f64,
    megabytes: u64,
}

pub struct Growth(Vec<Stop>);

/// Grows to `most` orders.
pub async fn run(folder: &Path, most: u64) -> Result<Growth> {
    let data = folder.join("growth");
    fs::create_dir(&data)?;
    let mut host = Host::start_in(&data, &[]);
    let (mut orders, mut part, mut stops) = (0, 0, Vec::new());
    for stop in STOPS.into_iter().filter(|stop| *stop <= most) {
        while orders < stop {
            part += 1;
            let left = Duration::from_secs_f64((stop - orders) as f64 / FILL_RATE);
            let target = [Target::orders(&host.client().admin().await)?];
            let filled = closed(&target, FILLERS, &format!("fill-{part}"), FILL_PART.min(left)).await?;
            orders += filled.latencies.len() as u64;
        }
        drop(host);
        let started = Instant::now();
        host = Host::start_in(&data, &[]);
        let restart = millis(started.elapsed());
        let client = host.client().admin().await;
        let fsync = millis(fsyncs(folder, Duration::from_millis(500))?.at(0.5));
        let created = closed(&[Target::orders(&client)?], 1, &format!("create-{stop}"), MEASURE).await?;
        orders += created.latencies.len() as u64;
        let (read, list) = read_and_list(&client, stop).await?;
        let create = millis(created.at(0.5));
        let stop = Stop { orders, fsync, create, read, list, restart, megabytes: megabytes(&data)? };
        println!(
            "{orders:>9} orders: create {create:.3}, read {read:.3}, list {list:.3}, restart {restart:.0} ms, fsync {fsync:.3} ms, {} MB",
            stop.megabytes
        );
        stops.push(stop);
    }
    Ok(Growth(stops))
}

/// Medians of a read by id and of the newest page.
async fn read_and_list(client: &Client, stop: u64) -> Result<(f64, f64)> {
    let placed = client.place(&format!("read-{stop}"), &one_item("book", 1250)).await.json();
    let id = placed.get("id").and_then(|id| id.as_str()).context("an order without an id")?;
    let read = median_of(client, &format!("{}/v1/orders/{id}", client.order)).await?;
    let list = median_of(client, &format!("{}/v1/orders?limit=20", client.order)).await?;
    Ok((read, list))
}

async fn median_of(client: &Client, url: &str) -> Result<f64> {
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < MEASURE / 4 {
        let begun = Instant::now();
        let answer = client.get(url).await;
        ensure!(answer.status == 200, "{url} was answered with {}", answer.status);
        latencies.push(begun.elapsed());
    }
    Ok(millis(Phase::new(latencies, MEASURE).at(0.5)))
}

fn megabytes(data: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(data)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes / 1_000_000)
}

impl Growth {
    /// The larger of create and read at `orders` against the first stop; the disk's own change is
    /// taken out of create.
    pub fn ratio_to(&self, orders: u64) -> Option<f64> {
        let (first, last) = (self.0.first()?, self.0.iter().find(|stop| stop.orders >= orders)?);
        let create = (last.create - 2.0 * (last.fsync - first.fsync)) / first.create;
        Some(create.max(last.read / first.read))
    }

    pub fn markdown(&self) -> Result<String> {
        let mut out = String::from(
            "One client, medians in milliseconds.\n\n| orders | create | read | list of 20 | restart to ready | fsync | MB on disk |\n|---|---|---|---|---|---|---|\n",
        );
        for stop in &self.0 {
            let Stop { orders, fsync, create, read, list, restart, megabytes } = stop;
            writeln!(
                out,
                "| {orders} | {create:.2} | {read:.2} | {list:.2} | {restart:.0} | {fsync:.3} | {megabytes} |"
            )?;
        }
        let line = |name: &str, value: fn(&Stop) -> f64| Line {
            name: name.to_owned(),
            points: self.0.iter().map(|stop| ((stop.orders as f64).log10(), value(stop))).collect(),
        };
        plot(
            "growth",
            "orders, powers of ten",
            "p50, ms",
            &[
                line("create", |stop| stop.create),
                line("read", |stop| stop.read),
                line("list", |stop| stop.list),
            ],
        )?;
        out.push_str("\n![latency while the database grows](results/growth.svg)\n");
        Ok(out)
    }
}
