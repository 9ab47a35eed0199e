//! What operators ask: what happened to an order, does all money agree, and how do old orders leave.
//!
//! All but `archive` read only: a data directory, beside its host or after it, or a running host by its API. On
//! PostgreSQL the same tables are in each service's schema; there the API is asked.

mod archive;
mod running;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use settle_types::{Currency, Money, Timestamp};

pub use archive::archive;
pub use running::{Running, Told};

/// The three ledgers of a data directory.
pub struct Books {
    order: Connection,
    payment: Connection,
    /// The test acquirer's own; a real one is asked by its own means.
    acquirer: Connection,
}

/// An order as its row says.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    pub status: String,
    pub reason: Option<String>,
    pub total: Money,
    /// When the next try is due, while it is open.
    pub due_at: Option<Timestamp>,
}

/// One entry of an order's journal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// RFC 3339.
    pub at: String,
    pub status: String,
    pub event: Value,
}

/// What is known of an order's money, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funds {
    pub captured: i64,
    pub returned: i64,
}

impl Funds {
    pub fn kept(self) -> i64 {
        self.captured - self.returned
    }
}

impl Books {
    /// Errors: the directory has no databases, or not ours.
    pub fn open(data: &Path) -> Result<Self> {
        let open = |name: &str| -> Result<Connection> {
            let path = database(data, name)?;
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.pragma_update(None, "query_only", true)?;
            Ok(connection)
        };
        Ok(Self { order: open("order")?, payment: open("payment")?, acquirer: open("acquirer")? })
    }

    /// Every order, oldest first.
    pub fn orders(&self) -> Result<Vec<Order>> {
        self.orders_where("1 OR id = ?1", "")
    }

    pub fn order(&self, id: &str) -> Result<Order> {
        let found = self.orders_where("id = ?1", id)?;
        found.into_iter().next().with_context(|| format!("there is no order {id} here"))
    }

    fn orders_where(&self, condition: &str, id: &str) -> Result<Vec<Order>> {
        let sql = format!(
            "SELECT id, status, failure_reason, total_minor, currency, due_at FROM orders
             WHERE {condition} ORDER BY id"
        );
        let mut statement = self.order.prepare(&sql)?;
        let mut rows = statement.query([id])?;
        let mut orders = Vec::new();
        while let Some(row) = rows.next()? {
            let currency: String = row.get(4)?;
            let currency = Currency::parse(&currency).with_context(|| format!("currency {currency}"))?;
            orders.push(Order {
                id: row.get(0)?,
                status: row.get(1)?,
                reason: row.get(2)?,
                total: Money::new(row.get(3)?, currency),
                due_at: row.get::<_, Option<i64>>(5)?.map(time_of),
            });
        }
        Ok(orders)
    }

    pub fn journal(&self, id: &str) -> Result<Vec<Entry>> {
        let mut statement = self
            .order
            .prepare("SELECT at, status, event FROM order_journal WHERE order_id = ?1 ORDER BY seq")?;
        let mut rows = statement.query([id])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let event: String = row.get(2)?;
            entries.push(Entry {
                at: time_of(row.get(0)?).to_string(),
                status: row.get(1)?,
                event: serde_json::from_str(&event).context("the journal has an entry that is no JSON")?,
            });
        }
        Ok(entries)
    }

    /// What payment's ledger says of an order; `None`: it has no payment.
    pub fn booked(&self, order: &str) -> Result<Option<Funds>> {
        let sql = "SELECT count(*), coalesce(sum(json_extract(document, '$.captured')), 0),
                          coalesce(sum(json_extract(document, '$.refunded')), 0)
                   FROM payments WHERE order_id = ?1";
        funds(&self.payment, sql, order)
    }

    /// The sum of payment's double entries for an order, which is what its documents keep.
    pub fn entries(&self, order: &str) -> Result<i64> {
        let sql = "SELECT coalesce(sum(l.amount_minor), 0) FROM payment_ledger l
                   JOIN payments p ON p.id = l.payment_id WHERE l.account = 'acquirer' AND p.order_id = ?1";
        Ok(self.payment.query_row(sql, [order], |row| row.get(0))?)
    }

    /// What the acquirer says of an order; `None`: it was never asked. Tables are made at first use.
    pub fn taken(&self, order: &str) -> Result<Option<Funds>> {
        let sql = "SELECT count(*), coalesce(sum(captured_minor), 0), coalesce(sum(returned_minor), 0)
                   FROM acquirer_charges WHERE key = ?1 || '/charge'";
        let made = "SELECT count(*) FROM sqlite_schema WHERE name = 'acquirer_charges'";
        let made: u32 = self.acquirer.query_row(made, [], |row| row.get(0))?;
        if made == 0 { Ok(None) } else { funds(&self.acquirer, sql, order) }
    }
}

/// A service's file in a data directory.
fn database(data: &Path, name: &str) -> Result<PathBuf> {
    let path = data.join(format!("{name}.db"));
    if !path.exists() {
        bail!("{} is missing; is {} a data directory of `settle up`?", path.display(), data.display());
    }
    Ok(path)
}

fn time_of(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn funds(connection: &Connection, sql: &str, order: &str) -> Result<Option<Funds>> {
    Ok(connection.query_row(sql, [order], |row| {
        let count: u32 = row.get(0)?;
        Ok((count > 0).then_some(Funds { captured: row.get(1)?, returned: row.get(2)? }))
    })?)
}

/// What an order's end says that the acquirer keeps; `None` while the order is open or parked.
pub fn expected(order: &Order) -> Option<i64> {
    match order.status.as_str() {
        "completed" => Some(order.total.minor()),
        "payment_failed" | "cancelled" => Some(0),
        _ => None,
    }
}

/// An amount in the order's currency, as people write it.
pub fn shown(order: &Order, minor: i64) -> String {
    let currency = order.total.currency();
    let exponent = usize::from(currency.exponent());
    let digits = format!("{:0width$}", minor.unsigned_abs(), width = exponent + 1);
    let (major, rest) = digits.split_at(digits.len().saturating_sub(exponent));
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if minor < 0 { "-" } else { "" };
    format!("{sign}{major}{point}{rest} {}", currency.code())
}
