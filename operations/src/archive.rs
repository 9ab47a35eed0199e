//! Finished orders leave the order service's database for a file of their own.
//!
//! Each batch is on the disk in the archive before it is deleted, so a crash leaves an order in both
//! and never in neither; the next run deletes it. An order stays as long as anybody can still move it
//! or ask again: while it is open, may be cancelled, or holds an idempotency key.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, TransactionBehavior};
use settle_types::Timestamp;

use crate::database;

/// Orders moved at once: the host waits for a batch no longer than for a slow fsync.
const BATCH: u32 = 200;
/// A running host's writes come in between two batches.
const PAUSE: Duration = Duration::from_millis(20);
/// Wait for the host's own transaction.
const BUSY_TIME_MAX: Duration = Duration::from_secs(5);

/// Tables, and their columns that name the order.
const TABLES: [(&str, &str); 3] =
    [("orders", "id"), ("order_journal", "order_id"), ("order_outbox", "order_id")];

/// Orders that nobody can move or ask for again. `?1` after this id, `?2` before this one, `?3` last
/// changed until, `?4` now, `?5` at most.
const FINISHED: &str = "
    INSERT INTO temp.chosen SELECT o.id FROM main.orders o
    JOIN main.order_journal placed ON placed.order_id = o.id AND placed.seq = 0
    WHERE o.id > ?1 AND o.id < ?2 AND o.updated_at <= ?3 AND o.due_at IS NULL
      AND o.status IN ('completed', 'payment_failed', 'cancelled')
      AND json_extract(placed.event, '$.placed.cancel_until') <= ?4
      AND (o.key_scope IS NULL OR o.key_expires_at <= ?4)
    ORDER BY o.id LIMIT ?5";

/// Moves orders that were last changed at `until` or before; answers how many.
///
/// Errors: no database there, or an archive of another version. What was moved until then is moved.
pub fn archive(data: &Path, to: &Path, until: Timestamp, now: Timestamp) -> Result<u64> {
    let mut connection = open(data, to)?;
    let (mut after, mut moved) = (String::new(), 0);
    while let Some(last) = choose(&connection, &after, until, now)? {
        copy(&mut connection)?;
        moved += delete(&mut connection)?;
        after = last;
        std::thread::sleep(PAUSE);
    }
    Ok(moved)
}

fn open(data: &Path, to: &Path) -> Result<Connection> {
    let connection = Connection::open(database(data, "order")?)?;
    connection.busy_timeout(BUSY_TIME_MAX)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?; // the host's writer does that
    let name = to.to_str().context("the archive's name is not UTF-8")?;
    connection.execute("ATTACH ?1 AS archive", [name]).with_context(|| format!("opening {name}"))?;
    connection.pragma_update(Some("archive"), "synchronous", "FULL")?;
    for (table, _) in TABLES {
        make_table(&connection, table)?;
    }
    connection.execute_batch("CREATE TEMP TABLE chosen (id TEXT PRIMARY KEY) WITHOUT ROWID")?;
    Ok(connection)
}

/// The archive's tables are defined as the database's own.
fn make_table(connection: &Connection, table: &str) -> Result<()> {
    let definition = |schema: &str| {
        let sql = format!("SELECT sql FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?1");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([table])?;
        rows.next()?.map(|row| row.get::<_, String>(0)).transpose()
    };
    let ours =
        definition("main")?.with_context(|| format!("there is no table {table}; has the host run?"))?;
    match definition("archive")? {
        None => {
            let created =
                ours.replacen(&format!("CREATE TABLE {table}"), &format!("CREATE TABLE archive.{table}"), 1);
            Ok(connection.execute_batch(&created)?)
        }
        Some(theirs) if theirs == ours => Ok(()),
        Some(_) => bail!("the archive was made by another version; name a new file with --to"),
    }
}

/// Chooses a batch; answers its last order, or `None` when all are moved.
fn choose(connection: &Connection, after: &str, until: Timestamp, now: Timestamp) -> Result<Option<String>> {
    connection.execute("DELETE FROM temp.chosen", [])?;
    let (until, now) = (millis(until)?, millis(now)?);
    // An id begins with its time, so younger orders are not even looked at.
    let before = format!("{:08x}-{:04x}-8", until >> 16, until & 0xffff);
    connection.execute(FINISHED, (after, before, until, now, BATCH))?;
    Ok(connection.query_row("SELECT max(id) FROM temp.chosen", [], |row| row.get(0))?)
}

fn millis(time: Timestamp) -> Result<i64> {
    Ok(i64::try_from(time.as_millis())?)
}

fn copy(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction()?;
    for (table, key) in TABLES {
        let sql = format!(
            "INSERT OR REPLACE INTO archive.{table}
             SELECT * FROM main.{table} WHERE {key} IN (SELECT id FROM temp.chosen)"
        );
        transaction.execute(&sql, [])?;
    }
    Ok(transaction.commit()?)
}

/// Deletes what the archive holds; an order that was changed since is left for the next run.
fn delete(connection: &mut Connection) -> Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let orders = transaction.execute(
        "DELETE FROM main.orders WHERE id IN (SELECT id FROM temp.chosen) AND updated_at =
           (SELECT kept.updated_at FROM archive.orders kept WHERE kept.id = main.orders.id)",
        [],
    )?;
    transaction.execute("DELETE FROM temp.chosen WHERE id IN (SELECT id FROM main.orders)", [])?;
    for table in ["order_journal", "order_outbox"] {
        let sql = format!("DELETE FROM main.{table} WHERE order_id IN (SELECT id FROM temp.chosen)");
        transaction.execute(&sql, [])?;
    }
    transaction.commit()?;
    Ok(orders as u64)
}
