//! SQL over the lattice's PostgreSQL provider. The link connects a component to one database, so
//! that the name of a database says nothing here: the manifest grants it.
//!
//! The provider answers every refusal of the server with the words "db error", without code or
//! message. So that a write knows whether a guard, a constraint or the server refused it, a function
//! in the database runs it and answers with the SQLSTATE.

use settle_ports::{Database, Dialect, Durability, Outcome, Row, SqlError, Statement, Value};
use settle_postgres::{Call, Failure, Part, compose, failure_of, quoted_literal, written_out};
use settle_types::Timestamp;

use super::bindings::wasmcloud::postgres::query::query;
use super::bindings::wasmcloud::postgres::types::{PgValue, QueryError, ResultRow};

/// Runs a composed write, whose one row is all counts; undoes it and tells why when it is refused.
const ATTEMPT: &str = "
CREATE OR REPLACE FUNCTION settle_attempt(statement text) RETURNS TABLE (state text, told text)
LANGUAGE plpgsql AS $settle$
DECLARE counts record;
BEGIN
  EXECUTE statement INTO counts;
  RETURN QUERY SELECT '00000', CAST(counts AS text);
EXCEPTION WHEN OTHERS THEN
  RETURN QUERY SELECT SQLSTATE, SQLERRM;
END $settle$";

/// What the provider says of any refusal of the server.
const REFUSED: &str = "db error";

/// The database that this component is linked to.
#[derive(Debug)]
pub struct SqlDatabase;

#[allow(clippy::unused_async)] // as in the other edition
impl SqlDatabase {
    pub async fn open(_name: &str) -> Result<Self, SqlError> {
        Ok(Self)
    }
}

impl Database for SqlDatabase {
    async fn query(&self, statement: Statement) -> Result<Outcome, SqlError> {
        let rows = run(&statement.sql, statement.params).map_err(nothing_written)?;
        met(statement.expect, &rows)?;
        outcome_of(&rows, 0)
    }

