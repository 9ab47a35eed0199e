//! The order saga on Restate, as its documentation shows sagas: `restate-peer ADDRESS`.
//!
//! Leaner than ours, which is in its favour: orders are not kept for reading, there is no ledger, no
//! outbox and no token, and the acquirer is a function.

use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    items: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    product_id: String,
    quantity: u32,
    unit_price: Money,
}

#[derive(Clone, Serialize, Deserialize)]
struct Money {
    minor: i64,
    currency: String,
}

#[derive(Serialize, Deserialize)]
struct Charge {
    key: String,
    amount: Money,
}

#[derive(Serialize, Deserialize)]
struct Placed {
    id: String,
    status: String,
    payment_id: String,
}

struct Payments;

#[service]
impl Payments {
    /// Charges at the acquirer; what it answered is durable.
    #[handler]
    async fn charge(&self, ctx: Context<'_>, Json(charge): Json<Charge>) -> Result<String, HandlerError> {
        let payment_id = ctx.run(|| async move { Ok(format!("{}/{}", charge.key, charge.amount.minor)) });
        Ok(payment_id.name("charge").await?)
    }
}

struct Orders;

#[service]
impl Orders {
    /// The invocation is the durable intent; the call to payments is durable and never made twice.
    #[handler]
    async fn place(
        &self,
        mut ctx: Context<'_>,
        Json(order): Json<Order>,
    ) -> Result<Json<Placed>, HandlerError> {
        let Some(first) = order.items.first() else {
            return Err(TerminalError::new("an order has items").into());
        };
        let minor = order.items.iter().map(|item| item.unit_price.minor * i64::from(item.quantity)).sum();
        let id = ctx.rand_uuid().to_string();
        let amount = Money { minor, ..first.unit_price.clone() };
        let charge = Charge { key: format!("{id}/charge"), amount };
        let payment_id = ctx.service_client::<PaymentsClient>().charge(Json(charge)).call().await?;
        Ok(Json(Placed { id, status: "completed".to_owned(), payment_id }))
    }
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).expect("an address to listen on");
    let address = address.parse().expect("an address like 127.0.0.1:9080");
    let endpoint = Endpoint::builder().bind(Orders).bind(Payments).build();
    HttpServer::new(endpoint).listen_and_serve(address).await;
}
