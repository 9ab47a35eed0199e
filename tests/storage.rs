//! The storage port's contract, the same on every backend. `SETTLE_TEST_DATABASE` chooses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use settle_host::sql::{Backend, Dialect, Durability, Error, Outcome, Statement, Value};
use settle_tests::native::open_backend;

type Database = Arc<dyn Backend>;

fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.to_owned(), params, expect: None }
}

fn expecting(rows: u64, statement: Statement) -> Statement {
    Statement { expect: Some(rows), ..statement }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn insert(key: &str, value: i64) -> Statement {
    statement("INSERT INTO t (k, v) VALUES ($1, $2)", vec![text(key), Value::Int64(value)])
}

async fn write(database: &Database, statements: Vec<Statement>) -> Result<Vec<Outcome>, Error> {
    database.execute(statements, Durability::Durable).await
}

async fn count(database: &Database) -> i64 {
    let found = database.query(statement("SELECT count(*) FROM t", vec![])).await.unwrap();
    match found.rows[0][0] {
        Value::Int64(count) => count,
        ref other => panic!("{other:?}"),
    }
}

/// A database with one table: a key, a value below 1000, and one column of each other type.
async fn open() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = open_backend(&folder.path().join("test.db")).await;
    let table =
        "CREATE TABLE t (k TEXT PRIMARY KEY, v BIGINT CHECK (v < 1000), n BIGINT, b BYTEA, f BOOLEAN)";
    let table = match database.dialect() {
        Dialect::Sqlite => table.to_owned(),
        Dialect::Postgres => format!("DO $$ BEGIN {table}; END $$"),
    };
    write(&database, vec![statement(&table, vec![])]).await.unwrap();
    (folder, database)
}

#[tokio::test]
async fn every_value_type_comes_back_as_it_went_in() {
    let (_folder, database) = open().await;
    let columns = [
        ("n", vec![Value::Null, Value::Int64(i64::MIN), Value::Int64(-1), Value::Int64(i64::MAX)]),
        ("k", vec![text(""), text("' \" \\ $1 ; --"), text("Zürich, 客户 🛒"), text(&"x".repeat(1000))]),
        ("b", vec![Value::Null, Value::Bytes(vec![]), Value::Bytes((0..=255).collect())]),
    ];
    for (column, values) in columns {
        for (value, number) in values.into_iter().zip(0..) {
            let sql = if column == "k" {
                "INSERT INTO t (k) VALUES ($1)".to_owned()
            } else {
                format!("INSERT INTO t ({column}, k) VALUES ($1, '{column}{number}')")
            };
            write(&database, vec![statement(&sql, vec![value.clone()])]).await.unwrap();
            let key = if column == "k" { value.clone() } else { text(&format!("{column}{number}")) };
            let read = format!("SELECT {column} FROM t WHERE k = $1");
            let found = database.query(statement(&read, vec![key])).await.unwrap();
            assert_eq!(format!("{:?}", found.rows[0][0]), format!("{value:?}"));
        }
    }
    for flag in [true, false] {
        let sql = "SELECT count(*) FROM t WHERE $1 AND k = 'n0'";
        let found = database.query(statement(sql, vec![Value::Boolean(flag)])).await.unwrap();
        assert!(matches!(found.rows[0][0], Value::Int64(n) if n == i64::from(flag)), "{found:?}");
    }
    let refused = database.query(statement("SELECT 0.5", vec![])).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "no floating point: {refused:?}");
    let refused = write(&database, vec![insert("a\0b", 1)]).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "no zero in a text: {refused:?}");
}

