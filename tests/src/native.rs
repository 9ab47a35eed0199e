//! The cores natively: a database of the host behind the storage port, and everything else faked.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::postgres;
use settle_host::sql::{self as host, Backend, postgres::Postgres, sqlite::Sqlite};
use settle_order_core::{Caller, Charged, Item, NewOrder, Paid, Payments, PaymentsError, Undone};
use settle_ports::{
    Acquirer, AcquirerError, CallContext, ChargeOutcome, Database, Dialect, Durability, Limiter, Outcome,
    Rate, RefundOutcome, Row, Schema, SqlError, Standing, Statement, Value, Verdict, World,
};
use settle_types::{
    Currency, FailureReason, Money, OperationKey, OrderId, PaymentId, PaymentMethod, Timestamp,
};

// ---- storage ----

/// What a call on the database does instead of what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbFault {
    /// Nothing is written, and the caller is told so.
    NotApplied,
    /// Nothing is written, and the caller cannot know.
    UnknownNotDone,
    /// It is written, and the caller cannot know.
    UnknownDone,
}

/// An empty database: this file, or one of the shared PostgreSQL server (`SETTLE_TEST_DATABASE`).
pub async fn open_backend(path: &Path) -> Arc<dyn Backend> {
    if postgres::chosen() {
        let url = postgres::shared().database().await;
        Arc::new(Postgres::new(&url, 6).unwrap())
    } else {
        Arc::new(Sqlite::open(path).unwrap())
    }
}

/// The host's database as the cores' port, with faults on chosen writes.
#[derive(Clone)]
pub struct NativeDb {
    backend: Arc<dyn Backend>,
    world: TestWorld,
    faults: Rc<RefCell<HashMap<usize, DbFault>>>,
    /// Durability of every write, in order.
    pub writes: Rc<RefCell<Vec<Durability>>>,
}

impl NativeDb {
    pub async fn open(path: &Path, schema: &Schema, world: &TestWorld) -> Self {
        let backend = open_backend(path).await;
        let (faults, writes) = (Rc::default(), Rc::default());
        let database = Self { backend, world: world.clone(), faults, writes };
        schema.migrate(&database, world.now()).await.unwrap();
        database.writes.borrow_mut().clear();
        database
    }

    /// The `nth` write from now (0 is the next) goes wrong.
    pub fn fail_write(&self, nth: usize, fault: DbFault) {
        let at = self.writes.borrow().len() + nth;
        self.faults.borrow_mut().insert(at, fault);
    }
}

impl Database for NativeDb {
    async fn query(&self, statement: Statement) -> Result<Outcome, SqlError> {
        self.backend.query(statement_to(statement)).await.map(outcome_of).map_err(error_of)
    }

    async fn execute(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, SqlError> {
        let number = self.writes.borrow().len();
        self.writes.borrow_mut().push(durability);
        let fault = self.faults.borrow_mut().remove(&number);
        match fault {
            Some(DbFault::NotApplied) => return Err(SqlError::NotApplied("fault".into())),
            Some(DbFault::UnknownNotDone) => return Err(SqlError::OutcomeUnknown("fault".into())),
            Some(DbFault::UnknownDone) | None => {}
        }
        let statements = statements.into_iter().map(statement_to).collect();
        let durability = match durability {
            Durability::Durable => host::Durability::Durable,
            Durability::Relaxed => host::Durability::Relaxed,
        };
        let outcomes = self.backend.execute(statements, durability).await.map_err(error_of)?;
        if fault == Some(DbFault::UnknownDone) {
            return Err(SqlError::OutcomeUnknown("fault".into()));
        }
        Ok(outcomes.into_iter().map(outcome_of).collect())
    }

    fn dialect(&self) -> Dialect {
        match self.backend.dialect() {
            host::Dialect::Sqlite => Dialect::Sqlite,
            host::Dialect::Postgres => Dialect::Postgres,
        }
    }

    async fn now(&self) -> Result<Timestamp, SqlError> {
        Ok(self.world.now())
    }
}

fn statement_to(statement: Statement) -> host::Statement {
    let params = statement.params.into_iter().map(|value| match value {
        Value::Null => host::Value::Null,
        Value::Bool(value) => host::Value::Boolean(value),
        Value::Int(value) => host::Value::Int64(value),
        Value::Text(value) => host::Value::Text(value),
        Value::Bytes(value) => host::Value::Bytes(value),
    });
    host::Statement { sql: statement.sql.into_owned(), params: params.collect(), expect: statement.expect }
}

fn outcome_of(outcome: host::Outcome) -> Outcome {
    let value = |value| match value {
        host::Value::Null => Value::Null,
        host::Value::Boolean(value) => Value::Bool(value),
        host::Value::Int64(value) => Value::Int(value),
        host::Value::Text(value) => Value::Text(value),
        host::Value::Bytes(value) => Value::Bytes(value),
    };
    let rows = outcome.rows.into_iter().map(|row| Row(row.into_iter().map(value).collect()));
    Outcome { rows: rows.collect(), affected: outcome.affected }
}

fn error_of(error: host::Error) -> SqlError {
    match error {
        host::Error::NotApplied(text) => SqlError::NotApplied(text),
        host::Error::OutcomeUnknown(text) => SqlError::OutcomeUnknown(text),
        host::Error::Conflict(text) => SqlError::Conflict(text),
        host::Error::Invalid(text) => SqlError::Invalid(text),
        host::Error::TooLarge(text) => SqlError::TooLarge(text),
        host::Error::Unmet(index) => SqlError::Unmet(index),
    }
}

// ---- world ----

/// A clock that only `sleep` and the test move, and counted randomness.
#[derive(Clone, Default)]
pub struct TestWorld {
    millis: Rc<Cell<u64>>,
    drawn: Rc<Cell<u64>>,
    /// While set, nobody who sleeps wakes up.
    pub asleep: Rc<Cell<bool>>,
    pub log: Rc<RefCell<Vec<String>>>,
    /// Every wait, in order.
    pub slept: Rc<RefCell<Vec<Duration>>>,
}

impl TestWorld {
    pub fn new() -> Self {
        let world = Self::default();
        world.millis.set(1_800_000_000_000);
        world
    }

