//! What must be true when the world has calmed down. A model of its own: it reads what the databases
//! hold and what clients were told, and uses none of the product's rules.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, anyhow};
use settle_host::sim::Disks;
use settle_host::sql::Value;

use crate::workload::{Notes, Told, Wish};

/// Where a status may go next.
const STEPS: [(&str, &[&str]); 8] = [
    ("", &["payment_pending"]),
    ("payment_pending", &["paid", "payment_failed", "compensating"]),
    ("paid", &["completed", "compensating"]),
    ("completed", &["compensating"]),
    ("compensating", &["cancelled", "needs_attention"]),
    ("needs_attention", &["compensating", "cancelled"]),
    ("payment_failed", &[]),
    ("cancelled", &[]),
];

struct Order {
    user: String,
    status: String,
    reason: String,
    total: i64,
}

fn rows(disks: &Disks, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
    let disk = disks.get(database).with_context(|| format!("no disk {database}"))?;
    let rows = match disk.read(sql) {
        Ok(rows) => rows,
        // A table that nobody needed was never made.
        Err(settle_host::sql::Error::Invalid(text))
            if text.contains("no such table") || text.contains("does not exist") =>
        {
            Vec::new()
        }
        Err(error) => return Err(anyhow!("{database}: {error:?}")),
    };
    let text = |value: Value| match value {
        Value::Null => String::new(),
        Value::Boolean(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Text(text) => text,
        Value::Bytes(bytes) => format!("{bytes:?}"),
    };
    Ok(rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect())
}

fn cell(row: &[String], index: usize) -> &str {
    row.get(index).map_or("", String::as_str)
}

fn number(row: &[String], index: usize) -> i64 {
    cell(row, index).parse().unwrap_or(0)
}

/// Orders that will move on by themselves, and with an operator also those that are parked.
pub fn open_orders(disks: &Disks, operator: bool) -> Result<u64> {
    let sql = if operator {
        "SELECT count(*) FROM orders WHERE status NOT IN ('completed', 'payment_failed', 'cancelled')"
    } else {
        "SELECT count(*) FROM orders WHERE status IN ('payment_pending', 'paid', 'compensating')"
    };
    Ok(rows(disks, "order", sql)?.first().map_or(0, |row| u64::try_from(number(row, 0)).unwrap_or(0)))
}

/// The first column's texts with the second's numbers, of a query on the orders.
pub fn tally(disks: &Disks, sql: &str) -> Result<BTreeMap<String, u64>> {
    let rows = rows(disks, "order", sql)?;
    let pair = |row: &Vec<String>| (cell(row, 0).to_owned(), u64::try_from(number(row, 1)).unwrap_or(0));
    Ok(rows.iter().map(pair).collect())
}

/// What the release before left is there, under a newer schema.
pub fn not_upgraded(disks: &Disks) -> Result<Option<String>> {
    let sql = "SELECT (SELECT max(version) FROM schema_versions WHERE service = 'identity'),
                      (SELECT count(*) FROM identity_users WHERE username = 'from-before')";
    let found = rows(disks, "identity", sql)?;
    let (version, users) = found.first().map_or((0, 0), |row| (number(row, 0), number(row, 1)));
    let done = version > 1 && users == 1;
    Ok((!done).then(|| format!("identity is at schema {version} with {users} of its earlier users")))
}

/// How the only order ended: status, what the acquirer keeps, what payment's ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    status: String,
    kept: i64,
    booked: i64,
}

pub fn ending(disks: &Disks) -> Result<Ending> {
    let of = |database, sql| -> Result<Vec<String>> {
        Ok(rows(disks, database, sql)?.into_iter().next().unwrap_or_default())
    };
    let order = of("order", "SELECT status FROM orders")?;
    let charge =
        of("acquirer", "SELECT CAST(sum(captured_minor - returned_minor) AS BIGINT) FROM acquirer_charges")?;
    let ledger = of(
        "payment",
        "SELECT CAST(sum(amount_minor) AS BIGINT) FROM payment_ledger WHERE account = 'acquirer'",
    )?;
    Ok(Ending { status: cell(&order, 0).to_owned(), kept: number(&charge, 0), booked: number(&ledger, 0) })
}

