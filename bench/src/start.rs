//! From a process's start to its first answered order; what it weighs idle; what the components weigh.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use settle_tests::client::one_item;
use settle_tests::host::{Host, binary, component, root};

use crate::phase::{middle, millis, rss_megabytes};

const COMPONENTS: [&str; 5] = ["gateway", "identity", "order", "payment", "acquirer_simulator"];

pub struct Start {
    /// Milliseconds, of each try with a warm compile cache.
    pub ready_ms: Vec<f64>,
    /// From the start to the answer to the first order, the same tries.
    first_order_ms: Vec<f64>,
    /// With an empty cache: everything is compiled.
    cold_ms: f64,
    idle_mb: f64,
    /// Name and bytes.
    sizes: Vec<(&'static str, u64)>,
}

pub async fn run(folder: &Path, tries: u32) -> Result<Start> {
    let data = folder.join("start");
    fs::create_dir(&data)?;
    let token = {
        let host = Host::start_in(&data, &[]); // migrates, makes its secrets, fills the cache
        host.client().admin().await.token
    };
    let (mut ready_ms, mut first_order_ms, mut idle_mb) = (Vec::new(), Vec::new(), 0.0);
    for number in 0..tries {
        let started = Instant::now();
        let host = Host::start_in(&data, &[]);
        ready_ms.push(millis(started.elapsed()));
        idle_mb = rss_megabytes(host.pid())?;
        let client = host.client().with_token(&token);
        client.place(&format!("start-{number}"), &one_item("book", 1250)).await;
        first_order_ms.push(millis(started.elapsed()));
    }
    let cold = folder.join("cold");
    fs::create_dir(&cold)?;
    let mut from_nothing = Command::new(binary());
    from_nothing.current_dir(root()).args(["up", "--ports", "0", "--data"]).arg(&cold);
    // Not the user's own cache, which earlier runs have filled.
    from_nothing.arg("--cache").arg(cold.join("cache"));
    let started = Instant::now();
    drop(Host::spawn(&cold, &mut from_nothing));
    let cold_ms = millis(started.elapsed());
    let mut sizes = vec![("settle", fs::metadata(binary())?.len())];
    for name in COMPONENTS {
        sizes.push((name, fs::metadata(component(name))?.len()));
    }
    Ok(Start { ready_ms, first_order_ms, cold_ms, idle_mb, sizes })
}

impl Start {
    pub fn markdown(&self) -> Result<String> {
        let mut out = String::new();
        let (ready, first) = (middle(self.ready_ms.clone()), middle(self.first_order_ms.clone()));
        writeln!(
            out,
            "Ready after {ready:.0} ms, first order answered after {first:.0} ms (warm compile cache); ready after {:.0} ms when every component is compiled first. Idle: {:.0} MB.\n",
            self.cold_ms, self.idle_mb
        )?;
        out.push_str("| file | KiB |\n|---|---|\n");
        for (name, bytes) in &self.sizes {
            writeln!(out, "| {name} | {} |", bytes / 1024)?;
        }
        Ok(out)
    }
}
