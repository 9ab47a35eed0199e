//! The cases. Each makes its own user and keys, so that they can run in any order on one database.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use http::Method;
use serde_json::{Value, json};
use settle_proto::payment_v1 as wire;
use settle_tests::client::{Client, one_item, one_item_by};
use settle_tests::grpc;

use settle_tests::runners::Running;

const CASE_TIME_MAX: Duration = Duration::from_secs(90);

pub enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

pub struct Case {
    pub name: &'static str,
    run: Run,
}

enum Run {
    /// Only talks to the host.
    Calls(fn(Client) -> BoxFuture<'static, ()>),
    /// Needs gRPC from outside.
    Grpc(fn(Client, String) -> BoxFuture<'static, ()>),
    /// Kills the host in between.
    Crash(fn(Client) -> BoxFuture<'static, Afterwards>),
}

/// What is checked once the host is back.
type Afterwards = Box<dyn FnOnce(Client) -> BoxFuture<'static, ()> + Send>;

impl Case {
    pub async fn run(&self, running: &mut Running) -> Outcome {
        match self.run {
            Run::Calls(case) => {
                guarded(case(running.client())).await.map_or_else(Outcome::Failed, |()| Outcome::Passed)
            }
            Run::Grpc(case) => match running.grpc() {
                Ok(origin) => guarded(case(running.client(), origin))
                    .await
                    .map_or_else(Outcome::Failed, |()| Outcome::Passed),
                Err(reason) => Outcome::Skipped(reason),
            },
            Run::Crash(case) => {
                let rest = match guarded(case(running.client())).await {
                    Ok(rest) => rest,
                    Err(reason) => return Outcome::Failed(reason),
                };
                running.crash_and_restart().await;
                guarded(rest(running.client())).await.map_or_else(Outcome::Failed, |()| Outcome::Passed)
            }
        }
    }
}

/// A panic is a failure of this case alone.
async fn guarded<T: Send + 'static>(case: BoxFuture<'static, T>) -> Result<T, String> {
    match tokio::spawn(tokio::time::timeout(CASE_TIME_MAX, case)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(format!("not done after {CASE_TIME_MAX:?}")),
        Err(panic) => {
            let panic = panic.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        }
    }
}

macro_rules! calls {
    ($name:ident) => {
        Case { name: stringify!($name), run: Run::Calls(|client| $name(client).boxed()) }
    };
}
macro_rules! grpc {
    ($name:ident) => {
        Case { name: stringify!($name), run: Run::Grpc(|client, origin| $name(client, origin).boxed()) }
    };
}
macro_rules! crash {
    ($name:ident) => {
        Case { name: stringify!($name), run: Run::Crash(|client| $name(client).boxed()) }
    };
}

pub const CASES: &[Case] = &[
    calls!(every_service_is_live_and_ready),
    calls!(login_gives_a_token_and_a_wrong_password_does_not),
    calls!(a_token_that_was_changed_is_refused),
    calls!(an_order_completes_with_its_money_taken_once),
    calls!(a_declined_order_fails_with_nothing_taken),
    calls!(a_failing_final_step_is_undone),
    calls!(a_lost_answer_charges_once),
    calls!(a_pending_payment_is_finished_by_recovery),
    calls!(a_repeated_key_answers_the_same_order),
    calls!(a_key_with_another_request_is_refused),
    calls!(racing_duplicates_make_one_order),
    calls!(a_completed_order_can_be_cancelled_once_and_again),
    calls!(history_tells_every_status),
    calls!(another_users_order_does_not_exist),
    calls!(listing_pages_through_every_order_once),
    calls!(a_payment_is_refunded_in_parts_and_never_too_much),
    calls!(payments_are_for_services_and_administrators),
    calls!(bad_orders_are_problems_and_leave_nothing),
    calls!(limits_are_named),
    calls!(wrong_methods_and_paths_are_problems),
    calls!(correlation_ids_come_back),
    calls!(sagas_are_listed_for_administrators_only),
    grpc!(grpc_needs_a_token),
    grpc!(grpc_takes_once_and_looks_up),
    grpc!(grpc_undo_is_final),
    crash!(what_was_acknowledged_survives_the_host),
    crash!(an_order_under_way_is_finished_after_the_host_died),
];

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("c{}-{}", now.as_micros(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn id_of(order: &Value) -> String {
    order["id"].as_str().unwrap_or_else(|| panic!("no id in {order}")).to_owned()
}

async fn every_service_is_live_and_ready(client: Client) {
    for origin in [&client.identity, &client.order, &client.payment] {
        for path in ["/health/live", "/health/ready"] {
            let answer = client.get(&format!("{origin}{path}")).await;
            assert_eq!(answer.status, 200, "{origin}{path}: {answer:?}");
        }
    }
}

async fn login_gives_a_token_and_a_wrong_password_does_not(client: Client) {
    let name = unique();
    let known = client.clone().with_token("").register(&name).await;
    assert!(!known.token.is_empty());
    for (username, password) in [(name.as_str(), "wrong password"), ("nobody-of-that-name", "long enough")] {
        let body = json!({ "username": username, "password": password });
        let answer = client.post(&format!("{}/v1/tokens", client.identity), &body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "wrong-credentials"));
    }
}

async fn a_token_that_was_changed_is_refused(client: Client) {
    let (head, signature) = client.token.rsplit_once('.').unwrap();
    let swapped: String = signature.chars().rev().collect();
    for token in [format!("{head}.{swapped}"), format!("{head}."), "x".into(), String::new()] {
        let headers = [("authorization", format!("Bearer {token}"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer =
            client.send(Method::GET, &format!("{}/v1/orders", client.order), &headers, "").await.unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{token}");
    }
}

async fn an_order_completes_with_its_money_taken_once(client: Client) {
    let answer = client.place(&unique(), &one_item("book", 1250)).await;
    let order = answer.json();
    assert_eq!((answer.status, &order["status"]), (201, &json!("completed")), "{order}");
    assert_eq!(order["total"], json!({ "minor": 1250, "currency": "EUR" }));
    let payment = client.payment_of(&id_of(&order)).await;
    assert_eq!((&payment["captured"], &payment["refunded"]), (&json!(1250), &json!(0)));
    assert_eq!(client.order(&id_of(&order)).await, order);
}

async fn a_declined_order_fails_with_nothing_taken(client: Client) {
    let answer = client.place(&unique(), &one_item("book", 100_000)).await;
    let order = answer.json();
    assert_eq!((answer.status, &order["status"]), (201, &json!("payment_failed")), "{order}");
    assert_eq!(order["failure_reason"], "amount over the limit");
    assert_eq!(client.payment_of(&id_of(&order)).await["captured"], 0);
}

async fn a_failing_final_step_is_undone(client: Client) {
    let order = client.place(&unique(), &one_item("fail-me", 1250)).await.json();
    let order = client.settled(&id_of(&order)).await;
    assert_eq!(
        (&order["status"], &order["failure_reason"]),
        (&json!("cancelled"), &json!("final step failed"))
    );
    let payment = client.payment_of(&id_of(&order)).await;
    assert_eq!((&payment["captured"], &payment["refunded"]), (&json!(1250), &json!(1250)));
}

async fn a_lost_answer_charges_once(client: Client) {
    let order = client.place(&unique(), &one_item_by("book", 1250, "sim:lost-answer:1")).await.json();
    let order = client.settled(&id_of(&order)).await;
    assert_eq!(order["status"], "completed");
    assert_eq!(client.payment_of(&id_of(&order)).await["captured"], 1250);
}

async fn a_pending_payment_is_finished_by_recovery(client: Client) {
    let answer = client.place(&unique(), &one_item_by("book", 1250, "sim:pending:2")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("payment_pending")));
    let id = id_of(&answer.json());
    for _ in 0..120 {
        // Where no timer calls recovery, an operator's schedule does.
        client.post(&format!("{}/v1/recovery/resume-due", client.order), &Value::Null).await;
        if client.order(&id).await["status"] == "completed" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("still {}", client.order(&id).await);
}

async fn a_repeated_key_answers_the_same_order(client: Client) {
    let key = unique();
    let first = client.place(&key, &one_item("book", 1250)).await;
    let again = client.place(&key, &one_item("book", 1250)).await;
    assert_eq!(again.status, 201);
    assert_eq!(again.json(), first.json());
    assert_eq!(
        (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
        (None, Some("true"))
    );
}

async fn a_key_with_another_request_is_refused(client: Client) {
    let key = unique();
    client.place(&key, &one_item("book", 1250)).await;
    let other = client.place(&key, &one_item("book", 1251)).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency-key-reused"));
}

async fn racing_duplicates_make_one_order(client: Client) {
    let (key, body) = (unique(), one_item_by("book", 1250, "sim:delay:200"));
    let answers = join_all((0..20).map(|_| client.place(&key, &body))).await;
    let ids: HashSet<String> = answers.iter().map(|answer| id_of(&answer.json())).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let id = ids.into_iter().next().unwrap();
    assert_eq!(client.settled(&id).await["status"], "completed");
    assert_eq!(client.payment_of(&id).await["captured"], 1250);
}

async fn a_completed_order_can_be_cancelled_once_and_again(client: Client) {
    let id = id_of(&client.place(&unique(), &one_item("book", 1250)).await.json());
    for _ in 0..2 {
        let answer = client.cancel(&id).await;
        assert!([200, 202].contains(&answer.status), "{answer:?}");
        assert_eq!(client.settled(&id).await["status"], "cancelled");
    }
    let payment = client.payment_of(&id).await;
    assert_eq!((&payment["captured"], &payment["refunded"]), (&json!(1250), &json!(1250)));
    let failed = id_of(&client.place(&unique(), &one_item("book", 100_000)).await.json());
    let refused = client.cancel(&failed).await;
    assert_eq!(refused.status, 409, "{refused:?}");
}

async fn history_tells_every_status(client: Client) {
    let id = id_of(&client.place(&unique(), &one_item("fail-me", 1250)).await.json());
    client.settled(&id).await;
    assert_eq!(
        client.history(&id).await,
        ["created", "payment_pending", "paid", "compensating", "cancelled"]
    );
}

async fn another_users_order_does_not_exist(client: Client) {
    let id = id_of(&client.place(&unique(), &one_item("book", 1250)).await.json());
    let other = client.clone().with_token("").register(&unique()).await;
    for path in [format!("/v1/orders/{id}"), format!("/v1/orders/{id}/history")] {
        let answer = other.get(&format!("{}{path}", other.order)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"), "{path}");
    }
    assert_eq!(other.cancel(&id).await.status, 404);
    let own = other.get(&format!("{}/v1/orders", other.order)).await.json();
    assert_eq!(own["data"], json!([]));
}

async fn listing_pages_through_every_order_once(client: Client) {
    let user = client.clone().with_token("").register(&unique()).await;
    let mut placed = HashSet::new();
    for _ in 0..5 {
        placed.insert(id_of(&user.place(&unique(), &one_item("book", 100)).await.json()));
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = user.get(&format!("{}/v1/orders?limit=2{after}", user.order)).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(id_of));
        match page["next_cursor"].as_str() {
            Some(cursor) => after = format!("&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), placed);
    let bad = user.get(&format!("{}/v1/orders?after=%F0", user.order)).await;
    assert_eq!((bad.status, bad.problem().as_str()), (400, "malformed-request"));
}

async fn a_payment_is_refunded_in_parts_and_never_too_much(client: Client) {
    let id = id_of(&client.place(&unique(), &one_item("book", 1000)).await.json());
    let payment = client.payment_of(&id).await;
    let url = format!("{}/v1/payments/{}/refunds", client.payment, payment["id"].as_str().unwrap());
    let refund = async |key: &str, amount: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let body = json!({ "amount": amount, "reason": "test" });
        client.send(Method::POST, &url, &headers, body.to_string()).await.unwrap()
    };
    let (first, second) = (unique(), unique());
    let eur = |minor: i64| json!({ "minor": minor, "currency": "EUR" });
    assert_eq!(refund(&first, eur(400)).await.status, 201);
    assert_eq!(refund(&first, eur(400)).await.status, 201, "the same key, once");
    let refused = refund(&unique(), eur(601)).await;
    assert_eq!((refused.status, refused.problem().as_str()), (422, "refund-exceeds-captured"));
    assert_eq!(refund(&second, eur(600)).await.status, 201);
    assert_eq!(client.payment_of(&id).await["refunded"], 1000);
}

async fn payments_are_for_services_and_administrators(client: Client) {
    let user = client.clone().with_token("").register(&unique()).await;
    let answer = user.get(&format!("{}/v1/payments?order_id=x", user.payment)).await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"));
}

async fn bad_orders_are_problems_and_leave_nothing(client: Client) {
    let user = client.clone().with_token("").register(&unique()).await;
    let item = |price: Value| json!({ "items": [{ "product_id": "b", "quantity": 1, "unit_price": price }] });
    let bodies = [
        "{".to_owned(),
        "[]".to_owned(),
        "\"\u{0}\"".to_owned(),
        json!({ "items": [] }).to_string(),
        json!({ "items": "x" }).to_string(),
        json!({ "items": [], "extra": 1 }).to_string(),
        item(json!({ "minor": 0, "currency": "EUR" })).to_string(),
        item(json!({ "minor": -5, "currency": "EUR" })).to_string(),
        item(json!({ "minor": 1.5, "currency": "EUR" })).to_string(),
        item(json!({ "minor": 5, "currency": "XXX1" })).to_string(),
        item(json!({ "minor": i64::MAX, "currency": "EUR" }))
            .to_string()
            .replace("\"quantity\":1", "\"quantity\":2"),
    ];
    for body in bodies {
        let key = unique();
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        let answer =
            user.send(Method::POST, &format!("{}/v1/orders", user.order), &headers, body.clone()).await;
        let answer = answer.unwrap();
        assert!([400, 422].contains(&answer.status), "{body}: {answer:?}");
        answer.problem();
    }
    let listed = user.get(&format!("{}/v1/orders", user.order)).await.json();
    assert_eq!(listed["data"], json!([]));
}

async fn limits_are_named(client: Client) {
    let mut body = one_item("book", 1);
    let item = body["items"][0].clone();
    body["items"] = Value::Array(vec![item; 101]);
    let answer = client.place(&unique(), &body).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("100"), "{answer:?}");
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let url = format!("{}/v1/orders", client.order);
    let answer = client.send(Method::POST, &url, &headers, large).await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"));
}

async fn wrong_methods_and_paths_are_problems(client: Client) {
    let url = format!("{}/v1/orders", client.order);
    let answer = client.send(Method::DELETE, &url, &[], "").await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), Some("GET, POST"));
    let answer = client.get(&format!("{url}/not-an-id/what")).await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"));
    let answer = client
        .send(Method::POST, &url, &[("content-type", "text/plain"), ("idempotency-key", "k")], "x")
        .await
        .unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported-media-type"));
}

async fn correlation_ids_come_back(client: Client) {
    let headers = [("x-correlation-id", "conformance-1")];
    let url = format!("{}/v1/orders/none", client.order);
    let answer = client.send(Method::GET, &url, &headers, "").await.unwrap();
    assert_eq!(answer.header("x-correlation-id"), Some("conformance-1"));
    let answer = client.get(&url).await;
    assert!(answer.header("x-correlation-id").is_some_and(|id| !id.is_empty()));
}

async fn sagas_are_listed_for_administrators_only(client: Client) {
    let url = format!("{}/v1/sagas", client.order);
    assert_eq!(client.get(&url).await.status, 200);
    let user = client.clone().with_token("").register(&unique()).await;
    assert_eq!(user.get(&url).await.status, 403);
}

// ---- gRPC ----

fn process(key: &str, minor: i64) -> wire::ProcessRequest {
    wire::ProcessRequest {
        key: key.to_owned(),
        order_id: key.to_owned(),
        amount: Some(wire::Money { minor, currency: "EUR".to_owned() }),
        ..Default::default()
    }
}

const SERVICE: &str = "/settle.payment.v1.PaymentService";

async fn grpc_needs_a_token(_: Client, origin: String) {
    let method = format!("{SERVICE}/Process");
    let refused = grpc::call::<wire::ProcessResponse>(&origin, &method, None, &process("k", 1)).await;
    assert_eq!(refused.unwrap_err(), "16");
}

async fn grpc_takes_once_and_looks_up(client: Client, origin: String) {
    let (key, token) = (unique(), Some(client.token.as_str()));
    let method = format!("{SERVICE}/Process");
    let mut ids = HashSet::new();
    for _ in 0..2 {
        let done =
            grpc::call::<wire::ProcessResponse>(&origin, &method, token, &process(&key, 700)).await.unwrap();
        let payment = done.payment.unwrap();
        assert_eq!(payment.captured, 700);
        ids.insert(payment.id);
    }
    assert_eq!(ids.len(), 1);
    let look_up = wire::LookUpRequest { key: key.clone(), order_id: key };
    let found =
        grpc::call::<wire::LookUpResponse>(&origin, &format!("{SERVICE}/LookUp"), token, &look_up).await;
    assert!(ids.contains(&found.unwrap().payment.unwrap().id));
}

async fn grpc_undo_is_final(client: Client, origin: String) {
    let (key, token) = (unique(), Some(client.token.as_str()));
    let undo = wire::UndoRequest {
        key: key.clone(),
        order_id: key.clone(),
        amount: Some(wire::Money { minor: 1, currency: "EUR".to_owned() }),
        reason: "test".to_owned(),
    };
    let done =
        grpc::call::<wire::UndoResponse>(&origin, &format!("{SERVICE}/Undo"), token, &undo).await.unwrap();
    assert_eq!(done.payment.unwrap().captured, 0);
    let late =
        grpc::call::<wire::ProcessResponse>(&origin, &format!("{SERVICE}/Process"), token, &process(&key, 1))
            .await;
    let late = late.unwrap();
    assert_eq!(late.outcome(), wire::ProcessOutcome::Voided, "{late:?}");
}

// ---- the host dies ----

async fn what_was_acknowledged_survives_the_host(client: Client) -> Afterwards {
    let (key, body) = (unique(), one_item("book", 1250));
    let order = client.place(&key, &body).await.json();
    assert_eq!(order["status"], "completed");
    Box::new(move |client| {
        async move {
            assert_eq!(client.order(&id_of(&order)).await["status"], "completed");
            assert_eq!(client.place(&key, &body).await.json()["id"], order["id"]);
        }
        .boxed()
    })
}

async fn an_order_under_way_is_finished_after_the_host_died(client: Client) -> Afterwards {
    let (key, body) = (unique(), one_item_by("book", 1250, "sim:delay:3000"));
    let placing = {
        let (client, key, body) = (client.clone(), key.clone(), body.clone());
        tokio::spawn(async move { client.try_place(&key, &body).await })
    };
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(placing);
    Box::new(move |client| {
        async move {
            // The same request again: the same order, brought to its end.
            let order = client.place(&key, &body).await.json();
            let order = client.settled(&id_of(&order)).await;
            assert_eq!(order["status"], "completed", "{order}");
            assert_eq!(client.payment_of(&id_of(&order)).await["captured"], 1250);
        }
        .boxed()
    })
}
