//! What a running host tells of an order, by its public API.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use settle_types::Money;

use crate::{Entry, Funds, Order};

const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The services of a host, as an administrator sees them.
pub struct Running {
    /// Origins, without a slash at the end.
    pub order: String,
    pub payment: String,
    /// An administrator's bearer token.
    pub token: String,
}

/// What the services say of an order.
pub struct Told {
    pub order: Order,
    pub journal: Vec<Entry>,
    /// `None`: payment knows of no charge.
    pub booked: Option<Funds>,
}

impl Running {
    /// Errors: a service is not reached, refuses, or answers what is not its API.
    pub fn ask(&self, id: &str) -> Result<Told> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let order = self.get(&format!("{}/v1/orders/{id}", self.order)).await?;
            let history = self.get(&format!("{}/v1/orders/{id}/history", self.order)).await?;
            let payments = self.get(&format!("{}/v1/payments?order_id={id}", self.payment)).await?;
            Ok(Told {
                journal: list(&history, "entries").iter().map(|entry| entry_of(entry, &order)).collect(),
                booked: list(&payments, "data").iter().map(funds_of).reduce(|sum, one| Funds {
                    captured: sum.captured + one.captured,
                    returned: sum.returned + one.returned,
                }),
                order: order_of(&order)?,
            })
        })
    }

    async fn get(&self, url: &str) -> Result<Value> {
        let client: Client<HttpConnector, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let request = http::Request::get(url)
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())
            .with_context(|| format!("`{url}` is no URL"))?;
        let asked = async {
            let answer = client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok((status, body))
        };
        let answered = tokio::time::timeout(ANSWER_TIME_MAX, asked).await;
        let (status, body) =
            answered.context("no answer in time").and_then(|done| done).with_context(|| url.to_owned())?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            bail!("{url} answered {status}: {}", text(&value, "detail"));
        }
        Ok(value)
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn order_of(value: &Value) -> Result<Order> {
    let total = value.get("total").cloned().unwrap_or_default();
    let total: Money = serde_json::from_value(total).context("the order has no total")?;
    let reason = value.get("failure_reason").and_then(Value::as_str).map(str::to_owned);
    Ok(Order { id: text(value, "id"), status: text(value, "status"), reason, total, due_at: None })
}

/// The history names the cause; what it was about is in the order.
fn entry_of(entry: &Value, order: &Value) -> Entry {
    let about = json!({
        "payment_id": text(order, "payment_id"), "reason": text(order, "failure_reason"), "by": "somebody",
    });
    let event = json!({ text(entry, "cause"): about });
    Entry { at: text(entry, "at"), status: text(entry, "status"), event }
}

fn funds_of(payment: &Value) -> Funds {
    let minor = |name| payment.get(name).and_then(Value::as_i64).unwrap_or(0);
    Funds { captured: minor("captured"), returned: minor("refunded") }
}