    pub fn advance(&self, wait: Duration) {
        self.millis.set(self.millis.get() + u64::try_from(wait.as_millis()).unwrap());
    }
}

impl World for TestWorld {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.get())
    }

    fn random(&self) -> (u64, u64) {
        self.drawn.set(self.drawn.get() + 1);
        let mixed = self.drawn.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed, mixed.rotate_left(32))
    }

    async fn sleep(&self, wait: Duration) {
        self.slept.borrow_mut().push(wait);
        self.advance(wait);
        tokio::task::yield_now().await;
        while self.asleep.get() {
            tokio::task::yield_now().await;
        }
    }

    fn log(&self, level: &'static str, message: &str, _: &CallContext) {
        self.log.borrow_mut().push(format!("{level}: {message}"));
    }
}

/// A context with ten seconds.
pub fn context(world: &TestWorld) -> CallContext {
    let deadline = world.now().plus(Duration::from_secs(10));
    CallContext { correlation_id: "test".into(), traceparent: String::new(), deadline }
}

/// A limiter that lets all through, or says that the breaker is open.
#[derive(Clone, Default)]
pub struct TestLimiter {
    pub open: Rc<Cell<bool>>,
    /// The next to ask is the probe.
    pub probe: Rc<Cell<bool>>,
    pub reports: Rc<RefCell<Vec<bool>>>,
}

impl Limiter for TestLimiter {
    async fn take(&self, _: &str, _: u32, rate: Rate) -> Result<u32, Duration> {
        Ok(rate.capacity)
    }

    async fn allow(&self, _: &str) -> Verdict {
        match (self.open.get(), self.probe.take()) {
            (true, _) => Verdict::Open(Duration::from_secs(30)),
            (false, true) => Verdict::Probe,
            (false, false) => Verdict::Closed,
        }
    }

    async fn report(&self, _: &str, success: bool) -> bool {
        self.reports.borrow_mut().push(success);
        false
    }
}

// ---- payment, as the order service sees it ----

/// How the next call to a remote service goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// It does not arrive.
    NotSent,
    /// The service answers that it could not do it.
    Refused,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// The acquirer says "pending" (charge) or still does (lookup).
    Pending,
    /// Declined.
    Declined,
}

/// A payment service in memory: one state a key, and a script of faults.
#[derive(Clone, Default)]
pub struct FakePayments {
    /// Money taken and given back, by key.
    pub kept: Rc<RefCell<HashMap<String, (i64, i64)>>>,
    undone: Rc<RefCell<Vec<String>>>,
    declined: Rc<RefCell<Vec<String>>>,
    faults: Rc<RefCell<VecDeque<CallFault>>>,
    /// Every call in order: "process", "look_up", "undo".
    pub calls: Rc<RefCell<Vec<&'static str>>>,
    /// The payment methods of the charges.
    pub methods: Rc<RefCell<Vec<Option<String>>>>,
}

impl FakePayments {
    pub fn script(&self, faults: impl IntoIterator<Item = CallFault>) {
        self.faults.borrow_mut().extend(faults);
    }

