//! One SQLite connection: opened with our settings, running guests' statements within a budget.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization, Wal};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql};

use crate::sql::{Error, Outcome, RESULT_BYTES_MAX, ROWS_MAX, Statement, Value};

/// Longest time that one statement may run.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(2);
/// The same on its caller's thread, where others wait for it: what needs more goes to ours.
pub const AT_ONCE_TIME_MAX: Duration = Duration::from_millis(2);
/// Longest wait for another process that writes. None on a caller's thread.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How many steps of SQLite's machine lie between two looks at the clock.
const STEPS_PER_LOOK: i32 = 20_000;
/// Prepared statements kept by a connection.
const STATEMENTS_CACHED: usize = 128;

/// Page caches, as SQLite takes them: negative for KiB. A reader's is void after each write of another.
const WRITER_CACHE: i32 = -8_192;
const READER_CACHE: i32 = -2_048;

/// The database file cannot be used. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path}: not a SQLite database, or damaged ({reason}). Restore it from a backup, or move it away to start empty"
    )]
    Corrupt { path: String, reason: String },
    #[error("{path}: cannot be opened: {reason}")]
    Unusable { path: String, reason: String },
}

/// A connection, and the switches that its callbacks look at.
pub struct Guarded {
    pub connection: Connection,
    /// While a guest's statement is prepared and run, transaction control is refused.
    in_guest: Arc<AtomicBool>,
    /// Pages in the log after the last commit.
    pub wal_pages: Arc<AtomicU64>,
    /// End of the running statement's time, in milliseconds since `started`; 0 for none.
    deadline: Arc<AtomicU64>,
    started: Instant,
    /// What a statement may take.
    budget_millis: AtomicU64,
}

/// Opens the database with our settings. `read_only` connections refuse every write.
pub fn open(path: &Path, read_only: bool) -> Result<Guarded, OpenError> {
    open_inner(path, read_only).map_err(|error| {
        let (path, reason) = (path.display().to_string(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Corrupt { path, reason },
            _ => OpenError::Unusable { path, reason },
        }
    })
}

fn open_inner(path: &Path, read_only: bool) -> rusqlite::Result<Guarded> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(LOCK_WAIT_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?; // the writer checkpoints between groups
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", if read_only { READER_CACHE } else { WRITER_CACHE })?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "query_only", read_only)?;
    // Reads the schema: a damaged or foreign file fails here, not at the first order.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let in_guest = Arc::new(AtomicBool::new(false));
    let seen = in_guest.clone();
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        authorize(&context, seen.load(Ordering::Relaxed))
    }))?;
    let (started, deadline) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let ends = deadline.clone();
    connection.progress_handler(
        STEPS_PER_LOOK,
        Some(move || {
            let end = ends.load(Ordering::Relaxed);
            end != 0 && millis_since(started) >= end
        }),
    )?;
    let wal_pages = Arc::new(AtomicU64::new(0));
    let counted = wal_pages.clone();
    connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
        counted.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    let budget_millis = AtomicU64::new(millis_of(STATEMENT_TIME_MAX));
    Ok(Guarded { connection, in_guest, wal_pages, deadline, started, budget_millis })
}

