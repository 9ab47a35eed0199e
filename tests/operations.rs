//! `settle explain`, `settle reconcile` and `settle archive` on a host's data directory, while it runs and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rusqlite::Connection;
use settle_tests::client::{Client, one_item, one_item_by};
use settle_tests::host::{Host, binary};
use settle_tests::postgres::{self, FAST, Server};

fn settle(data: &Path, args: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } =
        Command::new(binary()).args(args).arg("--data").arg(data).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_happened_and_where_the_money_is() {
    let host = Host::start(&[]);
    let client = host.client().admin().await;
    let mut ids = Vec::new();
    for (key, body) in [
        ("paid", one_item("book", 1250)),
        ("undone", one_item("fail-me", 1250)),
        ("declined", one_item("book", 100_000)),
        ("lost", one_item_by("book", 1250, "sim:lost-answer:1")),
    ] {
        ids.push(client.place(key, &body).await.json()["id"].as_str().unwrap().to_owned());
    }
    client.settled(&ids[3]).await;
    let explain = |id: &str| settle(&host.data, &["explain", id]);
    let (_, paid) = explain(&ids[0]);
    assert_says(
        &paid,
        &["over 12.50 EUR is completed", "the acquirer approved", "SETTLED: the customer paid 12.50 EUR"],
    );
    assert_says(
        &explain(&ids[1]).1,
        &["the final step failed", "took 12.50 EUR and gave back 12.50 EUR", "fully undone"],
    );
    assert_says(&explain(&ids[2]).1, &["the acquirer declined: amount over the limit", "fully undone"]);
    // The same, asked of the running host.
    let asked = |id: &str| {
        let origins = ["--order-url", &client.order, "--payment-url", &client.payment];
        let token = ["--token", &client.token];
        settle(&host.data, &[&["explain", id][..], &origins, &token].concat())
    };
    assert_says(&asked(&ids[0]).1, &["the acquirer approved", "SETTLED: the customer paid 12.50 EUR"]);
    assert_says(&asked(&ids[1]).1, &["the final step failed (final step failed)", "refunded 12.50 EUR"]);
    let (found, nothing) = asked("019b0000-0000-7000-8000-000000000000");
    assert!(!found && nothing.contains("404"), "{nothing}");
    let (found, nothing) = explain("019b0000-0000-7000-8000-000000000000");
    assert!(!found);
    assert_says(&nothing, &["there is no order"]);

    let (equal, all) = settle(&host.data, &["reconcile"]);
    assert!(equal, "{all}");
    assert_says(&all, &["4 settled and equal, 0 open, 0 parked, 0 differ"]);

    // Somebody at the acquirer gives money back by hand, and we do not know.
    let ledger = Connection::open(host.data.join("acquirer.db")).unwrap();
    let changed = "UPDATE acquirer_charges SET returned_minor = 500 WHERE key = ?1 || '/charge'";
    ledger.execute(changed, [&ids[0]]).unwrap();
    let (equal, all) = settle(&host.data, &["reconcile"]);
    assert!(!equal, "{all}");
    assert_says(&all, &["DIFFERS", &ids[0], "keeps 7.50 EUR and our books say 12.50 EUR", "1 differ"]);
    assert_says(&explain(&ids[0]).1, &["WRONG"]);
}

/// As if the time in which an order may be cancelled were over.
const NOT_CANCELLABLE: &str =
    "UPDATE order_journal SET event = json_set(event, '$.placed.cancel_until', 1) WHERE seq = 0";
const KEYS_EXPIRED: &str = "UPDATE orders SET key_expires_at = 1";

