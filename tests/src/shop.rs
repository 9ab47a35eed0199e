//! A shop for native tests: a database, a payment service, and as many hosts as a test wants.

use std::time::Duration;

use settle_order_core::{IdempotencyClaim, Order, OrderError, Orders, SCHEMA, Settings, Status};
use settle_ports::{Database as _, Durability, Schema, World as _, sql};
use settle_types::OrderId;

use crate::native::{
    DbFault, FakePayments, NativeDb, TOTAL, TestLimiter, TestWorld, alice, context, request,
};

pub type Driver = Orders<TestWorld, NativeDb, FakePayments, TestLimiter>;

pub const SECOND: Duration = Duration::from_secs(1);
pub const LEASE: Duration = Duration::from_secs(15);
pub const ORDER_DEADLINE: Duration = Duration::from_secs(60);

/// A shop: a database, a payment service, and as many hosts as a test wants.
pub struct Shop {
    _folder: tempfile::TempDir,
    pub world: TestWorld,
    pub database: NativeDb,
    pub payments: FakePayments,
    pub limiter: TestLimiter,
}

impl Shop {
    pub async fn open() -> Self {
        Self::open_at(&SCHEMA).await
    }

    /// With the tables of an earlier release.
    pub async fn open_at(schema: &Schema) -> Self {
        let (folder, world) = (tempfile::tempdir().unwrap(), TestWorld::new());
        let database = NativeDb::open(&folder.path().join("order.db"), schema, &world).await;
        Self {
            _folder: folder,
            world,
            database,
            payments: FakePayments::default(),
            limiter: TestLimiter::default(),
        }
    }

    pub fn host(&self, owner: &str) -> Driver {
        let settings = Settings {
            owner: owner.to_owned(),
            exclusive: false,
            order_deadline: ORDER_DEADLINE,
            cancel_window: Duration::from_secs(3600),
            fail_product: Some("fail-me".to_owned()),
            slow_product: Some("slow-me".to_owned()),
        };
        let (world, database) = (self.world.clone(), self.database.clone());
        Orders::new(world, database, self.payments.clone(), self.limiter.clone(), settings)
    }

    /// A host that has the database for itself.
    pub fn alone(&self, owner: &str) -> Driver {
        let mut host = self.host(owner);
        host.settings.exclusive = true;
        host
    }

    /// An order whose host died after the call to payment, before it wrote what came of it. That
    /// host had the database for itself: its answer shows what is stored.
    pub async fn orphan(&self, owner: &str) -> Order {
        self.database.fail_write(1, DbFault::NotApplied);
        let order = self.place(&self.alone(owner), "book").await.unwrap();
        assert_eq!(order.status, Status::PaymentPending);
        order
    }

    /// The database server dies and loses what was relaxed: the order is as it was placed, and its
    /// owner lives.
    pub async fn lose_all_but_the_intent(&self) {
        let lease_ends = self.world.now().plus(LEASE);
        let lost = vec![
            sql("DELETE FROM order_journal WHERE seq > 0"),
            sql("DELETE FROM order_outbox WHERE seq > 0"),
            sql("UPDATE orders SET status = 'payment_pending', payment_id = NULL, due_at = $1")
                .bind(lease_ends),
        ];
        self.database.execute(lost, Durability::Durable).await.unwrap();
    }

    pub async fn place(&self, host: &Driver, product: &str) -> Result<Order, OrderError> {
        let placed = host.place(&context(&self.world), request(product), None).await;
        placed.map(|placed| placed.order)
    }

    pub async fn read(&self, host: &Driver, id: OrderId) -> Order {
        host.read(&context(&self.world), &alice(), id).await.unwrap()
    }

    /// Resumes what is due, again and again, until nothing is open or an hour has passed.
    pub async fn recover(&self, host: &Driver) {
        for _ in 0..3600 {
            // A round may meet a fault of the test; the next one goes on.
            let _ = host.resume_due(16).await;
            if self.open_sagas().await == 0 {
                return;
            }
            self.world.advance(SECOND);
        }
        panic!("sagas are still open: {:?}", host.sagas(None, 10).await);
    }

    pub async fn open_sagas(&self) -> i64 {
        self.count("SELECT count(*) FROM orders WHERE due_at IS NOT NULL").await
    }

    pub async fn count(&self, text: &'static str) -> i64 {
        self.database.query(sql(text)).await.unwrap().rows[0].int(0).unwrap()
    }

    pub async fn only_order(&self) -> OrderId {
        let found = self.database.query(sql("SELECT id FROM orders")).await.unwrap();
        assert_eq!(found.rows.len(), 1);
        found.rows[0].parse(0, "an id").unwrap()
    }

    /// Money taken and given back for an order.
    pub fn money(&self, id: OrderId) -> (i64, i64) {
        self.payments.kept.borrow().get(&format!("{id}/charge")).copied().unwrap_or((0, 0))
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.payments.calls.borrow().clone()
    }

    /// Completed orders keep their money; the others have given all of it back.
    pub fn assert_fair(&self, order: &Order) {
        let (taken, returned) = self.money(order.id);
        match order.status {
            Status::Completed => assert_eq!((taken, returned), (TOTAL, 0), "{order:?}"),
            Status::PaymentFailed | Status::Cancelled => assert_eq!(taken, returned, "{order:?}"),
            other => panic!("not ended: {other:?}"),
        }
    }
}

/// The claim of an idempotency key by a request, good for a day.
pub fn claim(shop: &Shop, key: u8, fingerprint: u8) -> IdempotencyClaim {
    let expires_at = shop.world.now().plus(Duration::from_secs(24 * 3600));
    IdempotencyClaim { scope: [key; 32], fingerprint: [fingerprint; 32], expires_at }
}
