//! SQLite of Spin: one file for all services, a connection for each call.
//!
//! A connection that is dropped inside a transaction rolls back. Waiting for a lock is done here
//! and not in SQLite: a wait there may hold up the very instance that has the lock.

use spin_sdk::sqlite::{Connection, Error as SpinError, Value as SpinValue};
use spin_sdk::wasip3::clocks::monotonic_clock;

use crate::bindings::exports::settle::sql::database::{Error, Outcome, Statement, Value};

/// Longest wait for the one writer's place.
const LOCK_WAITS_MAX: u32 = 200;
const LOCK_WAIT_NANOS: u64 = 10_000_000;

pub async fn query(statement: Statement) -> Result<Outcome, Error> {
    let connection = open().await?;
    pragma(&connection, "PRAGMA query_only = ON").await?;
    run(&connection, &statement).await
}

pub async fn execute(statements: Vec<Statement>, relaxed: bool) -> Result<Vec<Outcome>, Error> {
    for statement in &statements {
        refuse_control(&statement.sql)?;
    }
    let connection = open().await?;
    // In WAL mode a commit is synced by FULL and not by NORMAL; an earlier durable one stays before it.
    let sync = if relaxed { "PRAGMA synchronous = NORMAL" } else { "PRAGMA synchronous = FULL" };
    pragma(&connection, sync).await?;
    begin(&connection).await?;
    let outcomes = run_all(&connection, &statements).await?; // dropping the connection rolls back
    match plain(&connection, "COMMIT").await {
        Ok(()) => Ok(outcomes),
        Err(error) => Err(Error::OutcomeUnknown(text_of(&error))),
    }
}

async fn run_all(connection: &Connection, statements: &[Statement]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(statements.len());
    for (statement, index) in statements.iter().zip(0..) {
        let mut outcome = run(connection, statement).await?;
        let rows = if outcome.affected > 0 { outcome.affected } else { outcome.rows.len() as u64 };
        if statement.expect.is_some_and(|expect| expect != rows) {
            return Err(Error::Unmet(index));
        }
        if statements.len() > 1 {
            if outcome.affected > 0 && !outcome.columns.is_empty() {
                let text = "a statement that returns rows stands alone in its call";
                return Err(Error::Invalid(text.to_owned()));
            }
            outcome.rows.clear();
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn open() -> Result<Connection, Error> {
    let connection = Connection::open_default().await.map_err(|error| error_of(&error))?;
    pragma(&connection, "PRAGMA journal_mode = WAL").await?;
    Ok(connection)
}

async fn pragma(connection: &Connection, sql: &str) -> Result<(), Error> {
    plain(connection, sql).await.map_err(|error| match error_of(&error) {
        Error::Invalid(text) => Error::NotApplied(text),
        other => other,
    })
}

async fn plain(connection: &Connection, sql: &str) -> Result<(), SpinError> {
    connection.execute(sql, []).await?.collect().await.map(|_| ())
}

async fn begin(connection: &Connection) -> Result<(), Error> {
    for _ in 0..LOCK_WAITS_MAX {
        match plain(connection, "BEGIN IMMEDIATE").await {
            Ok(()) => return Ok(()),
            Err(error) if is_busy(&error) => monotonic_clock::wait_for(LOCK_WAIT_NANOS).await,
            Err(error) => return Err(error_of(&error)),
        }
    }
    Err(Error::NotApplied("the database stayed locked".to_owned()))
}

async fn run(connection: &Connection, statement: &Statement) -> Result<Outcome, Error> {
    let before = total_changes(connection).await?;
    let params: Vec<SpinValue> = statement.params.iter().map(value_to).collect();
    let result = connection.execute(&statement.sql, params).await.map_err(|error| error_of(&error))?;
    let columns = result.columns().to_vec();
    let rows = result.collect().await.map_err(|error| error_of(&error))?;
    let rows = rows.into_iter().map(|row| row.values.into_iter().map(value_of).collect::<Result<_, _>>());
    let rows = rows.collect::<Result<Vec<Vec<Value>>, Error>>()?;
    let affected = total_changes(connection).await?.saturating_sub(before);
    Ok(Outcome { columns, rows, affected })
}

/// `changes` alone would repeat the count of an earlier statement.
async fn total_changes(connection: &Connection) -> Result<u64, Error> {
    let counted = async { connection.execute("SELECT total_changes()", []).await?.collect().await };
    let rows = counted.await.map_err(|error| error_of(&error))?;
    Ok(rows.first().and_then(|row| row.get(0)).unwrap_or_default())
}

/// Transactions and settings belong to the adapter.
fn refuse_control(sql: &str) -> Result<(), Error> {
    let first: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    match first.to_ascii_uppercase().as_str() {
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "WITH" | "CREATE" => Ok(()),
        _ => Err(Error::Invalid(format!("a statement that begins with `{first}` is not allowed"))),
    }
}

fn value_to(value: &Value) -> SpinValue {
    match value {
        Value::Null => SpinValue::Null,
        Value::Boolean(value) => SpinValue::Integer(i64::from(*value)),
        Value::Int64(value) => SpinValue::Integer(*value),
        Value::Text(value) => SpinValue::Text(value.clone()),
        Value::Bytes(value) => SpinValue::Blob(value.clone()),
    }
}

fn value_of(value: SpinValue) -> Result<Value, Error> {
    match value {
        SpinValue::Null => Ok(Value::Null),
        SpinValue::Integer(value) => Ok(Value::Int64(value)),
        SpinValue::Text(value) => Ok(Value::Text(value)),
        SpinValue::Blob(value) => Ok(Value::Bytes(value)),
        SpinValue::Real(_) => Err(Error::Invalid("floating point is not part of this port".to_owned())),
    }
}

fn text_of(error: &SpinError) -> String {
    match error {
        SpinError::Io(text) => text.clone(),
        SpinError::NoSuchDatabase => "no such database: grant sqlite_databases = [\"default\"]".to_owned(),
        SpinError::AccessDenied => "access denied: grant sqlite_databases = [\"default\"]".to_owned(),
        SpinError::InvalidConnection => "the connection is not valid".to_owned(),
        SpinError::DatabaseFull => "the database is full".to_owned(),
    }
}

fn is_busy(error: &SpinError) -> bool {
    matches!(error, SpinError::Io(text) if text.contains("locked") || text.contains("busy"))
}

/// Spin gives SQLite's message and no code. Until the commit nothing is written.
fn error_of(error: &SpinError) -> Error {
    let text = text_of(error);
    match error {
        SpinError::Io(_) if text.contains("constraint failed") => Error::Conflict(text),
        SpinError::Io(_) if text.contains("too big") => Error::TooLarge(text),
        SpinError::Io(_) if is_busy(error) || text.contains("disk") || text.contains("full") => {
            Error::NotApplied(text)
        }
        SpinError::InvalidConnection | SpinError::DatabaseFull => Error::NotApplied(text),
        SpinError::Io(_) | SpinError::NoSuchDatabase | SpinError::AccessDenied => Error::Invalid(text),
    }
}
