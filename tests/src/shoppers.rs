//! Clients under which hosts and servers are killed, and what they were told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::acquirer_ledger::{Books, orders};
use crate::client::{Client, is_open, one_item, one_item_by};

const SETTLE_TIME_MAX: Duration = Duration::from_secs(90);

/// The seed of this run: `SETTLE_SEED`, or the clock's. Printed.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var("SETTLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(now.subsec_nanos().into());
    println!("SETTLE_SEED={seed}");
    seed
}

/// Small, seeded, good enough to choose moments and products (xorshift64*).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

/// What the clients were told, by idempotency key.
#[derive(Default)]
pub struct Told {
    /// The order id of each key, from any answer.
    pub orders: HashMap<String, String>,
    /// The last settled status of each order, with whether its client asked to cancel it.
    settled: HashMap<String, String>,
    cancelling: HashMap<String, bool>,
    pub wrong: Vec<String>,
    pub acknowledged: usize,
}

impl Told {
    pub fn hear(&mut self, key: &str, order: &Value) {
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
pub async fn shop(client: Client, number: u64, seed: u64, round: u32, told: Arc<Mutex<Told>>) {
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

pub fn histogram(books: impl Into<Books>, counts: &mut BTreeMap<String, u32>) {
    for (status, _) in orders(books).into_values() {
        if ["payment_pending", "paid", "compensating"].contains(&status.as_str()) {
            *counts.entry(status).or_default() += 1;
        }
    }
}

/// Every order that is not settled is brought to its end by recovery alone.
pub async fn wait_until_settled(books: &Books, log: impl Fn() -> String) {
    let started = Instant::now();
    loop {
        let mut open = BTreeMap::new();
        histogram(books, &mut open);
        if open.is_empty() {
            return;
        }
        let log = log();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        assert!(started.elapsed() < SETTLE_TIME_MAX, "still open: {open:?}\n{tail:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
