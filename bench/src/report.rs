//! What `cargo xtask bench` leaves behind: `bench/results/latest.json` and `bench/REPORT.md`.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use serde_json::{Map, Value, json};
use settle_tests::host::root;

use crate::growth::Growth;
use crate::hello::{self, Hello};
use crate::phase::{middle, spread};
use crate::plot::{Line, plot};
use crate::saga::{ON_POSTGRES, OURS, PAUSE, PEAK, Saga, Series};
use crate::start::Start;

/// A ratio, its goal, and why it is missing.
struct Ratio {
    key: &'static str,
    goal: &'static str,
    /// Of each round: the median counts, the rest is its spread.
    rounds: Result<Vec<f64>, String>,
}

impl Ratio {
    fn median(&self) -> Option<f64> {
        self.rounds.as_ref().ok().map(|rounds| middle(rounds.clone()))
    }

    fn row(&self) -> String {
        let (key, goal) = (self.key, self.goal);
        match &self.rounds {
            Ok(rounds) => {
                let (middle, (least, most)) = (middle(rounds.clone()), spread(rounds));
                // A comparison with 1 that the rounds do not agree on says nothing.
                let noise = if least < 1.0 && most > 1.0 && key.contains("_vs_") {
                    " (within the noise)"
                } else {
                    ""
                };
                format!("| `{key}` | {middle:.2} | {least:.2} to {most:.2}{noise} | {goal} |")
            }
            Err(reason) => format!("| `{key}` | null | {reason} | {goal} |"),
        }
    }
}

/// Everything that one run measured.
pub struct Measured {
    pub saga: Saga,
    pub hello: Hello,
    pub start: Start,
    pub growth: Result<Growth, String>,
    pub rounds: u32,
    pub phase_seconds: u64,
}

pub fn write(measured: &Measured) -> Result<()> {
    let ratios = ratios(measured);
    let flat: Map<String, Value> =
        ratios.iter().map(|ratio| (ratio.key.to_owned(), json!(ratio.median()))).collect();
    let reasons: Map<String, Value> = ratios
        .iter()
        .filter_map(|ratio| Some((ratio.key.to_owned(), json!(ratio.rounds.as_ref().err()?))))
        .collect();
    let saga = &measured.saga;
    let series = saga.closed.iter().map(|((name, clients), series)| {
        json!({ "name": name, "clients": clients, "per_second": series.rates, "p50_ms": series.p50,
                "p99_ms": series.p99, "cpu_ms_per_order": series.cpu, "rss_mb": series.rss })
    });
    let latest = json!({
        "ratios": flat,
        "reasons": reasons,
        "fsync_p50_ms": saga.fsync,
        "fsync_now_and_then_p50_ms": saga.fsync_now_and_then,
        "fixed_work_ms": saga.work,
        "saga": series.collect::<Vec<_>>(),
    });
    let folder = root().join("bench/results");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("latest.json"), format!("{latest:#}\n"))?;
    fs::write(root().join("bench/REPORT.md"), markdown(measured, &ratios)?)?;
    for ratio in &ratios {
        println!("{}", ratio.row());
    }
    println!("wrote bench/REPORT.md and bench/results/latest.json");
    Ok(())
}

fn ratios(measured: &Measured) -> Vec<Ratio> {
    let saga = &measured.saga;
    let of = |name, clients| saga.at(name, clients).ok_or_else(|| format!("{name} did not run"));
    let by = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<f64>>();
    let rates = |name| of(name, 64).map(|series| series.rates.clone());
    // The faster of its two SDKs in each round.
    let restate = match (rates("Restate, Rust"), rates("Restate, TypeScript")) {
        (Ok(rust), Ok(typescript)) => Ok(rust.iter().zip(&typescript).map(|(a, b)| a.max(*b)).collect()),
        (one, other) => one.or(other),
    };
    let pair = |a: Result<Vec<f64>, String>, b: Result<Vec<f64>, String>| Ok(by(&a?, &b?));
    let first =
        |read: fn(&Series) -> &Vec<f64>, clients| of(OURS, clients).map(|series| read(series).clone());
    vec![
        Ratio { key: "saga64_vs_restate", goal: ">= 10", rounds: pair(rates(OURS), restate) },
        Ratio {
            key: "saga64_vs_raw_pg",
            goal: ">= 0.8",
            rounds: pair(rates(ON_POSTGRES), rates("raw PostgreSQL")),
        },
        Ratio {
            key: "saga1_p50_minus_2_5_fsync_ms",
            goal: "<= 1",
            rounds: first(|series| &series.p50, 1)
                .map(|p50| p50.iter().zip(&saga.fsync).map(|(p50, fsync)| p50 - 2.5 * fsync).collect()),
        },
        Ratio {
            key: "wasm_tax",
            goal: "<= 1.25",
            rounds: pair(
                first(|series| &series.cpu, 64),
                of("native cores, SQLite", 64).map(|series| series.cpu.clone()),
            ),
        },
        Ratio { key: "hello_vs_wasmtime", goal: ">= 1", rounds: measured.hello.ratios_to(hello::WASMTIME) },
        Ratio { key: "hello_vs_wasmcloud", goal: ">= 1", rounds: measured.hello.ratios_to(hello::WASMCLOUD) },
        Ratio { key: "rss64_mb", goal: "<= 100", rounds: first(|series| &series.rss, 64) },
        Ratio { key: "ready_ms", goal: "<= 50", rounds: Ok(measured.start.ready_ms.clone()) },
        Ratio {
            key: "growth_1m",
            goal: "<= 1.2",
            rounds: measured.growth.as_ref().map_err(Clone::clone).and_then(|growth| {
                growth
                    .ratio_to(1_000_000)
                    .map(|ratio| vec![ratio])
                    .ok_or_else(|| "grown to fewer orders".to_owned())
            }),
        },
    ]
}

