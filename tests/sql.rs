//! The storage port on SQLite: groups, guards, budgets, and what guests must not do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;

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

#[tokio::test]
async fn every_value_type_comes_back_as_it_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let values = vec![
        Value::Null,
        Value::Int64(i64::MIN),
        Value::Int64(i64::MAX),
        text(""),
        text("zero \0 inside, Zürich, 客户"),
        Value::Bytes(vec![]),
        Value::Bytes((0..=255).collect()),
    ];
    for value in values {
        let found = database.query(statement("SELECT $1", vec![value.clone()])).await.unwrap();
        assert_eq!(format!("{:?}", found.rows[0][0]), format!("{value:?}"));
    }
    let found = database.query(statement("SELECT $1", vec![Value::Boolean(true)])).await.unwrap();
    assert!(matches!(found.rows[0][0], Value::Int64(1)), "SQLite has no booleans");
    let refused = database.query(statement("SELECT 0.5", vec![])).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "no floating point");
}

#[tokio::test]
async fn the_statements_of_a_call_commit_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let duplicate = write(&database, vec![insert("a", 1), insert("b", 1), insert("a", 2)]).await;
    assert!(matches!(duplicate, Err(Error::Conflict(_))), "{duplicate:?}");
    let check = write(&database, vec![insert("a", 1), insert("b", 1000)]).await;
    assert!(matches!(check, Err(Error::Conflict(_))));
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn an_unmet_expectation_rolls_the_call_back_and_names_the_statement() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    one(&database, "INSERT INTO t VALUES ('a', 1)").await.unwrap();
    let rows = [
        ("UPDATE t SET v = 2 WHERE k = 'nobody'", 1),
        ("UPDATE t SET v = 2", 0),
        ("SELECT * FROM t WHERE v = 9", 1),
        ("INSERT INTO t VALUES ('a', 5) ON CONFLICT (k) DO NOTHING", 1),
        ("UPDATE t SET v = 3 WHERE k = 'a' RETURNING v", 2),
    ];
    for (sql, expect) in rows {
        let guarded = Statement { expect: Some(expect), ..statement(sql, vec![]) };
        let refused = write(&database, vec![insert("b", 1), guarded]).await;
        assert!(matches!(refused, Err(Error::Unmet(1))), "{sql}: {refused:?}");
        assert_eq!(count(&database).await, 1, "{sql}");
    }
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

#[tokio::test]
async fn results_and_parameters_over_the_budget_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let rows =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n";
    assert!(matches!(database.query(statement(rows, vec![])).await, Err(Error::TooLarge(_))));
    let bytes = "SELECT zeroblob(5000000)";
    assert!(matches!(database.query(statement(bytes, vec![])).await, Err(Error::TooLarge(_))));
    let param = vec![Value::Bytes(vec![0; 2_000_000])];
    assert!(matches!(database.query(statement("SELECT $1", param)).await, Err(Error::TooLarge(_))));
}

#[tokio::test]
async fn a_query_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let refused = database.query(statement("INSERT INTO t VALUES ('a', 1) RETURNING k", vec![])).await;
    assert!(refused.is_err());
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn two_writers_that_race_for_one_guard_have_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let database = Arc::new(open(folder.path()).await);
    let guarded = |key: &str| {
        vec![
            Statement {
                expect: Some(1),
                ..statement("INSERT INTO t VALUES ('guard', 1) ON CONFLICT DO NOTHING", vec![])
            },
            insert(key, 1),
        ]
    };
    let answers = in_one_group(&database, (0..20).map(|number| guarded(&number.to_string())).collect()).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(Error::Unmet(0)))));
    assert_eq!(count(&database).await, 2);
}

#[tokio::test]
async fn a_relaxed_write_is_seen_at_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    for number in 0..50 {
        let durability = if number % 2 == 0 { Durability::Relaxed } else { Durability::Durable };
        database.execute(vec![insert(&number.to_string(), number)], durability).await.unwrap();
        assert_eq!(count(&database).await, number + 1);
    }
    drop(database);
    assert_eq!(count(&Sqlite::open(&folder.path().join("test.db")).unwrap()).await, 50);
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
