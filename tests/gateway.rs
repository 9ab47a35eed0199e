//! The edge: one origin, and what does not pass it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use http::Method;
use serde_json::json;
use settle_tests::client::{Client, one_item, one_item_by, refused_at_once};
use settle_tests::host::{Host, manifest_with};

fn gateway(host: &Host) -> String {
    host.url("gateway")
}

#[tokio::test]
async fn the_whole_api_is_behind_one_origin() {
    let host = Host::start(&[]);
    let alice = host.edge().register("alice").await;
    let placed = alice.place("k1", &one_item("book", 500)).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(alice.order(&id).await["status"], "completed");
    assert_eq!(alice.place("k1", &one_item("book", 500)).await.header("idempotent-replayed"), Some("true"));
    let cancelled = alice.cancel(&id).await;
    assert_eq!((cancelled.status, cancelled.json()["status"].as_str()), (200, Some("cancelled")));
    let admin = host.edge().admin().await;
    assert_eq!(admin.payment_of(&id).await["refunded"], 500);
    let many = one_item("book", 1);
    for key in 0..60 {
        assert_eq!(alice.place(&format!("page-{key}"), &many).await.status, 201);
    }
    // An answer that is larger than one chunk passes whole.
    let page = alice.get(&format!("{}/v1/orders?limit=200", gateway(&host))).await;
    assert_eq!(page.json()["data"].as_array().unwrap().len(), 61);
}

#[tokio::test]
async fn an_answer_of_the_edge_is_safe_for_a_browser_and_says_what_is_left() {
    let host = Host::start(&["--set", "cors_origins=https://shop.example"]);
    let alice = host.edge().register("alice").await;
    let url = format!("{}/v1/orders", gateway(&host));
    let headers = [("origin", "https://shop.example"), ("x-correlation-id", "mine-1")];
    let answer = alice.send(Method::GET, &url, &headers, "").await.unwrap();
    let expected = [
        ("x-correlation-id", "mine-1"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "https://shop.example"),
        ("vary", "origin"),
        ("ratelimit-limit", "1000"),
        ("ratelimit-reset", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("server").is_none());
    let ask = [("origin", "https://shop.example"), ("access-control-request-method", "POST")];
    let preflight = alice.send(Method::OPTIONS, &url, &ask, "").await.unwrap();
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-methods")),
        (204, Some("GET, POST"))
    );
    let ask = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let preflight = alice.send(Method::OPTIONS, &url, &ask, "").await.unwrap();
    assert_eq!(preflight.header("access-control-allow-origin"), None);
}

#[test]
fn any_origin_with_credentials_is_a_start_error() {
    let data = tempfile::tempdir().unwrap();
    let mut command = settle_tests::host::command(data.path());
    let output =
        command.args(["--set", "cors_origins=*", "--set", "cors_credentials=true"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("`*` cannot be used with credentials"), "{told}");
}

#[tokio::test]
async fn a_client_and_a_user_have_so_many_requests() {
    let host = Host::start(&["--set", "user_requests_per_minute=300"]);
    let (alice, bob) = (host.edge().register("alice").await, host.edge().register("bob").await);
    let url = format!("{}/v1/orders", gateway(&host));
    let mut refused = None;
    for _ in 0..50 {
        let answer = alice.get(&url).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.header("ratelimit-limit"), Some("10"));
    }
    let refused = refused.expect("over the limit");
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("too-many-requests", Some("1")));
    assert_eq!(bob.get(&url).await.status, 200, "another user is not harmed");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alice.get(&url).await.status, 200);

    let host = Host::start(&["--set", "client_requests_per_minute=60"]);
    let nobody = host.edge();
    let url = format!("{}/v1/orders", gateway(&host));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(nobody.get(&url).await.status);
    }
    assert_eq!((statuses[0], statuses[19]), (401, 429), "{statuses:?}");
}

#[tokio::test]
async fn what_is_between_services_is_not_at_the_edge() {
    let host = Host::start(&[]);
    let admin = host.edge().admin().await;
    for path in [
        "/oauth/token",
        "/v1/recovery/resume-due",
        "/settle.payment.v1.PaymentService/Process",
        "/order/health",
        "/nothing",
    ] {
        let answer = admin.post(&format!("{}{path}", gateway(&host)), &json!({})).await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"), "{path}");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let url = format!("{}/v1/orders", gateway(&host));
        assert_eq!(admin.send(method.clone(), &url, &[], "").await.unwrap().status, 405, "{method}");
    }
}

/// Bytes as they are, and the status of the answer; 0 when the connection was closed without one.
fn raw(host: &Host, request: &str) -> u16 {
    let address = gateway(host);
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    match stream.read_exact(&mut head) {
        Ok(()) => String::from_utf8_lossy(&head[9..12]).parse().unwrap(),
        Err(_) => 0,
    }
}

