//! PostgreSQL of Spin: pooled by address, one statement a call.

use settle_postgres::{Call, Failure, Part, compose_plainly, failure_of};
use spin_sdk::pg::{Connection, DbValue, Error as SpinError, ParameterValue, PgError, QueryError};

use crate::bindings::exports::settle::sql::database::{Error, Outcome, Statement, Value};

pub async fn query(url: &str, statement: Statement) -> Result<Outcome, Error> {
    let connection = open(url).await?;
    let rows = rows(&connection, statement.sql, statement.params).await.map_err(|error| match error {
        Error::OutcomeUnknown(text) => Error::NotApplied(text),
        other => other,
    })?;
    outcome_of(&rows, 0)
}

pub async fn execute(url: &str, statements: Vec<Statement>, relaxed: bool) -> Result<Vec<Outcome>, Error> {
    let call = {
        let parts: Vec<Part<'_>> = statements.iter().map(part_of).collect();
        compose_plainly(&parts, relaxed).map_err(Error::Invalid)?
    };
    let count = statements.len();
    let params = statements.into_iter().flat_map(|statement| statement.params).collect();
    let connection = open(url).await?;
    match call {
        Call::Plain { sql, returns_rows: true } => {
            let rows = rows(&connection, sql, params).await?;
            Ok(vec![outcome_of(&rows, rows.len() as u64)?])
        }
        Call::Plain { sql, returns_rows: false } => {
            let params: Vec<ParameterValue> = params.into_iter().map(value_to).collect();
            let affected = connection.execute(sql, params).await.map_err(error_of)?;
            Ok(vec![Outcome { columns: vec![], rows: vec![], affected }])
        }
        Call::Rows { sql, expect } => {
            let rows = rows(&connection, sql, params).await?;
            if expect.is_some_and(|expect| expect != rows.len() as u64) {
                return Err(Error::Unmet(0));
            }
            Ok(vec![outcome_of(&rows, rows.len() as u64)?])
        }
        Call::Counts { sql } => {
            let rows = rows(&connection, sql, params).await?;
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

pub async fn now(url: &str) -> Result<u64, Error> {
    let sql = settle_postgres::NOW.to_owned();
    let found = query(url, Statement { sql, params: vec![], expect: None }).await?;
    match found.rows.first().and_then(|row| row.first()) {
        Some(Value::Int64(millis)) => Ok(u64::try_from(*millis).unwrap_or_default()),
        _ => Err(Error::Invalid("the server's clock is not a number".to_owned())),
    }
}

async fn open(url: &str) -> Result<Connection, Error> {
    Connection::open(url).await.map_err(|error| Error::NotApplied(error.to_string()))
}

fn part_of(statement: &Statement) -> Part<'_> {
    Part { sql: &statement.sql, parameters: statement.params.len(), expect: statement.expect }
}

type Row = Vec<DbValue>;

async fn rows(connection: &Connection, sql: String, params: Vec<Value>) -> Result<Vec<Row>, Error> {
    let params: Vec<ParameterValue> = params.into_iter().map(value_to).collect();
    let (_columns, rows, result) = connection.query(sql, params).await.map_err(error_of)?.into_inner();
    let rows = rows.collect().await;
    result.await.map_err(|error| error_of(SpinError::PgError(error)))?;
    Ok(rows)
}

fn outcome_of(rows: &[Row], affected: u64) -> Result<Outcome, Error> {
    let all = rows.iter().map(|row| row.iter().map(value_of).collect::<Result<Vec<_>, _>>());
    Ok(Outcome { columns: vec![], rows: all.collect::<Result<_, _>>()?, affected })
}

fn value_to(value: Value) -> ParameterValue {
    match value {
        Value::Null => ParameterValue::DbNull,
        Value::Boolean(value) => ParameterValue::Boolean(value),
        Value::Int64(value) => ParameterValue::Int64(value),
        Value::Text(value) => ParameterValue::Str(value),
        Value::Bytes(value) => ParameterValue::Binary(value),
    }
}

fn value_of(value: &DbValue) -> Result<Value, Error> {
    match value {
        DbValue::DbNull => Ok(Value::Null),
        DbValue::Boolean(value) => Ok(Value::Boolean(*value)),
        DbValue::Int16(value) => Ok(Value::Int64(i64::from(*value))),
        DbValue::Int32(value) => Ok(Value::Int64(i64::from(*value))),
        DbValue::Int64(value) => Ok(Value::Int64(*value)),
        DbValue::Str(value) => Ok(Value::Text(value.clone())),
        DbValue::Binary(value) => Ok(Value::Bytes(value.clone())),
        _ => Err(Error::Invalid("a column has a type that is not part of this port".to_owned())),
    }
}

fn error_of(error: SpinError) -> Error {
    let SpinError::PgError(error) = error else { return Error::Invalid(error.to_string()) };
    match error {
        PgError::ConnectionFailed(text) => Error::NotApplied(text),
        PgError::QueryFailed(QueryError::DbError(told)) => {
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
        // The connection was lost, or the statement could not be sent: nobody can tell.
        PgError::QueryFailed(QueryError::Text(text)) | PgError::Other(text) => Error::OutcomeUnknown(text),
        PgError::BadParameter(text) | PgError::ValueConversionFailed(text) => Error::Invalid(text),
    }
}
