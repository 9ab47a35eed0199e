//! One run: a seed becomes a world, machines, clients, and a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use settle_host::sim::{
    self, Application, Counts, Disks, EPOCH_MILLIS, Habits, Machine, Machines, Profile, Setup, Sim, Struck,
};
use settle_token::{Claims, Role, Signer};

use crate::checker;
use crate::steps;
use crate::workload::{Clients, Notes};

const SIGNING_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
/// Users who place orders.
const USERS: u64 = 3;
/// Every so many seeds the faults go on when the clients have gone, for as long as an undo that never
/// works takes to be parked and redriven.
const LONG_STORM_EVERY: u64 = 16;
const LONG_STORM: Duration = Duration::from_secs(12 * 60);
/// One in so many orders of a long storm is such an undo.
const LONG_STORM_PARKS_EVERY: u64 = 4;
/// In every so many seeds the machines find what the release before left: both begin to upgrade it at once.
const UPGRADE_EVERY: u64 = 3;
const PREVIOUS: &str = include_str!("previous.sql");
/// Virtual time that orders have to end in, once nothing goes wrong any more.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// What is simulated.
#[derive(Clone)]
pub struct Plan {
    pub orders: u64,
    pub machines: usize,
    pub profile: Profile,
    /// Keep the history and show the guests' log.
    pub loud: bool,
    /// Only these of the orders are placed; all if not given.
    pub only_orders: Option<BTreeSet<u64>>,
    /// Only the faults with these numbers; what the profile rolls if not given.
    pub only_faults: Option<BTreeSet<u64>>,
    /// An empty PostgreSQL database for one run; databases in memory if not given.
    pub server: Option<String>,
}

impl Plan {
    pub fn new(orders: u64, machines: usize, profile: Profile) -> Self {
        Self { orders, machines, profile, loud: false, only_orders: None, only_faults: None, server: None }
    }

    /// The command that shows this plan's history with a seed.
    pub fn replay(&self, seed: u64) -> String {
        let list = |name: &str, numbers: &Option<BTreeSet<u64>>| {
            let Some(numbers) = numbers else { return String::new() };
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            format!(" --only-{name}={}", numbers.join(","))
        };
        let Self { orders, machines, profile, .. } = self;
        format!(
            "settle sim --replay {seed} --orders {orders} --hosts {machines} --profile {}{}{}",
            profile.name(),
            list("orders", &self.only_orders),
            list("faults", &self.only_faults)
        )
    }
}

/// What came of one seed.
pub struct Verdict {
    pub seed: u64,
    pub violations: Vec<String>,
    pub digest: String,
    pub counts: Counts,
    /// Every fault that struck, by the number of its chance.
    pub struck: Struck,
    pub calls: u64,
    /// Orders by their last status.
    pub ends: BTreeMap<String, u64>,
    pub timeline: Vec<String>,
}

/// Simulates one seed.
///
/// Errors: the runtime or the application does not start; a violation is no error.
pub fn simulate(application: &Arc<Application>, plan: &Plan, seed: u64) -> Result<Verdict> {
    let disks = disks(application, plan)?;
    if upgrades(plan, seed) {
        prepare(&disks)?;
    }
    sim::run(run(application.clone(), plan.clone(), disks, seed))?
}

fn upgrades(plan: &Plan, seed: u64) -> bool {
    plan.server.is_none() && seed % UPGRADE_EVERY == 1
}

fn prepare(disks: &Disks) -> Result<()> {
    let script: String =
        PREVIOUS.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let statements: Vec<&str> = script.split(';').map(str::trim).filter(|text| !text.is_empty()).collect();
    let disk = disks.get("identity").context("no disk identity")?;
    disk.prepare(&statements).map_err(|error| anyhow!("previous.sql: {error:?}"))
}

/// Empty disks: in memory, or in a database of its own on the plan's server.
pub fn disks(application: &Application, plan: &Plan) -> Result<Disks> {
    match &plan.server {
        None => application.disks(&["acquirer"]),
        Some(url) => application.disks_on(url),
    }
}

/// A world with a checkout in it.
pub struct Shop {
    pub sim: Arc<Sim>,
    pub disks: Disks,
    pub machines: Vec<Arc<Machine>>,
    pub clients: Arc<Clients>,
    pub users: Vec<String>,
}

