//! A client of the services, as their users would write one.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::loopback::{Loopback, connector};

const WAITS_MAX: u32 = 10;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The last part of a problem's type.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        let kind = body["type"].as_str().expect("a problem has a type");
        kind.strip_prefix("urn:settle:problem:").expect("a problem of ours").to_owned()
    }
}

/// Talks to the three services, with one token.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector<Loopback>, Full<Bytes>>,
    pub identity: String,
    pub order: String,
    pub payment: String,
    pub token: String,
}

impl Client {
    pub fn new(identity: String, order: String, payment: String) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build(connector());
        Self { http, identity, order, payment, token: String::new() }
    }

    /// The same client on another machine: another loopback address.
    pub fn at(mut self, address: [u8; 4]) -> Self {
        let mut connector = connector();
        connector.set_local_address(Some(std::net::IpAddr::from(address)));
        self.http = HttpClient::builder(TokioExecutor::new()).build(connector);
        self
    }

    /// Sends a request. `Err` when no whole answer came.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(url);
        if !self.token.is_empty() && !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        let response = self.http.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], "").await.unwrap()
    }

    pub async fn post(&self, url: &str, body: &Value) -> Answer {
        self.send(Method::POST, url, &JSON, body.to_string()).await.unwrap()
    }

    /// Waits where it is told to: a test's users may come faster than one client's passwords are hashed.
    pub async fn send_patiently(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let send = || async { self.send(method.clone(), url, headers, body.to_owned()).await.unwrap() };
        let mut answer = send().await;
        for _ in 0..WAITS_MAX {
            if answer.status != 429 {
                break;
            }
            let seconds = answer.header("retry-after").expect("a wait is told").parse().unwrap();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            answer = send().await;
        }
        answer
    }

    async fn post_patiently(&self, url: &str, body: &Value) -> Answer {
        self.send_patiently(&Method::POST, url, &JSON, &body.to_string()).await
    }

    /// This client with a user's token.
    pub async fn login(mut self, username: &str, password: &str) -> Self {
        let url = format!("{}/v1/tokens", self.identity);
        let answer = self.post_patiently(&url, &json!({ "username": username, "password": password })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        self.token = answer.json()["token"].as_str().unwrap().to_owned();
        self
    }

    /// This client with a token that was issued before.
    pub fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    pub async fn admin(self) -> Self {
        self.login("admin", "password").await
    }

    /// A new user and a client for it.
    pub async fn register(self, username: &str) -> Self {
        let url = format!("{}/v1/users", self.identity);
        let answer =
            self.post_patiently(&url, &json!({ "username": username, "password": "long enough" })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        self.login(username, "long enough").await
    }

    /// Places an order with a key. `Err` when no whole answer came.
    pub async fn try_place(&self, key: &str, body: &Value) -> Result<Answer, String> {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        self.send(Method::POST, &format!("{}/v1/orders", self.order), &headers, body.to_string()).await
    }

    pub async fn place(&self, key: &str, body: &Value) -> Answer {
        self.try_place(key, body).await.unwrap()
    }

    pub async fn order(&self, id: &str) -> Value {
        let answer = self.get(&format!("{}/v1/orders/{id}", self.order)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The order, once its saga has settled.
    pub async fn settled(&self, id: &str) -> Value {
        for _ in 0..600 {
            let order = self.order(id).await;
            if !is_open(&order) {
                return order;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("order {id} does not settle: {}", self.order(id).await);
    }

    pub async fn cancel(&self, id: &str) -> Answer {
        self.post(&format!("{}/v1/orders/{id}/cancel", self.order), &Value::Null).await
    }

    pub async fn history(&self, id: &str) -> Vec<String> {
        let answer = self.get(&format!("{}/v1/orders/{id}/history", self.order)).await;
        let body = answer.json();
        let entries = body["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["status"].as_str().unwrap().to_owned()).collect()
    }

    /// The payment of an order, by its read API.
    pub async fn payment_of(&self, order_id: &str) -> Value {
        let answer = self.get(&format!("{}/v1/payments?order_id={order_id}", self.payment)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"][0].clone()
    }
}

/// An order that its saga has not settled.
pub fn is_open(order: &Value) -> bool {
    ["payment_pending", "paid", "compensating"].contains(&order["status"].as_str().unwrap())
}

/// The body of an order with one item.
pub fn one_item(product: &str, minor: i64) -> Value {
    let price = json!({ "minor": minor, "currency": "EUR" });
    json!({ "items": [{ "product_id": product, "quantity": 1, "unit_price": price }] })
}

/// The same, paid by a method of the acquirer simulator.
pub fn one_item_by(product: &str, minor: i64, method: &str) -> Value {
    let mut body = one_item(product, minor);
    body["payment_method"] = method.into();
    body
}

/// Places slow orders at once and tells how many were refused: each with 503 and when to come again.
pub async fn refused_at_once(client: &Client, orders: u32) -> u32 {
    let slow = |number: u32| {
        let client = client.clone();
        let body = one_item_by("book", 1250, "sim:delay:800");
        tokio::spawn(async move { client.place(&format!("k{number}"), &body).await })
    };
    let answers: Vec<_> = (0..orders).map(slow).collect();
    let mut refused = 0;
    for answer in answers {
        let answer = answer.await.unwrap();
        if answer.status != 201 {
            assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
            assert_eq!(answer.header("retry-after"), Some("1"));
            refused += 1;
        }
    }
    refused
}
