//! What one completed order costs, in counts that no machine's speed changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use settle_host::sim::{self, Application, Habits, Profile};

use crate::matrix::ask;
use crate::run::{Plan, Shop, disks};
use crate::workload::one_item;

/// Placed first: instances start, tables and tokens are made.
const WARM_UP: u64 = 10;
/// Placed then, one after the other.
const ORDERS: u64 = 50;
/// After so long services ask identity for its keys again: just before what is counted, and not within.
const KEYS_LIFE: Duration = Duration::from_secs(10);
/// Longer than the run.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// By name, for one order: host calls of each kind, SQL statements, and fuel (about one for each
/// WebAssembly instruction) of each service.
pub type Cost = BTreeMap<String, f64>;

/// Counts on one machine, with one client.
///
/// Errors: an order does not complete, or a service was not asked once for each order.
pub fn cost(application: Arc<Application>) -> Result<Cost> {
    sim::run(count(application))?
}

async fn count(application: Arc<Application>) -> Result<Cost> {
    let plan = Plan::new(1, 1, Profile::calm());
    let habits = |_| Habits { recovers_at_once: false, recover_every: NEVER, ..Habits::default() };
    let shop = Shop::open(&application, &plan, disks(&application, &plan)?, habits, 7)?;
    place(&shop, "warm-up", WARM_UP).await?;
    tokio::time::sleep(KEYS_LIFE).await;
    place(&shop, "keys", 1).await?;
    let machine = shop.machines.first().context("no machine")?;
    machine.fuel();
    shop.sim.plan(&[]);
    place(&shop, "counted", ORDERS).await?;
    let mut total = Cost::new();
    for call in shop.sim.made() {
        let (kind, statements) = kind_of(&call);
        *total.entry(format!("host calls: {kind}")).or_default() += 1.0;
        *total.entry("host calls".to_owned()).or_default() += 1.0;
        *total.entry("SQL statements".to_owned()).or_default() += statements;
    }
    let orders = ORDERS as f64;
    let mut cost: Cost = total.into_iter().map(|(name, count)| (name, count / orders)).collect();
    for (service, used) in machine.fuel() {
        ensure!(used.len() as u64 == ORDERS, "{service} was asked {} times", used.len());
        // From the start of the first order to the start of the last.
        let (first, last) =
            (used.first().copied().unwrap_or_default(), used.last().copied().unwrap_or_default());
        let between = last.checked_sub(first).context("an instance ended meanwhile")?;
        cost.insert(format!("fuel: {service}"), (between as f64 / (orders - 1.0)).round());
    }
    Ok(cost)
}

async fn place(shop: &Shop, name: &str, orders: u64) -> Result<()> {
    for number in 0..orders {
        let (key, body) = (format!("{name}-{number}"), one_item("book", 1250, ""));
        let placed = ask(shop, &key, http::Method::POST, "/v1/orders", Some(&body), 0).await;
        let status = placed.as_ref().and_then(|order| order.get("status")).and_then(|status| status.as_str());
        ensure!(status == Some("completed"), "an order ended as {placed:?}");
    }
    Ok(())
}

/// `order write Durability::Durable: order: placed, 4 statements` is a durable write of 4 statements.
fn kind_of(call: &str) -> (&'static str, f64) {
    let statements =
        call.rsplit_once(", ").and_then(|(_, rest)| rest.strip_suffix(" statements")?.parse().ok());
    match call {
        _ if call.contains(" write Durability::Durable") => ("durable write", statements.unwrap_or(0.0)),
        _ if call.contains(" write Durability::Relaxed") => ("relaxed write", statements.unwrap_or(0.0)),
        _ if call.ends_with(" read") => ("read", 1.0),
        _ => ("call of a service", 0.0),
    }
}
