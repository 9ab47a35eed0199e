//! `native-saga FOLDER [ORDERS]`: the same cores on the same stores, compiled for this machine; prints
//! its address. What the host takes more than this is the price of components: their isolation, the
//! calls between them, tokens. With a number it places so many orders itself and ends.

#[path = "shared/serve.rs"]
mod serve;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use settle_order_core::{
    Charged, IdempotencyClaim, Item, NewOrder, Orders, Paid, Payments, PaymentsError, Settings, Undone,
};
use settle_payment_core::{self as payment, Processed};
use settle_ports::{
    Acquirer, AcquirerError, CallContext, ChargeOutcome, Database as _, Durability, Migration, RefundOutcome,
    Schema, Standing, World as _, sql,
};
use settle_tests::native::{NativeDb, TestLimiter, TestWorld, alice, context};
use settle_types::{Currency, FailureReason, Money, OperationKey, OrderId, PaymentMethod};
use sha2::{Digest as _, Sha256};
use tokio::task::LocalSet;

type Service = Orders<TestWorld, NativeDb, InProcess, TestLimiter>;

/// Of the world's time, so that ids come in order, as they do where time goes by itself.
const BETWEEN_ORDERS: Duration = Duration::from_millis(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().context("a folder")?;
    let orders = args.next().map(|number| number.parse::<u32>().context("a number of orders")).transpose()?;
    let work = async {
        let service = open(Path::new(&folder)).await;
        match orders {
            Some(orders) => place_all(&service, orders).await,
            None => serve(Rc::new(service)).await,
        }
    };
    LocalSet::new().run_until(work).await
}

async fn open(folder: &Path) -> Service {
    let world = TestWorld::new();
    let acquirer = Till(NativeDb::open(&folder.join("acquirer.db"), &ACQUIRER, &world).await);
    let database = NativeDb::open(&folder.join("payment.db"), &payment::SCHEMA, &world).await;
    let payments = InProcess(payment::Payments::new(world.clone(), database, acquirer));
    let database = NativeDb::open(&folder.join("order.db"), &settle_order_core::SCHEMA, &world).await;
    let settings = Settings {
        owner: "native".to_owned(),
        exclusive: true,
        order_deadline: Duration::from_secs(60),
        cancel_window: Duration::from_secs(24 * 60 * 60),
        fail_product: None,
        slow_product: None,
    };
    Orders::new(world, database, payments, TestLimiter::default(), settings)
}

async fn place_all(service: &Service, orders: u32) -> Result<()> {
    let body =
        br#"{"items":[{"product_id":"book","quantity":1,"unit_price":{"minor":1250,"currency":"EUR"}}]}"#;
    for number in 0..orders {
        place(service, format!("key-{number}").as_bytes(), body).await?;
    }
    Ok(())
}

async fn serve(orders: Rc<Service>) -> Result<()> {
    let listener = serve::listen().await?;
    loop {
        let (stream, orders) = (serve::accept(&listener).await?, orders.clone());
        tokio::task::spawn_local(serve::serve(stream, move |request| answer(orders.clone(), request)));
    }
}

#[derive(Deserialize)]
struct Body {
    items: Vec<BodyItem>,
}

#[derive(Deserialize)]
struct BodyItem {
    product_id: String,
    quantity: u32,
    unit_price: Price,
}

#[derive(Deserialize)]
struct Price {
    minor: i64,
    currency: String,
}

async fn answer(orders: Rc<Service>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    serve::order(read_and_place(&orders, request).await)
}

async fn read_and_place(orders: &Service, request: Request<Incoming>) -> Result<Value> {
    let key = request.headers().get("idempotency-key").context("no idempotency key")?.clone();
    let body = request.into_body().collect().await?.to_bytes();
    place(orders, key.as_bytes(), &body).await
}