fn millis_since(started: Instant) -> u64 {
    millis_of(started.elapsed())
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Guests never control transactions, reach other files, or change settings.
fn authorize(context: &AuthContext<'_>, in_guest: bool) -> Authorization {
    if !in_guest {
        return Authorization::Allow;
    }
    match context.action {
        AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Pragma { .. } => Authorization::Deny,
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

/// What the writer says of transactions. Kept prepared, and so allowed already: `run_guarded` knows these
/// texts and refuses them to guests.
#[derive(Clone, Copy)]
pub enum Control {
    Begin,
    Commit,
    RollBack,
    Savepoint,
    RollBackTo,
    Release,
}

impl Control {
    const ALL: [Self; 6] =
        [Self::Begin, Self::Commit, Self::RollBack, Self::Savepoint, Self::RollBackTo, Self::Release];

    fn sql(self) -> &'static str {
        match self {
            Self::Begin => "BEGIN IMMEDIATE",
            Self::Commit => "COMMIT",
            Self::RollBack => "ROLLBACK",
            Self::Savepoint => "SAVEPOINT call",
            Self::RollBackTo => "ROLLBACK TO call",
            Self::Release => "RELEASE call",
        }
    }
}

impl Guarded {
    /// Begins, ends or divides a transaction.
    pub fn control(&self, control: Control) -> rusqlite::Result<()> {
        let mut prepared = self.connection.prepare_cached(control.sql())?;
        prepared.raw_query().next().map(drop)
    }

    /// From now on a statement has only this long, then it is interrupted, and no lock is waited for.
    pub fn hurry(&self, time: Duration) {
        self.limit(time, Duration::ZERO);
    }

    /// A statement has its usual time again.
    pub fn take_time(&self) {
        self.limit(STATEMENT_TIME_MAX, LOCK_WAIT_MAX);
    }

    fn limit(&self, statement: Duration, lock_wait: Duration) {
        self.budget_millis.store(millis_of(statement), Ordering::Relaxed);
        // Err: never, the handler is only replaced.
        let _ = self.connection.busy_timeout(lock_wait);
    }

    /// Runs a guest's statement. Errors leave it to the caller to roll back.
    pub fn run(&self, statement: &Statement) -> Result<Outcome, Error> {
        self.in_guest.store(true, Ordering::Relaxed);
        let budget = self.budget_millis.load(Ordering::Relaxed);
        self.deadline.store(millis_since(self.started).saturating_add(budget), Ordering::Relaxed);
        let outcome = self.run_guarded(statement);
        self.deadline.store(0, Ordering::Relaxed);
        self.in_guest.store(false, Ordering::Relaxed);
        outcome
    }

    /// The statements of one call, in a transaction that the caller holds: any error rolls it back.
    pub fn run_all(&self, statements: &[Statement]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(statements.len());
        for (statement, index) in statements.iter().zip(0..) {
            let mut outcome = self.run(statement)?;
            let rows = if outcome.affected > 0 { outcome.affected } else { outcome.rows.len() as u64 };
            if statement.expect.is_some_and(|expected| expected != rows) {
                return Err(Error::Unmet(index));
            }
            if statements.len() > 1 {
                // As on PostgreSQL, where the statements of a call become one.
                let writes = outcome.affected > 0 || !starts_with_select(&statement.sql);
                if writes && !outcome.columns.is_empty() {
                    let text = "a statement that returns rows stands alone in its call";
                    return Err(Error::Invalid(text.to_owned()));
                }
                outcome.rows.clear();
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn run_guarded(&self, statement: &Statement) -> Result<Outcome, Error> {
        // As the cache compares them.
        let text = statement.sql.trim();
        if Control::ALL.iter().any(|control| control.sql() == text) {
            return Err(Error::Invalid("transactions are the host's".to_owned()));
        }
        let mut prepared = self.connection.prepare_cached(text).map_err(error_of)?;
        let (wanted, given) = (prepared.parameter_count(), statement.params.len());
        if wanted != given {
            return Err(Error::Invalid(format!("{given} parameters for {wanted} places")));
        }
        for (param, place) in statement.params.iter().zip(1..) {
            param.check()?;
            prepared.raw_bind_parameter(place, param).map_err(error_of)?;
        }
        let (read_only, columns) = (prepared.readonly(), prepared.column_count());
        let names = prepared.column_names().map(str::to_owned).collect();
        let before = self.connection.total_changes();
        let rows = collect(prepared.raw_query(), columns)?;
        // `changes` alone would repeat the count of an earlier statement after DDL.
        let changed = !read_only && self.connection.total_changes() != before;
        let affected = if changed { self.connection.changes() } else { 0 };
        Ok(Outcome { columns: names, rows, affected })
    }
}

fn collect(mut rows: rusqlite::Rows<'_>, columns: usize) -> Result<Vec<Vec<Value>>, Error> {
    let (mut collected, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next().map_err(error_of)? {
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            let value = value_of(row.get_ref(column).map_err(error_of)?)?;
            bytes = bytes.saturating_add(value.bytes());
            values.push(value);
        }
        collected.push(values);
        if collected.len() > ROWS_MAX || bytes > RESULT_BYTES_MAX {
            return Err(Error::TooLarge(format!(
                "a result has at most {ROWS_MAX} rows and {RESULT_BYTES_MAX} bytes"
            )));
        }
    }
    Ok(collected)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Boolean(value) => ValueRef::Integer(i64::from(*value)),
            Value::Int64(value) => ValueRef::Integer(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

fn value_of(value: ValueRef<'_>) -> Result<Value, Error> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(value) => Ok(Value::Int64(value)),
        ValueRef::Real(_) => Err(Error::Invalid("floating point is not part of this port".to_owned())),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) => Err(Error::Invalid("a text column does not hold UTF-8".to_owned())),
        },
        ValueRef::Blob(bytes) => Ok(Value::Bytes(bytes.to_vec())),
    }
}

/// What an error of SQLite says of the call. Inside a transaction nothing is written yet, so no
/// error of a statement leaves its outcome unknown; only a failed commit does.
pub fn error_of(error: rusqlite::Error) -> Error {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Error::Conflict(text),
        Some(ErrorCode::TooBig) => Error::TooLarge(text),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OperationInterrupted
            | ErrorCode::ReadOnly,
        ) => Error::NotApplied(text),
        _ => Error::Invalid(text),
    }
}

fn starts_with_select(sql: &str) -> bool {
    sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
}
