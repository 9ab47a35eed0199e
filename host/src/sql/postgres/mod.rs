//! PostgreSQL: a pool of writers, a pool of readers that cannot write, one statement a call.
//!
//! `settle-postgres` puts a call together and judges errors; here is the connection. A statement is
//! prepared first: an error until then leaves nothing behind. Once it is sent, only the server's
//! own error says that nothing was written; silence leaves the outcome unknown.

mod composed;
mod pool;
pub mod provision;
mod value;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use settle_postgres::{Call, Failure, failure_of};
use tokio_postgres::Row;

use super::{Answer, Backend, Dialect, Durability, Error, Outcome, Statement, Value};
use composed::Composed;
use pool::{Connection, Pools};

/// Longest wait for the server's answer to one statement. The server ends it a little earlier.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(6);

/// One database of one service: its role, its schema.
pub struct Postgres {
    pools: Arc<Pools>,
    composed: Composed,
}

impl Postgres {
    /// `url` in libpq's syntax; `sslmode=require` checks the server's certificate against the
    /// system's roots. Nothing is connected yet.
    pub fn new(url: &str, connections: usize) -> Result<Self> {
        Ok(Self { pools: Arc::new(Pools::new(url, connections)?), composed: Composed::default() })
    }
}

impl Backend for Postgres {
    fn query(&self, statement: Statement) -> Answer<Outcome> {
        let pools = self.pools.clone();
        Box::pin(async move {
            let connection = pools.reader().await?;
            let outcome = run(connection, &statement.sql, &[&statement]).await.map_err(|failed| {
                // A read leaves nothing behind, whatever became of it.
                match failed {
                    Error::OutcomeUnknown(text) => Error::NotApplied(text),
                    other => other,
                }
            })?;
            let rows = outcome.0.len() as u64;
            if statement.expect.is_some_and(|expected| expected != rows) {
                return Err(Error::Unmet(0));
            }
            outcome_of(&outcome.0, 0)
        })
    }

    fn execute(&self, statements: Vec<Statement>, durability: Durability) -> Answer<Vec<Outcome>> {
        let (pools, call) = (self.pools.clone(), self.composed.call(&statements, durability));
        Box::pin(async move {
            let call = call?;
            let connection = pools.writer().await?;
            let every: Vec<&Statement> = statements.iter().collect();
            match &*call {
                Call::Plain { sql, .. } => {
                    let (rows, affected) = run(connection, sql, &every).await?;
                    Ok(vec![outcome_of(&rows, affected)?])
                }
                Call::Rows { sql, expect } => {
                    let (rows, _) = run(connection, sql, &every).await?;
                    let count = rows.len() as u64;
                    if expect.is_some_and(|expected| expected != count) {
                        return Err(Error::Unmet(0));
                    }
                    Ok(vec![outcome_of(&rows, count)?])
                }
                Call::Counts { sql } => {
                    let (rows, _) = run(connection, sql, &every).await?;
                    let counted = rows.first().ok_or_else(|| Error::Invalid("no counts came back".into()))?;
                    let count = |index| match value::of_column(counted, index)? {
                        Value::Int64(count) => Ok(u64::try_from(count).unwrap_or_default()),
                        _ => Err(Error::Invalid("a count is not a number".into())),
                    };
                    (0..statements.len())
                        .map(|index| Ok(Outcome { columns: vec![], rows: vec![], affected: count(index)? }))
                        .collect()
                }
            }
        })
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn now(&self) -> Answer<u64> {
        let sql = settle_postgres::NOW.to_owned();
        let answered = self.query(Statement { sql, params: vec![], expect: None });
        Box::pin(async move {
            match answered.await?.rows.first().and_then(|row| row.first()) {
                Some(Value::Int64(millis)) => Ok(u64::try_from(*millis).unwrap_or_default()),
                _ => Err(Error::Invalid("the server's clock is not a number".to_owned())),
            }
        })
    }
}

/// Prepares and runs one statement, with the parameters of all parts; answers rows and the count
/// of the affected ones.
async fn run(connection: Connection, sql: &str, parts: &[&Statement]) -> Result<(Vec<Row>, u64), Error> {
    let prepared = tokio::time::timeout(ANSWER_TIME_MAX, connection.prepare_cached(sql)).await;
    let prepared = match prepared {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(error)) => return Err(before_it_ran(&error)),
        Err(_) => {
            pool::discard(connection);
            return Err(Error::NotApplied("the database did not prepare in time".to_owned()));
        }
    };
    let params = value::bind(prepared.params(), parts.iter().flat_map(|part| &part.params))?;
    match tokio::time::timeout(ANSWER_TIME_MAX, value::collect(&connection, &prepared, &params)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(value::CollectError::TooLarge(text))) => Err(Error::TooLarge(text)),
        Ok(Err(value::CollectError::Sql(error))) => Err(after_it_was_sent(&error)),
        Err(_) => {
            pool::discard(connection);
            Err(Error::OutcomeUnknown("the database did not answer in time".to_owned()))
        }
    }
}

fn outcome_of(rows: &[Row], affected: u64) -> Result<Outcome, Error> {
    let columns = rows.first().map(|row| row.columns().iter().map(|c| c.name().to_owned()).collect());
    let rows = rows.iter().map(|row| (0..row.len()).map(|index| value::of_column(row, index)).collect());
    Ok(Outcome { columns: columns.unwrap_or_default(), rows: rows.collect::<Result<_, Error>>()?, affected })
}

fn before_it_ran(error: &tokio_postgres::Error) -> Error {
    match after_it_was_sent(error) {
        Error::OutcomeUnknown(text) => Error::NotApplied(text),
        other => other,
    }
}

fn after_it_was_sent(error: &tokio_postgres::Error) -> Error {
    let Some(told) = error.as_db_error() else {
        return Error::OutcomeUnknown(format!("the connection to the database was lost: {error}"));
    };
    let text = format!("{} (SQLSTATE {})", told.message(), told.code().code());
    match failure_of(told.code().code(), told.message()) {
        Failure::Unmet(index) => Error::Unmet(index),
        Failure::Conflict => Error::Conflict(text),
        Failure::NotApplied => Error::NotApplied(text),
        Failure::Ended => Error::OutcomeUnknown(text),
        Failure::Invalid => Error::Invalid(text),
        Failure::TooLarge => Error::TooLarge(text),
    }
}
