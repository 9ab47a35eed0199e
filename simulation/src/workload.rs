//! Clients of a checkout: they place orders, lose patience, repeat, race, read and cancel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use settle_host::sim::{Machine, Reply, Sim, ask};

/// Tries of one request before a client gives up.
const TRIES_MAX: u32 = 12;
/// An order comes every so often, on average.
const MILLIS_PER_ORDER: u64 = 200;
/// The longest pause between two tries.
const PAUSE_MILLIS_MAX: u64 = 2_000;

/// What a client wants, and what must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Completes,
    /// Its final step takes time.
    CompletesSlowly,
    /// Over the acquirer's limit.
    Declined,
    FinalStepFails,
    /// Completes or not, by the acquirer's faults.
    Either(&'static str),
    /// The final step fails, and so do some refunds.
    Undone(&'static str),
}

/// Wishes with how often each is made, in thousandths. What takes minutes is rare.
const WISHES: [(u64, Wish); 17] = [
    (210, Wish::Completes),
    (40, Wish::Either("sim:refund-lost-answer:2")),
    (60, Wish::CompletesSlowly),
    (80, Wish::Declined),
    (80, Wish::FinalStepFails),
    (80, Wish::Either("sim:lost-answer:1")),
    (80, Wish::Either("sim:lost-answer:3")),
    (80, Wish::Either("sim:pending:2")),
    (60, Wish::Either("sim:delay:2500")),
    (30, Wish::Either("sim:delay:12000")),
    (70, Wish::Either("sim:unreachable:2")),
    (6, Wish::Either("sim:unreachable:1000")),
    (6, Wish::Either("sim:pending:1000")),
    (73, Wish::Undone("sim:void-lost-answer:2")),
    (42, Wish::Undone("sim:void-fails:3")),
    (2, PARKED[0]),
    (1, PARKED[1]),
];
/// Wishes that are parked until the operator redrives them.
const PARKED: [Wish; 2] = [Wish::Undone("sim:void-fails:60"), Wish::Undone("sim:void-lost-answer:60")];
/// How often the operator looks for parked orders.
const OPERATOR_LOOKS_EVERY: Duration = Duration::from_secs(20);

/// One client's order, as the client knows it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its number, user and key: what it is called in messages.
    pub name: String,
    pub user: usize,
    pub wish: Wish,
    pub minor: i64,
    /// Order ids of all answers; more than one is wrong.
    pub ids: Vec<String>,
    /// Statuses of all answers, in the order in which they came.
    pub seen: Vec<String>,
    /// A status, and one that came to a request that began after the first was known.
    pub sequences: BTreeSet<(String, String)>,
    /// Amounts that support asked to refund, and whether it was told that this is done.
    pub refunds: Vec<(i64, bool)>,
}

impl Told {
    pub fn new(name: &str, user: usize, wish: Wish, minor: i64) -> Self {
        let (ids, seen, sequences, refunds) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
        Self { name: name.to_owned(), user, wish, minor, ids, seen, sequences, refunds }
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
    /// Orders of the run.
    pub orders: u64,
    /// Every so many orders one more is to be parked: the storm lasts long enough for it.
    pub parks_every: Option<u64>,
}

impl Clients {
    pub fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One order, from the first try to the client's last look.
    pub async fn order(self: Arc<Self>, number: u64) {
        let sim = &self.sim;
        tokio::time::sleep(Duration::from_millis(sim.below(self.orders * MILLIS_PER_ORDER))).await;
        let wish = self.wish_of(number);
        // Users choose the same keys. The last token is an administrator's.
        let users = self.tokens.len().saturating_sub(1).max(1) as u64;
        let user = usize::try_from(number % users).unwrap_or(0);
        let name = format!("{number}: user {user}, key {}", number / users);
        let minor = i64::try_from(sim.below(90_000)).unwrap_or(0) + 1;
        let minor = if wish == Wish::Declined { minor + 100_000 } else { minor };
        self.notes().told.insert(name.clone(), Told::new(&name, user, wish, minor));
        let body = body_of(wish, minor);
        let cancels = sim.below(6) == 0;
        if sim.below(5) == 0 {
            // A second client with the same key at the same time: a page loaded twice.
            let (twin, name, body) = (self.clone(), name.clone(), body.clone());
            tokio::spawn(async move { twin.place(&name, user, &body).await });
        }
        let Some(id) = self.place(&name, user, &body).await else { return };
        let path = format!("/v1/orders/{id}");
        if cancels {
            tokio::time::sleep(Duration::from_millis(sim.below(3_000))).await;
            self.request(&name, user, http::Method::POST, &format!("{path}/cancel"), None).await;
        }
        let mut seen = None;
        for _ in 0..sim.below(4) {
            tokio::time::sleep(Duration::from_millis(sim.below(5_000))).await;
            seen = self.request(&name, user, http::Method::GET, &path, None).await.or(seen);
        }
        if sim.below(8) == 0 {
            self.snoop(&name, (user + 1) % usize::try_from(users).unwrap_or(1), &path).await;
        }
        let payment = seen.as_ref().and_then(|order| order.get("payment_id")).and_then(Value::as_str);
        if let (Some(payment), 0) = (payment, sim.below(4)) {
            for number in 0..=sim.below(2) {
                self.refund(&name, payment, number, 1 + i64::try_from(sim.below(60_000)).unwrap_or(0)).await;
            }
        }
    }

    fn wish_of(&self, number: u64) -> Wish {
        match self.parks_every {
            Some(every) if number.is_multiple_of(every) => {
                let [fails, loses_its_answers] = PARKED;
                if self.sim.below(2) == 0 { loses_its_answers } else { fails }
            }
            _ => wish_at(self.sim.below(1000)),
        }
    }

