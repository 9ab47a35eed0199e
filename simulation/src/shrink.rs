//! A failing run made small: fewer faults, then fewer orders, as long as something is still wrong.
//!
//! Every smaller run is another run (what is left out moves the dice), so any violation counts, and
//! the smallest run found need not be the smallest there is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use settle_host::sim::Application;

use crate::run::{Plan, Verdict, simulate};

/// Runs that the search may take for each of faults and orders, and seconds.
const RUNS_MAX: usize = 150;
const TIME_MAX: Duration = Duration::from_secs(60);

/// The smallest run with a violation that was found.
pub struct Smallest {
    plan: Plan,
    verdict: Verdict,
    runs: usize,
}

struct Search<'a> {
    application: &'a Arc<Application>,
    seed: u64,
    best: Option<(Plan, Verdict)>,
    runs: usize,
}

/// Shrinks a run that has a violation.
///
/// Errors: as `simulate`, and a run without a violation.
pub fn shrink(application: &Arc<Application>, plan: &Plan, seed: u64) -> Result<Smallest> {
    let mut search = Search { application, seed, best: None, runs: 0 };
    search.fails(plan.clone())?;
    let struck: Vec<u64> = search.best()?.1.struck.keys().copied().collect();
    let with_faults =
        |faults: &[u64]| Plan { only_faults: Some(faults.iter().copied().collect()), ..plan.clone() };
    search.reduce(struck, with_faults)?;
    let fewer_faults = search.best()?.0.clone();
    let with_orders = |orders: &[u64]| Plan {
        only_orders: Some(BTreeSet::from_iter(orders.iter().copied())),
        ..fewer_faults.clone()
    };
    search.reduce((0..plan.orders).collect(), with_orders)?;
    let runs = search.runs;
    let (plan, verdict) = search.best.context("nothing failed")?;
    Ok(Smallest { plan, verdict, runs })
}

impl Search<'_> {
    fn best(&self) -> Result<&(Plan, Verdict)> {
        self.best.as_ref().context("the run has no violation")
    }

    /// Runs a plan; keeps it when something is wrong.
    fn fails(&mut self, plan: Plan) -> Result<bool> {
        self.runs += 1;
        let verdict = simulate(self.application, &plan, self.seed)?;
        let fails = !verdict.violations.is_empty();
        if fails {
            self.best = Some((plan, verdict));
        }
        Ok(fails)
    }

    /// Leaves out ever smaller parts of `items`, while what is left still fails (delta debugging).
    fn reduce(&mut self, mut items: Vec<u64>, plan: impl Fn(&[u64]) -> Plan) -> Result<()> {
        let mut size = items.len().div_ceil(2);
        let (until, started) = (self.runs + RUNS_MAX, Instant::now());
        let is_over = |runs| runs >= until || started.elapsed() > TIME_MAX;
        while size > 0 && !items.is_empty() {
            let (mut start, before) = (0, items.len());
            while start < items.len() && !is_over(self.runs) {
                let end = (start + size).min(items.len());
                let rest: Vec<u64> =
                    items.iter().take(start).chain(items.iter().skip(end)).copied().collect();
                if self.fails(plan(&rest))? {
                    items = rest;
                } else {
                    start = end;
                }
            }
            if is_over(self.runs) {
                return Ok(());
            }
            if size > 1 {
                size = size.div_ceil(2);
            } else if items.len() == before {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Smallest {
    /// The faults of the run, what is wrong, and how to see its whole history.
    pub fn print(&self) {
        let Self { plan, verdict, runs } = self;
        let orders = plan.only_orders.as_ref().map_or(plan.orders, |only| only.len() as u64);
        println!("seed {} shrunk in {runs} runs: {orders} orders, faults:", verdict.seed);
        for (number, fault) in &verdict.struck {
            println!("  {number}: {}", fault.name());
        }
        for violation in &verdict.violations {
            println!("  VIOLATION {violation}");
        }
        println!("  timeline: {}", plan.replay(verdict.seed));
    }
}
