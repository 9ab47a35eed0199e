//! The acquirer's own ledger, read from its own database: the truth about money.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::types::ValueRef;
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

/// Where the truth is kept: the files in a data directory, or a server's schemas.
#[derive(Clone, Debug)]
pub enum Books {
    Files(PathBuf),
    /// An administrator's URL.
    Server(String),
}

impl Books {
    /// All rows, every column as text. `None`: a table does not exist yet.
    fn rows(&self, database: &str, sql: &str) -> Option<Vec<Vec<String>>> {
        match self {
            Books::Files(data) => {
                let path = data.join(format!("{database}.db"));
                let connection =
                    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                let mut statement = connection.prepare(sql).ok()?;
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| {
                    (0..columns).map(|index| row.get_ref(index).map(text_of)).collect::<Result<_, _>>()
                });
                Some(rows.unwrap().map(Result::unwrap).collect())
            }
            Books::Server(url) => {
                let mut psql = Command::new(crate::postgres::program("psql"));
                psql.env("PGOPTIONS", format!("-c search_path=settle_{database}"));
                let output = psql.args(["-XAt", "-F", "\t", "-c", sql, url]).output().unwrap();
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                if errors.contains("does not exist") {
                    return None;
                }
                assert!(output.status.success(), "{errors}");
                let lines = String::from_utf8(output.stdout).unwrap();
                Some(lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
            }
        }
    }

    fn number(&self, database: &str, sql: &str) -> i64 {
        self.rows(database, sql).unwrap()[0][0].parse().unwrap()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Books {
    fn from(data: &P) -> Self {
        Books::Files(data.as_ref().to_owned())
    }
}

impl From<&Books> for Books {
    fn from(books: &Books) -> Self {
        books.clone()
    }
}

fn text_of(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        other => other.as_str().unwrap().to_owned(),
    }
}

/// Every charge, by the order it belongs to.
pub fn charges(books: impl Into<Books>) -> HashMap<String, Charge> {
    let sql = "SELECT key, captured_minor, returned_minor, captures FROM acquirer_charges";
    // The acquirer makes its tables at the first charge.
    let rows = books.into().rows("acquirer", sql).unwrap_or_default();
    let charge = |row: Vec<String>| {
        let number = |index: usize| row[index].parse().unwrap();
        let order = row[0].trim_end_matches("/charge").to_owned();
        (order, Charge { captured: number(1), returned: number(2), captures: number(3) })
    };
    rows.into_iter().map(charge).collect()
}

/// An order's row: status and total.
pub fn orders(books: impl Into<Books>) -> HashMap<String, (String, i64)> {
    let rows = books.into().rows("order", "SELECT id, status, total_minor FROM orders").unwrap();
    let order = |row: Vec<String>| (row[0].clone(), (row[1].clone(), row[2].parse().unwrap()));
    rows.into_iter().map(order).collect()
}

/// What payment's own ledger kept for each order, and its sum over all accounts (must be 0).
fn payment_ledger(books: &Books) -> (HashMap<String, i64>, i64) {
    let sql = "SELECT p.order_id, sum(l.amount_minor) FROM payment_ledger l
               JOIN payments p ON p.id = l.payment_id WHERE l.account = 'acquirer' GROUP BY p.order_id";
    let rows = books.rows("payment", sql).unwrap().into_iter();
    let kept = rows.map(|row| (row[0].clone(), row[1].parse().unwrap())).collect();
    (kept, books.number("payment", "SELECT coalesce(sum(amount_minor), 0) FROM payment_ledger"))
}

/// The query of [`outbox_gaps`], for whoever has the database open already.
pub const OUTBOX_GAPS: &str = "WITH changes AS (
     SELECT order_id, seq, status, coalesce(lag(status) OVER (PARTITION BY order_id ORDER BY seq), '') AS before
     FROM order_journal)
   SELECT (SELECT count(*) FROM changes c WHERE c.status <> c.before AND NOT EXISTS
            (SELECT 1 FROM order_outbox o WHERE o.order_id = c.order_id AND o.seq = c.seq))
        + (SELECT count(*) FROM order_outbox o WHERE NOT EXISTS
            (SELECT 1 FROM changes c WHERE c.order_id = o.order_id AND c.seq = o.seq AND c.status <> c.before))";

/// Rows of the outbox that do not match the journal's changes of status, and the reverse.
fn outbox_gaps(books: &Books) -> i64 {
    books.number("order", OUTBOX_GAPS)
}

/// What must hold for every order once all sagas have settled; one line a violation.
pub fn violations(books: impl Into<Books>) -> Vec<String> {
    let books = &books.into();
    let charges = charges(books);
    let (payments, unbalanced) = payment_ledger(books);
    let mut found = Vec::new();
    for (id, (status, total)) in orders(books) {
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
    let orders = orders(books);
    let unknown: Vec<_> = charges.keys().filter(|id| !orders.contains_key(*id)).cloned().collect();
    if !unknown.is_empty() {
        found.push(format!("charges without an order: {unknown:?}"));
    }
    if unbalanced != 0 {
        found.push(format!("payment's ledger is off balance by {unbalanced}"));
    }
    if outbox_gaps(books) != 0 {
        found.push(format!("{} outbox rows do not match the journal", outbox_gaps(books)));
    }
    found
}