    /// Another user's order does not exist.
    async fn snoop(&self, name: &str, user: usize, path: &str) {
        let Some(reply) = self.send("order", user, http::Method::GET, path, None, "").await else { return };
        if reply.status < 300 {
            self.notes().wrong.push(format!("{name} was shown to user {user}"));
        }
    }

    /// Support returns a part of the money, again and again with the same key; some ask twice at once.
    async fn refund(self: &Arc<Self>, name: &str, payment: &str, number: u64, minor: i64) {
        let index = {
            let mut notes = self.notes();
            let Some(told) = notes.told.get_mut(name) else { return };
            told.refunds.push((minor, false));
            told.refunds.len() - 1
        };
        if self.sim.below(3) == 0 {
            let (twin, name, payment) = (self.clone(), name.to_owned(), payment.to_owned());
            tokio::spawn(async move { twin.ask_refund(&name, index, &payment, number, minor).await });
        }
        self.ask_refund(name, index, payment, number, minor).await;
    }

    async fn ask_refund(&self, name: &str, index: usize, payment: &str, number: u64, minor: i64) {
        let admin = self.tokens.len().saturating_sub(1);
        let path = format!("/v1/payments/{payment}/refunds");
        let body = json!({ "amount": { "minor": minor, "currency": "EUR" }, "reason": "damaged" });
        for _ in 0..TRIES_MAX {
            let key = format!("refund-{number}");
            let reply = self.send("payment", admin, http::Method::POST, &path, Some(&body), &key).await;
            match reply.map(|reply| reply.status) {
                Some(201) => {
                    let mut notes = self.notes();
                    let asked = notes.told.get_mut(name).and_then(|told| told.refunds.get_mut(index));
                    if let Some(asked) = asked {
                        asked.1 = true;
                    }
                    return;
                }
                // More than is left, or nothing was taken.
                Some(409 | 422) => return,
                Some(400..=428 | 430..=499) => {
                    self.notes().wrong.push(format!("{name}: a refund was answered with 4xx"));
                    return;
                }
                Some(_) | None => {}
            }
            tokio::time::sleep(Duration::from_millis(self.sim.below(PAUSE_MILLIS_MAX))).await;
        }
    }

    /// The operator: redrives what is parked, for as long as the world lasts.
    pub async fn operate(self: Arc<Self>) {
        let admin = self.tokens.len().saturating_sub(1);
        loop {
            tokio::time::sleep(OPERATOR_LOOKS_EVERY).await;
            let path = "/v1/sagas?state=needs_attention";
            let Some(reply) = self.send("order", admin, http::Method::GET, path, None, "").await else {
                continue;
            };
            let parked: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            let parked = parked.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
            for order in parked.iter().filter_map(|saga| saga.get("order_id").and_then(Value::as_str)) {
                let path = format!("/v1/orders/{order}/redrive");
                self.send("order", admin, http::Method::POST, &path, None, "").await;
            }
        }
    }

    /// Places an order, again and again with the same key; the id, once an answer tells it.
    async fn place(&self, name: &str, user: usize, body: &Value) -> Option<String> {
        for _ in 0..TRIES_MAX {
            let reply = self.request(name, user, http::Method::POST, "/v1/orders", Some(body)).await;
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

    /// One request about an order to some machine; the order, if that is the answer.
    pub async fn request(
        &self,
        name: &str,
        user: usize,
        method: http::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Value> {
        let known = self.notes().told.get(name)?.seen.len();
        let key = name.rsplit(' ').next().unwrap_or_default();
        let reply = self.send("order", user, method.clone(), path, body, key).await;
        self.hear(name, known, &method, &reply?)
    }

    /// One request to some machine.
    async fn send(
        &self,
        service: &str,
        user: usize,
        method: http::Method,
        path: &str,
        body: Option<&Value>,
        key: &str,
    ) -> Option<Reply> {
        let machine = self.machines.get(usize::try_from(self.sim.below(self.machines.len() as u64)).ok()?)?;
        let uri = format!("http://{service}.internal{path}");
        let mut request = http::Request::builder().method(&method).uri(uri);
        request = request.header("authorization", format!("Bearer {}", self.tokens.get(user)?));
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json").header("idempotency-key", key);
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let reply = ask(&self.sim, machine, service, request.body(bytes).ok()?).await;
        let shown = reply.as_ref().map_or_else(|| "nothing".to_owned(), |reply| reply.status.to_string());
        self.sim.tell(format!("user {user} {method} {path} {key} at m{}: {shown}", machine.number));
        reply
    }

    fn hear(&self, name: &str, known: usize, method: &http::Method, reply: &Reply) -> Option<Value> {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let mut notes = self.notes();
        match reply.status {
            200..=202 => {}
            // Over capacity, throttled, not ready: come back. A cancel may come too late.
            429 | 500 | 502 | 503 | 504 => return None,
            409 if *method == http::Method::POST => return None,
            other => {
                notes.wrong.push(format!("{name} was answered with {other}: {body}"));
                return None;
            }
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, status) = (text("id"), text("status"));
        if id.is_empty() {
            return Some(body); // not one order
        }
        let told = notes.told.get_mut(name)?;
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

/// The wish that a roll below 1000 stands for.
fn wish_at(roll: u64) -> Wish {
    let mut left = roll;
    for (often, wish) in WISHES {
        if left < often {
            return wish;
        }
        left -= often;
    }
    Wish::Completes
}

fn body_of(wish: Wish, minor: i64) -> Value {
    let product = match wish {
        Wish::FinalStepFails | Wish::Undone(_) => "fail-me",
        Wish::CompletesSlowly => "slow-me",
        Wish::Completes | Wish::Declined | Wish::Either(_) => "book",
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
