//! Users, their passwords and their tokens, from registration to revocation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use settle_tests::client::{Answer, Client};
use settle_tests::host::{Host, OLDER_TOKENS};

/// How long a token that was taken back may still be good at other services, and time for a slow machine.
const REVOKED_WITHIN: Duration = Duration::from_secs(25);

async fn try_login(client: &Client, username: &str, password: &str) -> Answer {
    let body = json!({ "username": username, "password": password });
    client.post(&format!("{}/v1/tokens", client.identity), &body).await
}

async fn change_password(client: &Client, current: &str, new: &str) -> Answer {
    let body = json!({ "current_password": current, "new_password": new });
    client.post(&format!("{}/v1/users/me/password", client.identity), &body).await
}

async fn orders_status(client: &Client) -> u16 {
    client.get(&format!("{}/v1/orders", client.order)).await.status
}

/// Waits until the order service refuses this client's token.
async fn refused_soon(client: &Client) {
    let started = Instant::now();
    while orders_status(client).await != 401 {
        assert!(started.elapsed() < REVOKED_WITHIN, "the token is still good");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn claims_of(token: &str) -> Value {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

// ---- passwords ----

#[tokio::test]
async fn a_changed_password_takes_the_old_tokens_back() {
    let host = Host::start(&[]);
    let alice = host.edge().register("alice").await;
    assert_eq!(orders_status(&alice).await, 200);
    let wrong = change_password(&alice, "not my password", "another long one").await;
    assert_eq!((wrong.status, wrong.problem().as_str()), (401, "wrong-credentials"));
    let short = change_password(&alice, "long enough", "short").await;
    assert_eq!((short.status, short.problem().as_str()), (422, "invalid-field"));
    assert_eq!(change_password(&alice, "long enough", "another long one").await.status, 204);
    // At identity at once, elsewhere soon.
    assert_eq!(change_password(&alice, "another long one", "a third long one").await.status, 401);
    assert_eq!(try_login(&alice, "alice", "long enough").await.status, 401);
    let again = host.edge().login("alice", "another long one").await;
    assert_eq!(orders_status(&again).await, 200, "a token of the same second is good");
    refused_soon(&alice).await;
    assert_eq!(orders_status(&again).await, 200);
    let nobody = change_password(&host.edge(), "long enough", "another long one").await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn guesses_lock_out_who_guesses_and_nobody_else() {
    let host = Host::start(&[]);
    let user = host.client().register("alice").await;
    let thief = host.client().at([127, 0, 0, 66]);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(try_login(&thief, "alice", "a guess of mine").await.status);
    }
    assert_eq!(statuses[..10], [401; 10]);
    let locked = try_login(&thief, "alice", "long enough").await;
    assert_eq!((locked.status, locked.problem().as_str()), (429, "too-many-requests"), "even the right one");
    assert!(locked.header("retry-after").is_some());
    // Neither the user at another machine, nor another user at this one.
    for _ in 0..15 {
        assert_eq!(try_login(&user, "alice", "long enough").await.status, 201, "right ones are not counted");
    }
    assert_eq!(try_login(&thief, "bob", "a guess of mine").await.status, 401);
    // Through the gateway it is the same client.
    let edge = host.edge().at([127, 0, 0, 66]);
    assert_eq!(try_login(&edge, "alice", "a guess of mine").await.status, 429);
    // Who claims to be another machine is believed by nobody.
    let body = json!({ "username": "alice", "password": "a guess of mine" }).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("x-settle-client", "127.0.0.9"),
        ("x-settle-peer", "in-process"),
    ];
    for origin in [host.url("identity"), host.url("gateway")] {
        let url = format!("{origin}/v1/tokens");
        let answer = thief.send(http::Method::POST, &url, &headers, body.clone()).await.unwrap();
        assert_eq!(answer.status, 429, "{origin}");
    }
}

#[tokio::test]
async fn an_unknown_user_is_answered_as_slowly_and_with_the_same_words() {
    let host = Host::start(&[]);
    let client = host.client().register("alice").await;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..8 {
        for (name, times) in [("alice", &mut known), ("nobody", &mut unknown)] {
            let machine = client.clone().at([127, 0, 1, round]);
            let started = Instant::now();
            let answer = try_login(&machine, name, "a wrong password").await;
            times.push(started.elapsed());
            assert_eq!((answer.status, answer.problem().as_str()), (401, "wrong-credentials"));
            assert_eq!(answer.json()["detail"], "Unknown user or wrong password.");
        }
    }
    known.sort();
    unknown.sort();
    let (known, unknown) = (known[4].as_secs_f64(), unknown[4].as_secs_f64());
    // A lookup without a hash would take a hundredth of the time.
    assert!(unknown > known / 3.0 && known > unknown / 3.0, "{known} {unknown}");
}

// ---- revocation ----

#[tokio::test]
async fn tokens_are_taken_back_one_by_one_and_all_of_a_user() {
    let host = Host::start(&[]);
    let first = host.edge().register("alice").await;
    let second = host.edge().login("alice", "long enough").await;
    let bob = host.edge().register("bob").await;
    let revoke = format!("{}/v1/tokens/revoke", first.identity);
    let jti = claims_of(&second.token)["jti"].as_str().unwrap().to_owned();
    let not_own = first.post(&revoke, &json!({ "jti": jti })).await;
    assert_eq!(
        (not_own.status, not_own.problem().as_str()),
        (403, "forbidden"),
        "an id alone is not a proof"
    );
    assert_eq!(first.send(http::Method::POST, &revoke, &[], "").await.unwrap().status, 204);
    refused_soon(&first).await;
    assert_eq!(orders_status(&second).await, 200);
    assert_eq!(first.send(http::Method::POST, &revoke, &[], "").await.unwrap().status, 401);

    let admin = host.edge().admin().await;
    assert_eq!(admin.post(&revoke, &json!({ "jti": jti })).await.status, 204);
    refused_soon(&second).await;

    let user = claims_of(&bob.token)["sub"].as_str().unwrap().to_owned();
    let of_user = format!("{}/v1/users/{user}/revoke", bob.identity);
    let third = host.edge().login("alice", "long enough").await;
    assert_eq!(third.post(&of_user, &json!({})).await.status, 403);
    assert_eq!(admin.post(&of_user, &json!({})).await.status, 204);
    refused_soon(&bob).await;
    assert_eq!(orders_status(&host.edge().login("bob", "long enough").await).await, 200);
    assert_eq!(third.post(&format!("{}/v1/users/me/revoke", third.identity), &json!({})).await.status, 204);
    refused_soon(&third).await;
    let unknown = admin.post(&format!("{}/v1/users/nobody/revoke", bob.identity), &json!({})).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn what_was_taken_back_stays_so_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let mut host = Host::start_in(data.path(), &[]);
    let alice = host.client().register("alice").await;
    let revoke = format!("{}/v1/tokens/revoke", alice.identity);
    assert_eq!(alice.send(http::Method::POST, &revoke, &[], "").await.unwrap().status, 204);
    host.kill();
    let host = Host::start_in(data.path(), &[]);
    let alice = host.client().with_token(&alice.token);
    assert_eq!(orders_status(&alice).await, 401);
}

// ---- secrets ----

/// Neither the log, nor any answer, nor the process's arguments hold a secret of the deployment or a user.
#[tokio::test]
async fn no_secret_is_told() {
    let host = Host::start(&["--set", "seed_admin_password=a seeded secret"]);
    let alice = host.edge().register("alice").await;
    let admin = host.edge().login("admin", "a seeded secret").await;
    let mut told = String::new();
    for path in ["/v1/orders", "/v1/sagas", "/health", "/nothing", "/.well-known/jwks.json", "/openapi.json"]
    {
        for client in [&alice, &admin, &host.edge()] {
            let answer = client.get(&format!("{}{path}", host.url("gateway"))).await;
            told.push_str(&format!("{:?}", answer.headers));
            told.push_str(&String::from_utf8_lossy(&answer.body));
        }
    }
    for body in ["{", "{\"username\":\"alice\",\"password\":\"long enough", "{\"username\":1}"] {
        let url = format!("{}/v1/tokens", host.url("gateway"));
        let headers = [("content-type", "application/json")];
        let answer = alice.send(http::Method::POST, &url, &headers, body).await.unwrap();
        told.push_str(&String::from_utf8_lossy(&answer.body));
    }
    try_login(&alice, "alice", "a wrong password of hers").await;
    let junk = host.edge().with_token("a.junk.token");
    assert_eq!(orders_status(&junk).await, 401);
    told.push_str(&host.log());
    let generated = std::fs::read_to_string(host.data.join("secrets.env")).unwrap();
    let mut secrets: Vec<String> = generated
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(_, value)| value.to_owned())
        .collect();
    assert!(secrets.len() >= 2 && secrets.iter().all(|secret| secret.len() > 20));
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", host.pid())).unwrap();
    for secret in &secrets {
        assert!(!arguments.contains(secret), "{arguments}");
    }
    secrets.extend(
        ["long enough", "a seeded secret", "a wrong password of hers", "a.junk.token"].map(str::to_owned),
    );
    secrets.extend([alice.token.clone(), admin.token.clone()]);
    for secret in &secrets {
        assert!(!told.contains(secret.as_str()), "`{secret}` is told");
    }
}

// ---- keys ----

#[tokio::test]
async fn two_keys_are_live_during_a_rotation() {
    let data = tempfile::tempdir().unwrap();
    let mut host = Host::start_in(data.path(), &[]);
    let old = host.client().register("alice").await;
    host.terminate();
    let (new_key, old_key) = (URL_SAFE_NO_PAD.encode([7; 32]), host.secret("token_signing_key"));
    let new_key = format!("token_signing_key={new_key}");
    let (rotated, previous) = (["--set", new_key.as_str()], format!("token_previous_key={old_key}"));
    let mut host = Host::start_in(data.path(), &[&rotated[..], &["--set", previous.as_str()]].concat());
    let keys = host.client().get(&format!("{}/.well-known/jwks.json", host.url("identity"))).await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    let new = host.client().login("alice", "long enough").await;
    assert_eq!(orders_status(&host.client().with_token(&old.token)).await, 200);
    assert_eq!(orders_status(&new).await, 200);
    host.terminate();
    let host = Host::start_in(data.path(), &rotated);
    assert_eq!(orders_status(&host.client().with_token(&old.token)).await, 401, "rotated out");
    assert_eq!(orders_status(&host.client().with_token(&new.token)).await, 200);
}

#[tokio::test]
async fn the_described_system_s_tokens_can_be_had() {
    let host = Host::start(&OLDER_TOKENS);
    let admin = host.edge().admin().await;
    let claims = claims_of(&admin.token);
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["role"]),
        (&json!("IdentityService"), &json!("MicroserviceApp"), &json!("Admin"))
    );
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(life, 3600);
    assert!(claims["jti"].is_string() && claims["sub"].is_string());
    assert_eq!(orders_status(&admin).await, 200);
    let revoke = format!("{}/v1/tokens/revoke", admin.identity);
    assert_eq!(admin.send(http::Method::POST, &revoke, &[], "").await.unwrap().status, 204);
    refused_soon(&admin).await;
}
