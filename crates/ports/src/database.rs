//! `settle:sql/database`: statements in, rows out. See `wit/sql` for the promises.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;

use settle_types::Timestamp;

/// One column value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Int(i64::from(value))
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Value::Int(value.as_column())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// One statement with positional parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: Cow<'static, str>,
    pub params: Vec<Value>,
    /// Rows that it must affect or return; another count rolls the whole call back.
    pub expect: Option<u64>,
}

/// Starts a statement: `sql("...").bind(1).bind("x").expect_rows(1)`.
pub fn sql(sql: &'static str) -> Statement {
    Statement { sql: Cow::Borrowed(sql), params: Vec::new(), expect: None }
}

/// Several rows, at least one, by one statement. `into`: `INSERT INTO table (columns)`.
pub fn insert_rows<const COLUMNS: usize>(into: &str, rows: Vec<[Value; COLUMNS]>) -> Statement {
    let mut text =
        String::with_capacity(into.len().saturating_add(64).saturating_add(rows.len() * COLUMNS * 5));
    text.push_str(into);
    let mut params = Vec::with_capacity(rows.len() * COLUMNS);
    for row in rows {
        text.push_str(if params.is_empty() { " VALUES (" } else { ", (" });
        for (value, column) in row.into_iter().zip(0..) {
            params.push(value);
            // Err: a String takes any text.
            let _ = write!(text, "{}${}", if column == 0 { "" } else { ", " }, params.len());
        }
        text.push(')');
    }
    Statement { sql: Cow::Owned(text), params, expect: None }
}

impl Statement {
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.params.push(value.into());
        self
    }

    pub fn expect_rows(mut self, rows: u64) -> Self {
        self.expect = Some(rows);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Durable,
    Relaxed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// What one statement returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub rows: Vec<Row>,
    pub affected: u64,
}

/// Why a call did not succeed. Texts are for logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Nothing was written; retryable.
    #[error("not applied: {0}")]
    NotApplied(String),
    /// Read back before any retry.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// A constraint refused the write.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A defect of ours.
    #[error("invalid statement: {0}")]
    Invalid(String),
    #[error("too large: {0}")]
    TooLarge(String),
    /// The statement at this index met another row count; nothing was written.
    #[error("statement {0} met another number of rows than it expected")]
    Unmet(u32),
}

impl From<RowError> for SqlError {
    fn from(error: RowError) -> Self {
        SqlError::Invalid(error.to_string())
    }
}

/// One row, read by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);

/// A column does not hold what the code expects: a schema from another release, or a defect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} does not hold {wanted}")]
pub struct RowError {
    pub column: usize,
    pub wanted: &'static str,
}

impl Row {
    fn at<T>(&self, column: usize, wanted: &'static str, value: Option<T>) -> Result<T, RowError> {
        value.ok_or(RowError { column, wanted })
    }

    pub fn int(&self, column: usize) -> Result<i64, RowError> {
        let value = match self.0.get(column) {
            Some(Value::Int(value)) => Some(*value),
            Some(Value::Bool(value)) => Some(i64::from(*value)),
            _ => None,
        };
        self.at(column, "an integer", value)
    }

    pub fn time(&self, column: usize) -> Result<Timestamp, RowError> {
        self.int(column).map(Timestamp::from_column)
    }

    pub fn u32(&self, column: usize) -> Result<u32, RowError> {
        let value = u32::try_from(self.int(column)?).ok();
        self.at(column, "a count", value)
    }

    pub fn text(&self, column: usize) -> Result<&str, RowError> {
        let value = match self.0.get(column) {
            Some(Value::Text(value)) => Some(value.as_str()),
            _ => None,
        };
        self.at(column, "text", value)
    }

    pub fn is_null(&self, column: usize) -> bool {
        matches!(self.0.get(column), Some(Value::Null) | None)
    }

    pub fn text_opt(&self, column: usize) -> Result<Option<&str>, RowError> {
        if self.is_null(column) { Ok(None) } else { self.text(column).map(Some) }
    }

    pub fn time_opt(&self, column: usize) -> Result<Option<Timestamp>, RowError> {
        if self.is_null(column) { Ok(None) } else { self.time(column).map(Some) }
    }

    /// Parses a text column into a core type.
    pub fn parse<T: FromStr>(&self, column: usize, wanted: &'static str) -> Result<T, RowError> {
        let value = self.text(column)?.parse().ok();
        self.at(column, wanted, value)
    }
}

/// An open database. See `wit/sql/database.wit`.
#[allow(async_fn_in_trait)] // guests have one thread; nobody needs `Send` here
pub trait Database {
    async fn query(&self, statement: Statement) -> Result<Outcome, SqlError>;
    async fn execute(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, SqlError>;
    fn dialect(&self) -> Dialect;
    /// The database's clock: leases are compared by it.
    async fn now(&self) -> Result<Timestamp, SqlError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_statement_have_their_parameters_in_order() {
        let one = insert_rows("INSERT INTO t (a)", vec![[Value::Int(1)]]);
        assert_eq!((&*one.sql, one.expect), ("INSERT INTO t (a) VALUES ($1)", None));
        let several =
            insert_rows("INSERT INTO t (a, b)", vec![["x".into(), Value::Null], ["y".into(), 2_i64.into()]]);
        assert_eq!(several.sql, "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)");
        assert_eq!(several.params, ["x".into(), Value::Null, "y".into(), Value::Int(2)]);
    }
}
