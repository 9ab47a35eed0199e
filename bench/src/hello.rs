//! The host alone, beside others that run the same component: the least that it can answer, and the
//! same after it asked another one of its kind. Native hyper beside them is the limit.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use settle_tests::host::{Host, component, probe_manifest, program, target};
use settle_tests::runners::wasmcloud::WasmCloud;

use crate::contender::{Program, empty, free_port, plain};
use crate::drive::{Target, closed};
use crate::phase::middle;

const CLIENTS: u32 = 64;
const PHASE: Duration = Duration::from_secs(1);
const START_TIME_MAX: Duration = Duration::from_secs(30);

pub const SETTLE: &str = "settle";
pub const WASMTIME: &str = "wasmtime serve";
pub const WASMCLOUD: &str = "wasmCloud 2";
const HYPER: &str = "hyper, native";
pub const CALLS: [&str; 2] = ["hello", "chained"];

/// A server of the component.
struct Peer {
    name: &'static str,
    /// In the order of `CALLS`.
    targets: [Target; 2],
    /// What runs, kept until it is dropped.
    _running: Box<dyn Any>,
}

#[derive(Default)]
pub struct Hello {
    /// Answers a second in each round, by peer and call.
    pub rates: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    pub missing: BTreeMap<&'static str, String>,
}

pub async fn run(folder: &Path, rounds: u32) -> Result<Hello> {
    let mut hello = Hello::default();
    let started = [
        (SETTLE, settle(&empty(folder, "hello")?)),
        (WASMTIME, wasmtime(&empty(folder, "wasmtime")?)),
        (WASMCLOUD, wasmcloud(&empty(folder, "wasmcloud")?).await),
        (HYPER, hyper()),
    ];
    let mut peers = Vec::new();
    for (name, peer) in started {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                println!("MISSING {name}: {error:#}");
                hello.missing.insert(name, format!("{error:#}"));
            }
        }
    }
    for round in 0..=rounds {
        for peer in &peers {
            for (call, target) in CALLS.into_iter().zip(&peer.targets) {
                let phase = closed(slice::from_ref(target), CLIENTS, "hello", PHASE).await;
                let rate = phase.with_context(|| format!("{}, {call}", peer.name))?.rate();
                if round > 0 {
                    println!("{round:>5} {:>22} {call:>8} {rate:>9.0}/s", peer.name);
                    hello.rates.entry((peer.name, call)).or_default().push(rate);
                }
            }
        }
    }
    Ok(hello)
}

fn settle(folder: &Path) -> Result<Peer> {
    let manifest = probe_manifest(folder);
    let host = Host::start_in(folder, &["--manifest", manifest.to_str().context("the folder's name")?]);
    let targets = targets(&host.url("probe"), None, "probe.internal")?;
    Ok(Peer { name: SETTLE, targets, _running: Box::new(host) })
}

fn wasmtime(folder: &Path) -> Result<Peer> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut serve = Command::new(target().join("bench-tools/bin/wasmtime"));
    serve.args(["serve", "-Sp3,cli", "-Wcomponent-model-async", "--addr", &address]).arg(component("probe"));
    let program = Program::quiet(&mut serve, folder)?;
    wait_for(&address)?;
    let targets = targets(&format!("http://{address}"), None, &address)?;
    Ok(Peer { name: WASMTIME, targets, _running: Box::new(program) })
}

async fn wasmcloud(folder: &Path) -> Result<Peer> {
    let cloud = WasmCloud::start(folder).await.map_err(anyhow::Error::msg)?;
    let (host, near) = tokio::task::block_in_place(|| cloud.start_probe());
    let targets = targets(&format!("http://127.0.0.1:{}", cloud.http), Some(host), &near)?;
    Ok(Peer { name: WASMCLOUD, targets, _running: Box::new(cloud) })
}

fn hyper() -> Result<Peer> {
    let (program, origin) = Program::telling(&mut Command::new(program("native-hello")))?;
    let targets = targets(&origin, None, origin.trim_start_matches("http://"))?;
    Ok(Peer { name: HYPER, targets, _running: Box::new(program) })
}

fn wait_for(address: &str) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(started.elapsed() < START_TIME_MAX, "{address} stays closed");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn targets(origin: &str, host: Option<String>, next: &str) -> Result<[Target; 2]> {
    let target = |path: &str| {
        let (method, host, body) = (Method::GET, host.clone(), Bytes::new());
        Ok::<_, anyhow::Error>(Target { method, host, body, ..plain(origin, path, 200)? })
    };
    Ok([target("/")?, target(&format!("/call?{next}"))?])
}

impl Hello {
    /// How many times a peer's rate ours is, in each round: the worse of the two calls.
    pub fn ratios_to(&self, peer: &'static str) -> Result<Vec<f64>, String> {
        let of = |name, call| {
            let missing = || self.missing.get(name).cloned().unwrap_or_else(|| format!("{name} did not run"));
            self.rates.get(&(name, call)).ok_or_else(missing)
        };
        let ratios = |call| {
            let each = of(SETTLE, call)?.iter().zip(of(peer, call)?);
            Ok::<Vec<f64>, String>(each.map(|(ours, theirs)| ours / theirs).collect())
        };
        let (hello, chained) = (ratios("hello")?, ratios("chained")?);
        Ok(hello.into_iter().zip(chained).map(|(one, other)| one.min(other)).collect())
    }

    pub fn markdown(&self) -> Result<String> {
        let mut out = String::from("| server | hello/s | chained/s |\n|---|---|---|\n");
        for name in [HYPER, SETTLE, WASMTIME, WASMCLOUD] {
            let rate = |call| self.rates.get(&(name, call)).map_or(0.0, |rates| middle(rates.clone()));
            match self.missing.get(name) {
                Some(why) => writeln!(out, "| {name} | missing: {why} | |")?,
                None => writeln!(out, "| {name} | {:.0} | {:.0} |", rate("hello"), rate("chained"))?,
            }
        }
        Ok(out)
    }
}
