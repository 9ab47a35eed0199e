//! Clients of a checkout: they place orders, lose patience, repeat, race, read and cancel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use settle_host::sim::{Machine, Reply, Sim, ask};

/// Tries of one request before a client gives up.
const TRIES_MAX: u32 = 12;
/// The longest pause between two tries.
const PAUSE_MILLIS_MAX: u64 = 2_000;

/// What a client wants, and what must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Completes,
    /// Over the acquirer's limit.
    Declined,
    FinalStepFails,
    /// Completes or not, by the acquirer's faults.
    Either(&'static str),
    /// The final step fails, and so do some refunds.
    Undone(&'static str),
}

const WISHES: [Wish; 12] = [
    Wish::Completes,
    Wish::Completes,
    Wish::Completes,
    Wish::Declined,
    Wish::FinalStepFails,
    Wish::Either("sim:lost-answer:1"),
    Wish::Either("sim:lost-answer:3"),
    Wish::Either("sim:pending:2"),
    Wish::Either("sim:delay:2500"),
    Wish::Either("sim:unreachable:2"),
    Wish::Undone("sim:void-lost-answer:2"),
    Wish::Undone("sim:void-fails:3"),
];

/// One client's order, as the client knows it.
#[derive(Clone, Debug)]
pub struct Told {
    pub key: String,
    pub user: usize,
    pub wish: Wish,
    pub minor: i64,
    /// Order ids of all answers; more than one is wrong.
    pub ids: Vec<String>,
    /// Statuses of all answers, in the order in which they came.
    pub seen: Vec<String>,
    /// A status, and one that came to a request that began after the first was known.
    pub sequences: BTreeSet<(String, String)>,
}

impl Told {
    pub fn new(key: &str, user: usize, wish: Wish, minor: i64) -> Self {
        let (ids, seen, sequences) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { key: key.to_owned(), user, wish, minor, ids, seen, sequences }
    }
}

/// What all clients were told, and answers that no client should get.
#[derive(Default)]
pub struct Notes {
    pub told: BTreeMap<String, Told>,
    pub wrong: Vec<String>,
}

/// The clients of one run.
pub struct Clients {
    pub sim: Arc<Sim>,
    pub machines: Vec<Arc<Machine>>,
    /// Bearer tokens of users; the index is the user.
    pub tokens: Arc<Vec<String>>,
    pub notes: Mutex<Notes>,
}

impl Clients {
    pub fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One order, from the first try to the client's last look.
    pub async fn order(self: Arc<Self>, number: u64) {
        let sim = &self.sim;
        tokio::time::sleep(Duration::from_millis(sim.below(20_000))).await;
        let wish = pick(&WISHES, sim.below(WISHES.len() as u64));
        // The last token is an administrator's.
        let user = usize::try_from(sim.below(self.tokens.len().saturating_sub(1) as u64)).unwrap_or(0);
        let (key, minor) = (format!("order-{number}"), i64::try_from(sim.below(90_000)).unwrap_or(0) + 1);
        let minor = if wish == Wish::Declined { minor + 100_000 } else { minor };
        let told = Told::new(&key, user, wish, minor);
        self.notes().told.insert(key.clone(), told);
        let body = body_of(wish, minor);
        let cancels = sim.below(6) == 0;
        if sim.below(5) == 0 {
            // A second client with the same key at the same time: a page loaded twice.
            let (twin, key, body) = (self.clone(), key.clone(), body.clone());
            tokio::spawn(async move { twin.place(&key, user, &body).await });
        }
        let id = self.place(&key, user, &body).await;
        if let Some(id) = &id {
            if cancels {
                tokio::time::sleep(Duration::from_millis(sim.below(3_000))).await;
                self.request(&key, user, http::Method::POST, &format!("/v1/orders/{id}/cancel"), None).await;
            }
            for _ in 0..sim.below(4) {
                tokio::time::sleep(Duration::from_millis(sim.below(5_000))).await;
                self.request(&key, user, http::Method::GET, &format!("/v1/orders/{id}"), None).await;
            }
        }
    }

    /// Places an order, again and again with the same key; the id, once an answer tells it.
    async fn place(&self, key: &str, user: usize, body: &Value) -> Option<String> {
        for _ in 0..TRIES_MAX {
            let reply = self.request(key, user, http::Method::POST, "/v1/orders", Some(body)).await;
            if let Some(order) = reply {
                return order.get("id").and_then(Value::as_str).map(str::to_owned);
            }
            if self.sim.below(20) == 0 {
                return None; // gives up
            }
            tokio::time::sleep(Duration::from_millis(self.sim.below(PAUSE_MILLIS_MAX))).await;
        }
        None
    }

    /// One request to some machine; an order, if that is the answer.
    pub async fn request(
        &self,
        key: &str,
        user: usize,
        method: http::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Value> {
        let machine = self.machines.get(usize::try_from(self.sim.below(self.machines.len() as u64)).ok()?)?;
        let mut request =
            http::Request::builder().method(&method).uri(format!("http://order.internal{path}"));
        request = request.header("authorization", format!("Bearer {}", self.tokens.get(user)?));
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json").header("idempotency-key", key);
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let known = self.notes().told.get(key)?.seen.len();
        let reply = ask(&self.sim, machine, "order", request.body(bytes).ok()?).await;
        let shown = reply.as_ref().map_or_else(|| "nothing".to_owned(), |reply| reply.status.to_string());
        self.sim.tell(format!("client {key} {method} {path} at m{}: {shown}", machine.number));
        self.hear(key, known, &method, &reply?)
    }

    fn hear(&self, key: &str, known: usize, method: &http::Method, reply: &Reply) -> Option<Value> {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let mut notes = self.notes();
        match reply.status {
            200..=202 => {}
            // Over capacity, throttled, not ready: come back. A cancel may come too late.
            429 | 500 | 502 | 503 | 504 => return None,
            409 if *method == http::Method::POST => return None,
            other => {
                notes.wrong.push(format!("{key} was answered with {other}: {body}"));
                return None;
            }
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, status) = (text("id"), text("status"));
        if id.is_empty() {
            return Some(body); // not one order
        }
        let told = notes.told.get_mut(key)?;
        if !told.ids.contains(&id) {
            told.ids.push(id);
        }
        // Answers that crossed on the way say nothing of each other's order.
        let before = told.seen.iter().take(known).map(|before| (before.clone(), status.clone()));
        told.sequences.extend(before);
        told.seen.push(status);
        Some(body)
    }
}

fn pick<T: Copy>(all: &[T], index: u64) -> T {
    let index = usize::try_from(index).unwrap_or(0);
    #[allow(clippy::indexing_slicing)] // the index was rolled below the length
    all[index]
}

fn body_of(wish: Wish, minor: i64) -> Value {
    let product = match wish {
        Wish::FinalStepFails | Wish::Undone(_) => "fail-me",
        _ => "book",
    };
    let method = match wish {
        Wish::Either(method) | Wish::Undone(method) => method,
        _ => "",
    };
    one_item(product, minor, method)
}

/// An order of one item, in EUR; an empty payment method is none.
pub fn one_item(product: &str, minor: i64, method: &str) -> Value {
    let price = json!({ "minor": minor, "currency": "EUR" });
    let mut body = json!({ "items": [{ "product_id": product, "quantity": 1, "unit_price": price }] });
    if let (false, Some(fields)) = (method.is_empty(), body.as_object_mut()) {
        fields.insert("payment_method".to_owned(), method.into());
    }
    body
}
