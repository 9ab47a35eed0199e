//! `settle:sql/database`.

use settle_ports::{Database, Dialect, Durability, Outcome, Row, SqlError, Statement, Value};
use settle_types::Timestamp;

use super::bindings::settle::sql::database as wit;

/// A database that the host opened for this component.
#[derive(Debug)]
pub struct SqlDatabase(wit::Database);

impl SqlDatabase {
    /// Opens a database that the manifest grants.
    pub async fn open(name: &str) -> Result<Self, SqlError> {
        wit::Database::open(name.to_owned()).await.map(Self).map_err(error_of)
    }
}

impl Database for SqlDatabase {
    async fn query(&self, statement: Statement) -> Result<Outcome, SqlError> {
        self.0.query(statement_to(statement)).await.map(outcome_of).map_err(error_of)
    }

    async fn execute(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, SqlError> {
        let statements = statements.into_iter().map(statement_to).collect();
        let durability = match durability {
            Durability::Durable => wit::Durability::Durable,
            Durability::Relaxed => wit::Durability::Relaxed,
        };
        let outcomes = self.0.execute(statements, durability).await.map_err(error_of)?;
        Ok(outcomes.into_iter().map(outcome_of).collect())
    }

    fn dialect(&self) -> Dialect {
        match self.0.get_dialect() {
            wit::Dialect::Sqlite => Dialect::Sqlite,
            wit::Dialect::Postgres => Dialect::Postgres,
        }
    }

    async fn now(&self) -> Result<Timestamp, SqlError> {
        self.0.now().await.map(Timestamp::from_millis).map_err(error_of)
    }
}

fn statement_to(statement: Statement) -> wit::Statement {
    wit::Statement {
        sql: statement.sql.into_owned(),
        params: statement.params.into_iter().map(value_to).collect(),
        expect: statement.expect,
    }
}

fn value_to(value: Value) -> wit::Value {
    match value {
        Value::Null => wit::Value::Null,
        Value::Bool(value) => wit::Value::Boolean(value),
        Value::Int(value) => wit::Value::Int64(value),
        Value::Text(value) => wit::Value::Text(value),
        Value::Bytes(value) => wit::Value::Bytes(value),
    }
}

fn value_of(value: wit::Value) -> Value {
    match value {
        wit::Value::Null => Value::Null,
        wit::Value::Boolean(value) => Value::Bool(value),
        wit::Value::Int64(value) => Value::Int(value),
        wit::Value::Text(value) => Value::Text(value),
        wit::Value::Bytes(value) => Value::Bytes(value),
    }
}

fn outcome_of(outcome: wit::Outcome) -> Outcome {
    let rows = outcome.rows.into_iter();
    Outcome {
        rows: rows.map(|row| Row(row.into_iter().map(value_of).collect())).collect(),
        affected: outcome.affected,
    }
}

fn error_of(error: wit::Error) -> SqlError {
    match error {
        wit::Error::NotApplied(text) => SqlError::NotApplied(text),
        wit::Error::OutcomeUnknown(text) => SqlError::OutcomeUnknown(text),
        wit::Error::Conflict(text) => SqlError::Conflict(text),
        wit::Error::Invalid(text) => SqlError::Invalid(text),
        wit::Error::TooLarge(text) => SqlError::TooLarge(text),
        wit::Error::Unmet(index) => SqlError::Unmet(index),
    }
}
