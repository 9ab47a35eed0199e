//! The storage port on SQLite: groups, guards, budgets, and what guests must not do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use settle_host::sql::sqlite::{OpenError, Sqlite};
use settle_host::sql::{Backend, Durability, Error, Outcome, Statement, Value};

fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.to_owned(), params, expect: None }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

async fn write(database: &Sqlite, statements: Vec<Statement>) -> Result<Vec<Outcome>, Error> {
    database.execute(statements, Durability::Durable).await
}

async fn one(database: &Sqlite, sql: &str) -> Result<Vec<Outcome>, Error> {
    write(database, vec![statement(sql, vec![])]).await
}

async fn count(database: &Sqlite) -> i64 {
    let found = database.query(statement("SELECT count(*) FROM t", vec![])).await.unwrap();
    match found.rows[0][0] {
        Value::Int64(count) => count,
        ref other => panic!("{other:?}"),
    }
}

async fn open(folder: &Path) -> Sqlite {
    let database = Sqlite::open(&folder.join("test.db")).unwrap();
    one(&database, "CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER CHECK (v < 1000))").await.unwrap();
    database
}

fn insert(key: &str, value: i64) -> Statement {
    statement("INSERT INTO t VALUES ($1, $2)", vec![text(key), Value::Int64(value)])
}

/// Puts calls into one group: the writer is busy with a slow call while they queue up.
async fn in_one_group(
    database: &Arc<Sqlite>,
    calls: Vec<Vec<Statement>>,
) -> Vec<Result<Vec<Outcome>, Error>> {
    let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT max(i) FROM n";
    let busy = database.execute(vec![statement(slow, vec![])], Durability::Durable);
    let calls: Vec<_> = calls.into_iter().map(|call| database.execute(call, Durability::Durable)).collect();
    busy.await.unwrap();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    answers
}

#[tokio::test]
async fn a_call_that_fails_leaves_the_others_of_its_group_unharmed() {
    let folder = tempfile::tempdir().unwrap();
    let database = Arc::new(open(folder.path()).await);
    let bad = [
        insert("first", 9),                                    // a duplicate
        statement("INSERT INTO t VALUES ('x', 1000)", vec![]), // a check
        statement("SELEKT", vec![]),                           // not SQL
        statement("COMMIT", vec![]),                           // tries to end the transaction
        statement("ROLLBACK", vec![]),
        statement("ROLLBACK TO call", vec![]),
        statement("RELEASE call", vec![]),
        statement("SAVEPOINT mine", vec![]),
        statement("INSERT INTO t VALUES ('y', 1); COMMIT", vec![]), // more than one statement
        statement("INSERT OR ROLLBACK INTO t VALUES ('first', 1)", vec![]), // rolls back the whole group
        statement("ATTACH 'other.db' AS other", vec![]),
        statement("PRAGMA synchronous = OFF", vec![]),
        statement("INSERT INTO t VALUES ($1, $2)", vec![text("z")]), // a missing parameter
    ];
    let mut calls = vec![vec![insert("first", 1)]];
    for (statement, number) in bad.into_iter().zip(0..) {
        calls.push(vec![insert(&format!("before-{number}"), 1), statement]);
        calls.push(vec![insert(&format!("good-{number}"), 1)]);
    }
    let answers = in_one_group(&database, calls).await;
    for (answer, number) in answers.iter().zip(0..) {
        let should_fail = number % 2 == 1;
        assert_eq!(answer.is_err(), should_fail, "call {number}: {answer:?}");
    }
    let expected = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(count(&database).await, i64::try_from(expected).unwrap());
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended_and_its_group_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = Arc::new(open(folder.path()).await);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let calls =
        vec![vec![insert("a", 1)], vec![insert("b", 1), statement(endless, vec![])], vec![insert("c", 1)]];
    let answers = in_one_group(&database, calls).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(answers[1], Err(Error::NotApplied(_))), "{:?}", answers[1]);
    assert_eq!(count(&database).await, 2);
}

