//! The published API: what it promises is there, who may do what, and no input breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};
use settle_tests::client::{Client, one_item};
use settle_tests::host::{Host, root, target};

fn published() -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("docs/openapi.json")).unwrap()).unwrap()
}

/// Method, path as published, and whether it needs a token.
fn operations() -> Vec<(Method, String, bool)> {
    let api = published();
    let mut found = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            found.push((method, path.clone(), operation["security"] != json!([])));
        }
    }
    found
}

// ---- the document ----

#[tokio::test]
async fn the_document_and_its_page_are_served_and_need_nothing_else() {
    let host = Host::start(&[]);
    let get = async |path: &str| host.edge().get(&format!("{}{path}", host.url("gateway"))).await;
    assert_eq!(get("/openapi.json").await.json(), published());
    for (path, kind) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/page.js", "text/javascript; charset=utf-8"),
        ("/docs/style.css", "text/css; charset=utf-8"),
    ] {
        let answer = get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains("http://") && !text.contains("https://"), "{path} works without a network");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn what_is_published_is_there_and_asks_for_a_token_where_it_says_so() {
    let host = Host::start(&[]);
    for (method, path, needs_token) in operations() {
        let url = format!("{}{}", host.url("gateway"), at_some_id(&path));
        let answer = host.edge().send(method.clone(), &url, &[], "").await.unwrap();
        assert_eq!(answer.status == 401, needs_token, "{method} {path}: {answer:?}");
        assert!(![404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
        let other = if method == Method::GET { Method::POST } else { Method::GET };
        if !operations().iter().any(|(known, at, _)| *known == other && *at == path) {
            let answer = host.edge().send(other.clone(), &url, &[], "").await.unwrap();
            assert!([401, 405].contains(&answer.status), "{other} {path}: {answer:?}");
        }
    }
}

/// Every path that a service answers is published, or is for other services, or another name of one that is.
#[test]
fn what_is_there_is_published() {
    let published: BTreeSet<String> = operations().into_iter().map(|(_, path, _)| path).collect();
    let mut unpublished = BTreeSet::new();
    for service in ["identity", "order", "payment"] {
        let file = root().join(format!("components/{service}/src/routes.rs"));
        let source = std::fs::read_to_string(file).unwrap();
        let strings =
            source.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/') && text.len() > 4);
        unpublished.extend(strings.filter(|path| !published.contains(*path)).map(str::to_owned));
        for list in source.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(list, _)| list) {
            if list.starts_with("\"v1\"") && !list.contains('|') {
                let part = |part: &str| {
                    if part.starts_with('"') { part.trim_matches('"').to_owned() } else { "{id}".to_owned() }
                };
                let path = format!("/{}", list.split(", ").map(part).collect::<Vec<_>>().join("/"));
                if !published.contains(&path) {
                    unpublished.insert(path);
                }
            }
        }
    }
    let known =
        ["/login", "/oauth/token", "/v1/users/", "/revoke", "/v1/recovery/resume-due", "/v1/orders/{}"];
    assert_eq!(unpublished, known.map(str::to_owned).into_iter().collect());
}

fn at_some_id(path: &str) -> String {
    path.replace("{id}", "01900000-0000-7000-8000-000000000000")
}

// ---- who may do what ----

/// What each caller gets: nobody, the order's owner, another user, an administrator, a service.
type Row = (Method, &'static str, Value, [u16; 5]);

/// Every published operation that needs a token. `{order}` and `{payment}` are the owner's.
fn authorisation() -> Vec<Row> {
    let refund = json!({ "amount": { "minor": 1, "currency": "EUR" }, "reason": "r" });
    let pay = json!({ "order_id": "compat-1", "amount": 1.0 });
    let create = json!({ "productId": "book", "amount": 1.0, "userId": "{owner}" });
    vec![
        (Method::POST, "/v1/orders", one_item("book", 5), [401, 201, 201, 201, 401]),
        (Method::GET, "/v1/orders", Value::Null, [401, 200, 200, 200, 401]),
        (Method::GET, "/v1/orders/{order}", Value::Null, [401, 200, 404, 200, 401]),
        (Method::GET, "/v1/orders/{order}/history", Value::Null, [401, 200, 404, 200, 401]),
        (Method::POST, "/v1/orders/{order}/redrive", Value::Null, [401, 403, 403, 409, 401]),
        (Method::POST, "/v1/orders/{order}/resolve", json!({ "note": "n" }), [401, 403, 403, 409, 401]),
        (Method::POST, "/v1/orders/{order}/cancel", Value::Null, [401, 200, 404, 200, 401]),
        (Method::GET, "/v1/sagas", Value::Null, [401, 403, 403, 200, 401]),
        (Method::GET, "/v1/payments?order_id={order}", Value::Null, [401, 403, 403, 200, 200]),
        (Method::GET, "/v1/payments/{payment}", Value::Null, [401, 403, 403, 200, 200]),
        (Method::POST, "/v1/payments/{payment}/refunds", refund, [401, 403, 403, 201, 403]),
        (Method::POST, "/OrderService/CreateOrder", create, [401, 200, 403, 200, 401]),
        (Method::POST, "/PaymentService/ProcessPayment", pay, [401, 403, 403, 200, 200]),
        (
            Method::POST,
            "/PaymentService/RefundPayment",
            json!({ "payment_id": "{payment}", "reason": "r" }),
            [401, 403, 403, 200, 200],
        ),
        (Method::POST, "/v1/users/{owner}/revoke", Value::Null, [401, 204, 403, 204, 401]),
        (
            Method::POST,
            "/v1/users/me/password",
            json!({ "current_password": "wrong wrong", "new_password": "long enough" }),
            [401, 401, 401, 401, 401],
        ),
        (Method::POST, "/v1/tokens/revoke", Value::Null, [401, 204, 204, 204, 401]),
    ]
}

struct Callers {
    all: [Client; 5],
    owner: String,
    order: String,
    payment: String,
}

/// Fresh ones for each row: some rows end what a caller has.
async fn callers(host: &Host, row: usize) -> Callers {
    let owner = host.edge().register(&format!("owner-{row}")).await;
    let other = host.edge().register(&format!("other-{row}")).await;
    let admin = host.edge().admin().await;
    let service = host.edge().with_token(&host.service_token().await);
    let placed = owner.place("first", &one_item("book", 500)).await.json();
    Callers {
        owner: placed["user_id"].as_str().unwrap().to_owned(),
        order: placed["id"].as_str().unwrap().to_owned(),
        payment: placed["payment_id"].as_str().unwrap().to_owned(),
        all: [host.edge(), owner, other, admin, service],
    }
}

#[tokio::test]
async fn every_route_is_for_whom_it_is_for() {
    let host = Host::start(&[]);
    let rows = authorisation();
    let covered: BTreeSet<(String, String)> = rows
        .iter()
        .map(|(method, path, ..)| {
            let path = path.split('?').next().unwrap();
            let path =
                path.replace("{order}", "{id}").replace("{payment}", "{id}").replace("{owner}", "{id}");
            (method.to_string(), path)
        })
        .collect();
    let promised: BTreeSet<(String, String)> = operations()
        .into_iter()
        .filter(|row| row.2)
        .map(|(method, path, _)| (method.to_string(), path))
        .collect();
    assert_eq!(covered, promised);
    for (row, (method, path, body, expected)) in rows.into_iter().enumerate() {
        let callers = callers(&host, row).await;
        let filled = |text: &str| {
            let text = text.replace("{order}", &callers.order).replace("{payment}", &callers.payment);
            text.replace("{owner}", &callers.owner)
        };
        let url = format!("{}{}", host.url("gateway"), filled(path));
        let mut got = [0; 5];
        for (caller, got) in callers.all.iter().zip(&mut got) {
            let headers = [("content-type", "application/json"), ("idempotency-key", "second")];
            let answer = match &body {
                Value::Null => caller.send_patiently(&method, &url, &headers[1..], "").await,
                body => caller.send_patiently(&method, &url, &headers, &filled(&body.to_string())).await,
            };
            *got = answer.status;
        }
        println!("{method} {path}: {got:?}");
        assert_eq!(got, expected, "{method} {path}: nobody, owner, other, administrator, service");
    }
}

// ---- what no input may do ----

/// Runs schemathesis, which `cargo xtask` installs: every published operation with good and bad input.
#[tokio::test(flavor = "multi_thread")]
async fn no_input_makes_an_answer_that_is_not_published() {
    let tools = target().join("api-tools");
    let program = tools.join("bin/schemathesis");
    assert!(program.exists(), "{} is missing: run `cargo xtask test`", program.display());
    let host = Host::start(&["--set", "user_requests_per_minute=0", "--set", "client_requests_per_minute=0"]);
    let admin = host.edge().admin().await;
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new("python3");
    run.current_dir(folder.path()).env("PYTHONPATH", &tools).arg(program).arg("run");
    run.arg(format!("{}/openapi.json", host.url("gateway")));
    run.args(["--header", &format!("Authorization: Bearer {}", admin.token)]);
    // These would end the token that the others need; `tests/identity.rs` has them.
    for own in ["revokeToken", "revokeUser", "changePassword"] {
        run.args(["--exclude-operation-id", own]);
    }
    run.args([
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
    ]);
    run.args(["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "40", "--seed", "1"]);
    run.args(["--no-color", "--continue-on-failure"]);
    let output = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let counted =
        |line: &&str| line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(" generated, ");
    let cases = told.lines().map(str::trim).find(counted).unwrap_or("no cases").to_owned();
    println!("schemathesis: {cases}");
    assert!(output.status.success(), "{told}");
    let count: u32 = cases.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 1_000, "{cases}");
}