#[tokio::test]
async fn requests_with_two_readings_are_refused() {
    let host = Host::start(&[]);
    let length = "Content-Length";
    let rows = [
        (format!("POST /v1/tokens HTTP/1.1\r\nHost: a\r\n{length}: 2\r\n{length}: 3\r\n\r\n{{}}x"), 400),
        (format!("POST /v1/tokens HTTP/1.1\r\nHost: a\r\n{length}: 2, 3\r\n\r\n{{}}x"), 400),
        (format!("POST /v1/tokens HTTP/1.1\r\nHost: a\r\n{length}: +2\r\n\r\n{{}}"), 400),
        ("POST /v1/tokens HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, x\r\n\r\n{}".to_owned(), 400),
        ("GET /v1%2forders HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /v1//orders HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /v1/../v1/orders HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET http://other.internal/v1/orders HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /v1/orders HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("GET /v1/orders HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n".to_owned(), 400),
        ("GET /v1/or ders HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        (
            "GET /v1/orders HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned(),
            401, // answered as if it did not ask
        ),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
    ];
    for (request, expected) in rows {
        assert_eq!(raw(&host, &request), expected, "{request:?}");
    }
    // Both a length and chunks: the chunks count, and nothing that follows is another request.
    let both = format!(
        "POST /v1/tokens HTTP/1.1\r\nHost: a\r\n{length}: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n"
    );
    assert_ne!(raw(&host, &both), 200);
}

#[tokio::test]
async fn health_shows_the_services_and_their_breakers() {
    let host = Host::start(&["--set", "payment_url=http://127.0.0.1:9"]);
    let health =
        async || host.edge().get(&format!("{}/health", gateway(&host))).await.json()["details"].clone();
    let first = health().await;
    assert_eq!(first["order"], json!({ "ready": true, "breaker": "closed" }));
    assert_eq!(first["payment"], json!({ "ready": false, "breaker": "closed" }));
    for _ in 0..10 {
        health().await;
    }
    assert_eq!(health().await["payment"]["breaker"], "open");
    let live = host.edge().get(&format!("{}/health/live", gateway(&host))).await;
    assert_eq!(live.status, 200);
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_left_alone_for_a_while() {
    let host = Host::start(&["--set", "payment_url=http://127.0.0.1:9"]);
    let admin: Client = host.edge().admin().await;
    let url = format!("{}/v1/payments?order_id=x", gateway(&host));
    let mut last = admin.get(&url).await;
    for _ in 0..20 {
        last = admin.get(&url).await;
        assert_eq!((last.status, last.problem().as_str()), (503, "unavailable"));
    }
    let wait: u32 = last.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 20, "{wait}");
    assert!(host.log().contains("Circuit breaker OPEN for payment"), "{}", host.log());
    assert_eq!(admin.get(&format!("{}/v1/orders", gateway(&host))).await.status, 200);
}

#[tokio::test]
async fn a_service_over_its_capacity_refuses_some_and_is_not_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = manifest_with(folder.path(), |text| {
        text.replace("databases = [\"order\"]", "databases = [\"order\"]\nconcurrent = 1\nwaiting = 0")
    });
    let host = Host::start(&["--manifest", manifest.to_str().unwrap()]);
    let client = host.edge().register("alice").await;
    let refused = refused_at_once(&client, 30).await;
    assert!(refused >= 25, "{refused} of 30 were refused");
    let health = client.get(&format!("{}/health", gateway(&host))).await.json();
    assert_eq!(health["details"]["order"], json!({ "ready": true, "breaker": "closed" }));
    assert_eq!(client.place("later", &one_item("book", 1250)).await.status, 201);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_end_has_asked_nothing_and_after_it_gets_its_order() {
    let host = Host::start(&[]);
    let alice = host.edge().register("alice").await;
    let body = one_item_by("book", 1250, "sim:delay:400").to_string();
    let whole = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nIdempotency-Key: left\r\nContent-Length: {}\r\n\r\n{body}",
        alice.token,
        body.len()
    );
    let leave_after = async |bytes: usize| {
        let mut stream = TcpStream::connect(gateway(&host).trim_start_matches("http://")).unwrap();
        stream.write_all(&whole.as_bytes()[..bytes]).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let placed = async || {
        let page = alice.get(&format!("{}/v1/orders", gateway(&host))).await.json();
        page["data"].as_array().unwrap().clone()
    };
    for bytes in [20, whole.len() - body.len(), whole.len() - 1] {
        leave_after(bytes).await;
        assert!(placed().await.is_empty(), "{bytes} of {}", whole.len());
    }
    leave_after(whole.len()).await;
    let orders = placed().await;
    let id = orders[0]["id"].as_str().unwrap();
    assert_eq!(alice.settled(id).await["status"], "completed");
    // The key finds it.
    let again = alice
        .send(
            Method::POST,
            &format!("{}/v1/orders", gateway(&host)),
            &[("content-type", "application/json"), ("idempotency-key", "left")],
            body.clone(),
        )
        .await
        .unwrap();
    assert_eq!(again.json()["id"].as_str(), Some(id));
}