/// The log is copied into the database and begins anew, however fast writes come.
#[tokio::test]
async fn the_log_does_not_grow_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let database = Arc::new(open(folder.path()).await);
    one(&database, "CREATE TABLE pages (n INTEGER PRIMARY KEY, bytes BLOB)").await.unwrap();
    const PAGES: u64 = 40_000;
    let mut longest = 0;
    for _ in 0..PAGES / 400 {
        let page = "INSERT INTO pages (bytes) VALUES (zeroblob(4000))";
        let calls: Vec<_> = (0..400)
            .map(|number| {
                let durability = if number % 2 == 0 { Durability::Durable } else { Durability::Relaxed };
                database.execute(vec![statement(page, vec![])], durability)
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        longest = longest.max(std::fs::metadata(folder.path().join("test.db-wal")).unwrap().len() / 4120);
    }
    assert!(longest < 20_000, "{longest} pages in the log of {PAGES} written");
    let found = database.query(statement("SELECT count(*) FROM pages", vec![])).await.unwrap();
    assert!(matches!(found.rows[0][0], Value::Int64(count) if count == PAGES as i64), "{found:?}");
    drop(database);
    let database = Sqlite::open(&folder.path().join("test.db")).unwrap();
    let checked = database.query(statement("SELECT count(*) FROM pages WHERE length(bytes) = 4000", vec![]));
    assert!(matches!(checked.await.unwrap().rows[0][0], Value::Int64(count) if count == PAGES as i64));
}

#[tokio::test]
async fn a_damaged_database_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.db");
    std::fs::write(&path, "this is not a database, but it is long enough to look at it").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Sqlite::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("bad.db"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// How many of a hundred calls, one after the other, are done when they have been made.
async fn at_once(database: &Sqlite, name: &str, durability: Durability) -> usize {
    let mut at_once = 0;
    for number in 0..100 {
        let mut call = database.execute(vec![insert(&format!("{name}-{number}"), 1)], durability);
        match futures_util::poll!(&mut call) {
            Poll::Ready(done) => at_once += usize::from(done.is_ok()),
            Poll::Pending => drop(call.await.unwrap()),
        }
    }
    at_once
}

#[tokio::test]
async fn what_takes_too_long_for_its_callers_thread_is_done_on_ours() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)";
    let read = statement(&format!("{long} SELECT max(i) FROM n"), vec![]);
    // Called, but not awaited: what is done by then was done on this thread.
    let mut slow = database.query(read.clone());
    assert!(futures_util::poll!(&mut slow).is_pending());
    assert!(matches!(slow.await.unwrap().rows[0][0], Value::Int64(300_000)));
    let key = format!("{long} INSERT INTO t SELECT 'long', max(i) / 1000 FROM n");
    let mut slow = database.execute(vec![statement(&key, vec![])], Durability::Relaxed);
    assert!(futures_util::poll!(&mut slow).is_pending());
    slow.await.unwrap();
    // The writer answers a little before it is idle.
    let at_once = at_once(&database, "quick", Durability::Relaxed).await;
    assert!(at_once > 50, "{at_once} of 100 were made on this thread");
    // A refusal is one at once, too.
    let refused = database.execute(vec![insert("quick-0", 1)], Durability::Relaxed).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(count(&database).await, 101);
    // Nothing waits for the disk in a relaxed call, and a durable one after it does.
    write(&database, vec![insert("durable", 1)]).await.unwrap();
    assert_eq!(count(&database).await, 102);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_calls_that_come_one_by_one_are_made_on_their_callers_thread() {
    // Its syncs take no time.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let database = Arc::new(open(folder.path()).await);
    let alone = at_once(&database, "alone", Durability::Durable).await;
    assert!(alone > 50, "{alone} of 100 were made on this thread");
    let refused = write(&database, vec![insert("alone-0", 1)]).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");

    let calls = (0..64).map(|number| vec![insert(&format!("crowd-{}", number % 63), 1)]).collect();
    let answers = in_one_group(&database, calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 63);
    let after = at_once(&database, "after", Durability::Durable).await;
    assert!((1..90).contains(&after), "{after} of 100 were made on this thread soon after a crowd");

    drop(database);
    assert_eq!(count(&Sqlite::open(&folder.path().join("test.db")).unwrap()).await, 100 + 63 + 100);
}

#[tokio::test]
async fn a_runtime_with_one_thread_does_not_wait_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let at_once = at_once(&database, "alone", Durability::Durable).await;
    // The writer's own thread may answer as fast, now and then.
    assert!(at_once < 50, "{at_once} of 100 were made on this thread");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_process_writes_no_caller_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let other = rusqlite::Connection::open(folder.path().join("test.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let calls = [Durability::Relaxed, Durability::Durable]
        .map(|durability| database.execute(vec![insert(&format!("{durability:?}"), 1)], durability));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    other.execute_batch("COMMIT").unwrap();
    for call in calls {
        call.await.unwrap();
    }
}