#[tokio::test]
async fn the_statements_of_a_call_commit_together_or_not_at_all() {
    let (_folder, database) = open().await;
    let duplicate = write(&database, vec![insert("a", 1), insert("b", 1), insert("a", 2)]).await;
    assert!(matches!(duplicate, Err(Error::Conflict(_))), "{duplicate:?}");
    let check = write(&database, vec![insert("a", 1), insert("b", 1000)]).await;
    assert!(matches!(check, Err(Error::Conflict(_))));
    assert_eq!(count(&database).await, 0);
    let done = write(&database, vec![insert("a", 1), insert("b", 1)]).await.unwrap();
    assert_eq!(done.iter().map(|outcome| outcome.affected).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(count(&database).await, 2);
}

#[tokio::test]
async fn an_unmet_expectation_rolls_the_call_back_and_names_the_statement() {
    let (_folder, database) = open().await;
    write(&database, vec![insert("a", 1)]).await.unwrap();
    let rows = [
        ("UPDATE t SET v = 2 WHERE k = 'nobody'", 1),
        ("UPDATE t SET v = 2", 0),
        ("SELECT k FROM t WHERE v = 9", 1),
        ("INSERT INTO t (k, v) VALUES ('a', 5) ON CONFLICT (k) DO NOTHING", 1),
        ("UPDATE t SET v = 3 WHERE k = 'a'", 2),
    ];
    for (sql, expect) in rows {
        for durability in [Durability::Durable, Durability::Relaxed] {
            let guarded = expecting(expect, statement(sql, vec![]));
            let refused = database.execute(vec![insert("b", 1), guarded.clone()], durability).await;
            assert!(matches!(refused, Err(Error::Unmet(1))), "{sql}: {refused:?}");
            let alone = database.execute(vec![guarded], durability).await;
            assert!(matches!(alone, Err(Error::Unmet(0))), "{sql}: {alone:?}");
        }
    }
    let found = database.query(statement("SELECT v FROM t", vec![])).await.unwrap();
    assert!(matches!(found.rows[..], [ref row] if matches!(row[0], Value::Int64(1))), "{found:?}");
    let read = database.query(expecting(2, statement("SELECT k FROM t", vec![]))).await;
    assert!(matches!(read, Err(Error::Unmet(0))));
}

#[tokio::test]
async fn rows_of_a_write_come_back_when_it_stands_alone() {
    let (_folder, database) = open().await;
    let returning =
        |expect| Statement { expect, ..statement("UPDATE t SET v = v + 1 RETURNING k, v", vec![]) };
    for durability in [Durability::Durable, Durability::Relaxed] {
        assert!(matches!(database.execute(vec![returning(Some(1))], durability).await, Err(Error::Unmet(0))));
        let none = database.execute(vec![returning(None)], durability).await.unwrap();
        assert!(none[0].rows.is_empty() && none[0].affected == 0);
    }
    write(&database, vec![insert("a", 1), insert("b", 10)]).await.unwrap();
    for (durability, expect) in
        [(Durability::Durable, None), (Durability::Relaxed, None), (Durability::Relaxed, Some(2))]
    {
        let done = database.execute(vec![returning(expect)], durability).await.unwrap();
        assert_eq!((done[0].rows.len(), done[0].affected), (2, 2));
    }
    let refused = write(&database, vec![returning(Some(1))]).await;
    assert!(matches!(refused, Err(Error::Unmet(0))), "{refused:?}");
    let found = database.query(statement("SELECT v FROM t WHERE k = 'a'", vec![])).await.unwrap();
    assert!(matches!(found.rows[0][0], Value::Int64(4)), "{found:?}");
    let several = write(&database, vec![insert("c", 1), returning(None)]).await;
    assert!(matches!(several, Err(Error::Invalid(_))), "{several:?}");
    assert_eq!(count(&database).await, 2);
}

#[tokio::test]
async fn two_writers_that_race_for_one_guard_have_one_winner() {
    let (_folder, database) = open().await;
    let by_insert = |key: String| {
        let guard = "INSERT INTO t (k, v) VALUES ('guard', 1) ON CONFLICT DO NOTHING";
        vec![expecting(1, statement(guard, vec![])), insert(&key, 1)]
    };
    let by_update = |key: String| {
        let guard = "UPDATE t SET v = 2 WHERE k = 'guard' AND v = 1";
        vec![expecting(1, statement(guard, vec![])), insert(&key, 1)]
    };
    let by_key = |key: String| vec![insert("fence", 1), insert(&key, 1)];
    for round in 0..10 {
        for (kind, guarded) in
            [by_insert as fn(String) -> _, by_update, by_key].into_iter().zip(["i", "u", "k"])
        {
            let calls =
                (0..8).map(|number| write_owned(&database, kind(format!("{guarded}{round}-{number}"))));
            let answers = futures_util::future::join_all(calls).await;
            let won = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(won, 1, "{guarded} {round}: {answers:?}");
            let fair =
                |answer: &Result<_, _>| matches!(answer, Ok(_) | Err(Error::Unmet(0) | Error::Conflict(_)));
            assert!(answers.iter().all(fair), "{answers:?}");
        }
        write(&database, vec![statement("DELETE FROM t WHERE k IN ('guard', 'fence')", vec![])])
            .await
            .unwrap();
    }
    assert_eq!(count(&database).await, 30);
}

async fn write_owned(database: &Database, call: Vec<Statement>) -> Result<Vec<Outcome>, Error> {
    database.execute(call, Durability::Durable).await
}

#[tokio::test]
async fn a_relaxed_write_is_seen_at_once_and_in_order() {
    let (_folder, database) = open().await;
    for number in 0..50 {
        let durability = if number % 2 == 0 { Durability::Relaxed } else { Durability::Durable };
        database.execute(vec![insert(&number.to_string(), number)], durability).await.unwrap();
        assert_eq!(count(&database).await, number + 1);
    }
}

#[tokio::test]
async fn results_and_parameters_over_the_budget_are_refused() {
    let (_folder, database) = open().await;
    let rows =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n";
    assert!(matches!(database.query(statement(rows, vec![])).await, Err(Error::TooLarge(_))));
    let bytes = match database.dialect() {
        Dialect::Sqlite => "SELECT zeroblob(5000000)",
        Dialect::Postgres => "SELECT repeat('x', 5000000)",
    };
    assert!(matches!(database.query(statement(bytes, vec![])).await, Err(Error::TooLarge(_))));
    let param = vec![Value::Bytes(vec![0; 2_000_000])];
    let refused = write(&database, vec![statement("INSERT INTO t (k, b) VALUES ('a', $1)", param)]).await;
    assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
    assert_eq!(count(&database).await, 0, "and the connection still works");
}

#[tokio::test]
async fn a_query_cannot_write() {
    let (_folder, database) = open().await;
    for sql in [
        "INSERT INTO t (k, v) VALUES ('a', 1) RETURNING k",
        "WITH w AS (INSERT INTO t (k) VALUES ('a') RETURNING k) SELECT k FROM w",
        "DELETE FROM t",
        "CREATE TABLE u (a TEXT)",
    ] {
        assert!(database.query(statement(sql, vec![])).await.is_err(), "{sql}");
    }
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn what_belongs_to_the_host_is_refused_and_harms_nobody() {
    let (_folder, database) = open().await;
    let bad = [
        "SELEKT",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT mine",
        "BEGIN",
        "SET search_path = public",
        "INSERT INTO t (k) VALUES ('y'); COMMIT",
        "INSERT INTO t (k) VALUES ($1)",
        "VACUUM",
        "",
    ];
    for sql in bad {
        let refused = write(&database, vec![insert("x", 1), statement(sql, vec![])]).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{sql}: {refused:?}");
        let refused = write(&database, vec![statement(sql, vec![])]).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{sql}: {refused:?}");
    }
    assert!(matches!(write(&database, vec![]).await, Err(Error::Invalid(_)) | Ok(_)));
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended() {
    let (_folder, database) = open().await;
    let endless = match database.dialect() {
        Dialect::Sqlite => {
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        }
        Dialect::Postgres => "UPDATE t SET n = 1 WHERE pg_sleep(60) IS NULL",
    };
    write(&database, vec![insert("a", 1)]).await.unwrap();
    let ended = write(&database, vec![insert("b", 1), statement(endless, vec![])]).await;
    assert!(matches!(ended, Err(Error::NotApplied(_))), "{ended:?}");
    assert_eq!(count(&database).await, 1);
}
