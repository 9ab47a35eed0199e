//! `kill -9` of the host at random moments under 32 clients: nothing acknowledged is lost, nobody is
//! charged twice, every order ends. The truth is read from the acquirer's own ledger.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use settle_tests::acquirer_ledger::{orders, violations};
use settle_tests::client::{Client, is_open, one_item, one_item_by};
use settle_tests::host::Host;

const KILLS: u32 = 30;
const CLIENTS: u64 = 32;
/// The host lives between these many milliseconds after it is ready.
const LIFE_MILLIS: (u64, u64) = (40, 500);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(90);

/// Small, seeded, good enough to choose moments and products (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

/// What the clients were told, by idempotency key.
#[derive(Default)]
struct Told {
    /// The order id of each key, from any answer.
    orders: HashMap<String, String>,
    /// The last settled status of each order, with whether its client asked to cancel it.
    settled: HashMap<String, String>,
    cancelling: HashMap<String, bool>,
    wrong: Vec<String>,
    acknowledged: usize,
}

impl Told {
    fn hear(&mut self, key: &str, order: &Value) {
        let id = order["id"].as_str().unwrap().to_owned();
        let known = self.orders.entry(key.to_owned()).or_insert_with(|| id.clone());
        if *known != id {
            self.wrong.push(format!("key {key} was answered with order {known}, then with {id}"));
        }
        self.acknowledged += 1;
        if !is_open(order) {
            let status = order["status"].as_str().unwrap().to_owned();
            let before = self.settled.insert(id.clone(), status.clone());
            let may_change = self.cancelling.contains_key(&id);
            if before.is_some_and(|before| before != status && !may_change) {
                self.wrong.push(format!("order {id} went backwards to {status}"));
            }
        } else if let Some(before) = self.settled.get(&id)
            && !self.cancelling.contains_key(&id)
        {
            self.wrong.push(format!("order {id} was {before}, then open again"));
        }
    }
}

fn body(kind: u64) -> Value {
    match kind {
        0..=3 => one_item("book", 1250),
        4 => one_item("book", 100_000), // declined
        5 => one_item("fail-me", 1250),
        6 => one_item("slow-me", 1250),
        7 => one_item_by("book", 1250, "sim:lost-answer:1"),
        8 => one_item_by("book", 1250, "sim:delay:120"),
        9 => one_item_by("book", 1250, "sim:pending:1"),
        10 => one_item_by("fail-me", 1250, "sim:void-lost-answer:2"),
        _ => one_item_by("fail-me", 1250, "sim:void-fails:4"),
    }
}

/// One client: places orders, repeats what got no answer, cancels some, until the host is gone.
async fn shop(client: Client, number: u64, seed: u64, round: u32, told: Arc<Mutex<Told>>) {
    let mut dice = Dice(seed ^ (number + 1).wrapping_mul(0x9e37_79b9) ^ u64::from(round) << 40 | 1);
    let mut keys: Vec<(String, u64)> = Vec::new();
    for sequence in 0.. {
        let repeated = dice.roll(5) == 0 && !keys.is_empty();
        let (key, kind) = if repeated {
            keys[usize::try_from(dice.roll(keys.len() as u64)).unwrap()].clone()
        } else {
            let fresh = (format!("{round}-{number}-{sequence}"), dice.roll(12));
            keys.push(fresh.clone());
            fresh
        };
        let Ok(answer) = client.try_place(&key, &body(kind)).await else { return };
        match answer.status {
            201 | 202 => told.lock().unwrap().hear(&key, &answer.json()),
            429 | 503 => continue,
            other => told.lock().unwrap().wrong.push(format!("{other}: {:?}", answer.json())),
        }
        if dice.roll(8) == 0 {
            let id = answer.json()["id"].as_str().unwrap_or_default().to_owned();
            told.lock().unwrap().cancelling.insert(id.clone(), true);
            let url = format!("{}/v1/orders/{id}/cancel", client.order);
            if client.send(http::Method::POST, &url, &[], "").await.is_err() {
                return;
            }
        }
    }
}

fn histogram(data: &Path, counts: &mut BTreeMap<String, u32>) {
    for (status, _) in orders(data).into_values() {
        if ["payment_pending", "paid", "compensating"].contains(&status.as_str()) {
            *counts.entry(status).or_default() += 1;
        }
    }
}

/// Every order that is not settled is brought to its end by recovery alone.
async fn wait_until_settled(data: &Path) {
    let started = Instant::now();
    loop {
        let mut open = BTreeMap::new();
        histogram(data, &mut open);
        if open.is_empty() {
            return;
        }
        let log = std::fs::read_to_string(data.join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        assert!(started.elapsed() < SETTLE_TIME_MAX, "still open: {open:?}\n{tail:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_every_order_ends_and_nobody_is_charged_twice() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var("SETTLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(now.subsec_nanos().into());
    println!("SETTLE_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (told, mut dice) = (Arc::new(Mutex::new(Told::default())), Dice(seed | 1));
    let (mut states, mut token, mut acknowledged) = (BTreeMap::new(), None::<String>, Vec::new());
    for round in 0..KILLS {
        let mut host = Host::start_in(data, &[]);
        let mut client = host.client();
        client = match token.take() {
            Some(known) => client.with_token(&known),
            None => client.admin().await,
        };
        token = Some(client.token.clone());
        let before = told.lock().unwrap().acknowledged;
        let shoppers: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(shop(client.clone(), number, seed, round, told.clone())))
            .collect();
        let life = LIFE_MILLIS.0 + dice.roll(LIFE_MILLIS.1 - LIFE_MILLIS.0);
        tokio::time::sleep(Duration::from_millis(life)).await;
        host.kill();
        for shopper in shoppers {
            shopper.await.unwrap();
        }
        acknowledged.push(told.lock().unwrap().acknowledged - before);
        histogram(data, &mut states);
    }
    let host = Host::start_in(data, &[]);
    wait_until_settled(data).await;
    let client = host.client().with_token(&token.unwrap());
    let known = told.lock().unwrap().orders.clone();
    for (key, id) in &known {
        let answer = client.get(&format!("{}/v1/orders/{id}", client.order)).await;
        assert_eq!(answer.status, 200, "order {id} of key {key} was acknowledged and is lost");
        told.lock().unwrap().hear(key, &answer.json());
    }
    let placed = orders(data).len();
    println!("kills: {KILLS}, orders acknowledged since the last kill: {acknowledged:?}");
    println!("orders: {placed}, acknowledged keys: {}, states found at restarts: {states:?}", known.len());
    let mut wrong = violations(data);
    wrong.append(&mut told.lock().unwrap().wrong);
    println!("violations: {}", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    for state in ["payment_pending", "paid", "compensating"] {
        assert!(states.contains_key(state), "no saga was ever found {state}: the test does not reach it");
    }
}
