//! Orders per second of the embedded host with its default settings, its start and its memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use settle_tests::host::Host;

use crate::disk::fsyncs;
use crate::drive::{Target, closed};
use crate::phase::{header, median, millis, rss_megabytes, show};

const CLIENTS: [u32; 2] = [1, 64];

pub async fn run(folder: &Path, rounds: u32, phase: Duration) -> Result<()> {
    drop(Host::start_in(folder, &[])); // compiles, migrates, seeds
    let started = Instant::now();
    let host = Host::start_in(folder, &[]);
    println!("start to ready, warm cache: {:.1} ms", millis(started.elapsed()));
    println!("rss idle: {:.1} MB", rss_megabytes(host.pid())?);
    let target = [Target::orders(&host.client().admin().await)?];
    let (mut syncs, mut orders) = (Vec::new(), CLIENTS.map(|_| Vec::new()));
    header();
    for round in 1..=rounds {
        let sync = fsyncs(folder, Duration::from_secs(1))?;
        show(round, "fsync", &sync);
        let length = sync.at(0.5);
        syncs.push(sync);
        for (clients, done) in CLIENTS.iter().zip(orders.iter_mut()) {
            let measured = closed(&target, *clients, &format!("{round}-{clients}"), phase).await?;
            show(round, &format!("{clients} clients"), &measured);
            if *clients == 1 {
                let goal = length.mul_f64(2.5) + Duration::from_millis(1);
                let over = millis(measured.at(0.5)) - millis(goal);
                println!("{:>32} p50 - (2.5 fsync + 1 ms) = {over:+.2} ms", "");
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
