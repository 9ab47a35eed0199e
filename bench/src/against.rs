//! This build beside another checkout's: what a change of ours does to the cost of an order. Both are
//! the shipped host with their own components and manifest, in turn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use settle_tests::host::root;

use crate::contender::{Alone, Contender};
use crate::disk::fsyncs;
use crate::phase::{middle, millis, spread};
use crate::saga::{DISK_TIME, Open, Series, at_rate, header, measure, warm_up};

const CLIENTS: [u32; 3] = [1, 16, 64];
/// Of an open loop, per second.
const ARRIVALS: f64 = 500.0;

/// `other`: the root of a checkout in which `cargo xtask dist` has run.
pub async fn run(folder: &Path, other: &Path, postgres: bool, rounds: u32, phase: Duration) -> Result<()> {
    let other = other.canonicalize().with_context(|| other.display().to_string())?;
    let mut contenders = Vec::new();
    for (name, checkout) in [("here", root()), ("there", other)] {
        contenders.push(if postgres {
            Contender::settle_postgres(folder, name, &checkout).await?
        } else {
            Contender::settle_sqlite(folder, name, &checkout).await?
        });
    }
    for contender in &contenders {
        warm_up(contender).await?;
    }
    header();
    let mut open = [Open::default(), Open::default()];
    let mut all = [(); CLIENTS.len()].map(|()| [Series::default(), Series::default()]);
    for round in 1..=rounds {
        println!("{round:>5} fsync {:.3} ms", millis(fsyncs(folder, DISK_TIME)?.at(0.5)));
        for (clients, both) in CLIENTS.into_iter().zip(&mut all) {
            for (contender, series) in contenders.iter().zip(both) {
                let _alone = Alone::among(&contenders, contender)?;
                measure(contender, clients, round, phase, series).await?;
            }
        }
        for (contender, open) in contenders.iter().zip(&mut open) {
            let _alone = Alone::among(&contenders, contender)?;
            let (latencies, failed) = at_rate(contender, ARRIVALS, round, phase).await?;
            open.add(ARRIVALS, &latencies, failed);
        }
    }
    println!("median (least to most) of {rounds} rounds:");
    let told = |values: &[f64]| {
        let (least, most) = spread(values);
        format!("{:.3} ({least:.3} to {most:.3})", middle(values.to_vec()))
    };
    for (clients, both) in CLIENTS.into_iter().zip(&all) {
        for (contender, series) in contenders.iter().zip(both) {
            println!(
                "{:>6} {clients:>3} clients: {:.0}/s, p50 {} ms, CPU {} ms, RSS {:.0} MB",
                contender.name,
                middle(series.rates.clone()),
                told(&series.p50),
                told(&series.cpu),
                middle(series.rss.clone())
            );
        }
    }
    for (contender, open) in contenders.iter().zip(&open) {
        let (p50, p99) = (told(&open.p50), told(&open.p99));
        println!("{:>6} {ARRIVALS:.0} arrive a second: p50 {p50} ms, p99 {p99} ms", contender.name);
    }
    Ok(())
}
