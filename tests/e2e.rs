//! The whole application, black box: a real host, real components, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use settle_tests::acquirer_ledger::{charges, violations};
use settle_tests::client::{Client, is_open, one_item, one_item_by};
use settle_tests::host::{Host, OLDER_TOKENS};

async fn shop(args: &[&str]) -> (Host, Client) {
    let host = Host::start(args);
    let client = host.client().admin().await;
    (host, client)
}

fn id_of(order: &Value) -> String {
    order["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_order_completes_and_can_be_read_listed_and_traced() {
    let (host, client) = shop(&[]).await;
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
        ("x-correlation-id", "my-correlation"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let url = format!("{}/v1/orders", client.order);
    let answer = client.send(Method::POST, &url, &headers, one_item("book", 1250).to_string()).await.unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("x-correlation-id"), Some("my-correlation"));
    let order = answer.json();
    let id = id_of(&order);
    assert_eq!(answer.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    assert_eq!((&order["status"], &order["total"]["minor"]), (&json!("completed"), &json!(1250)));
    assert_eq!(client.order(&id).await, order);
    assert_eq!(client.history(&id).await, ["created", "payment_pending", "paid", "completed"]);
    let history = client.get(&format!("{url}/{id}/history")).await.json();
    assert_eq!(history["entries"][3]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let listed = client.get(&format!("{url}?status=completed&limit=1")).await.json();
    assert_eq!(listed["data"][0], order);
    let payment = client.payment_of(&id).await;
    assert_eq!((&payment["status"], &payment["captured"]), (&json!("captured"), &json!(1250)));
    assert!(violations(&host.data).is_empty());
}

#[tokio::test]
async fn declined_failed_and_cancelled_orders_end_with_nothing_taken() {
    let (host, client) = shop(&[]).await;
    let declined = client.place("a", &one_item("book", 100_000)).await;
    assert_eq!((declined.status, &declined.json()["status"]), (201, &json!("payment_failed")));
    assert_eq!(declined.json()["failure_reason"], "amount over the limit");
    let just_below = client.place("b", &one_item("book", 99_999)).await;
    assert_eq!(just_below.json()["status"], "completed");
    let failed = client.place("c", &one_item("fail-me", 1250)).await;
    assert_eq!((failed.status, &failed.json()["status"]), (201, &json!("cancelled")));
    let cancelled = client.cancel(&id_of(&just_below.json())).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    let again = client.cancel(&id_of(&just_below.json())).await;
    assert_eq!(again.json(), cancelled.json(), "the same again");
    let refused = client.cancel(&id_of(&declined.json())).await;
    assert_eq!((refused.status, refused.problem().as_str()), (409, "illegal-transition"));
    assert!(violations(&host.data).is_empty(), "{:?}", violations(&host.data));
}

#[tokio::test]
async fn fifty_racing_duplicates_make_one_order_and_one_capture() {
    let (host, client) = shop(&[]).await;
    let senders: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.place("one-key", &one_item("book", 1250)).await })
        })
        .collect();
    let (mut ids, mut replayed) = (Vec::new(), 0);
    for sender in senders {
        let answer = sender.await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        replayed += usize::from(answer.header("idempotent-replayed") == Some("true"));
        ids.push(id_of(&answer.json()));
    }
    assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len(), replayed), (50, 1, 49));
    let charges = charges(&host.data);
    assert_eq!((charges.len(), charges[&ids[0]].captures), (1, 1));
    let other = client.place("one-key", &one_item("book", 1251)).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn keys_of_two_users_do_not_meet_and_neither_do_their_orders() {
    let (_host, admin) = shop(&[]).await;
    let anonymous = Client::new(admin.identity.clone(), admin.order.clone(), admin.payment.clone());
    let alice = anonymous.clone().register("alice").await;
    let bob = anonymous.register("Bob").await;
    let of_alice = id_of(&alice.place("same", &one_item("book", 100)).await.json());
    let of_bob = id_of(&bob.place("same", &one_item("book", 100)).await.json());
    assert_ne!(of_alice, of_bob);
    let url = |id: &str, rest: &str| format!("{}/v1/orders/{id}{rest}", bob.order);
    assert_eq!(bob.get(&url(&of_alice, "")).await.status, 404);
    assert_eq!(bob.get(&url(&of_alice, "/history")).await.status, 404);
    assert_eq!(bob.cancel(&of_alice).await.status, 404);
    for route in ["redrive", "resolve"] {
        let answer = bob.post(&url(&of_alice, &format!("/{route}")), &json!({ "note": "mine" })).await;
        assert_eq!(answer.status, 403, "{route}");
    }
    for route in ["/v1/sagas"] {
        assert_eq!(bob.get(&format!("{}{route}", bob.order)).await.status, 403);
    }
    assert_eq!(bob.post(&format!("{}/v1/recovery/resume-due", bob.order), &Value::Null).await.status, 403);
    let payments = bob.get(&format!("{}/v1/payments?order_id={of_bob}", bob.payment)).await;
    assert_eq!(payments.status, 403, "payments are for administrators and services");
    let mine = bob.get(&format!("{}/v1/orders", bob.order)).await.json();
    assert_eq!(mine["data"].as_array().unwrap().len(), 1);
    let all = admin.get(&format!("{}/v1/orders", admin.order)).await.json();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    let mut for_bob = one_item("book", 100);
    for_bob["user_id"] = json!("somebody");
    assert_eq!(alice.place("x", &for_bob).await.problem(), "forbidden");
    assert_eq!(admin.place("x", &for_bob).await.json()["user_id"], "somebody");
}

