//! `cargo xtask bench`: figures, side by side; and `cargo xtask load PROFILE`, which lets k6 do it.
//!
//! Rounds interleave what is compared, and the disk's fsync rate is measured in each. The order
//! path is the shipped binary with its default settings.

mod against;
mod contender;
mod disk;
mod drive;
mod growth;
mod hello;
mod hosts;
mod load;
mod orders;
mod overload;
mod phase;
mod plot;
mod postgres;
mod profile;
mod report;
mod saga;
mod start;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "load") {
        return load::run(args.get(1..).unwrap_or_default());
    }
    let folder = tempfile::Builder::new().prefix("settle-bench").tempdir_in(settle_tests::host::target())?;
    let (flags, mut args): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.starts_with("--"));
    let flag = |name: &str| flags.iter().any(|flag| flag == name);
    if args.is_empty() {
        let grow_to = [("--ten-million", 10_000_000), ("--million", 1_000_000)];
        let grow_to = grow_to.into_iter().find(|(name, _)| flag(name)).map(|(_, orders)| orders);
        return everything(folder.path(), flag("--quick"), grow_to).await;
    }
    let what = args.remove(0);
    let other = (what == "against" && !args.is_empty()).then(|| args.remove(0));
    let mut numbers = args.iter().map(|text| text.parse::<u32>().with_context(|| format!("`{text}`")));
    let first = numbers.next().transpose()?;
    let rounds = first.unwrap_or(5);
    let phase = Duration::from_secs(numbers.next().transpose()?.unwrap_or(3).into());
    match what.as_str() {
        "orders" => orders::run(folder.path(), rounds, phase).await,
        "postgres" => postgres::run(folder.path(), rounds, phase).await,
        "hosts" => hosts::run(folder.path(), rounds, phase).await,
        "overload" => overload::run(folder.path(), rounds, phase).await,
        "hello" => hello::run(folder.path(), rounds).await.map(drop),
        "growth" => growth::run(folder.path(), first.map_or(1_000_000, u64::from)).await.map(drop),
        "against" => {
            let other = other.context("against what? give the root of another checkout")?;
            against::run(folder.path(), other.as_ref(), flag("--postgres"), rounds, phase).await
        }
        what => {
            bail!("there is no bench `{what}`: orders, postgres, hosts, hello, overload, growth, against")
        }
    }
}

/// The report. Quick: under ten minutes, and without growth unless it is asked for.
async fn everything(folder: &Path, quick: bool, grow_to: Option<u64>) -> Result<()> {
    let (rounds, phase_seconds, clients): (_, _, &[u32]) =
        if quick { (5, 2, &[1, 64]) } else { (5, 4, &[1, 16, 64, 256]) };
    let saga = saga::run(folder, rounds, Duration::from_secs(phase_seconds), clients).await?;
    let hello = hello::run(folder, rounds).await?;
    let start = start::run(folder, 7).await?;
    let grow_to = grow_to.or((!quick).then_some(100_000));
    let reason = if grow_to.is_some() { "growth did not end" } else { "too long for a quick run" };
    let growth = Err(reason.to_owned());
    let mut measured = report::Measured { saga, hello, start, growth, rounds, phase_seconds };
    // Before growth, which may take hours.
    report::write(&measured)?;
    if let Some(orders) = grow_to {
        measured.growth = Ok(growth::run(folder, orders).await?);
        report::write(&measured)?;
    }
    Ok(())
}