/// The journal, one line an entry: what a timeline ends with.
pub fn journal(disks: &Disks) -> Result<Vec<String>> {
    let sql = "SELECT order_id, seq, status, event FROM order_journal ORDER BY order_id, seq";
    Ok(rows(disks, "order", sql)?.iter().map(|row| row.join(" ")).collect())
}

/// Every rule that is broken, one line each.
pub fn violations(disks: &Disks, notes: &Notes, users: &[String]) -> Result<Vec<String>> {
    let mut found = notes.wrong.clone();
    let orders: BTreeMap<String, Order> = rows(
        disks,
        "order",
        "SELECT id, user_id, status, coalesce(failure_reason, ''), total_minor FROM orders",
    )?
    .into_iter()
    .map(|row| {
        let order = Order {
            user: cell(&row, 1).to_owned(),
            status: cell(&row, 2).to_owned(),
            reason: cell(&row, 3).to_owned(),
            total: number(&row, 4),
        };
        (cell(&row, 0).to_owned(), order)
    })
    .collect();
    money(disks, &orders, notes, &mut found)?;
    history(disks, &orders, &mut found)?;
    for told in notes.told.values() {
        client(told, &orders, users, &mut found);
    }
    let placed: BTreeSet<&String> = notes.told.values().flat_map(|told| &told.ids).collect();
    if orders.len() > notes.told.len() {
        found.push(format!(
            "{} orders of {} requests ({} known)",
            orders.len(),
            notes.told.len(),
            placed.len()
        ));
    }
    Ok(found)
}

/// Whether this was returned of a completed order: all refunds that support was told are done, and
/// any of the others.
fn is_explained(returned: i64, refunds: &[(i64, bool)]) -> bool {
    let Some(((minor, told), rest)) = refunds.split_first() else { return returned == 0 };
    is_explained(returned - minor, rest) || (!told && is_explained(returned, rest))
}

/// The acquirer's ledger is the truth; payment's agrees; every order's end fits.
fn money(
    disks: &Disks,
    orders: &BTreeMap<String, Order>,
    notes: &Notes,
    found: &mut Vec<String>,
) -> Result<()> {
    let refunds: BTreeMap<&String, &Vec<(i64, bool)>> =
        notes.told.values().filter_map(|told| Some((told.ids.first()?, &told.refunds))).collect();
    let sql = "SELECT key, captured_minor, returned_minor, captures FROM acquirer_charges";
    let mut charged: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for row in rows(disks, "acquirer", sql)? {
        let order = cell(&row, 0).trim_end_matches("/charge").to_owned();
        if !orders.contains_key(&order) {
            found.push(format!("the acquirer has a charge of {order}, which is no order"));
        }
        charged.insert(order, (number(&row, 1) - number(&row, 2), number(&row, 3)));
    }
    let sql = "SELECT p.order_id, CAST(sum(l.amount_minor) AS BIGINT) FROM payment_ledger l
               JOIN payments p ON p.id = l.payment_id WHERE l.account = 'acquirer' GROUP BY p.order_id";
    let ledger: BTreeMap<String, i64> =
        rows(disks, "payment", sql)?.iter().map(|row| (cell(row, 0).to_owned(), number(row, 1))).collect();
    for (id, order) in orders {
        let (kept, captures) = charged.get(id).copied().unwrap_or((0, 0));
        let right = match order.status.as_str() {
            "completed" => is_explained(order.total - kept, refunds.get(id).map_or(&[][..], |all| all)),
            "payment_failed" | "cancelled" => kept == 0,
            "needs_attention" => true,
            _ => false,
        };
        if !right {
            found.push(format!("{id} is {} and the acquirer keeps {kept} of {}", order.status, order.total));
        }
        if captures > 1 {
            found.push(format!("{id} was captured {captures} times"));
        }
        let booked = ledger.get(id).copied().unwrap_or(0);
        if booked != kept && order.status != "needs_attention" {
            found.push(format!("{id}: payment's ledger says {booked}, the acquirer keeps {kept}"));
        }
        if order.status != "completed" && order.reason.is_empty() {
            found.push(format!("{id} is {} without a reason", order.status));
        }
    }
    let sql = "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM payment_ledger";
    for row in rows(disks, "payment", sql)?.iter().filter(|row| number(row, 0) != 0) {
        found.push(format!("payment's ledger is off balance by {}", number(row, 0)));
    }
    Ok(())
}

