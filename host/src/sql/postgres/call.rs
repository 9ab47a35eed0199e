//! A call as the server sees it: prepared, sent, its rows read, its error judged.
//!
//! `settle-postgres` puts the text together and knows the codes. A call is prepared first: an error
//! until then leaves nothing behind. Once it is sent, only the server's own error says that nothing
//! was written; silence leaves the outcome unknown.

use std::sync::Arc;

use settle_postgres::{Call as Text, Failure, failure_of};
use tokio_postgres::{Row, Statement as Prepared};

use super::pool::Connection;
use super::value::{self, Parameter};
use crate::sql::{Error, Outcome, Statement, Value};

/// Text and parameters of one call.
pub struct Call {
    pub text: Arc<Text>,
    pub statements: Vec<Statement>,
}

/// Ready to be sent.
pub struct Ready<'a> {
    prepared: Prepared,
    params: Vec<Parameter<'a>>,
}

/// What came back: rows, and the count of the affected ones.
pub struct Made {
    rows: Vec<Row>,
    affected: u64,
}

/// Why nothing came back.
pub enum Trouble {
    /// The host refuses the call, or its rows.
    Host(Error),
    /// The server refused it, or the way to it broke.
    Server(tokio_postgres::Error),
}

impl Call {
    /// Errors: nothing was sent yet that could leave something behind.
    pub async fn prepare(&self, connection: &Connection) -> Result<Ready<'_>, Trouble> {
        let (Text::Plain { sql, .. } | Text::Counts { sql } | Text::Rows { sql, .. }) = &*self.text;
        let prepared = connection.prepare_cached(sql).await;
        let prepared = prepared.map_err(|error| Trouble::Host(before_it_ran(&error)))?;
        let params = self.statements.iter().flat_map(|statement| &statement.params);
        let params = value::bind(prepared.params(), params).map_err(Trouble::Host)?;
        Ok(Ready { prepared, params })
    }

    /// What each statement did.
    pub fn outcomes(&self, made: &Made) -> Result<Vec<Outcome>, Error> {
        match &*self.text {
            Text::Plain { .. } => Ok(vec![outcome_of(&made.rows, made.affected)?]),
            Text::Rows { expect, .. } => {
                let count = made.rows.len() as u64;
                if expect.is_some_and(|expected| expected != count) {
                    return Err(Error::Unmet(0));
                }
                Ok(vec![outcome_of(&made.rows, count)?])
            }
            Text::Counts { .. } => {
                let counted =
                    made.rows.first().ok_or_else(|| Error::Invalid("no counts came back".into()))?;
                let count = |index| match value::of_column(counted, index)? {
                    Value::Int64(count) => Ok(u64::try_from(count).unwrap_or_default()),
                    _ => Err(Error::Invalid("a count is not a number".into())),
                };
                (0..self.statements.len())
                    .map(|index| Ok(Outcome { columns: vec![], rows: vec![], affected: count(index)? }))
                    .collect()
            }
        }
    }
}

impl Ready<'_> {
    /// Its first poll sends it.
    pub async fn send(&self, connection: &Connection) -> Result<Made, Trouble> {
        let (rows, affected) = value::collect(connection, &self.prepared, &self.params).await?;
        Ok(Made { rows, affected })
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

pub fn after_it_was_sent(error: &tokio_postgres::Error) -> Error {
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

/// The server itself says that it did nothing.
pub fn is_refusal(error: &tokio_postgres::Error) -> bool {
    !matches!(after_it_was_sent(error), Error::OutcomeUnknown(_))
}