    fn begin(&self, call: &'static str) -> Result<Option<CallFault>, PaymentsError> {
        self.calls.borrow_mut().push(call);
        let fault = self.faults.borrow_mut().pop_front();
        match fault {
            Some(CallFault::NotSent) => Err(PaymentsError::Unreachable("fault".into())),
            Some(CallFault::Refused) => Err(PaymentsError::Refused("fault".into())),
            fault => Ok(fault),
        }
    }

    fn end<T>(fault: Option<CallFault>, answer: T) -> Result<T, PaymentsError> {
        if fault == Some(CallFault::AnswerLost) {
            return Err(PaymentsError::OutcomeUnknown("fault".into()));
        }
        Ok(answer)
    }

    fn payment_id() -> PaymentId {
        PaymentId::new(Timestamp::from_millis(1), [7; 10])
    }
}

impl Payments for FakePayments {
    async fn process(
        &self,
        _: &CallContext,
        key: &OperationKey,
        _: OrderId,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<Charged, PaymentsError> {
        self.methods.borrow_mut().push(method.map(ToString::to_string));
        let fault = self.begin("process")?;
        tokio::task::yield_now().await;
        let key = key.to_string();
        if self.undone.borrow().contains(&key) {
            return Self::end(fault, Charged::Voided);
        }
        match fault {
            Some(CallFault::Declined) => {
                self.declined.borrow_mut().push(key);
                return Ok(Charged::Declined(None, FailureReason::lossy("declined")));
            }
            Some(CallFault::Pending) => return Ok(Charged::Pending),
            _ => {}
        }
        self.kept.borrow_mut().entry(key).or_insert((amount.minor(), 0));
        Self::end(fault, Charged::Approved(Self::payment_id()))
    }

    async fn look_up(&self, _: &CallContext, key: &OperationKey, _: OrderId) -> Result<Paid, PaymentsError> {
        let fault = self.begin("look_up")?;
        tokio::task::yield_now().await;
        if self.undone.borrow().contains(&key.to_string()) {
            return Self::end(fault, Paid::Known(Charged::Voided));
        }
        if fault == Some(CallFault::Pending) {
            return Ok(Paid::Known(Charged::Pending));
        }
        if self.declined.borrow().contains(&key.to_string()) {
            let declined = Charged::Declined(None, FailureReason::lossy("declined"));
            return Self::end(fault, Paid::Known(declined));
        }
        let known = self.kept.borrow().contains_key(&key.to_string());
        let paid = if known { Paid::Known(Charged::Approved(Self::payment_id())) } else { Paid::NotYet };
        Self::end(fault, paid)
    }

    async fn undo(
        &self,
        _: &CallContext,
        key: &OperationKey,
        _: OrderId,
        _: Money,
        _: &FailureReason,
    ) -> Result<Undone, PaymentsError> {
        let fault = self.begin("undo")?;
        tokio::task::yield_now().await;
        self.undone.borrow_mut().push(key.to_string());
        if let Some((taken, returned)) = self.kept.borrow_mut().get_mut(&key.to_string()) {
            *returned = *taken;
        }
        Self::end(fault, Undone { payment_id: Some(Self::payment_id()) })
    }
}

// ---- acquirer, as the payment service sees it ----

#[derive(Clone, Debug)]
struct Held {
    amount: Money,
    state: ChargeOutcome,
    returned: i64,
}

/// An acquirer in memory that keeps the three promises of `wit/acquirer`.
#[derive(Clone, Default)]
pub struct FakeAcquirer {
    held: Rc<RefCell<HashMap<String, Held>>>,
    refunds: Rc<RefCell<HashMap<String, i64>>>,
    faults: Rc<RefCell<VecDeque<CallFault>>>,
    pub calls: Rc<RefCell<Vec<&'static str>>>,
    /// Forgets keys, as a poor acquirer would; payment must then write its own intent first.
    pub forgetful: Rc<Cell<bool>>,
    /// Charges wait; what comes to it later is done before them.
    pub held_up: Rc<Cell<bool>>,
}

impl FakeAcquirer {
    /// Forgets all of a key, which a good acquirer never does.
    pub fn forget(&self, key: &OperationKey) {
        self.held.borrow_mut().remove(key.as_str());
    }

    pub fn script(&self, faults: impl IntoIterator<Item = CallFault>) {
        self.faults.borrow_mut().extend(faults);
    }

    /// What the acquirer keeps of a key: captured, returned.
    pub fn money(&self, key: &str) -> (i64, i64) {
        let held = self.held.borrow();
        held.get(key).map_or((0, 0), |held| {
            let captured = if held.state == ChargeOutcome::Approved { held.amount.minor() } else { 0 };
            (captured, held.returned)
        })
    }

