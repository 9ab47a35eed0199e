//! What is measured in one phase of a round, and how it is told.

use std::time::Duration;

use anyhow::{Context as _, Result};
use settle_tests::host::memory_megabytes;

/// Latencies of one phase, sorted.
pub struct Phase {
    pub latencies: Vec<Duration>,
    pub took: Duration,
}

impl Phase {
    pub fn new(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort();
        Self { latencies, took }
    }

    pub fn at(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share) as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub fn header() {
    println!("{:>5} {:>26} {:>9} {:>11} {:>9} {:>9}", "round", "", "per s", "p50 ms", "p99 ms", "max ms");
}

pub fn show(round: u32, what: &str, phase: &Phase) {
    let (p50, p99, max) = (phase.at(0.5), phase.at(0.99), phase.at(1.0));
    println!(
        "{round:>5} {what:>26} {:>9.0} {:>11.3} {:>9.3} {:>9.3}",
        phase.rate(),
        millis(p50),
        millis(p99),
        millis(max)
    );
}

pub fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The least and the most.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

pub fn median(what: &str, phases: &[Phase]) {
    let rate = middle(phases.iter().map(Phase::rate).collect());
    let at = |share| middle(phases.iter().map(|phase| millis(phase.at(share))).collect());
    println!("{what:>32} {rate:>9.0}/s  p50 {:.3} ms  p99 {:.3} ms", at(0.5), at(0.99));
}

pub fn rss_megabytes(pid: u32) -> Result<f64> {
    memory_megabytes(pid, "VmRSS").with_context(|| format!("no VmRSS of process {pid}"))
}
