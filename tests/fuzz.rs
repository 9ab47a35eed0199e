//! Broken input, from seeds: heads and bodies of every route through the running components, gRPC frames,
//! tokens, cursors, manifests. Nothing may end a host, and nothing may be answered with 5xx.
//!
//! `SETTLE_FUZZ_SECONDS` makes it longer; a failure prints its seed and the bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use settle_host::manifest::Manifest;
use settle_tests::host::{Host, root};
use settle_token::{Signer, Verifier};
use settle_types::Timestamp;

fn time() -> Duration {
    let seconds = std::env::var("SETTLE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// What broken input is often made of.
const PIECES: [&[u8]; 26] = [
    b"\0",
    b"\r\n",
    b"\r\n\r\n",
    b"\xff\xfe",
    b"%00",
    b"%2f",
    b"..",
    b"//",
    b"'",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"0.1",
    b"\xf0\x9f\x92\xb3",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"\t",
    b":",
    b"true",
    b"\xed\xa0\x80",
];

/// Bytes with a few mistakes.
fn broken(rng: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(0..9)).min(bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => bytes.truncate(at),
            4 => bytes.insert(at, rng.random()),
            _ => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// A request: service, method, path, media type, body.
type Good = (&'static str, &'static str, String, &'static str, Vec<u8>);

const JSON: &str = "application/json";

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat()
}

/// One request of every route.
fn corpus(id: &str) -> Vec<Good> {
    [orders(id), payments(id), users()].concat()
}

fn orders(id: &str) -> Vec<Good> {
    let order = br#"{"items":[{"product_id":"book","quantity":2,"unit_price":{"minor":125,"currency":"EUR"}}],"payment_method":"card"}"#;
    let create = br#"{"userId":"","productId":"book","amount":12.5}"#;
    let proto = b"\x0a\x05alice\x12\x04book\x19\0\0\0\0\0\0\x29\x40";
    vec![
        ("order", "POST", "/v1/orders".into(), JSON, order.to_vec()),
        ("order", "GET", "/v1/orders?status=paid&limit=10".into(), "", vec![]),
        ("order", "GET", format!("/v1/orders?after={id}"), "", vec![]),
        ("order", "GET", format!("/v1/orders/{id}"), "", vec![]),
        ("order", "GET", format!("/v1/orders/{id}/history"), "", vec![]),
        ("order", "POST", format!("/v1/orders/{id}/cancel"), "", vec![]),
        ("order", "POST", format!("/v1/orders/{id}/redrive"), "", vec![]),
        ("order", "POST", format!("/v1/orders/{id}/resolve"), JSON, br#"{"note":"n"}"#.to_vec()),
        ("order", "GET", "/v1/sagas?state=needs_attention".into(), "", vec![]),
        ("order", "POST", "/orders.OrderService/CreateOrder".into(), JSON, create.to_vec()),
        ("order", "POST", "/orders.OrderService/CreateOrder".into(), "application/grpc", frame(proto)),
        ("order", "POST", "/grpc.health.v1.Health/Check".into(), "application/grpc", frame(b"\x0a\x01x")),
        ("gateway", "POST", "/v1/orders".into(), JSON, order.to_vec()),
        ("gateway", "POST", "/OrderService/CreateOrder".into(), JSON, create.to_vec()),
        ("gateway", "POST", "/orders.OrderService/CreateOrder".into(), "application/grpc", frame(proto)),
        ("gateway", "GET", format!("/v1/orders/{id}"), "", vec![]),
    ]
}

fn payments(id: &str) -> Vec<Good> {
    vec![
        ("payment", "GET", format!("/v1/payments?order_id={id}"), "", vec![]),
        ("payment", "GET", format!("/v1/payments/{id}"), "", vec![]),
        (
            "payment",
            "POST",
            format!("/v1/payments/{id}/refunds"),
            JSON,
            br#"{"amount":{"minor":1,"currency":"EUR"},"reason":"r"}"#.to_vec(),
        ),
        (
            "payment",
            "POST",
            "/payments.PaymentService/ProcessPayment".into(),
            JSON,
            br#"{"order_id":"o","amount":1.5,"user_id":"u"}"#.to_vec(),
        ),
        (
            "payment",
            "POST",
            "/payments.PaymentService/RefundPayment".into(),
            "application/grpc",
            frame(b"\x0a\x03abc\x12\x01r"),
        ),
        (
            "payment",
            "POST",
            "/settle.payment.v1.PaymentService/Process".into(),
            "application/grpc",
            frame(b"\x0a\x03k/c\x12\x01o\x1a\x07\x08\x05\x12\x03EUR"),
        ),
        (
            "payment",
            "POST",
            "/settle.payment.v1.PaymentService/Undo".into(),
            "application/proto",
            b"\x0a\x03k/c\x12\x01o\x1a\x07\x08\x05\x12\x03EUR".to_vec(),
        ),
    ]
}

fn users() -> Vec<Good> {
    vec![
        (
            "identity",
            "POST",
            "/v1/users".into(),
            JSON,
            br#"{"username":"fuzz","password":"long enough"}"#.to_vec(),
        ),
        (
            "identity",
            "POST",
            "/v1/users/me/password".into(),
            JSON,
            br#"{"current_password":"a","new_password":"long enough"}"#.to_vec(),
        ),
        (
            "identity",
            "POST",
            "/oauth/token".into(),
            "application/x-www-form-urlencoded",
            b"grant_type=client_credentials&client_id=order&client_secret=x&audience=payment".to_vec(),
        ),
    ]
}

/// The status of the answer to these bytes; `None` when there was none.
fn status_of(address: &str, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // Err: the host has closed before all was sent; its answer may be there.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_end_a_host_or_are_answered_with_an_error_of_ours() {
    let unlimited = ["--set", "client_requests_per_minute=0", "--set", "user_requests_per_minute=0"];
    let host = Host::start(&unlimited);
    let admin = host.client().admin().await;
    let placed = admin.place("fuzz", &settle_tests::client::one_item("book", 500)).await;
    let id = placed.json()["id"].as_str().unwrap().to_owned();
    let corpus = corpus(&id);
    let (started, mut executions, mut statuses) = (Instant::now(), 0_u64, BTreeMap::<u16, u64>::new());
    let token = admin.token.clone();
    let urls: BTreeMap<&str, String> = ["order", "payment", "identity", "gateway"]
        .map(|name| (name, host.url(name).trim_start_matches("http://").to_owned()))
        .into();
    while started.elapsed() < time() {
        let mut rng = StdRng::seed_from_u64(executions);
        let (service, method, path, media_type, body) = &corpus[rng.random_range(0..corpus.len())];
        // A broken head, a broken body under a good head, or both.
        let which = rng.random_range(0..3);
        let body = if which > 0 { broken(&mut rng, body) } else { body.clone() };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: fuzz-{}\r\nContent-Length: {}\r\n",
            executions % 50,
            body.len()
        );
        if !media_type.is_empty() {
            head.push_str(&format!("Content-Type: {media_type}\r\n"));
        }
        let mut head = head.into_bytes();
        if which != 1 {
            head = broken(&mut rng, &head);
        }
        let bytes = [&head[..], b"Connection: close\r\n\r\n", &body].concat();
        let status = status_of(&urls[service], &bytes).unwrap_or(0);
        assert!(
            status < 500,
            "seed {executions} to {service}: {status} for {:?}\n{}",
            String::from_utf8_lossy(&bytes),
            host.log()
        );
        *statuses.entry(status).or_default() += 1;
        executions += 1;
    }
    assert!(executions > 500, "{executions}");
    assert_eq!(admin.get(&format!("{}/health", host.url("gateway"))).await.status, 200);
    assert!(!host.log().contains("panicked") && !host.log().contains(" ended: "), "{}", host.log());
    println!("requests: {executions}, crashes 0, 5xx 0, answers {statuses:?} (0: none)");
}

#[test]
fn no_token_makes_the_verifier_panic_and_none_is_taken_for_another() {
    let signer = Signer::ed25519("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
    let verifier = Verifier::ed25519(signer.jwks(), "us", &["settle"]).unwrap();
    let claims = serde_json::json!({
        "iss": "us", "sub": "alice", "aud": "settle", "exp": 2_000_000_000, "iat": 1_000_000_000, "jti": "1", "role": "User"
    });
    let claims: settle_token::Claims = serde_json::from_value(claims).unwrap();
    let good = signer.sign(&claims).unwrap();
    let now = Timestamp::from_millis(1_500_000_000_000);
    assert_eq!(verifier.verify(&good, now).as_ref(), Ok(&claims));
    let mut count = 0;
    for seed in 0..20_000 {
        let bytes = broken(&mut StdRng::seed_from_u64(seed), good.as_bytes());
        let token = String::from_utf8_lossy(&bytes);
        if token != good {
            assert!(verifier.verify(&token, now).is_err(), "seed {seed}: {token}");
            count += 1;
        }
    }
    println!("tokens: {count}, accepted 0");
}

#[test]
fn no_manifest_makes_the_host_panic() {
    let good = std::fs::read(root().join("spin.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut read, mut refused) = (0, 0);
    for seed in 0..3_000 {
        let path = folder.path().join("spin.toml");
        std::fs::write(&path, broken(&mut StdRng::seed_from_u64(seed), &good)).unwrap();
        match Manifest::read(&path) {
            Ok(manifest) => {
                read += 1;
                // Err: a template that names nothing; told, not panicked.
                let _ = manifest.values("development", &[]);
            }
            Err(_) => refused += 1,
        }
    }
    println!("manifests: {read} read, {refused} refused");
    assert!(refused > 500);
}
