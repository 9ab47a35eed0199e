//! Seed after seed, on all cores, and what they come to together.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use settle_host::engine::hex;
use settle_host::sim::{Application, Counts, FAULTS, Fault, Step};
use sha2::{Digest as _, Sha256};

use crate::run::{Plan, Verdict, simulate};
use crate::steps;

/// Cells without a fault that are named in the table.
const MISSED_SHOWN_MAX: usize = 20;
/// Failed seeds, and violations of each, that are shown.
const FAILED_SHOWN_MAX: usize = 10;

/// Runs the seeds from `first` to before `last`; a violation is no error.
///
/// Errors: as `simulate`.
pub fn run(
    application: &Arc<Application>,
    plan: &Plan,
    (first, last): (u64, u64),
    threads: usize,
    show: bool,
) -> Result<Total> {
    let (next, started) = (AtomicU64::new(first), Instant::now());
    let total = Mutex::new(Total::new(plan, threads));
    let show = show && std::io::stderr().is_terminal();
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= last {
                    return Ok(());
                }
                let verdict = simulate(application, plan, seed)?;
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.add(verdict);
                total.seconds = started.elapsed().as_secs_f64();
                if show {
                    total.progress(last - first);
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a simulation panicked"))??;
        }
        Ok(())
    })?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The sum of all seeds.
pub struct Total {
    plan: Plan,
    threads: usize,
    seeds: u64,
    calls: u64,
    counts: Counts,
    ends: BTreeMap<String, u64>,
    failed: BTreeMap<u64, Vec<String>>,
    /// By seed: threads finish in any order.
    digests: BTreeMap<u64, String>,
    seconds: f64,
}

impl Total {
    fn new(plan: &Plan, threads: usize) -> Self {
        Self {
            plan: plan.clone(),
            threads,
            seeds: 0,
            calls: 0,
            counts: Counts::default(),
            ends: BTreeMap::new(),
            failed: BTreeMap::new(),
            digests: BTreeMap::new(),
            seconds: 0.0,
        }
    }

    fn add(&mut self, verdict: Verdict) {
        self.seeds += 1;
        self.calls += verdict.calls;
        self.counts.add(&verdict.counts);
        for (status, count) in verdict.ends {
            *self.ends.entry(status).or_default() += count;
        }
        if !verdict.violations.is_empty() {
            self.failed.insert(verdict.seed, verdict.violations);
        }
        self.digests.insert(verdict.seed, verdict.digest);
    }

    /// Orders that came to be; of others no request got through.
    fn orders(&self) -> u64 {
        self.ends.values().sum()
    }

    fn rate(&self) -> f64 {
        self.orders() as f64 / self.seconds
    }

    fn progress(&self, seeds: u64) {
        let (done, orders, failed) = (self.seeds, self.orders(), self.failed.len());
        eprint!("\r{done}/{seeds} seeds, {orders} orders, {:.0}/s, {failed} failed ", self.rate());
        if done == seeds {
            eprintln!();
        }
    }

    fn digest(&self) -> String {
        let mut all = Sha256::new();
        for digest in self.digests.values() {
            all.update(digest);
        }
        hex(&all.finalize())
    }

    fn violations(&self) -> usize {
        self.failed.values().map(Vec::len).sum()
    }

    /// The lowest seed with a violation.
    pub fn first_failed(&self) -> Option<u64> {
        self.failed.keys().next().copied()
    }

    /// No violation, and no fault of the profile that never changed anything: of such a one the run
    /// would prove nothing.
    pub fn is_convincing(&self) -> bool {
        self.failed.is_empty() && self.plan.profile.faults().all(|fault| self.struck(fault).1 > 0)
    }

    /// How often a fault was injected, and how often it changed anything.
    fn struck(&self, fault: Fault) -> (u64, u64) {
        self.counts.faults.get(&fault).copied().unwrap_or((0, 0))
    }

    /// Steps with faults of the profile that can hit them: how many, and those that were not hit.
    fn coverage(&self) -> (usize, Vec<(Step, Fault)>) {
        let of_profile = |(_, fault): &(Step, Fault)| self.plan.profile.chance(*fault) > 0;
        let all: Vec<_> = steps::cells().filter(of_profile).collect();
        let missed = all.iter().filter(|cell| !self.counts.cells.contains_key(cell)).copied().collect();
        (all.len(), missed)
    }

    /// The tables of a campaign.
    pub fn print(&self) {
        println!("{:<28} {:>10} {:>10}", "fault", "injected", "effective");
        for fault in FAULTS {
            let (injected, effective) = self.struck(fault);
            println!("{:<28} {injected:>10} {effective:>10}", fault.name());
        }
        for (status, count) in &self.ends {
            println!("{status:<28} {count:>10}");
        }
        let (cells, missed) = self.coverage();
        println!("coverage: {} of {cells} cells (step x fault)", cells - missed.len());
        for (step, fault) in missed.iter().take(MISSED_SHOWN_MAX) {
            println!("  not hit: {step} x {}", fault.name());
        }
        println!(
            "{} seeds, {} orders, {} host calls, {:.1} s, {:.0} orders/s on {} threads, digest {}",
            self.seeds,
            self.orders(),
            self.calls,
            self.seconds,
            self.rate(),
            self.threads,
            self.digest()
        );
        for (seed, violations) in self.failed.iter().take(FAILED_SHOWN_MAX) {
            println!("seed {seed}: {}", self.plan.replay(*seed));
            for violation in violations.iter().take(FAILED_SHOWN_MAX) {
                println!("  VIOLATION {violation}");
            }
        }
        println!("violations: {}", self.violations());
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let faults: BTreeMap<&str, serde_json::Value> = FAULTS
            .iter()
            .map(|fault| {
                let (injected, effective) = self.struck(*fault);
                (fault.name(), json!({ "injected": injected, "effective": effective }))
            })
            .collect();
        let (cells, missed) = self.coverage();
        let missed_named: Vec<_> = missed.iter().map(|(step, fault)| [step, fault.name()]).collect();
        json!({
            "seeds": self.seeds,
            "orders": self.orders(),
            "violations": self.violations(),
            "failed_seeds": self.failed.keys().collect::<Vec<_>>(),
            "digest": self.digest(),
            "orders_per_second": self.rate(),
            "coverage": { "cells": cells, "hit": cells - missed.len(), "missed": missed_named },
            "ends": self.ends,
            "faults": faults,
        })
    }
}
