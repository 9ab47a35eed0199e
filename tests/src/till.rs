//! A till for native tests: a payment service with its database and an acquirer in memory.

use settle_payment_core::{Charge, Payment, PaymentError, Payments, Processed, Refunded, SCHEMA};
use settle_ports::{Database as _, Schema, sql};
use settle_types::{Currency, FailureReason, Money, OperationKey, UserId};

use crate::native::{FakeAcquirer, NativeDb, TestWorld, context};

/// The key of the charge, and its amount in minor units.
pub const KEY: &str = "order-1/charge";
pub const TOTAL: i64 = 500;

/// A payment service with one charge to make.
pub struct Till {
    _folder: tempfile::TempDir,
    pub world: TestWorld,
    pub database: NativeDb,
    pub acquirer: FakeAcquirer,
    pub service: Payments<TestWorld, NativeDb, FakeAcquirer>,
}

impl Till {
    pub async fn open() -> Self {
        Self::open_at(&SCHEMA).await
    }

    /// With the tables of an earlier release.
    pub async fn open_at(schema: &Schema) -> Self {
        let (folder, world) = (tempfile::tempdir().unwrap(), TestWorld::new());
        let database = NativeDb::open(&folder.path().join("payment.db"), schema, &world).await;
        let acquirer = FakeAcquirer::default();
        let service = Payments::new(world.clone(), database.clone(), acquirer.clone());
        Self { _folder: folder, world, database, acquirer, service }
    }

    pub async fn process(&self, minor: i64) -> Result<Processed, PaymentError> {
        let charge = Charge { key: key(), order_id: order(), amount: eur(minor), method: None };
        self.service.process(&context(&self.world), &charge).await
    }

    pub async fn captured(&self) -> Payment {
        match self.process(TOTAL).await.unwrap() {
            Processed::Captured(payment) => payment,
            other => panic!("{other:?}"),
        }
    }

    pub async fn undo(&self) -> Result<Payment, PaymentError> {
        let reason = FailureReason::lossy("test");
        self.service.undo(&context(&self.world), &key(), &order(), &reason, eur(TOTAL)).await
    }

    pub async fn look_up(&self) -> Result<Option<Payment>, PaymentError> {
        self.service.look_up(&context(&self.world), &key(), &order()).await
    }

    pub async fn refund(
        &self,
        payment: &Payment,
        refund_key: &str,
        amount: Option<i64>,
    ) -> Result<Refunded, PaymentError> {
        let reason = FailureReason::lossy("test");
        self.service.refund(&context(&self.world), payment.id, refund_key, amount, reason).await
    }

    /// The ledger agrees with the acquirer, and balances.
    pub async fn assert_books(&self) {
        let sum = |text| async move {
            let found = self.database.query(sql(text)).await.unwrap();
            found.rows[0].int(0).unwrap()
        };
        let kept =
            sum("SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM payment_ledger WHERE account = 'acquirer'").await;
        let (captured, returned) = self.acquirer.money(KEY);
        assert_eq!(kept, captured - returned, "ledger against acquirer");
        assert_eq!(
            sum("SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM payment_ledger").await,
            0,
            "balance"
        );
    }
}

pub fn key() -> OperationKey {
    KEY.parse().unwrap()
}

pub fn order() -> UserId {
    "order-1".parse().unwrap()
}

pub fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::parse("EUR").unwrap())
}