/// What arrives whatever the answers take.
fn at_rates(out: &mut String, saga: &Saga) -> Result<()> {
    out.push_str(
        "\n## At fixed arrival rates\n\nOpen loop: latency counts from when an order was due, 256 \
         connections; median of three phases. The disk alone: as many bytes as an order adds to our two \
         logs, and two syncs in turn, which those that wait share.\n\n\
         | contender | arrivals/s | p50 ms | p99 ms | failed |\n|---|---|---|---|---|\n",
    );
    let mut lines: Vec<Line> = Vec::new();
    for ((name, _), open) in &saga.open {
        let (rate, p50, p99) = (open.rate, middle(open.p50.clone()), middle(open.p99.clone()));
        writeln!(out, "| {name} | {rate:.0} | {p50:.2} | {p99:.2} | {} |", open.failed)?;
        match lines.last_mut().filter(|line| line.name == *name) {
            Some(line) => line.points.push((rate, p99)),
            None => lines.push(Line { name: (*name).to_owned(), points: vec![(rate, p99)] }),
        }
    }
    plot("latency-against-rate", "arrivals a second", "p99, ms", &lines)?;
    out.push_str("\n![p99 against rate](results/latency-against-rate.svg)\n");
    Ok(())
}

fn markdown(measured: &Measured, ratios: &[Ratio]) -> Result<String> {
    let saga = &measured.saga;
    let mut out = String::from("# What an order costs\n\n");
    writeln!(
        out,
        "By `cargo xtask bench`: {} rounds of {} s, contenders in turn (the others stand still, and what\nthey left dirty is on the disk before), median of the rounds.",
        measured.rounds, measured.phase_seconds
    )?;
    let told = |values: &[f64], digits: usize| {
        let (middle, (least, most)) = (middle(values.to_vec()), spread(values));
        format!("{middle:.digits$} ms ({least:.digits$} to {most:.digits$})")
    };
    writeln!(
        out,
        "The disk's fsync of 8 KiB took {}, and {} where {} ms lay before each, as between those of one client's \
         order.\nA fixed piece of work took {}. Generator and contenders share {} cores.\n",
        told(&saga.fsync, 3),
        told(&saga.fsync_now_and_then, 3),
        PAUSE.as_millis(),
        told(&saga.work, 1),
        std::thread::available_parallelism()?
    )?;
    out.push_str("| ratio | median | spread | goal |\n|---|---|---|---|\n");
    for ratio in ratios {
        writeln!(out, "{}", ratio.row())?;
    }
    out.push_str("\n## Durable orders\n\n| contender | clients | orders/s | p50 ms | p99 ms | CPU ms an order | RSS MB |\n|---|---|---|---|---|---|---|\n");
    for ((name, clients), series) in &saga.closed {
        let [rate, p50, p99, cpu, rss] = [&series.rates, &series.p50, &series.p99, &series.cpu, &series.rss]
            .map(|values| middle(values.clone()));
        writeln!(out, "| {name} | {clients} | {rate:.0} | {p50:.2} | {p99:.2} | {cpu:.2} | {rss:.0} |")?;
    }
    for missing in &saga.missing {
        writeln!(out, "\nMissing: {missing}")?;
    }
    out.push_str(include_str!("contenders.md"));
    at_rates(&mut out, saga)?;
    out.push_str("\n## Where an order's time goes\n\n");
    match &saga.parts {
        Some(Ok(parts)) => {
            let cpu = saga.at(OURS, PEAK).map(|series| middle(series.cpu.clone())).unwrap_or_default();
            writeln!(out, "Samples of the host on SQLite at {PEAK} clients.\n\n{}", parts.markdown(cpu)?)?;
        }
        Some(Err(error)) => writeln!(out, "Not in this run: {error:#}.\n")?,
        None => writeln!(out, "Not in this run: the host did not start.\n")?,
    }
    out.push_str("## The host alone\n\nThe same component, which answers five bytes, and one that asks its like first (in process where the\nserver can), at 64 clients.\n\n");
    out.push_str(&measured.hello.markdown()?);
    out.push_str("\n## Start and size\n\n");
    out.push_str(&measured.start.markdown()?);
    out.push_str("\n## Growth\n\n");
    match &measured.growth {
        Ok(growth) => out.push_str(&growth.markdown()?),
        Err(reason) => writeln!(out, "Not in this run: {reason}.")?,
    }
    Ok(out)
}