fn count(path: &Path, table: &str) -> u32 {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// A finished order, an undone one, a parked one.
async fn three_orders(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    for (key, body) in [
        ("paid", one_item("book", 1250)),
        ("undone", one_item("fail-me", 1250)),
        ("open", one_item_by("book", 1250, "sim:unreachable:1000")),
    ] {
        ids.push(client.place(key, &body).await.json()["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_orders_leave_for_the_archive_once_nobody_can_ask_for_them() {
    let host = Host::start(&[]);
    let client = host.client().admin().await;
    let ids = three_orders(&client).await;
    let (order, archived) = (host.data.join("order.db"), host.data.join("archive.db"));
    let archive = |days: &str| settle(&host.data, &["archive", "--older-than", days]);
    assert_says(&archive("0").1, &["0 orders moved"]); // they may be cancelled, and asked again
    let connection = Connection::open(&order).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute(NOT_CANCELLABLE, []).unwrap();
    assert_says(&archive("0").1, &["0 orders moved"]); // a key still names them
    connection.execute(KEYS_EXPIRED, []).unwrap();
    assert_says(&archive("1").1, &["0 orders moved"]); // too young
    let (fine, said) = settle(&host.data, &["archive", "--older-than", "0", "--to", "/nowhere/archive.db"]);
    assert!(!fine);
    assert_says(&said, &["/nowhere/archive.db"]);
    assert_says(&archive("0").1, &["2 orders moved"]);
    assert_says(&archive("0").1, &["0 orders moved"]);
    assert_eq!(count(&order, "orders"), 1);
    let kept = || ["orders", "order_journal", "order_outbox"].map(|table| count(&archived, table));
    let all = kept();
    assert_eq!(all[0], 2);
    assert_eq!(all[1], all[2], "an event for each entry");
    // A crash after the copy leaves an order in both; the next run ends that.
    connection.execute("ATTACH ?1 AS archive", [archived.to_str().unwrap()]).unwrap();
    for (table, key) in [("orders", "id"), ("order_journal", "order_id"), ("order_outbox", "order_id")] {
        let back = format!("INSERT INTO main.{table} SELECT * FROM archive.{table} WHERE {key} = ?1");
        assert!(connection.execute(&back, [&ids[0]]).unwrap() > 0);
    }
    connection.execute("DETACH archive", []).unwrap();
    assert_says(&archive("0").1, &["1 orders moved"]);
    assert_eq!((count(&order, "orders"), kept()), (1, all));

    let missing = client.get(&format!("{}/v1/orders/{}", client.order, ids[0])).await;
    assert_eq!(missing.status, 404);
    assert_eq!(client.get(&format!("{}/v1/orders/{}", client.order, ids[2])).await.status, 200);
    // Its key is free again, and the host works on.
    let again = client.place("paid", &one_item("book", 1250)).await;
    assert_eq!(again.status, 201);
    assert_ne!(again.json()["id"].as_str().unwrap(), ids[0]);
    // An archive of another version is refused.
    Connection::open(&archived).unwrap().execute("ALTER TABLE orders ADD COLUMN other TEXT", []).unwrap();
    let (fine, said) = archive("0");
    assert!(!fine);
    assert_says(&said, &["another version", "--to"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_a_function_moves_them() {
    let server = Server::start(&FAST);
    let database = format!("database={}", server.url("postgres"));
    let host = Host::start(&["--set", &database]);
    let client = host.client().admin().await;
    let ids = three_orders(&client).await;
    let sql = postgres::client(&server.url("postgres")).await;
    sql.batch_execute(include_str!("../infra/postgres/archive.sql")).await.unwrap();
    let moved = async || -> i64 {
        sql.query_one("SELECT settle_archive.move_orders('0 days', 1)", &[]).await.unwrap().get(0)
    };
    assert_eq!(moved().await, 0, "they may be cancelled");
    let past = "SET search_path = settle_order; UPDATE orders SET key_expires_at = 1; UPDATE order_journal
                SET event = jsonb_set(CAST(event AS jsonb), '{placed,cancel_until}', '1') WHERE seq = 0";
    sql.batch_execute(past).await.unwrap();
    assert_eq!(
        [moved().await, moved().await, moved().await],
        [1, 1, 0],
        "one at a time, and not the open one"
    );
    let count =
        "SELECT (SELECT count(*) FROM settle_archive.orders), (SELECT count(*) FROM settle_order.orders),
                        (SELECT count(*) FROM settle_archive.order_journal) > 3";
    let row = sql.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
    assert!(row.get::<_, bool>(2));
    assert_eq!(client.get(&format!("{}/v1/orders/{}", client.order, ids[0])).await.status, 404);
    assert_eq!(client.get(&format!("{}/v1/orders/{}", client.order, ids[2])).await.status, 200);
}

#[test]
fn a_directory_without_databases_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for args in [vec!["explain", "x"], vec!["reconcile"], vec!["archive"]] {
        let (fine, said) = settle(folder.path(), &args);
        assert!(!fine);
        assert_says(&said, &["order.db", "data directory"]);
    }
    let (fine, said) = settle(folder.path(), &["nonsense"]);
    assert!(!fine);
    assert_says(&said, &["no such command", "settle help"]);
}
