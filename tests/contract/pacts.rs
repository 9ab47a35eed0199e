//! What consumers rely on, written down as pacts by their tests and verified against the components.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use pact_consumer::prelude::*;
use pact_consumer::{json_pattern, like, matching_regex};
use serde_json::{Value, json};
use settle_contract::{Provider, verify};
use settle_tests::client::Client;
use settle_tests::host::{Host, root};

const CLIENT_SECRET: &str = "a-secret-that-pacts-share-0123456789";
const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
const ID: &str = "01900000-0000-7000-8000-000000000000";

fn folder() -> PathBuf {
    root().join("tests/contract/pacts")
}

fn builder(consumer: &str, provider: &str) -> PactBuilder {
    let mut builder = PactBuilder::new(consumer, provider);
    builder.with_output_dir(folder());
    builder
}

/// Path, header fields, body.
type Call<'a> = (&'a str, &'a [(&'a str, &'a str)], String);

/// Plays the consumer's part of every interaction of a pact against the mock, and reads the answers.
async fn play(builder: &PactBuilder, calls: &[Call<'_>]) -> Vec<Value> {
    let mock = builder.start_mock_server(None, None);
    let base = mock.url().to_string();
    let client = Client::new(base.clone(), base.clone(), base);
    let mut answers = Vec::new();
    for (path, headers, body) in calls {
        let method = if body.is_empty() { http::Method::GET } else { http::Method::POST };
        let url = format!("{}{path}", client.order.trim_end_matches('/'));
        let answer = client.send(method, &url, headers, body.clone()).await.unwrap();
        assert!(answer.status < 300, "{answer:?}");
        answers.push(answer.json());
    }
    answers
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn payment(builder: &mut PactBuilder, what: &str, state: Option<Value>, request: &Value, success: bool) {
    let request = request.clone();
    builder.interaction(what, "", |mut i| {
        if let Some(params) = state {
            i.given_with_params("a payment exists", &params);
        }
        i.request
            .post()
            .path("/payments.PaymentService/ProcessPayment")
            .content_type("application/json")
            .json_body(json_pattern!(request));
        i.response.ok().content_type("application/json").json_body(json_pattern!({
            "payment_id": matching_regex!(UUID, ID),
            "success": success,
            "status_message": like!("text"),
        }));
        i
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_service_relies_on_payment() {
    let mut pact = builder("OrderService", "PaymentService");
    let taken = json!({ "order_id": "pact-1", "amount": 12.5, "user_id": "u" });
    let declined = json!({ "order_id": "pact-2", "amount": 1000.0, "user_id": "u" });
    let other = json!({ "order_id": "pact-3", "amount": 13.0, "user_id": "u" });
    let before = json!({ "order_id": "pact-3", "amount": 12.0 });
    payment(&mut pact, "a payment that is approved", None, &taken, true);
    payment(&mut pact, "a payment over the limit", None, &declined, false);
    payment(&mut pact, "a paid order with another amount", Some(before), &other, false);
    let calls = [taken, declined, other]
        .map(|body| ("/payments.PaymentService/ProcessPayment", &JSON[..], body.to_string()));
    let answers = play(&pact, &calls).await;
    let successes: Vec<&Value> = answers.iter().map(|answer| &answer["success"]).collect();
    assert_eq!(successes, [&json!(true), &json!(false), &json!(false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_service_relies_on_identity() {
    let mut pact = builder("OrderService", "IdentityService");
    let form = format!(
        "grant_type=client_credentials&client_id=order&client_secret={CLIENT_SECRET}&audience=payment"
    );
    let media_type = "application/x-www-form-urlencoded";
    pact.interaction("a token for calls to payment", "", |mut i| {
        i.request.post().path("/oauth/token").content_type(media_type).body(form.as_str());
        i.response.ok().content_type("application/json").json_body(json_pattern!({
            "access_token": matching_regex!("^[\\w-]+\\.[\\w-]+\\.[\\w-]+$", "a.b.c"),
            "token_type": "Bearer",
            "expires_in": like!(600),
        }));
        i
    });
    pact.interaction("the keys and what was taken back", "", |mut i| {
        i.request.get().path("/.well-known/settle-trust.json");
        i.response.ok().content_type("application/json").json_body(json_pattern!({
            "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": like!("x"), "kid": like!("kid") }],
            "revoked": [],
        }));
        i
    });
    let login = json!({ "username": "pact-user", "password": "a pact password" });
    let body = login.clone();
    pact.interaction("a login of the described system", "", |mut i| {
        i.given_with_params("a user exists", &body);
        i.request.post().path("/login").content_type("application/json").json_body(json_pattern!(body));
        i.response.ok().content_type("application/json").json_body(json_pattern!({
            "token": matching_regex!("^[\\w-]+\\.[\\w-]+\\.[\\w-]+$", "a.b.c"),
            "token_type": "Bearer",
            "expires_in": like!(3600),
        }));
        i
    });
    let calls = [
        ("/oauth/token", &[("content-type", media_type)][..], form),
        ("/.well-known/settle-trust.json", &[][..], String::new()),
        ("/login", &JSON[..], login.to_string()),
    ];
    let answers = play(&pact, &calls).await;
    assert!(answers[0]["access_token"].is_string() && answers[2]["token"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_relies_on_order() {
    let mut pact = builder("Gateway", "OrderService");
    let rows = [("book", 12.5, "SUCCESS"), ("book", 1000.0, "FAILED"), ("fail-me", 12.5, "FAILED")];
    let mut calls = Vec::new();
    for (product, amount, status) in rows {
        let body = json!({ "userId": "pact-user", "productId": product, "amount": amount });
        let request = body.clone();
        pact.interaction(format!("an order of {product} for {amount}"), String::new(), |mut i| {
            i.request
                .post()
                .path("/OrderService/CreateOrder")
                .content_type("application/json")
                .json_body(json_pattern!(request));
            i.request.header("authorization", matching_regex!("^Bearer .+$", "Bearer token"));
            i.response.ok().content_type("application/json").json_body(json_pattern!({
                "orderId": matching_regex!(UUID, ID),
                "status": status,
                "message": like!("text"),
            }));
            i
        });
        let headers = [("content-type", "application/json"), ("authorization", "Bearer token")];
        calls.push((headers, body.to_string()));
    }
    let calls: Vec<_> = calls
        .iter()
        .map(|(headers, body)| ("/OrderService/CreateOrder", &headers[..], body.clone()))
        .collect();
    let answers = play(&pact, &calls).await;
    assert_eq!(answers[0]["status"], "SUCCESS");
}

/// The files as they are checked in, against the components that ship.
#[tokio::test(flavor = "multi_thread")]
async fn the_providers_are_as_their_pacts_say() {
    let secret = format!("order_client_secret={CLIENT_SECRET}");
    let host = Host::start(&["--set", &secret]);
    let admin = host.client().admin().await;
    let rows = [
        ("OrderService-PaymentService.json", "PaymentService", "payment", None),
        ("OrderService-IdentityService.json", "IdentityService", "identity", None),
        ("Gateway-OrderService.json", "OrderService", "order", Some(admin.token.as_str())),
    ];
    let mut sum = 0;
    for (file, name, endpoint, token) in rows {
        let base = host.url(endpoint);
        let count = verify(&Provider { name, base: &base, token }, &folder().join(file)).await.unwrap();
        println!("{file}: {count} interactions verified");
        sum += count;
    }
    assert_eq!(sum, 9);
    // A provider that does something else is noticed.
    let base = host.url("identity");
    let wrong = Provider { name: "PaymentService", base: &base, token: None };
    assert!(verify(&wrong, &folder().join("OrderService-PaymentService.json")).await.is_err());
    // Outside development there is no way to set up anything.
    let production = Host::start(&["--profile", "production", "--listen", "127.0.0.1"]);
    let change = json!({ "state": "a payment exists", "params": {}, "action": "setup" });
    for endpoint in ["payment", "identity", "order"] {
        let url = format!("{}/_pact/provider-states", production.url(endpoint));
        assert_eq!(production.client().post(&url, &change).await.status, 404, "{endpoint}");
    }
}