#[tokio::test]
async fn faults_of_the_acquirer_are_waited_out() {
    let (host, client) = shop(&[]).await;
    let rows = [
        ("sim:lost-answer:2", "book", "completed"),
        ("sim:unreachable:2", "book", "completed"),
        ("sim:lost-answer:5", "book", "completed"),
        ("sim:pending:2", "book", "completed"),
        ("sim:decline", "book", "payment_failed"),
        ("sim:void-lost-answer:2", "fail-me", "cancelled"),
        ("sim:void-fails:5", "fail-me", "cancelled"),
        ("sim:delay:300", "book", "completed"),
    ];
    let mut placed = Vec::new();
    for (method, product, expected) in rows {
        let answer = client.place(method, &one_item_by(product, 1250, method)).await;
        assert!([201, 202].contains(&answer.status), "{method}: {answer:?}");
        assert_eq!(answer.status == 202, is_open(&answer.json()));
        placed.push((method, id_of(&answer.json()), expected));
    }
    for (method, id, expected) in placed {
        assert_eq!(client.settled(&id).await["status"], expected, "{method}");
    }
    assert!(violations(&host.data).is_empty(), "{:?}", violations(&host.data));
}

#[tokio::test]
async fn refunds_are_partial_once_for_each_key_and_never_too_much() {
    let (host, client) = shop(&[]).await;
    let order = id_of(&client.place("a", &one_item("book", 1000)).await.json());
    let payment = client.payment_of(&order).await;
    let url = format!("{}/v1/payments/{}/refunds", client.payment, payment["id"].as_str().unwrap());
    let refund = async |key: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        client.send(Method::POST, &url, &headers, body.to_string()).await.unwrap()
    };
    let eur = |minor: i64| json!({ "amount": { "minor": minor, "currency": "EUR" }, "reason": "torn" });
    let first = refund("r1", eur(300)).await;
    assert_eq!((first.status, &first.json()["refunded"]), (201, &json!(300)));
    let again = refund("r1", eur(300)).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(refund("r1", eur(301)).await.problem(), "idempotency-key-reused");
    assert_eq!(refund("r2", eur(701)).await.problem(), "refund-exceeds-captured");
    assert_eq!(refund("r2", eur(0)).await.problem(), "invalid-field");
    let usd = json!({ "amount": { "minor": 1, "currency": "USD" }, "reason": "x" });
    assert_eq!(refund("r2", usd).await.problem(), "invalid-field");
    let rest = refund("r3", json!({ "reason": "all of it" })).await;
    assert_eq!((&rest.json()["status"], &rest.json()["refunded"]), (&json!("refunded"), &json!(1000)));
    assert_eq!(charges(&host.data)[&order].returned, 1000);
}

