//! The latency of a chained call on each host: an order (order calls payment, payment calls the
//! acquirer) and a plain read beside it, one client, every host up at the same time.
//!
//! The PostgreSQL server of these cells does not sync to the disk; SQLite does.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use settle_tests::client::{Client, one_item};
use settle_tests::runners::CELLS;

use crate::disk::fsyncs;
use crate::drive::{Target, closed};
use crate::phase::{Phase, header, median, show};

pub async fn run(folder: &Path, rounds: u32, phase: Duration) -> Result<()> {
    let mut hosts = Vec::new();
    for cell in CELLS {
        let name = format!("{} + {}", cell.host, cell.database);
        match (cell.start)().await {
            Ok(running) => hosts.push((name, running, Vec::new(), Vec::new())),
            Err(missing) => println!("SKIPPED {name}: {missing}"),
        }
    }
    header();
    for round in 1..=rounds {
        show(round, "fsync", &fsyncs(folder, Duration::from_secs(1))?);
        for (name, running, reads, orders) in &mut hosts {
            let client = running.client();
            let read = read_orders(&client, round, phase).await?;
            show(round, &format!("{name}, read"), &read);
            reads.push(read);
            let order = closed(&[Target::orders(&client)?], 1, &round.to_string(), phase).await?;
            show(round, &format!("{name}, order"), &order);
            orders.push(order);
        }
    }
    println!("median of {rounds} rounds, 1 client:");
    for (name, _, reads, orders) in &hosts {
        median(&format!("{name}, read"), reads);
        median(&format!("{name}, order"), orders);
    }
    Ok(())
}

async fn read_orders(client: &Client, round: u32, time: Duration) -> Result<Phase> {
    let placed = client.place(&format!("read-{round}"), &one_item("book", 1250)).await;
    let placed = placed.json();
    let id = placed.get("id").and_then(|id| id.as_str()).context("an order without an id")?;
    let url = format!("{}/v1/orders/{id}", client.order);
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let begun = Instant::now();
        let answer = client.get(&url).await;
        ensure!(answer.status == 200, "a read was answered with {}", answer.status);
        latencies.push(begun.elapsed());
    }
    Ok(Phase::new(latencies, started.elapsed()))
}
