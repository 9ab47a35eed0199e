//! The application on PostgreSQL: several hosts on one server, hosts and servers killed under load,
//! and every mistake of set-up told clearly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{Either, join, join_all, select};
use settle_host::sql::postgres::Postgres;
use settle_host::sql::{Backend as _, Durability, Error, Outcome, Statement, Value};
use settle_tests::acquirer_ledger::{Books, orders, violations};
use settle_tests::client::{Client, one_item, one_item_by};
use settle_tests::host::{Host, command};
use settle_tests::postgres::{Server, client, shared};
use settle_tests::shoppers::{Dice, Told, histogram, seed, shop, wait_until_settled};

const CLIENTS: u64 = 16;
/// Longest time from a host's death to the end of its sagas: order's lease, then payment's, which began
/// later. Within it the sagas end even on a machine whose disk holds everything up for seconds.
const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(15 + 15);

/// Secrets that several hosts share, so that a token of one is good at the other.
const SHARED_SECRETS: [&str; 4] = [
    "--set",
    "token_signing_key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    "--set",
    "order_client_secret=a-long-shared-secret-of-the-order-service",
];

fn start(data: &Path, url: &str) -> Host {
    let database = format!("database={url}");
    let mut args = vec!["--set", &database];
    args.extend(SHARED_SECRETS);
    Host::start_in(data, &args)
}

