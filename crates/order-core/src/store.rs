//! Orders in the database: every write is one guarded call.
//!
//! Fencing: each saga write inserts `(order_id, seq)`; a duplicate means that another owner was
//! faster, and the whole write is refused.

use settle_ports::{CallContext, Database, Durability, Row, SqlError, Statement, Value, insert_rows, sql};
use settle_saga::{Definition, Entry, ReplayError, Saga};
use settle_types::{Currency, Money, OrderId, Timestamp, UserId};

use crate::order::{Order, Status};
use crate::saga::{Event, OrderSaga};

/// Longest page of a listing.
pub const PAGE_SIZE_MAX: u32 = 200;

/// Why a read or write did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another owner wrote first; read again.
    #[error("another owner was faster")]
    Stale,
    #[error("journal of {0}: {1}")]
    Journal(OrderId, ReplayError),
    #[error("journal of {0} does not parse: {1}")]
    Unreadable(OrderId, serde_json::Error),
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl From<settle_ports::RowError> for StoreError {
    fn from(error: settle_ports::RowError) -> Self {
        StoreError::Sql(error.into())
    }
}

/// A client's claim on an idempotency key: who may reuse it, for what, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyClaim {
    /// Hash of issuer, subject, method, route and key.
    pub scope: [u8; 32],
    /// Hash of the parsed request.
    pub fingerprint: [u8; 32],
    pub expires_at: Timestamp,
}

/// What the claim on a key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierRequest {
    pub order_id: OrderId,
    pub same_request: bool,
}

/// A page of orders, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub orders: Vec<Order>,
    /// Pass as `after` for the next page.
    pub next: Option<OrderId>,
}

/// One status an order went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    pub status: String,
    pub cause: String,
    pub at: Timestamp,
    pub trace_id: String,
}

/// An order with what recovery needs to know of it.
#[derive(Clone, Debug)]
pub struct OwnedOrder {
    pub order: Order,
    pub owner: String,
    pub due_at: Option<Timestamp>,
    pub correlation_id: String,
}

/// Who drives a saga, and until when others leave it alone.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    pub owner: &'a str,
    pub until: Timestamp,
}

/// The order tables of one database.
pub struct Store<D> {
    pub database: D,
}

/// The columns that `order_of` reads, in its order.
macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "SELECT id, user_id, status, failure_reason, total_minor, currency, items, payment_id, ",
            "created_at, updated_at, owner, due_at, correlation_id FROM orders ",
            $rest
        )
    };
}
pub(crate) use select_orders;

impl<D: Database> Store<D> {
    /// The first durable write: order with its idempotency key, journal and outbox, all or nothing.
    pub async fn place(
        &self,
        order: &Order,
        saga: &Saga<OrderSaga>,
        claim: Option<&IdempotencyClaim>,
        lease: Lease<'_>,
        context: &CallContext,
    ) -> Result<Result<(), EarlierRequest>, StoreError> {
        if self.insert(order, saga, claim, lease, context).await? {
            return Ok(Ok(()));
        }
        let now = order.created_at;
        if let Some(claim) = claim {
            if let Some(earlier) = self.find_claim(claim, now).await? {
                return Ok(Err(earlier));
            }
            self.free_expired(claim, now).await?;
            if self.insert(order, saga, Some(claim), lease, context).await? {
                return Ok(Ok(()));
            }
        }
        Err(SqlError::NotApplied("another request was given the key meanwhile".to_owned()).into())
    }

