//! `cargo xtask bench [orders|postgres|hosts|overload] [ROUNDS] [SECONDS]`: figures, side by side; and
//! `cargo xtask load PROFILE`, which lets k6 do it.
//!
//! Rounds interleave what is compared, and the disk's fsync rate is measured in each. The order
//! path is the shipped binary with its default settings.

mod drive;
mod hosts;
mod load;
mod orders;
mod overload;
mod phase;
mod postgres;

use std::time::Duration;

use anyhow::{Context, Result, bail};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "load") {
        return load::run(args.get(1..).unwrap_or_default());
    }
    let named = args.first().is_some_and(|first| first.parse::<u32>().is_err());
    let what = if named { args.remove(0) } else { "orders".to_owned() };
    let mut numbers = args.iter().map(|text| text.parse::<u32>().with_context(|| format!("`{text}`")));
    let rounds = numbers.next().transpose()?.unwrap_or(5);
    let phase = Duration::from_secs(numbers.next().transpose()?.unwrap_or(3).into());
    let folder = tempfile::Builder::new().prefix("settle-bench").tempdir_in(settle_tests::host::target())?;
    match what.as_str() {
        "orders" => orders::run(folder.path(), rounds, phase).await,
        "postgres" => postgres::run(folder.path(), rounds, phase).await,
        "hosts" => hosts::run(folder.path(), rounds, phase).await,
        "overload" => overload::run(folder.path(), rounds, phase).await,
        other => bail!("there is no bench `{other}`: orders, postgres, hosts, overload"),
    }
}
