//! The acquirer's own ledger, read from its own database: the truth about money.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// What the acquirer says of one of our keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub captured: i64,
    pub returned: i64,
    pub captures: i64,
}

impl Charge {
    pub fn kept(&self) -> i64 {
        self.captured - self.returned
    }
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection
}

/// Every charge, by the order it belongs to.
pub fn charges(data: &Path) -> HashMap<String, Charge> {
    let connection = open(&data.join("acquirer.db"));
    let sql = "SELECT key, captured_minor, returned_minor, captures FROM acquirer_charges";
    // The acquirer makes its tables at the first charge.
    let Ok(mut statement) = connection.prepare(sql) else { return HashMap::new() };
    let rows = statement.query_map([], |row| {
        let key: String = row.get(0)?;
        let order = key.trim_end_matches("/charge").to_owned();
        Ok((order, Charge { captured: row.get(1)?, returned: row.get(2)?, captures: row.get(3)? }))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// An order's row: status and total.
pub fn orders(data: &Path) -> HashMap<String, (String, i64)> {
    let connection = open(&data.join("order.db"));
    let mut statement = connection.prepare("SELECT id, status, total_minor FROM orders").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
    rows.unwrap().map(Result::unwrap).collect()
}

/// What payment's own ledger kept for each order, and its sum over all accounts (must be 0).
pub fn payment_ledger(data: &Path) -> (HashMap<String, i64>, i64) {
    let connection = open(&data.join("payment.db"));
    let sql = "SELECT p.order_id, sum(l.amount_minor) FROM payment_ledger l
               JOIN payments p ON p.id = l.payment_id WHERE l.account = 'acquirer' GROUP BY p.order_id";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let kept = rows.unwrap().map(Result::unwrap).collect();
    let sum = "SELECT coalesce(sum(amount_minor), 0) FROM payment_ledger";
    (kept, connection.query_row(sum, [], |row| row.get(0)).unwrap())
}

/// Orders of the outbox whose rows do not match the journal's changes of status, and the reverse.
pub fn outbox_gaps(data: &Path) -> i64 {
    let connection = open(&data.join("order.db"));
    let sql = "WITH changes AS (
                 SELECT order_id, seq, status,
                        lag(status) OVER (PARTITION BY order_id ORDER BY seq) AS before
                 FROM order_journal)
               SELECT (SELECT count(*) FROM changes c WHERE c.status IS NOT c.before AND NOT EXISTS
                        (SELECT 1 FROM order_outbox o WHERE o.order_id = c.order_id AND o.seq = c.seq))
                    + (SELECT count(*) FROM order_outbox o WHERE NOT EXISTS
                        (SELECT 1 FROM changes c WHERE c.order_id = o.order_id AND c.seq = o.seq
                         AND c.status IS NOT c.before))";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// What must hold for every order once all sagas have settled; one line a violation.
pub fn violations(data: &Path) -> Vec<String> {
    let charges = charges(data);
    let (payments, unbalanced) = payment_ledger(data);
    let mut found = Vec::new();
    for (id, (status, total)) in orders(data) {
        let charge = charges.get(&id).cloned().unwrap_or(Charge { captured: 0, returned: 0, captures: 0 });
        let kept = payments.get(&id).copied().unwrap_or(0);
        let right = match status.as_str() {
            "completed" => charge.kept() == total,
            "payment_failed" | "cancelled" => charge.kept() == 0,
            "needs_attention" => true,
            _ => false,
        };
        if !right || charge.captures > 1 || kept != charge.kept() {
            found.push(format!("order {id} is {status} ({total}): acquirer {charge:?}, ledger {kept}"));
        }
    }
    let orders = orders(data);
    let unknown: Vec<_> = charges.keys().filter(|id| !orders.contains_key(*id)).cloned().collect();
    if !unknown.is_empty() {
        found.push(format!("charges without an order: {unknown:?}"));
    }
    if unbalanced != 0 {
        found.push(format!("payment's ledger is off balance by {unbalanced}"));
    }
    if outbox_gaps(data) != 0 {
        found.push(format!("{} outbox rows do not match the journal", outbox_gaps(data)));
    }
    found
}