    async fn execute(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, SqlError> {
        let relaxed = matches!(durability, Durability::Relaxed);
        let parts: Vec<Part<'_>> = statements.iter().map(part_of).collect();
        let call = compose(&parts, relaxed).map_err(SqlError::Invalid)?;
        let count = statements.len();
        let params: Vec<Value> = statements.into_iter().flat_map(|statement| statement.params).collect();
        match call {
            Call::Plain { sql, .. } => {
                let rows = run(&sql, params)?;
                Ok(vec![outcome_of(&rows, rows.len() as u64)?])
            }
            Call::Rows { sql, expect } => {
                let rows = run(&sql, params)?;
                met(expect, &rows)?;
                Ok(vec![outcome_of(&rows, rows.len() as u64)?])
            }
            Call::Counts { sql } => {
                let counts = attempt(&sql, &params)?;
                let affected = |index| counts.get(index).copied().ok_or_else(|| invalid("a count"));
                (0..count).map(|index| Ok(Outcome { rows: vec![], affected: affected(index)? })).collect()
            }
        }
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn now(&self) -> Result<Timestamp, SqlError> {
        let rows = run(settle_postgres::NOW, vec![])?;
        let row = rows.first().map(row_of).transpose()?.unwrap_or_default();
        Ok(row.time(0)?)
    }
}

fn part_of(statement: &Statement) -> Part<'_> {
    Part { sql: &statement.sql, parameters: statement.params.len(), expect: statement.expect }
}

fn met(expect: Option<u64>, rows: &[ResultRow]) -> Result<(), SqlError> {
    match expect {
        Some(expect) if expect != rows.len() as u64 => Err(SqlError::Unmet(0)),
        _ => Ok(()),
    }
}

fn run(sql: &str, params: Vec<Value>) -> Result<Vec<ResultRow>, SqlError> {
    let params: Vec<PgValue> = params.into_iter().map(value_to).collect();
    query(sql, &params).map_err(error_of)
}

fn outcome_of(rows: &[ResultRow], affected: u64) -> Result<Outcome, SqlError> {
    Ok(Outcome { rows: rows.iter().map(row_of).collect::<Result<_, _>>()?, affected })
}

fn row_of(row: &ResultRow) -> Result<Row, SqlError> {
    row.iter().map(|entry| value_of(&entry.value)).collect::<Result<_, _>>().map(Row)
}

fn value_to(value: Value) -> PgValue {
    match value {
        Value::Null => PgValue::Null,
        Value::Bool(value) => PgValue::Bool(value),
        Value::Int(value) => PgValue::BigInt(value),
        Value::Text(value) => PgValue::Text(value),
        Value::Bytes(value) => PgValue::Bytea(value),
    }
}

fn value_of(value: &PgValue) -> Result<Value, SqlError> {
    match value {
        PgValue::Null => Ok(Value::Null),
        PgValue::Bool(value) | PgValue::Boolean(value) => Ok(Value::Bool(*value)),
        PgValue::BigInt(value) | PgValue::Int8(value) => Ok(Value::Int(*value)),
        PgValue::Integer(value) | PgValue::Int(value) | PgValue::Int4(value) => {
            Ok(Value::Int(i64::from(*value)))
        }
        PgValue::Text(value) => Ok(Value::Text(value.clone())),
        PgValue::Bytea(value) => Ok(Value::Bytes(value.clone())),
        _ => Err(invalid("a column's type")),
    }
}

fn invalid(what: &str) -> SqlError {
    SqlError::Invalid(format!("{what} is not part of this port"))
}

/// A read that failed has changed nothing.
fn nothing_written(error: SqlError) -> SqlError {
    match error {
        SqlError::OutcomeUnknown(text) if text.contains(REFUSED) => SqlError::Invalid(text),
        SqlError::OutcomeUnknown(text) => SqlError::NotApplied(text),
        other => other,
    }
}

/// Runs a write by the function; the counts of its parts.
fn attempt(sql: &str, params: &[Value]) -> Result<Vec<u64>, SqlError> {
    let literals: Vec<String> = params.iter().map(literal).collect();
    let statement = Value::Text(written_out(sql, &literals).map_err(SqlError::Invalid)?);
    let call = || run("SELECT state, told FROM settle_attempt($1)", vec![statement.clone()]);
    let rows = match call() {
        Err(SqlError::OutcomeUnknown(text)) if text.contains(REFUSED) && !has_function()? => {
            // Nothing ran: the function is not there. Another instance may be making it.
            let _racing = run(ATTEMPT, vec![]);
            call()?
        }
        other => other?,
    };
    let row = rows.first().map(row_of).transpose()?.unwrap_or_default();
    let (state, told) = (row.text(0)?, row.text(1)?);
    if state != "00000" {
        let text = format!("{told} (SQLSTATE {state})");
        return Err(match failure_of(state, told) {
            Failure::Unmet(index) => SqlError::Unmet(index),
            Failure::Conflict => SqlError::Conflict(text),
            // The function undid it, whatever it was.
            Failure::NotApplied | Failure::Ended => SqlError::NotApplied(text),
            Failure::Invalid => SqlError::Invalid(text),
            Failure::TooLarge => SqlError::TooLarge(text),
        });
    }
    let counts = told.trim_matches(['(', ')']).split(',');
    counts.map(|count| count.parse().map_err(|_| invalid("a count"))).collect()
}

fn has_function() -> Result<bool, SqlError> {
    let found = run("SELECT to_regprocedure('settle_attempt(text)') IS NOT NULL", vec![]);
    let rows = found.map_err(nothing_written)?;
    Ok(matches!(rows.first().map(row_of).transpose()?, Some(Row(values)) if values == [Value::Bool(true)]))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Text(value) => quoted_literal(value),
        Value::Bytes(value) => {
            let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("'\\x{digits}'")
        }
    }
}

fn error_of(error: QueryError) -> SqlError {
    match error {
        QueryError::InvalidParams(text) | QueryError::InvalidQuery(text) => SqlError::Invalid(text),
        QueryError::Unexpected(text) if text.contains("connection pool") || text.contains("from pool") => {
            SqlError::NotApplied(text)
        }
        QueryError::Unexpected(text) => SqlError::OutcomeUnknown(text),
    }
}
