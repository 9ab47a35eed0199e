//! The crash matrix: on every path of the saga the machine dies before and after every host call,
//! then again during the recovery, and the order must end as it does without a crash.
//!
//! A case is a path, a call, before or after, and perhaps a second call; none is repeated.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use settle_host::sim::{self, Application, Crash, Habits, Profile};

use crate::checker::{self, Ending};
use crate::run::{Plan, Shop, disks};
use crate::workload::{Told, Wish, one_item};

/// Pairs tried of each path; where there are more, evenly many.
const PAIRS_MAX: usize = 400;
/// Calls of a path with a crash each. Only the parked order's path has more (it repeats its undo
/// until the budget is spent): evenly many of those.
const CALLS_MAX: usize = 120;
const DOWNTIME: Duration = Duration::from_secs(1);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(20 * 60);
/// The client asks again until it is answered.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ASKS_MAX: u32 = 400;

/// One way through the saga.
pub struct Path {
    pub name: &'static str,
    product: &'static str,
    minor: i64,
    method: &'static str,
    machines: usize,
    then: Then,
    /// Rounds of recovery that find nothing are no part of a path: few of them.
    recover_every: Duration,
}

/// What the client does once the order is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Cancel,
    /// An operator lets a parked order try again.
    Redrive,
}

const fn path(
    name: &'static str,
    product: &'static str,
    minor: i64,
    method: &'static str,
    then: Then,
) -> Path {
    Path { name, product, minor, method, machines: 1, then, recover_every: Duration::from_secs(5) }
}

/// A path that takes minutes.
const fn slow(path: Path) -> Path {
    Path { recover_every: Duration::from_secs(60), ..path }
}

pub const PATHS: [Path; 15] = [
    path("completed", "book", 1250, "", Then::Nothing),
    path("declined", "book", 100_000, "", Then::Nothing),
    path("final step fails", "fail-me", 1250, "", Then::Nothing),
    path("final step takes time", "slow-me", 1250, "", Then::Nothing),
    path("cancelled by the client", "book", 1250, "", Then::Cancel),
    path("refund fails, then works", "fail-me", 1250, "sim:void-fails:3", Then::Nothing),
    path("refund's answer lost", "fail-me", 1250, "sim:void-lost-answer:2", Then::Nothing),
    path("charge's answer lost", "book", 1250, "sim:lost-answer:2", Then::Nothing),
    path("acquirer unreachable", "book", 1250, "sim:unreachable:4", Then::Nothing),
    path("pending, then approved", "book", 1250, "sim:pending:2", Then::Nothing),
    path("pending, cancelled by the client", "book", 1250, "sim:pending:30", Then::Cancel),
    path("timeout", "book", 1250, "sim:delay:4000", Then::Nothing),
    slow(path("never approved in time", "book", 1250, "sim:unreachable:1000", Then::Nothing)),
    slow(path("parked, then redriven", "fail-me", 1250, "sim:void-fails:25", Then::Redrive)),
    Path { machines: 2, ..path("taken over by a second machine", "book", 1250, "", Then::Nothing) },
];

/// A path with its crashes.
#[derive(Clone, Debug)]
pub struct Case {
    path: usize,
    crashes: Vec<Crash>,
    /// What the calls are.
    at: Vec<String>,
}

/// How a run of a path went.
struct Ran {
    ending: Ending,
    /// Host calls, by what they were, until the order had ended.
    made: Vec<String>,
    wrong: Vec<String>,
}

fn run(application: &Arc<Application>, path: &Path, crashes: &[Crash]) -> Result<Ran> {
    sim::run(run_in_world(application.clone(), path, crashes.to_vec()))?
}

async fn run_in_world(application: Arc<Application>, path: &Path, crashes: Vec<Crash>) -> Result<Ran> {
    let plan = Plan::new(1, path.machines, Profile::calm());
    // With a second machine, the first stays away and the second recovers.
    let alone = path.machines == 1;
    let habits = |number| Habits {
        downtime: Some(if alone || number > 0 { DOWNTIME } else { SETTLE_TIME_MAX }),
        recover_every: path.recover_every,
        recovers_at_once: false,
        ..Habits::default()
    };
    let shop = Shop::open(&application, &plan, disks(&application, &plan)?, habits, 7)?;
    if !alone {
        shop.machines.get(1).context("no second machine")?.recover();
    }
    // Migrations and keys first: the path begins with the order.
    ask(&shop, "warm-up", http::Method::GET, "/v1/orders", None, 0).await;
    shop.sim.plan(&crashes);
    let body = one_item(path.product, path.minor, path.method);
    let placed = ask(&shop, "the-order", http::Method::POST, "/v1/orders", Some(&body), 0).await;
    let id = placed.as_ref().and_then(|order| order.get("id")).and_then(Value::as_str).unwrap_or_default();
    if path.then == Then::Cancel {
        ask(&shop, "the-order", http::Method::POST, &format!("/v1/orders/{id}/cancel"), None, 0).await;
    }
    for machine in &shop.machines {
        machine.recover();
    }
    let mut settled = shop.settle(Duration::from_millis(100), SETTLE_TIME_MAX, false).await?;
    if path.then == Then::Redrive {
        let admin = shop.users.len();
        ask(&shop, "the-order", http::Method::POST, &format!("/v1/orders/{id}/redrive"), None, admin).await;
        settled = shop.settle(Duration::from_millis(100), SETTLE_TIME_MAX, false).await?;
    }
    let made = shop.sim.made();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut wrong = checker::violations(&shop.disks, &shop.clients.notes(), &shop.users)?;
    if !settled {
        wrong.push("the order did not end".to_owned());
    }
    Ok(Ran { ending: checker::ending(&shop.disks)?, made, wrong })
}

