//! `kill -9` of the host at random moments under 32 clients: nothing acknowledged is lost, nobody is
//! charged twice, every order ends. The truth is read from the acquirer's own ledger.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use settle_tests::acquirer_ledger::{orders, violations};
use settle_tests::host::Host;
use settle_tests::shoppers::{Dice, Told, histogram, seed, shop, wait_until_settled};

const KILLS: u32 = 30;
const CLIENTS: u64 = 32;
/// The host lives between these many milliseconds after it is ready.
const LIFE_MILLIS: (u64, u64) = (40, 500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_every_order_ends_and_nobody_is_charged_twice() {
    let seed = seed();
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
    wait_until_settled(&data.into(), || host.log()).await;
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
