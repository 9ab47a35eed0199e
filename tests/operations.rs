//! `settle explain` and `settle reconcile` on a host's data directory, while it runs and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

use rusqlite::Connection;
use settle_tests::client::{one_item, one_item_by};
use settle_tests::host::{Host, binary};

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

#[test]
fn a_directory_without_databases_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for args in [vec!["explain", "x"], vec!["reconcile"]] {
        let (fine, said) = settle(folder.path(), &args);
        assert!(!fine);
        assert_says(&said, &["order.db", "data directory"]);
    }
    let (fine, said) = settle(folder.path(), &["nonsense"]);
    assert!(!fine);
    assert_says(&said, &["no such command", "settle help"]);
}