fn folder(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// What a host says that must not start.
fn refusal(url: &str) -> String {
    let data = tempfile::tempdir().unwrap();
    let output = command(data.path()).args(["--set", &format!("database={url}")]).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

// ---- set-up ----

#[tokio::test]
async fn mistakes_of_set_up_are_told_clearly_and_change_nothing() {
    let url = shared().database().await;
    let (before, database) = url.rsplit_once('/').unwrap();
    let port_closed = "postgres://postgres@127.0.0.1:1/postgres";
    let wrong_password = url.replace("a%20long", "a%20wrong");
    client(&url)
        .await
        .batch_execute("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN PASSWORD 'weak'")
        .await
        .unwrap();
    let weak = format!("postgres://weak:weak@{}/{database}", before.split_once('@').unwrap().1);
    let rows = [
        ("mysql://x", "begins with postgres://"),
        ("postgres://[", "cannot be read"),
        (port_closed, "check that the server runs"),
        (&wrong_password, "check user, password"),
        (&format!("{before}/nowhere"), "create the database first"),
        (&weak, "infra/postgres/roles.sql"),
    ];
    for (wrong, expected) in rows {
        let told = refusal(wrong);
        assert!(told.contains(expected), "{wrong}: {told}");
        assert!(!told.contains("a%20long") && !told.contains("long random"), "no password: {told}");
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'settle%'";
    let made: i64 = client(&url).await.query_one(schemas, &[]).await.unwrap().get(0);
    assert_eq!(made, 0, "nothing half-made");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (url, data) = (shared().database().await, tempfile::tempdir().unwrap());
    drop(start(data.path(), &url));
    let newer = "INSERT INTO settle_order.schema_versions VALUES ('order', 99, 1, 1)";
    client(&url).await.batch_execute(newer).await.unwrap();
    let told = refusal(&url);
    assert!(told.contains("newer than this release"), "{told}");
}

#[tokio::test]
async fn hosts_that_start_together_migrate_once_and_share_the_orders() {
    let (url, data) = (shared().database().await, tempfile::tempdir().unwrap());
    let hosts: Vec<Host> = std::thread::scope(|scope| {
        let (data, url) = (data.path(), &url);
        let starting: Vec<_> = (0..3)
            .map(|number| scope.spawn(move || start(&folder(data, &number.to_string()), url)))
            .collect();
        starting.into_iter().map(|host| host.join().unwrap()).collect()
    });
    let clients: Vec<Client> = {
        let first = hosts[0].client().admin().await;
        hosts.iter().map(|host| host.client().with_token(&first.token)).collect()
    };
    // One key at three hosts: one order.
    let body = one_item("book", 1250);
    let placed = join_all(clients.iter().map(|client| client.place("k", &body))).await;
    let ids: Vec<_> = placed.iter().map(|answer| answer.json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
    let versions = "SELECT count(*) FROM settle_order.schema_versions";
    let count: i64 = client(&url).await.query_one(versions, &[]).await.unwrap().get(0);
    assert_eq!(count, i64::try_from(settle_order_core::SCHEMA.migrations.len()).unwrap(), "each once");
    assert!(violations(Books::Server(url)).is_empty());
}

#[tokio::test]
async fn a_service_cannot_read_anothers_tables() {
    let (url, data) = (shared().database().await, tempfile::tempdir().unwrap());
    drop(start(data.path(), &url));
    let administrator = client(&url).await;
    let services = ["identity", "order", "payment", "acquirer"];
    let tables = ["identity_users", "orders", "payments", "acquirer_charges"];
    for service in services {
        for (other, table) in services.into_iter().zip(tables) {
            let sql = format!(
                "SELECT has_schema_privilege('settle_{service}', 'settle_{other}', 'USAGE')
                     OR has_schema_privilege('settle_{service}', 'settle_{other}', 'CREATE')"
            );
            let may: bool = administrator.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(may, service == other, "{service} and {other}'s {table}");
        }
    }
}

#[tokio::test]
async fn a_full_pool_and_a_server_that_is_away_leave_nothing_behind() {
    let server = Server::start(&["fsync=off"]);
    let url = server.database().await;
    let database = Arc::new(Postgres::new(&url, 2).unwrap());
    let write = |sql: &str| database.execute(vec![statement(sql)], Durability::Durable);
    write("DO $$ BEGIN CREATE TABLE t (k BIGINT); END $$").await.unwrap();
    let slow = tokio::spawn(write("INSERT INTO t SELECT 1 FROM (SELECT pg_sleep(4)) AS s"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = write("INSERT INTO t VALUES (2)").await;
    assert!(
        matches!(&refused, Err(Error::NotApplied(text)) if text.contains("no free connection")),
        "{refused:?}"
    );
    slow.await.unwrap().unwrap();
    // The answer to a write that runs while the server dies never comes.
    let cut = tokio::spawn(write("INSERT INTO t SELECT 3 FROM (SELECT pg_sleep(4)) AS s"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop(libc::SIGQUIT);
    let unknown = cut.await.unwrap();
    assert!(matches!(unknown, Err(Error::OutcomeUnknown(_))), "{unknown:?}");
    let away = write("INSERT INTO t VALUES (4)").await;
    assert!(matches!(away, Err(Error::NotApplied(_))), "{away:?}");
    server.restart();
    write("INSERT INTO t VALUES (5)").await.unwrap();
    let found = database.query(statement("SELECT count(*), sum(k)::bigint FROM t")).await.unwrap();
    assert_eq!(format!("{:?}", found.rows[0]), "[Value::Int64(2), Value::Int64(6)]");
}

// ---- calls that come together ----

/// A table of keys and notes, on the shared server, and its administrator's URL.
async fn table_of_notes() -> (Postgres, String) {
    let url = shared().database().await;
    let database = Postgres::new(&url, 15).unwrap();
    let table = "DO $$ BEGIN CREATE TABLE t (k BIGINT PRIMARY KEY, note TEXT); END $$";
    write(&database, table).await.unwrap();
    (database, url)
}

fn statement(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), params: vec![], expect: None }
}

async fn write(database: &Postgres, sql: &str) -> Result<Vec<Outcome>, Error> {
    database.execute(vec![statement(sql)], Durability::Durable).await
}

async fn insert(database: &Postgres, key: usize) -> Result<Vec<Outcome>, Error> {
    write(database, &format!("INSERT INTO t VALUES ({key})")).await
}

async fn numbers(database: &Postgres, sql: &str) -> Vec<i64> {
    let found = database.query(statement(sql)).await.unwrap();
    let number = |row: &Vec<Value>| match row[0] {
        Value::Int64(number) => number,
        ref other => panic!("{other:?}"),
    };
    found.rows.iter().map(number).collect()
}

#[tokio::test]
async fn calls_that_wait_share_a_transaction() {
    let (database, _) = table_of_notes().await;
    let answers = join_all((0..65).map(|key| insert(&database, key))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|done| done[0].affected == 1)));
    // One sets out alone; the other 64 go by sixteens.
    let transactions = "SELECT count(DISTINCT xmin::text) FROM t";
    assert_eq!(numbers(&database, transactions).await, [1 + 4]);
}

#[tokio::test]
async fn a_call_that_fails_leaves_those_it_travels_with_unharmed() {
    let (database, _) = table_of_notes().await;
    insert(&database, 3).await.unwrap();
    let nothing = Statement { expect: Some(1), ..statement("DELETE FROM t WHERE k = -1") };
    let unmet = || database.execute(vec![nothing.clone(), statement("DELETE FROM t")], Durability::Durable);
    let rows = [
        (3, "INSERT INTO t VALUES (3)", "Conflict"),
        (20, "INSERT INTO t VALUES ($1)", "Invalid"),
        (36, "INSERT INTO t VALUES (1 / 0)", "Invalid"),
        (37, "COMMIT", "Invalid"),
    ];
    let calls = (0..50).map(async |key| match rows.iter().find(|(wrong, ..)| *wrong == key) {
        Some((_, sql, _)) => write(&database, sql).await,
        None if key == 21 => unmet().await,
        None => insert(&database, key).await,
    });
    let answers = join_all(calls).await;
    for (key, sql, expected) in rows {
        let told = format!("{:?}", answers[key].as_ref().unwrap_err());
        assert!(told.starts_with(&format!("Error::{expected}")), "{sql}: {told}");
    }
    assert!(matches!(answers[21], Err(Error::Unmet(0))), "{:?}", answers[21]);
    let wrong: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert_eq!(wrong.len(), 5, "{wrong:?}");
    assert_eq!(numbers(&database, "SELECT count(*) FROM t").await, [50 - 5 + 1], "the first 3 was there");
}

#[tokio::test]
async fn calls_that_wait_for_a_lock_hold_up_nobody_else() {
    let (database, url) = table_of_notes().await;
    join_all((1..4).map(|key| insert(&database, key))).await;
    let holder = client(&url).await;
    holder.batch_execute("BEGIN; UPDATE t SET note = 'held'").await.unwrap();
    let touch =
        async |key: usize| write(&database, &format!("UPDATE t SET note = 'x' WHERE k = {key}")).await;
    // One sets out alone, two with others.
    let mut held = pin!(join_all((1..4).map(touch)));
    assert!(futures_util::poll!(held.as_mut()).is_pending());
    let others = join_all((10..50).map(|key| insert(&database, key)));
    let (others, held) = match select(held, pin!(others)).await {
        Either::Left((held, _)) => panic!("the lock is held: {held:?}"),
        Either::Right((others, held)) => (others, held),
    };
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(held.await.iter().all(Result::is_ok));
    assert_eq!(numbers(&database, "SELECT count(*) FROM t WHERE note = 'x'").await, [3]);
}

#[tokio::test]
async fn a_durable_write_never_travels_with_relaxed_ones() {
    let (database, _) = table_of_notes().await;
    let calls = (0..80).map(|key| {
        let note = "INSERT INTO t SELECT K, current_setting('synchronous_commit')";
        let durability = if key % 2 == 0 { Durability::Durable } else { Durability::Relaxed };
        // A second statement makes it a call of parts, as ours are.
        let parts =
            vec![statement(&note.replace('K', &key.to_string())), statement("DELETE FROM t WHERE k < 0")];
        database.execute(parts, durability)
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(numbers(&database, "SELECT count(*) FROM t WHERE k % 2 = 0 AND note = 'on'").await, [40]);
    let relaxed = numbers(&database, "SELECT count(*) FROM t WHERE k % 2 = 1 AND note = 'off'").await;
    assert!(relaxed[0] > 0, "some went with others of their kind");
}

#[tokio::test]
async fn a_call_whose_caller_went_away_while_it_waited_is_not_made() {
    let (database, _) = table_of_notes().await;
    let mut calls: Vec<_> = (0..30).map(|key| Box::pin(insert(&database, key))).collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    calls.truncate(20);
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(numbers(&database, "SELECT count(*) FROM t").await, [20]);
}

#[tokio::test]
async fn what_was_told_is_true_when_the_server_dies_under_a_group() {
    let server = Server::start(&["fsync=off"]);
    let database = Postgres::new(&server.database().await, 15).unwrap();
    write(&database, "DO $$ BEGIN CREATE TABLE t (k BIGINT PRIMARY KEY); END $$").await.unwrap();
    let calls = join_all((0..60).map(async |key| {
        let sql = format!("INSERT INTO t SELECT {key} FROM (SELECT pg_sleep(0.02)) AS s");
        write(&database, &sql).await
    }));
    let death = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.stop(libc::SIGQUIT);
    };
    let (answers, ()) = join(calls, death).await;
    server.restart();
    let there = numbers(&database, "SELECT k FROM t").await;
    let mut told = BTreeMap::new();
    for (key, answer) in answers.iter().enumerate() {
        let is_there = there.contains(&i64::try_from(key).unwrap());
        let kind = match answer {
            Ok(_) => "done",
            Err(Error::OutcomeUnknown(_)) => "unknown",
            Err(Error::NotApplied(_)) => "not applied",
            Err(other) => panic!("{other:?}"),
        };
        assert!(is_there || kind != "done", "{key} was told {kind}");
        assert!(!is_there || kind != "not applied", "{key} was told {kind}");
        *told.entry(kind).or_insert(0) += 1;
    }
    assert!(told.contains_key("done") && told.contains_key("unknown"), "{told:?}");
}

// ---- under load ----

/// One run: clients at two hosts, `kill` again and again, then all must end and add up.
async fn under_load(
    kills: u32,
    server: &Server,
    mut kill: impl FnMut(&Server, &mut Vec<Host>, &mut Dice, &dyn Fn(usize) -> Host),
) {
    let seed = seed();
    let url = server.database().await;
    let data = tempfile::tempdir().unwrap();
    let books = Books::Server(url.clone());
    let start = |number: usize| start(&folder(data.path(), &number.to_string()), &url);
    let mut hosts: Vec<Host> = (0..2).map(start).collect();
    let token = hosts[0].client().admin().await.token;
    let (told, mut dice) = (Arc::new(Mutex::new(Told::default())), Dice(seed | 1));
    let (mut states, mut acknowledged) = (BTreeMap::new(), Vec::new());
    for round in 0..kills {
        let before = told.lock().unwrap().acknowledged;
        let shoppers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let host = &hosts[usize::try_from(number).unwrap() % hosts.len()];
                tokio::spawn(shop(host.client().with_token(&token), number, seed, round, told.clone()))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300 + dice.roll(500))).await;
        tokio::task::block_in_place(|| kill(server, &mut hosts, &mut dice, &start));
        for shopper in shoppers {
            shopper.abort();
            let _ = shopper.await;
        }
        acknowledged.push(told.lock().unwrap().acknowledged - before);
        histogram(&books, &mut states);
    }
    let log = || hosts.iter().map(Host::log).collect::<String>();
    wait_until_settled(&books, log).await;
    let known = told.lock().unwrap().orders.clone();
    let client = hosts[0].client().with_token(&token);
    for (key, id) in &known {
        let answer = client.get(&format!("{}/v1/orders/{id}", client.order)).await;
        assert_eq!(answer.status, 200, "order {id} of key {key} was acknowledged and is lost");
        told.lock().unwrap().hear(key, &answer.json());
    }
    println!("kills: {kills}, orders acknowledged since the last kill: {acknowledged:?}");
    println!("orders: {}, acknowledged keys: {}, states: {states:?}", orders(&books).len(), known.len());
    let mut wrong = violations(&books);
    wrong.append(&mut told.lock().unwrap().wrong);
    println!("violations: {}", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(known.len() > usize::try_from(kills).unwrap() * 5, "hardly any load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_hosts_killed_under_load_harms_no_order() {
    let server = Server::start(&[]);
    under_load(20, &server, |_, hosts, dice, start| {
        let victim = usize::try_from(dice.roll(2)).unwrap();
        hosts[victim].kill();
        hosts[victim] = start(victim);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_killed_under_load_harms_no_order() {
    let server = Server::start(&[]);
    under_load(20, &server, |server, _, _, _| {
        server.stop(libc::SIGQUIT);
        server.restart();
    })
    .await;
}

#[tokio::test]
async fn the_sagas_of_a_killed_host_are_taken_over_when_its_leases_lapse() {
    let (url, data) = (shared().database().await, tempfile::tempdir().unwrap());
    let mut dying = start(&folder(data.path(), "dying"), &url);
    let living = start(&folder(data.path(), "living"), &url);
    let client = dying.client().admin().await;
    let placing: Vec<_> = (0..8)
        .map(|number| {
            let client = client.clone();
            let body = one_item_by("book", 1250, "sim:delay:2000");
            tokio::spawn(async move { client.try_place(&format!("k{number}"), &body).await })
        })
        .collect();
    let books = Books::Server(url);
    while orders(&books).len() < 8 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    dying.kill();
    let died = Instant::now();
    for order in placing {
        assert!(order.await.unwrap().is_err(), "nobody was told");
    }
    wait_until_settled(&books, || living.log()).await;
    println!("every saga ended {:?} after the death of its host", died.elapsed());
    assert!(died.elapsed() <= TAKEOVER_TIME_MAX, "{:?}", died.elapsed());
    assert!(violations(&books).is_empty(), "{:?}", violations(&books));
    assert!(orders(&books).values().all(|(status, _)| status == "completed"));
}