async fn place(orders: &Service, key: &[u8], bytes: &[u8]) -> Result<Value> {
    let body: Body = serde_json::from_slice(bytes)?;
    // Ids begin with the time: with one time for all, each would fall somewhere in its table.
    orders.world.advance(BETWEEN_ORDERS);
    let mut items = Vec::new();
    for item in body.items {
        let unit_price = Money::new(item.unit_price.minor, Currency::parse(&item.unit_price.currency)?);
        items.push(Item { product_id: item.product_id.parse()?, quantity: item.quantity, unit_price });
    }
    let order = NewOrder::parse(&alice(), None, items, None)?;
    let expires_at = orders.world.now().plus(Duration::from_secs(24 * 60 * 60));
    let claim = IdempotencyClaim {
        scope: Sha256::digest(key).into(),
        fingerprint: Sha256::digest(bytes).into(),
        expires_at,
    };
    let placed = orders.place(&context(&orders.world), order, Some(claim)).await?.order;
    Ok(json!({ "id": placed.id.to_string(), "status": placed.status.as_str() }))
}

/// The payment service, called as a function.
struct InProcess(payment::Payments<TestWorld, NativeDb, Till>);

impl Payments for InProcess {
    async fn process(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order: OrderId,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<Charged, PaymentsError> {
        let unusable = |reason: String| PaymentsError::OutcomeUnknown(reason);
        let order_id = order.to_string().parse().map_err(|_| unusable("the id".to_owned()))?;
        let charge = payment::Charge { key: key.clone(), order_id, amount, method: method.cloned() };
        match self.0.process(context, &charge).await {
            Ok(Processed::Captured(payment)) => Ok(Charged::Approved(payment.id)),
            Ok(other) => Err(unusable(format!("{other:?}"))),
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    async fn look_up(&self, _: &CallContext, _: &OperationKey, _: OrderId) -> Result<Paid, PaymentsError> {
        Ok(Paid::NotYet)
    }

    async fn undo(
        &self,
        _: &CallContext,
        _: &OperationKey,
        _: OrderId,
        _: Money,
        _: &FailureReason,
    ) -> Result<Undone, PaymentsError> {
        Err(PaymentsError::Unreachable("not measured".to_owned()))
    }
}

const ACQUIRER: Schema = Schema {
    service: "acquirer",
    migrations: &[Migration {
        version: 1,
        statements: &["CREATE TABLE acquirer_charges (
               key TEXT PRIMARY KEY, state TEXT NOT NULL, amount_minor BIGINT NOT NULL,
               charge_calls BIGINT NOT NULL, captured_minor BIGINT NOT NULL DEFAULT 0
             ) WITHOUT ROWID"],
    }],
};

/// The test acquirer's write of a charge.
struct Till(NativeDb);

impl Acquirer for Till {
    async fn charge(
        &self,
        key: &OperationKey,
        amount: Money,
        _: Option<&PaymentMethod>,
    ) -> Result<ChargeOutcome, AcquirerError> {
        let taken =
            sql("INSERT INTO acquirer_charges (key, state, amount_minor, captured_minor, charge_calls)
                         VALUES ($1, 'taken', $2, $2, 1)
                         ON CONFLICT (key) DO NOTHING");
        let written =
            self.0.execute(vec![taken.bind(key.as_str()).bind(amount.minor())], Durability::Relaxed);
        written.await.map_err(|error| AcquirerError::OutcomeUnknown(error.to_string()))?;
        Ok(ChargeOutcome::Approved)
    }

    async fn lookup(&self, _: &OperationKey) -> Result<Standing, AcquirerError> {
        Ok(Standing::Unknown)
    }

    async fn refund(&self, _: &OperationKey, _: &str, _: Money) -> Result<RefundOutcome, AcquirerError> {
        Err(AcquirerError::Unreachable("not measured".to_owned()))
    }

    async fn void(&self, _: &OperationKey) -> Result<Standing, AcquirerError> {
        Err(AcquirerError::Unreachable("not measured".to_owned()))
    }

    fn remembers_keys(&self) -> bool {
        true
    }
}
