//! `settle archive`: finished orders, into a file of their own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use clap::Parser;
use settle_operations::archive;
use settle_types::Timestamp;

/// Moves finished orders with their journals and events into another SQLite file, so that the
/// database stays small. The host may be running. Payments stay: they are the books.
#[derive(Parser)]
#[command(name = "settle archive", version)]
struct Cli {
    /// The host's data directory.
    #[arg(long, default_value = ".settle")]
    data: PathBuf,
    /// Only orders that were not changed for so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    older_than: u32,
    /// The archive, made when missing. Default: archive.db in the data directory.
    #[arg(long)]
    to: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("settle archive: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let now = SystemTime::UNIX_EPOCH.elapsed().context("the clock is before 1970")?;
    let until = now.saturating_sub(Duration::from_secs(u64::from(cli.older_than) * 24 * 60 * 60));
    let time =
        |time: Duration| Ok::<_, anyhow::Error>(Timestamp::from_millis(u64::try_from(time.as_millis())?));
    let to = cli.to.clone().unwrap_or_else(|| cli.data.join("archive.db"));
    let moved = archive(&cli.data, &to, time(until)?, time(now)?)?;
    println!("{moved} orders moved to {}", to.display());
    Ok(())
}