    /// False: another order holds the key, and nothing was written.
    async fn insert(
        &self,
        order: &Order,
        saga: &Saga<OrderSaga>,
        claim: Option<&IdempotencyClaim>,
        lease: Lease<'_>,
        context: &CallContext,
    ) -> Result<bool, StoreError> {
        let mut statements = vec![insert_order(order, claim, lease, &context.correlation_id)?];
        statements.extend(journal_statements(order.id, saga, context)?);
        match self.database.execute(statements, Durability::Durable).await {
            Ok(_) => Ok(true),
            Err(SqlError::Unmet(0)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The order that holds this key, if any. A key expires, but never before its saga has settled.
    pub async fn find_claim(
        &self,
        claim: &IdempotencyClaim,
        now: Timestamp,
    ) -> Result<Option<EarlierRequest>, StoreError> {
        let statement = sql("SELECT id, key_fingerprint FROM orders
                             WHERE key_scope = $1 AND (key_expires_at > $2 OR due_at IS NOT NULL)")
        .bind(bytes(&claim.scope))
        .bind(now);
        let found = self.database.query(statement).await?;
        let Some(row) = found.rows.first() else { return Ok(None) };
        let same_request = row.0.get(1) == Some(&bytes(&claim.fingerprint));
        Ok(Some(EarlierRequest { order_id: row.parse(0, "an order id")?, same_request }))
    }

    /// Takes an expired key from the order that holds it.
    async fn free_expired(&self, claim: &IdempotencyClaim, now: Timestamp) -> Result<(), StoreError> {
        let statement = sql("UPDATE orders SET key_scope = NULL
                             WHERE key_scope = $1 AND key_expires_at <= $2 AND due_at IS NULL")
        .bind(bytes(&claim.scope))
        .bind(now);
        self.database.execute(vec![statement], Durability::Relaxed).await?;
        Ok(())
    }

    /// Appends the saga's unwritten entries and brings the order's row up to date.
    pub async fn append(
        &self,
        order: &Order,
        saga: &Saga<OrderSaga>,
        lease: Lease<'_>,
        context: &CallContext,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut statements = journal_statements(order.id, saga, context)?;
        statements.push(update_order(order, saga, lease)?);
        match self.database.execute(statements, durability).await {
            Ok(_) => Ok(()),
            Err(SqlError::Conflict(_) | SqlError::Unmet(_)) => Err(StoreError::Stale),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn find(&self, id: OrderId) -> Result<Option<OwnedOrder>, StoreError> {
        let statement = sql(select_orders!("WHERE id = $1")).bind(id.to_string());
        let found = self.database.query(statement).await?;
        found.rows.first().map(owned_order_of).transpose()
    }

    /// The saga of an order, replayed from its journal.
    pub async fn saga(&self, id: OrderId) -> Result<Saga<OrderSaga>, StoreError> {
        let statement =
            sql("SELECT seq, version, at, event FROM order_journal WHERE order_id = $1 ORDER BY seq")
                .bind(id.to_string());
        let found = self.database.query(statement).await?;
        let mut entries = Vec::with_capacity(found.rows.len());
        for row in &found.rows {
            entries.push(entry_of(id, row)?);
        }
        Saga::replay(entries).map_err(|error| StoreError::Journal(id, error))
    }

    /// Orders of one user (all users for `None`), newest first, below `after`.
    pub async fn page(
        &self,
        user: Option<&UserId>,
        status: Option<Status>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, PAGE_SIZE_MAX);
        // Above every UUID when there is no cursor.
        let below = after.map_or_else(|| "g".to_owned(), |id| id.to_string());
        let one_more = limit.saturating_add(1);
        let statement = match user {
            Some(user) => sql(select_orders!(
                "WHERE user_id = $1 AND id < $2 AND (CAST($3 AS TEXT) IS NULL OR status = $3) ORDER BY id DESC LIMIT $4"
            ))
            .bind(user.as_str()),
            None => {
                sql(select_orders!("WHERE id < $1 AND (CAST($2 AS TEXT) IS NULL OR status = $2) ORDER BY id DESC LIMIT $3"))
            }
        };
        let statement = statement.bind(below).bind(status.map(Status::as_str)).bind(one_more);
        let found = self.database.query(statement).await?;
        let mut orders = found
            .rows
            .iter()
            .map(|row| owned_order_of(row).map(|o| o.order))
            .collect::<Result<Vec<_>, _>>()?;
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = orders.len() > keep;
        orders.truncate(keep);
        let next = orders.last().filter(|_| more).map(|order| order.id);
        Ok(Page { orders, next })
    }

    /// Every status the order went through, oldest first.
    pub async fn history(&self, id: OrderId) -> Result<Vec<HistoryEntry>, StoreError> {
        let statement =
            sql("SELECT status, event, at, trace_id FROM order_journal WHERE order_id = $1 ORDER BY seq")
                .bind(id.to_string());
        let found = self.database.query(statement).await?;
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for row in &found.rows {
            let event: Event =
                serde_json::from_str(row.text(1)?).map_err(|error| StoreError::Unreadable(id, error))?;
            let (status, at, trace_id) = (row.text(0)?, row.time(2)?, row.text(3)?.to_owned());
            let entry = |status: &str| HistoryEntry {
                status: status.to_owned(),
                cause: event.cause().to_owned(),
                at,
                trace_id: trace_id.clone(),
            };
            if matches!(event, Event::Placed(_)) {
                entries.push(entry("created"));
            }
            // A retry is in the journal, but it is no new status.
            if entries.last().is_none_or(|last| last.status != status) {
                entries.push(entry(status));
            }
        }
        Ok(entries)
    }
}

fn bytes(hash: &[u8; 32]) -> Value {
    Value::Bytes(hash.to_vec())
}

/// Unmet when another order holds the key.
fn insert_order(
    order: &Order,
    claim: Option<&IdempotencyClaim>,
    lease: Lease<'_>,
    correlation_id: &str,
) -> Result<Statement, StoreError> {
    let items =
        serde_json::to_string(&order.items).map_err(|error| StoreError::Unreadable(order.id, error))?;
    Ok(sql("INSERT INTO orders (id, user_id, status, total_minor, currency, items, owner, due_at,
                                correlation_id, created_at, updated_at,
                                key_scope, key_fingerprint, key_expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            ON CONFLICT (key_scope) DO NOTHING")
    .bind(order.id.to_string())
    .bind(order.user_id.as_str())
    .bind(order.status.as_str())
    .bind(order.total.minor())
    .bind(order.total.currency().code())
    .bind(items)
    .bind(lease.owner)
    .bind(lease.until)
    .bind(correlation_id)
    .bind(order.created_at)
    .bind(order.updated_at)
    .bind(claim.map(|claim| bytes(&claim.scope)))
    .bind(claim.map(|claim| bytes(&claim.fingerprint)))
    .bind(claim.map(|claim| claim.expires_at))
    .expect_rows(1))
}

/// Guarded by the entry before the first unwritten one. It must still be there, of the same time and
/// with the same status after it: a server that lost relaxed writes while we held them in memory may
/// hold another owner's in their places, or none.
fn update_order(order: &Order, saga: &Saga<OrderSaga>, lease: Lease<'_>) -> Result<Statement, StoreError> {
    let due_at = (!order.status.is_settled()).then_some(lease.until);
    let before = saga.stored().ok_or(StoreError::Stale)?;
    Ok(sql("UPDATE orders SET status = $1, failure_reason = $2, payment_id = $3, owner = $4, due_at = $5,
                tries = $6, updated_at = $7
         WHERE id = $8 AND EXISTS (SELECT 1 FROM order_journal
                                   WHERE order_id = $8 AND seq = $9 AND at = $10 AND status = $11)")
    .bind(order.status.as_str())
    .bind(order.failure_reason.as_ref().map(|reason| reason.as_str()))
    .bind(order.payment_id.map(|id| id.to_string()))
    .bind(lease.owner)
    .bind(due_at)
    .bind(saga.state().tries())
    .bind(order.updated_at)
    .bind(order.id.to_string())
    .bind(before.seq)
    .bind(before.at)
    .bind(before.state.status().as_str())
    .expect_rows(1))
}

/// One journal row an entry, and one outbox row a change of status.
fn journal_statements(
    id: OrderId,
    saga: &Saga<OrderSaga>,
    context: &CallContext,
) -> Result<Vec<Statement>, StoreError> {
    let order_id = id.to_string();
    let (mut journal, mut outbox) = (Vec::new(), Vec::new());
    for step in saga.unwritten() {
        let (entry, status) = (&step.entry, step.after.status());
        let event = serde_json::to_string(&entry.event).map_err(|error| StoreError::Unreadable(id, error))?;
        journal.push([
            order_id.as_str().into(),
            entry.seq.into(),
            u32::from(entry.version).into(),
            entry.at.into(),
            event.into(),
            status.as_str().into(),
            context.trace_id().into(),
        ]);
        if changes_status(&entry.event) {
            outbox.push([order_id.as_str().into(), entry.seq.into()]);
        }
    }
    let journal = insert_rows(
        "INSERT INTO order_journal (order_id, seq, version, at, event, status, trace_id)",
        journal,
    );
    let mut statements = vec![journal];
    if !outbox.is_empty() {
        statements.push(insert_rows("INSERT INTO order_outbox (order_id, seq)", outbox));
    }
    Ok(statements)
}

/// Whether an event moves the order to another status; a retry does not.
fn changes_status(event: &Event) -> bool {
    match event {
        Event::PaymentPending { .. } | Event::ChargeDeferred { .. } | Event::UndoDeferred { .. } => false,
        Event::Placed(_)
        | Event::PaymentApproved { .. }
        | Event::PaymentDeclined { .. }
        | Event::DeadlinePassed
        | Event::PaymentVoided
        | Event::CancelRequested { .. }
        | Event::FinalStepDone
        | Event::FinalStepFailed { .. }
        | Event::Undone { .. }
        | Event::UndoBudgetSpent
        | Event::Redriven { .. }
        | Event::ResolvedByHand { .. } => true,
    }
}

fn entry_of(id: OrderId, row: &Row) -> Result<Entry<Event>, StoreError> {
    let (seq, version) = (row.u32(0)?, u16::try_from(row.u32(1)?).unwrap_or(u16::MAX));
    if version > OrderSaga::VERSION {
        // Do not even parse it: its events may be unknown here.
        let too_new = ReplayError::TooNew { seq, found: version, known: OrderSaga::VERSION };
        return Err(StoreError::Journal(id, too_new));
    }
    let event = serde_json::from_str(row.text(3)?).map_err(|error| StoreError::Unreadable(id, error))?;
    Ok(Entry { seq, version, at: row.time(2)?, event })
}

pub(crate) fn owned_order_of(row: &Row) -> Result<OwnedOrder, StoreError> {
    let id: OrderId = row.parse(0, "an order id")?;
    let bad_currency = || SqlError::Invalid("unknown currency in orders".to_owned());
    let currency = Currency::parse(row.text(5)?).map_err(|_| bad_currency())?;
    let order = Order {
        id,
        user_id: row.parse(1, "a user id")?,
        status: row.parse(2, "a status")?,
        failure_reason: row.text_opt(3)?.map(settle_types::FailureReason::lossy),
        total: Money::new(row.int(4)?, currency),
        items: serde_json::from_str(row.text(6)?).map_err(|error| StoreError::Unreadable(id, error))?,
        payment_id: if row.is_null(7) { None } else { Some(row.parse(7, "a payment id")?) },
        created_at: row.time(8)?,
        updated_at: row.time(9)?,
    };
    Ok(OwnedOrder {
        order,
        owner: row.text(10)?.to_owned(),
        due_at: row.time_opt(11)?,
        correlation_id: row.text(12)?.to_owned(),
    })
}
