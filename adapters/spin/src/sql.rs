//! `settle:sql`: which backend a database has, and what all of them refuse.

use std::time::{SystemTime, UNIX_EPOCH};

use spin_sdk::variables;

use crate::bindings::exports::settle::sql::database::{
    self as port, Dialect, Durability, Error, Outcome, Statement, Value,
};
use crate::{Adapter, postgres, sqlite};

/// Most bytes of one parameter, as on the other hosts.
const PARAM_BYTES_MAX: usize = 1024 * 1024;
/// Most rows of one result.
pub const ROWS_MAX: usize = 10_000;

impl port::Guest for Adapter {
    type Database = Database;
}

/// An open database. Spin pools PostgreSQL's connections; SQLite is opened for each call.
pub enum Database {
    Sqlite,
    Postgres { url: String },
}

impl port::GuestDatabase for Database {
    async fn open(name: String) -> Result<port::Database, Error> {
        let database = match variables::get(format!("database_{name}")).await {
            Ok(url) if !url.is_empty() => Database::Postgres { url },
            Ok(_) | Err(variables::Error::Undefined(_)) => Database::Sqlite,
            Err(error) => return Err(Error::NotApplied(error.to_string())),
        };
        Ok(port::Database::new(database))
    }

    async fn query(&self, statement: Statement) -> Result<Outcome, Error> {
        check(std::slice::from_ref(&statement))?;
        let expect = statement.expect;
        let outcome = match self {
            Database::Sqlite => sqlite::query(statement).await?,
            Database::Postgres { url } => postgres::query(url, statement).await?,
        };
        let rows = outcome.rows.len();
        if expect.is_some_and(|expect| expect != rows as u64) {
            return Err(Error::Unmet(0));
        }
        if rows > ROWS_MAX {
            return Err(Error::TooLarge(format!("a result has at most {ROWS_MAX} rows")));
        }
        Ok(outcome)
    }

    async fn execute(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, Error> {
        check(&statements)?;
        let relaxed = matches!(durability, Durability::Relaxed);
        match self {
            Database::Sqlite => sqlite::execute(statements, relaxed).await,
            Database::Postgres { url } => postgres::execute(url, statements, relaxed).await,
        }
    }

    fn get_dialect(&self) -> Dialect {
        match self {
            Database::Sqlite => Dialect::Sqlite,
            Database::Postgres { .. } => Dialect::Postgres,
        }
    }

    async fn now(&self) -> Result<u64, Error> {
        match self {
            Database::Sqlite => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Database::Postgres { url } => postgres::now(url).await,
        }
    }
}

fn check(statements: &[Statement]) -> Result<(), Error> {
    for value in statements.iter().flat_map(|statement| &statement.params) {
        let bytes = match value {
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
    }
    Ok(())
}
