//! One and two hosts on one PostgreSQL server, beside `pgbench` sending the same server the same
//! commits. The server is durable: its settings are the defaults.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use settle_tests::host::Host;
use settle_tests::postgres::{Server, program};
use settle_tests::runners::SECRETS;

use crate::disk::fsyncs;
use crate::drive::{Target, closed};
use crate::phase::{header, median, middle, show};

const COMMITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/commits.sql");
const CLIENTS: [u32; 2] = [1, 64];
/// The schemas that the hosts make in the database.
const SEARCH_PATH: &str = "-c search_path=settle_order,settle_payment,settle_acquirer";

pub async fn run(folder: &Path, rounds: u32, phase: Duration) -> Result<()> {
    let server = Server::start(&["max_connections=300"]);
    let url = server.database().await;
    let database = format!("database={url}");
    let start = |name: &str| -> Result<Host> {
        let data = folder.join(name);
        std::fs::create_dir(&data)?;
        let mut args = vec!["--set".to_owned(), database.clone()];
        // Hosts that share a database share their keys.
        for (name, value) in SECRETS {
            args.extend(["--set".to_owned(), format!("{name}={value}")]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(Host::start_in(&data, &args))
    };
    let (one, two) = (start("one")?, start("two")?);
    let first = one.client().admin().await;
    let targets = [Target::orders(&first)?, Target::orders(&two.client().with_token(&first.token))?];
    // The acquirer simulator makes its tables when it is first asked.
    closed(&targets, 2, "first", Duration::from_secs(1)).await?;
    let (mut syncs, mut tps) = (Vec::new(), CLIENTS.map(|_| Vec::new()));
    let mut orders = CLIENTS.map(|_| [Vec::new(), Vec::new()]);
    header();
    for round in 1..=rounds {
        let sync = fsyncs(folder, Duration::from_secs(1))?;
        show(round, "fsync", &sync);
        syncs.push(sync);
        for ((count, tps), orders) in CLIENTS.iter().zip(tps.iter_mut()).zip(orders.iter_mut()) {
            let rate = pgbench(&url, *count, phase)?;
            println!("{round:>5} {:>26} {rate:>9.0}", format!("pgbench, {count} clients"));
            tps.push(rate);
            let hosts = [(1, "one host"), (2, "two hosts")];
            for ((hosts, name), done) in hosts.into_iter().zip(orders.iter_mut()) {
                let used = targets.get(..hosts).unwrap_or(&targets);
                let measured = closed(used, *count, &format!("{round}-{count}-{hosts}"), phase).await?;
                show(round, &format!("{name}, {count} clients"), &measured);
                done.push(measured);
            }
        }
    }
    println!("median of {rounds} rounds:");
    median("fsync", &syncs);
    for ((count, tps), [one, two]) in CLIENTS.iter().zip(tps).zip(&orders) {
        println!("{:>32} {:>9.0}/s", format!("pgbench, {count} clients"), middle(tps));
        median(&format!("one host, {count} clients"), one);
        median(&format!("two hosts, {count} clients"), two);
    }
    Ok(())
}

/// Orders' commits per second, with no service in between.
fn pgbench(url: &str, clients: u32, time: Duration) -> Result<f64> {
    let (clients, seconds) = (clients.to_string(), time.as_secs().to_string());
    let mut command = Command::new(program("pgbench"));
    command.args(["-n", "-M", "prepared", "-f", COMMITS, "-c", &clients, "-T", &seconds, url]);
    let output = command.env("PGOPTIONS", SEARCH_PATH).output().context("pgbench")?;
    let told = String::from_utf8_lossy(&output.stdout);
    let tps = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match tps {
        Some(tps) if output.status.success() => Ok(tps),
        _ => bail!("pgbench: {told}{}", String::from_utf8_lossy(&output.stderr)),
    }
}