impl Shop {
    /// Starts the machines. Only inside `sim::run`.
    pub fn open(
        application: &Arc<Application>,
        plan: &Plan,
        disks: Disks,
        habits: impl Fn(usize) -> Habits,
        seed: u64,
    ) -> Result<Self> {
        let sim = Sim::new(Setup {
            keep_trace: plan.loud,
            steps: steps::step,
            only: plan.only_faults.clone(),
            ..Setup::new(seed, plan.profile.clone())
        });
        let all = Machines::default();
        let values = settings();
        let machines: Vec<Arc<Machine>> = (0..plan.machines)
            .map(|number| Machine::new(number, &sim, application, &disks, &values, &all, habits(number)))
            .collect();
        if let Ok(mut all) = all.lock() {
            all.extend(machines.iter().map(Arc::downgrade));
        }
        for machine in &machines {
            machine.start()?;
            tokio::spawn(machine.clone().live());
        }
        let users: Vec<String> = (0..USERS).map(user_id).collect();
        let mut tokens = users.iter().map(|user| token(user, Role::User)).collect::<Result<Vec<_>>>()?;
        tokens.push(token(&user_id(USERS), Role::Admin)?);
        let notes = Mutex::new(Notes::default());
        let (machines_too, tokens) = (machines.clone(), Arc::new(tokens));
        let clients = Arc::new(Clients {
            sim: sim.clone(),
            machines: machines_too,
            tokens,
            notes,
            orders: plan.orders,
            parks_every: has_long_storm(seed).then_some(LONG_STORM_PARKS_EVERY),
        });
        Ok(Self { sim, disks, machines, clients, users })
    }

    /// Waits until every order has ended (with an `operator`: none is parked either); false when one
    /// has not after that time.
    pub async fn settle(&self, look_every: Duration, time: Duration, operator: bool) -> Result<bool> {
        let begun = self.sim.elapsed();
        while checker::open_orders(&self.disks, operator)? > 0 {
            if self.sim.elapsed() - begun > time {
                return Ok(false);
            }
            tokio::time::sleep(look_every).await;
        }
        Ok(true)
    }
}

fn has_long_storm(seed: u64) -> bool {
    seed.is_multiple_of(LONG_STORM_EVERY)
}

async fn run(application: Arc<Application>, plan: Plan, disks: Disks, seed: u64) -> Result<Verdict> {
    let habits = |_| Habits { loud: plan.loud, ..Habits::default() };
    let shop = Shop::open(&application, &plan, disks, habits, seed)?;
    let Shop { sim, disks, machines, clients, users } = &shop;
    let mut working = tokio::task::JoinSet::new();
    let placed = |number: &u64| plan.only_orders.as_ref().is_none_or(|only| only.contains(number));
    for number in (0..plan.orders).filter(placed) {
        working.spawn(clients.clone().order(number));
    }
    let operator = tokio::spawn(clients.clone().operate());
    while working.join_next().await.is_some() {}
    if has_long_storm(seed) {
        tokio::time::sleep(LONG_STORM).await;
    }
    sim.tell("calm");
    sim.calm_down();
    for machine in machines {
        machine.heal();
    }
    let ended = shop.settle(Duration::from_secs(5), SETTLE_TIME_MAX, true).await?;
    // Late duplicates and recoveries end too.
    tokio::time::sleep(Duration::from_secs(100)).await;
    operator.abort();
    let mut violations = checker::violations(disks, &clients.notes(), users)?;
    if upgrades(&plan, seed) {
        violations.extend(checker::not_upgraded(disks)?);
    }
    if !ended {
        violations.push(format!("orders are open {SETTLE_TIME_MAX:?} after the last fault"));
    }
    let digest = sim.digest();
    if plan.loud {
        for line in checker::journal(disks)? {
            sim.tell(format!("journal {line}"));
        }
    }
    let counts = "SELECT status, count(*) FROM orders GROUP BY status";
    let ends = checker::tally(disks, counts)?;
    Ok(Verdict {
        seed,
        violations,
        digest,
        counts: sim.counts(),
        struck: sim.struck(),
        calls: sim.calls(),
        ends,
        timeline: sim.lines(),
    })
}

fn settings() -> BTreeMap<String, String> {
    let rows = [
        ("token_signing_key", SIGNING_KEY),
        ("order_client_secret", "a-long-shared-secret-of-the-order-service"),
        ("simulate_fail_product", "fail-me"),
        ("simulate_slow_product", "slow-me"),
        ("database_exclusive", "false"),
        ("recovery_by_traffic", "false"),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn user_id(number: u64) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

/// As identity would issue it; users are not what is simulated.
fn token(user: &str, role: Role) -> Result<String> {
    let issued = EPOCH_MILLIS / 1000 - 3600;
    let claims = Claims {
        iss: "settle-identity".to_owned(),
        sub: user.to_owned(),
        aud: settle_token::Audience("settle".to_owned()),
        exp: issued + 48 * 3600,
        iat: issued,
        nbf: None,
        jti: user.to_owned(),
        role,
    };
    Ok(Signer::ed25519(SIGNING_KEY)?.sign(&claims)?)
}
