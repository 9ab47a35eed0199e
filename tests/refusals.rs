//! Bad input: every one gets a problem document, and nothing is lost or changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use settle_tests::acquirer_ledger::{charges, orders};
use settle_tests::client::{Answer, Client, one_item};
use settle_tests::host::Host;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn shop() -> (Host, Client) {
    let host = Host::start(&[]);
    let client = host.client().admin().await;
    (host, client)
}

async fn place_raw(client: &Client, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let url = format!("{}/v1/orders", client.order);
    client.send(Method::POST, &url, headers, body.to_vec()).await.unwrap()
}

const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("idempotency-key", "k")];

fn item(quantity: Value, minor: Value, currency: &str) -> Value {
    json!({ "product_id": "p", "quantity": quantity, "unit_price": { "minor": minor, "currency": currency } })
}

fn items(items: &[Value]) -> String {
    json!({ "items": items }).to_string()
}

#[tokio::test]
async fn orders_that_break_a_rule_are_refused_and_nothing_is_written() {
    let (host, client) = shop().await;
    let good = || item(json!(1), json!(100), "EUR");
    let with = |change: Value| {
        let mut body: Value = serde_json::from_str(&items(&[good()])).unwrap();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body.to_string()
    };
    let rows: Vec<(String, u16, &str)> = vec![
        ("{".into(), 400, "malformed-request"),
        ("".into(), 400, "malformed-request"),
        ("[]".into(), 422, "invalid-field"),
        ("\u{feff}{}".into(), 400, "malformed-request"),
        (json!({}).to_string(), 422, "invalid-field"),
        (items(&[]), 422, "invalid-field"),
        (items(&vec![good(); 101]), 422, "invalid-field"),
        (with(json!({ "surprise": 1 })), 422, "invalid-field"),
        (with(json!({ "payment_method": 5 })), 422, "invalid-field"),
        (with(json!({ "payment_method": "with space" })), 422, "invalid-field"),
        (with(json!({ "user_id": "" })), 422, "invalid-field"),
        (items(&[item(json!(0), json!(100), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(-1), json!(100), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(10_001), json!(100), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!("1"), json!(100), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(1), json!(0), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(1), json!(-5), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(1), json!(12.5), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(2), json!(i64::MAX), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(1), json!(1e30), "EUR")]), 422, "invalid-field"),
        (items(&[item(json!(1), json!(100), "XXX")]), 422, "invalid-field"),
        (items(&[good(), item(json!(1), json!(100), "USD")]), 422, "invalid-field"),
        (format!(r#"{{"items":{}"#, "[".repeat(300)), 422, "invalid-field"),
        (r#"{"items":[],"items":[]}"#.into(), 422, "invalid-field"),
    ];
    for (body, status, problem) in rows {
        let answer = place_raw(&client, &JSON, body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{body}");
    }
    let bad_utf8 = b"{\"items\":[{\"product_id\":\"\xff\"}]}";
    assert_eq!(place_raw(&client, &JSON, bad_utf8).await.status, 400);
    assert!(orders(&host.data).is_empty());
    assert!(charges(&host.data).is_empty());
}

#[tokio::test]
async fn headers_methods_paths_and_sizes_are_checked() {
    let (host, client) = shop().await;
    let body = one_item("book", 100).to_string();
    let refused = |answer: Answer, status, problem: &str| {
        assert_eq!((answer.status, answer.problem()), (status, problem.to_owned()), "{answer:?}");
    };
    refused(place_raw(&client, &[JSON[0]], body.as_bytes()).await, 400, "missing-idempotency-key");
    let long = "k".repeat(256);
    let headers = [JSON[0], ("idempotency-key", long.as_str())];
    refused(place_raw(&client, &headers, body.as_bytes()).await, 422, "invalid-field");
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let headers = [("content-type", content_type), JSON[1]];
        refused(place_raw(&client, &headers, body.as_bytes()).await, 415, "unsupported-media-type");
    }
    refused(place_raw(&client, &[JSON[1]], body.as_bytes()).await, 415, "unsupported-media-type");
    refused(place_raw(&client, &JSON, &vec![b' '; 70_000]).await, 413, "body-too-large");

    let (order, identity, payment) = (&client.order, &client.identity, &client.payment);
    let nobody = "00000000-0000-7000-8000-000000000000";
    let rows = [
        (Method::DELETE, format!("{order}/v1/orders"), 405, "GET, POST"),
        (Method::PUT, format!("{order}/v1/orders/{nobody}"), 405, "GET"),
        (Method::GET, format!("{order}/v1/orders/{nobody}/cancel"), 405, "POST"),
        (Method::GET, format!("{identity}/v1/tokens"), 405, "POST"),
        (Method::POST, format!("{identity}/.well-known/jwks.json"), 405, "GET"),
        (Method::POST, format!("{payment}/v1/payments/{nobody}"), 405, "GET"),
        (Method::GET, format!("{order}/"), 404, ""),
        (Method::GET, format!("{order}/v1/orders/{nobody}"), 404, ""),
        (Method::GET, format!("{order}/v1/orders/{}", nobody.to_uppercase().replace('0', "A")), 404, ""),
        (Method::GET, format!("{order}/v1/orders/..%2f..%2fetc"), 404, ""),
        (Method::GET, format!("{payment}/v1/payments/{nobody}"), 404, ""),
        (Method::GET, format!("{payment}/v1/payments"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?after=nonsense"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?limit=0"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?limit=201"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?limit=ten"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?status=shiny"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?surprise=1"), 400, ""),
        (Method::GET, format!("{order}/v1/orders?after=%zz"), 400, ""),
    ];
    for (method, url, status, allow) in rows {
        let answer = client.send(method.clone(), &url, &[], "").await.unwrap();
        assert_eq!(answer.status, status, "{method} {url}: {answer:?}");
        answer.problem();
        assert_eq!(answer.header("allow").unwrap_or_default(), allow, "{method} {url}");
    }
    assert!(orders(&host.data).is_empty());
}

/// Sends bytes as they are and reads what comes back.
async fn raw(url: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(8), read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_over_the_limit_or_not_http_are_refused() {
    let (_host, client) = shop().await;
    let huge = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "a".repeat(20_000));
    assert!(raw(&client.order, huge.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let answer = raw(&client.order, b"nonsense\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let both = b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    assert!(raw(&client.order, both).await.starts_with("HTTP/1.1 400"));
    let cut = b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\nconnection: close\r\n\r\n{";
    let mut stream = TcpStream::connect(client.order.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(cut).await.unwrap();
    drop(stream);
    assert_eq!(client.get(&format!("{}/health", client.order)).await.status, 200, "the host lives on");
}

/// A body in chunks goes to the component as a stream, one of known length in one piece: the same order.
#[tokio::test]
async fn a_body_in_chunks_is_the_same_order() {
    let (host, client) = shop().await;
    let body = one_item("book", 100).to_string();
    let whole = place_raw(&client, &JSON, body.as_bytes()).await;
    assert_eq!(whole.status, 201);
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\nidempotency-key: k\r\n",
        client.token
    );
    let (first, second) = body.split_at(5);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let request = format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}");
    let answer = raw(&client.order, request.as_bytes()).await;
    assert!(answer.contains(whole.json()["id"].as_str().unwrap()), "{answer}");
    let long = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{}", 70_000, " ".repeat(70_000));
    assert!(raw(&client.order, long.as_bytes()).await.starts_with("HTTP/1.1 413"));
    assert_eq!(orders(&host.data).len(), 1);
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn tokens_that_are_not_ours_are_refused() {
    let (host, client) = shop().await;
    let parts: Vec<&str> = client.token.split('.').collect();
    let decode =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let (head, claims) = (decode(parts[0]), decode(parts[1]));
    let jwks = client.get(&format!("{}/.well-known/jwks.json", client.identity)).await.json();
    let public = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    let mut older = claims.clone();
    older["exp"] = json!(1);
    let service = host.service_token().await;
    let tokens = [
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("alg none", format!("{}.{}.", segment(&json!({ "alg": "none" })), parts[1])),
        ("another claim", format!("{}.{}.{}", parts[0], segment(&older), parts[2])),
        (
            "HS256 with the public key",
            hs256(&public, &json!({ "alg": "HS256", "kid": head["kid"] }), &claims),
        ),
        ("unknown kid", format!("{}.{}.{}", segment(&json!({"alg":"EdDSA","kid":"x"})), parts[1], parts[2])),
        ("garbage", "a.b.c".to_owned()),
        ("empty", String::new()),
        ("wrong audience", service),
    ];
    for (what, token) in tokens {
        let answer = client.clone().with_token(&token).get(&format!("{}/v1/orders", client.order)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{what}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let wrong = [("admin", "wrong"), ("nobody", "password"), ("", ""), ("admin", &"x".repeat(300))];
    for (username, password) in wrong {
        let url = format!("{}/login", client.identity);
        let answer = client.post(&url, &json!({ "username": username, "password": password })).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "wrong-credentials"), "{username}");
    }
    assert!(!host.log().contains(&client.token), "a token is in the log");
}

/// A token signed by HMAC with any key, as an attacker would.
fn hs256(key: &[u8], head: &Value, claims: &Value) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let signed = format!("{}.{}", segment(head), segment(claims));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn grpc_frames_cut_short_are_refused() {
    let (host, client) = shop().await;
    let url = format!("{}/settle.payment.v1.PaymentService/Process", client.payment);
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    for body in [&b""[..], b"\0", b"\0\0\0\0\x05ab", b"\x01\0\0\0\0", b"\0\0\0\0\x01\xff", b"\0\0\0\0\0"] {
        let answer = client.send(Method::POST, &url, &headers, body.to_vec()).await.unwrap();
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("3")), "{body:?} {answer:?}");
        assert!(answer.header("grpc-status-details-bin").is_some());
    }
    let unknown = format!("{}/settle.payment.v1.PaymentService/Nope", client.payment);
    let answer = client.send(Method::POST, &unknown, &headers, "").await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("12"));
    let anonymous = client.clone().with_token("x");
    let answer = anonymous.send(Method::POST, &url, &headers, "").await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("16"));
    assert!(charges(&host.data).is_empty());
}