    fn begin(&self, call: &'static str) -> Result<Option<CallFault>, AcquirerError> {
        self.calls.borrow_mut().push(call);
        let fault = self.faults.borrow_mut().pop_front();
        if matches!(fault, Some(CallFault::NotSent | CallFault::Refused)) {
            return Err(AcquirerError::Unreachable("fault".into()));
        }
        Ok(fault)
    }

    fn end<T>(fault: Option<CallFault>, answer: T) -> Result<T, AcquirerError> {
        if fault == Some(CallFault::AnswerLost) {
            return Err(AcquirerError::OutcomeUnknown("fault".into()));
        }
        Ok(answer)
    }

    fn standing(&self, key: &OperationKey) -> Standing {
        let held = self.held.borrow();
        let Some(held) = held.get(key.as_str()) else { return Standing::Unknown };
        match &held.state {
            ChargeOutcome::Approved => Standing::Taken {
                captured: held.amount,
                returned: Money::new(held.returned, held.amount.currency()),
            },
            ChargeOutcome::Declined(reason) => Standing::Declined(reason.clone()),
            ChargeOutcome::Pending(token) => Standing::Pending(token.clone()),
            ChargeOutcome::Voided | ChargeOutcome::DifferentAmount => Standing::Voided,
        }
    }
}

impl Acquirer for FakeAcquirer {
    async fn charge(
        &self,
        key: &OperationKey,
        amount: Money,
        _: Option<&PaymentMethod>,
    ) -> Result<ChargeOutcome, AcquirerError> {
        let fault = self.begin("charge")?;
        while self.held_up.get() {
            tokio::task::yield_now().await;
        }
        let decided = match fault {
            Some(CallFault::Declined) => ChargeOutcome::Declined(FailureReason::lossy("declined")),
            Some(CallFault::Pending) => ChargeOutcome::Pending("token".into()),
            _ => ChargeOutcome::Approved,
        };
        let fresh = Held { amount, state: decided, returned: 0 };
        let state = self.held.borrow_mut().entry(key.to_string()).or_insert(fresh).state.clone();
        // Others may run between the effect and its answer.
        tokio::task::yield_now().await;
        Self::end(fault, state)
    }

    async fn lookup(&self, key: &OperationKey) -> Result<Standing, AcquirerError> {
        let fault = self.begin("lookup")?;
        Self::end(fault, self.standing(key))
    }

    async fn refund(
        &self,
        key: &OperationKey,
        refund_key: &str,
        amount: Money,
    ) -> Result<RefundOutcome, AcquirerError> {
        let fault = self.begin("refund")?;
        if self.refunds.borrow().contains_key(refund_key) {
            return Self::end(fault, RefundOutcome::Refunded);
        }
        let outcome = match self.held.borrow_mut().get_mut(key.as_str()) {
            Some(held) if held.state == ChargeOutcome::Approved => {
                if held.returned + amount.minor() > held.amount.minor() {
                    RefundOutcome::ExceedsRemaining
                } else {
                    held.returned += amount.minor();
                    RefundOutcome::Refunded
                }
            }
            _ => RefundOutcome::NotCaptured,
        };
        if outcome == RefundOutcome::Refunded {
            self.refunds.borrow_mut().insert(refund_key.to_owned(), amount.minor());
        }
        Self::end(fault, outcome)
    }

    async fn void(&self, key: &OperationKey) -> Result<Standing, AcquirerError> {
        let fault = self.begin("void")?;
        let nothing = Money::new(0, settle_types::Currency::parse("EUR").unwrap());
        let tombstone = Held { amount: nothing, state: ChargeOutcome::Voided, returned: 0 };
        let mut held = self.held.borrow_mut();
        let entry = held.entry(key.to_string()).or_insert(tombstone);
        match entry.state {
            ChargeOutcome::Approved => entry.returned = entry.amount.minor(),
            ChargeOutcome::Pending(_) => entry.state = ChargeOutcome::Voided,
            _ => {}
        }
        drop(held);
        Self::end(fault, self.standing(key))
    }

    fn remembers_keys(&self) -> bool {
        !self.forgetful.get()
    }
}

// ---- requests ----

/// What the orders of these tests cost, in minor units.
pub const TOTAL: i64 = 500;

pub fn alice() -> Caller {
    Caller { issuer: "us".into(), subject: "alice".parse().unwrap(), admin: false }
}

/// An order of one item by Alice.
pub fn request(product: &str) -> NewOrder {
    let unit_price = Money::new(TOTAL, Currency::parse("EUR").unwrap());
    let item = Item { product_id: product.parse().unwrap(), quantity: 1, unit_price };
    NewOrder::parse(&alice(), None, vec![item], None).unwrap()
}
