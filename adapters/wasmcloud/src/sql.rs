//! `settle:sql` over `wasmcloud:postgres`. The host connects a workload to one database, so that the
//! name of a database says nothing here: the manifest grants it.

use settle_postgres::{Call, Failure, Part, compose, failure_of};

use crate::Adapter;
use crate::bindings::exports::settle::sql::database::{
    self as port, Dialect, Durability, Error, Outcome, Statement, Value,
};
use crate::bindings::wasmcloud::postgres::query as host;
use crate::bindings::wasmcloud::postgres::types::{Error as HostError, PgValue};

/// Most bytes of one parameter, and most rows of one result, as on the other hosts.
const PARAM_BYTES_MAX: usize = 1024 * 1024;
const ROWS_MAX: usize = 10_000;

impl port::Guest for Adapter {
    type Database = Database;
}

pub struct Database;

impl port::GuestDatabase for Database {
    async fn open(_name: String) -> Result<port::Database, Error> {
        Ok(port::Database::new(Database))
    }

    async fn query(&self, statement: Statement) -> Result<Outcome, Error> {
        let expect = statement.expect;
        let rows = run(statement.sql, statement.params).await.map_err(|error| match error {
            Error::OutcomeUnknown(text) => Error::NotApplied(text),
            other => other,
        })?;
        if expect.is_some_and(|expect| expect != rows.len() as u64) {
            return Err(Error::Unmet(0));
        }
        outcome_of(&rows, 0)
    }

    async fn execute(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, Error> {
        let relaxed = matches!(durability, Durability::Relaxed);
        let call = {
            let parts: Vec<Part<'_>> = statements.iter().map(part_of).collect();
            compose(&parts, relaxed).map_err(Error::Invalid)?
        };
        let count = statements.len();
        let params = statements.into_iter().flat_map(|statement| statement.params).collect();
        match call {
            Call::Plain { sql, .. } => {
                let rows = run(sql, params).await?;
                Ok(vec![outcome_of(&rows, rows.len() as u64)?])
            }
            Call::Rows { sql, expect } => {
                let rows = run(sql, params).await?;
                if expect.is_some_and(|expect| expect != rows.len() as u64) {
                    return Err(Error::Unmet(0));
                }
                Ok(vec![outcome_of(&rows, rows.len() as u64)?])
            }
            Call::Counts { sql } => {
                let rows = run(sql, params).await?;
                let counted = rows.first().ok_or_else(|| Error::Invalid("no counts came back".to_owned()))?;
                let affected = |index| match counted.get(index).map(value_of) {
                    Some(Ok(Value::Int64(affected))) => Ok(u64::try_from(affected).unwrap_or_default()),
                    _ => Err(Error::Invalid("a count is not a number".to_owned())),
                };
                (0..count)
                    .map(|index| Ok(Outcome { columns: vec![], rows: vec![], affected: affected(index)? }))
                    .collect()
            }
        }
    }

    fn get_dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn now(&self) -> Result<u64, Error> {
        let sql = settle_postgres::NOW.to_owned();
        let rows = run(sql, vec![]).await?;
        match rows.first().and_then(|row| row.first()).map(value_of) {
            Some(Ok(Value::Int64(millis))) => Ok(u64::try_from(millis).unwrap_or_default()),
            _ => Err(Error::Invalid("the server's clock is not a number".to_owned())),
        }
    }
}

fn part_of(statement: &Statement) -> Part<'_> {
    Part { sql: &statement.sql, parameters: statement.params.len(), expect: statement.expect }
}

type Row = Vec<PgValue>;

async fn run(sql: String, params: Vec<Value>) -> Result<Vec<Row>, Error> {
    let params = params.into_iter().map(value_to).collect::<Result<Vec<_>, _>>()?;
    let (_columns, mut stream, result) = host::query(sql, params).await.map_err(error_of)?;
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await {
        rows.push(row);
        if rows.len() > ROWS_MAX {
            return Err(Error::TooLarge(format!("a result has at most {ROWS_MAX} rows")));
        }
    }
    result.await.map_err(error_of)?;
    Ok(rows)
}

fn outcome_of(rows: &[Row], affected: u64) -> Result<Outcome, Error> {
    let all = rows.iter().map(|row| row.iter().map(value_of).collect::<Result<Vec<_>, _>>());
    Ok(Outcome { columns: vec![], rows: all.collect::<Result<_, _>>()?, affected })
}

fn value_to(value: Value) -> Result<PgValue, Error> {
    let bytes = match &value {
        Value::Null | Value::Boolean(_) | Value::Int64(_) => 0,
        Value::Text(text) if text.contains('\0') => {
            return Err(Error::Invalid("a text holds no zero character".to_owned()));
        }
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    };
    if bytes > PARAM_BYTES_MAX {
        return Err(Error::TooLarge(format!("a parameter has at most {PARAM_BYTES_MAX} bytes")));
    }
    Ok(match value {
        Value::Null => PgValue::Null,
        Value::Boolean(value) => PgValue::Bool(value),
        Value::Int64(value) => PgValue::BigInt(value),
        Value::Text(value) => PgValue::Text(value),
        Value::Bytes(value) => PgValue::Bytea(value),
    })
}

fn value_of(value: &PgValue) -> Result<Value, Error> {
    match value {
        PgValue::Null => Ok(Value::Null),
        PgValue::Bool(value) | PgValue::Boolean(value) => Ok(Value::Boolean(*value)),
        PgValue::BigInt(value) | PgValue::Int8(value) => Ok(Value::Int64(*value)),
        PgValue::Integer(value) | PgValue::Int(value) | PgValue::Int4(value) => {
            Ok(Value::Int64(i64::from(*value)))
        }
        PgValue::Text(value) => Ok(Value::Text(value.clone())),
        PgValue::Bytea(value) => Ok(Value::Bytes(value.clone())),
        _ => Err(Error::Invalid("a column has a type that is not part of this port".to_owned())),
    }
}

fn error_of(error: HostError) -> Error {
    match error {
        HostError::ConnectionFailed(text) => Error::NotApplied(text),
        HostError::QueryFailed(told) => {
            let text = format!("{} (SQLSTATE {})", told.message, told.code);
            match failure_of(&told.code, &told.message) {
                Failure::Unmet(index) => Error::Unmet(index),
                Failure::Conflict => Error::Conflict(text),
                Failure::NotApplied => Error::NotApplied(text),
                Failure::Ended => Error::OutcomeUnknown(text),
                Failure::Invalid => Error::Invalid(text),
                Failure::TooLarge => Error::TooLarge(text),
            }
        }
        // The statement was on its way: nobody can tell.
        HostError::Timeout => Error::OutcomeUnknown("the database did not answer in time".to_owned()),
        HostError::Other(text) => Error::OutcomeUnknown(text),
        HostError::InvalidParams(text)
        | HostError::InvalidQuery(text)
        | HostError::ValueConversionFailed(text) => Error::Invalid(text),
        HostError::UnknownPreparedStatement => Error::Invalid("unknown prepared statement".to_owned()),
        HostError::AccessDenied => Error::Invalid("the host denies access to the database".to_owned()),
    }
}