#[tokio::test]
async fn an_order_left_open_by_a_crash_is_finished_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start_in(folder.path(), &[]);
    let client = host.client().admin().await;
    let placing = {
        let client = client.clone();
        tokio::spawn(async move { client.try_place("k", &one_item_by("book", 1250, "sim:delay:2000")).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.kill();
    assert!(placing.await.unwrap().is_err(), "the client has no answer");

    let host = Host::start_in(folder.path(), &[]);
    let client = host.client().with_token(&client.token);
    let answer = client.place("k", &one_item_by("book", 1250, "sim:delay:2000")).await;
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
    assert_eq!(client.settled(&id_of(&answer.json())).await["status"], "completed");
    assert_eq!(charges(folder.path()).len(), 1);
    assert!(violations(folder.path()).is_empty());
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_host_stops() {
    let (mut host, client) = shop(&[]).await;
    let placing = {
        let client = client.clone();
        tokio::spawn(async move { client.place("k", &one_item_by("book", 1250, "sim:delay:700")).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(host.terminate().success());
    assert_eq!(placing.await.unwrap().json()["status"], "completed");
}

#[tokio::test]
async fn payment_over_a_socket_is_the_same_as_in_process() {
    let folder = tempfile::tempdir().unwrap();
    let far = Host::start_in(folder.path(), &[]);
    let secrets = folder.path().join("secrets.env");
    let (identity, payment) = (far.url("identity"), far.url("payment_grpc"));
    let set = [
        "--env-file",
        secrets.to_str().unwrap(),
        "--set",
        &format!("identity_url={identity}"),
        "--set",
        &format!("payment_url={payment}"),
    ];
    let near = Host::start(&set);
    let admin = far.client().admin().await;
    let client = near.client().with_token(&admin.token);
    let order = client.place("k", &one_item("book", 1250)).await.json();
    assert_eq!(order["status"], "completed");
    assert_eq!(client.place("f", &one_item("fail-me", 1250)).await.json()["status"], "cancelled");
    assert_eq!(charges(far.data.as_path())[&id_of(&order)].kept(), 1250);
    assert!(charges(near.data.as_path()).is_empty(), "the near payment service was not used");
}

#[tokio::test]
async fn an_unreachable_payment_service_opens_the_breaker_and_loses_nothing() {
    let (host, client) = shop(&["--set", "payment_url=http://127.0.0.1:9"]).await;
    let mut refused = 0;
    for number in 0..12 {
        let answer = client.place(&format!("k{number}"), &one_item("book", 1250)).await;
        match answer.status {
            202 => assert_eq!(answer.json()["status"], "payment_pending"),
            503 => {
                assert_eq!(answer.problem(), "unavailable");
                assert!(answer.header("retry-after").is_some());
                refused += 1;
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert!(refused > 0, "the breaker never opened");
    assert!(host.log().contains("Circuit breaker OPEN"));
    let placed = settle_tests::acquirer_ledger::orders(&host.data).len();
    assert_eq!(placed, 12 - refused, "nothing is written for a refused order");
}

#[tokio::test]
async fn hs256_is_selectable_for_clients_of_the_older_system() {
    let (_host, client) = shop(&OLDER_TOKENS).await;
    let head = client.token.split('.').next().unwrap();
    use base64::Engine as _;
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap();
    assert!(String::from_utf8(head).unwrap().contains("HS256"));
    assert_eq!(client.place("k", &one_item("book", 1250)).await.json()["status"], "completed");
    let jwks = client.get(&format!("{}/.well-known/jwks.json", client.identity)).await.json();
    assert_eq!(jwks, json!({ "keys": [] }), "a shared secret has no public key");
}

#[tokio::test]
async fn an_operator_sees_parked_orders_and_settles_them() {
    let (host, client) = shop(&[]).await;
    let placed = client.place("k", &one_item_by("fail-me", 1250, "sim:void-fails:1000000")).await;
    let id = id_of(&placed.json());
    assert_eq!(placed.status, 202);
    let sagas = client.get(&format!("{}/v1/sagas?state=compensating", client.order)).await.json();
    assert_eq!(
        (&sagas["data"][0]["order_id"], &sagas["data"][0]["at_stake"]["minor"]),
        (&json!(id), &json!(1250))
    );
    // Its budget lasts for minutes; an operator need not wait, and cannot resolve it before it is parked.
    let url = format!("{}/v1/orders/{id}/resolve", client.order);
    assert_eq!(
        client.post(&url, &json!({ "note": "paid back in cash" })).await.problem(),
        "illegal-transition"
    );
    assert_eq!(charges(&host.data)[&id].kept(), 1250, "the ledger says what is at stake");
}