/// Histories go legal ways, end where the order is, and have one outbox row a change of status.
fn history(disks: &Disks, orders: &BTreeMap<String, Order>, found: &mut Vec<String>) -> Result<()> {
    let sql = "SELECT order_id, seq, status FROM order_journal ORDER BY order_id, seq";
    let mut now: BTreeMap<String, String> = BTreeMap::new();
    let mut changes: BTreeSet<(String, String)> = BTreeSet::new();
    for row in rows(disks, "order", sql)? {
        let (id, status) = (cell(&row, 0).to_owned(), cell(&row, 2).to_owned());
        let before = now.get(&id).cloned().unwrap_or_default();
        if before != status {
            let legal = STEPS.iter().find(|(from, _)| *from == before).map_or(&[][..], |(_, to)| *to);
            if !legal.contains(&status.as_str()) {
                found.push(format!("{id} went from `{before}` to `{status}`"));
            }
            changes.insert((id.clone(), cell(&row, 1).to_owned()));
        }
        now.insert(id, status);
    }
    for (id, order) in orders {
        if now.get(id) != Some(&order.status) {
            found.push(format!("{id} is {}, its journal ends with {:?}", order.status, now.get(id)));
        }
    }
    let told: BTreeSet<(String, String)> = rows(disks, "order", "SELECT order_id, seq FROM order_outbox")?
        .iter()
        .map(|row| (cell(row, 0).to_owned(), cell(row, 1).to_owned()))
        .collect();
    for (id, seq) in told.symmetric_difference(&changes) {
        found.push(format!("{id}: outbox and journal differ at {seq}"));
    }
    Ok(())
}

/// What one client saw fits one order of its own, and never went backwards.
fn client(told: &Told, orders: &BTreeMap<String, Order>, users: &[String], found: &mut Vec<String>) {
    let key = &told.name;
    if told.ids.len() > 1 {
        found.push(format!("{key} was answered with {} orders", told.ids.len()));
    }
    let Some(id) = told.ids.first() else { return };
    let Some(order) = orders.get(id) else {
        found.push(format!("{key} was told of {id}, which is lost"));
        return;
    };
    if users.get(told.user) != Some(&order.user) || order.total != told.minor {
        found.push(format!("{key} was told of {id}, which is another's"));
    }
    for (before, after) in &told.sequences {
        if !reaches(before, after) {
            found.push(format!("{key} saw {before}, then {after}"));
        }
    }
    let impossible = match told.wish {
        Wish::Declined | Wish::FinalStepFails | Wish::Undone(_) => order.status == "completed",
        Wish::Completes | Wish::CompletesSlowly => order.status == "payment_failed",
        Wish::Either(_) => false,
    };
    if impossible {
        found.push(format!("{key} wished {:?} and {id} is {}", told.wish, order.status));
    }
}

/// Whether a status can follow another, over any number of steps.
fn reaches(from: &str, to: &str) -> bool {
    let (mut known, mut look) = (BTreeSet::from([from]), vec![from]);
    while let Some(status) = look.pop() {
        let next = STEPS.iter().find(|(from, _)| *from == status).map_or(&[][..], |(_, next)| *next);
        look.extend(next.iter().filter(|next| known.insert(next)));
    }
    known.contains(to)
}