/// Asks until there is an answer that a client can use.
pub async fn ask(
    shop: &Shop,
    key: &str,
    method: http::Method,
    path: &str,
    body: Option<&Value>,
    user: usize,
) -> Option<Value> {
    shop.clients.notes().told.entry(key.to_owned()).or_insert_with(|| {
        let minor = body.and_then(|body| body.pointer("/items/0/unit_price/minor")).and_then(Value::as_i64);
        Told::new(key, 0, Wish::Either(""), minor.unwrap_or(0))
    });
    for _ in 0..ASKS_MAX {
        if let Some(answer) = shop.clients.request(key, user, method.clone(), path, body).await {
            return Some(answer);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    None
}

/// What came of the matrix.
pub struct Outcome {
    pub cases: Vec<Case>,
    pub failed: Vec<(Case, Vec<String>)>,
    /// Planned second crashes that the recovery never came to.
    pub unreached: usize,
}

/// Runs every single crash, and with `pairs` also second ones.
pub fn matrix(application: &Arc<Application>, pairs: bool, threads: usize) -> Result<Outcome> {
    let plain = PATHS.iter().map(|path| run(application, path, &[])).collect::<Result<Vec<_>>>()?;
    for (path, ran) in PATHS.iter().zip(&plain) {
        eprintln!("{:<34} {:>4} host calls, ends {:?}", path.name, ran.made.len(), ran.ending);
        anyhow::ensure!(ran.wrong.is_empty(), "without a crash, `{}`: {:?}", path.name, ran.wrong);
    }
    let mut cases = Vec::new();
    for (path, ran) in plain.iter().enumerate() {
        let every = ran.made.len().div_ceil(CALLS_MAX);
        for (call, what) in (0..).zip(&ran.made).step_by(every.max(1)) {
            for after in [false, true] {
                cases.push(Case { path, crashes: vec![Crash { call, after }], at: vec![what.clone()] });
            }
        }
    }
    let endings: Vec<Ending> = plain.into_iter().map(|ran| ran.ending).collect();
    let (mut failed, recoveries) = try_all(application, &cases, &endings, threads)?;
    let mut unreached = 0;
    if pairs {
        let seconds = second_crashes(&cases, &recoveries);
        let (failed_too, reached) = try_all(application, &seconds, &endings, threads)?;
        unreached = reached.iter().filter(|made| made.is_empty()).count();
        failed.extend(failed_too);
        cases.extend(seconds);
    }
    Ok(Outcome { cases, failed, unreached })
}

/// For every single crash, the calls made after it are the places of a second one: evenly chosen.
fn second_crashes(singles: &[Case], recoveries: &[Vec<String>]) -> Vec<Case> {
    let mut all = Vec::new();
    for (case, made) in singles.iter().zip(recoveries) {
        let Some(first) = case.crashes.first() else { continue };
        for (call, what) in (0_u64..).zip(made).skip(usize::try_from(first.call + 1).unwrap_or(0)) {
            for after in [false, true] {
                let mut pair = case.clone();
                pair.crashes.push(Crash { call, after });
                pair.at.push(what.clone());
                all.push(pair);
            }
        }
    }
    let of_path = |path: usize| {
        let pairs: Vec<&Case> = all.iter().filter(|case| case.path == path).collect();
        let every = pairs.len().div_ceil(PAIRS_MAX).max(1);
        pairs.into_iter().step_by(every).cloned().collect::<Vec<_>>()
    };
    (0..PATHS.len()).flat_map(of_path).collect()
}

type Failed = Vec<(Case, Vec<String>)>;

/// Runs cases on all threads; those that end otherwise, and the calls that each made.
fn try_all(
    application: &Arc<Application>,
    cases: &[Case],
    endings: &[Ending],
    threads: usize,
) -> Result<(Failed, Vec<Vec<String>>)> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let calls = Mutex::new(vec![Vec::new(); cases.len()]);
    let lock_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(number) else { return Ok(()) };
            let (Some(path), Some(expected)) = (PATHS.get(case.path), endings.get(case.path)) else {
                return Ok(());
            };
            let ran = run(application, path, &case.crashes)?;
            let mut wrong = ran.wrong;
            if ran.ending != *expected {
                wrong.push(format!("ended {:?}, without a crash {expected:?}", ran.ending));
            }
            if !wrong.is_empty() {
                lock_failed().push((case.clone(), wrong));
            }
            if let Some(slot) = calls.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                *slot = ran.made;
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a case panicked"))??;
        }
        Ok(())
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((failed, calls.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

impl Case {
    /// `completed: before #3 order write`
    pub fn line(&self) -> String {
        let name = PATHS.get(self.path).map_or("", |path| path.name);
        let points = self.crashes.iter().zip(&self.at).map(|(crash, what)| {
            format!("{} #{} {what}", if crash.after { "after" } else { "before" }, crash.call)
        });
        format!("{name}: {}", points.collect::<Vec<_>>().join(", then "))
    }

    pub fn path(&self) -> &'static str {
        PATHS.get(self.path).map_or("", |path| path.name)
    }
}
