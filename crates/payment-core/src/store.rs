//! Payments in the database: the document with its version as the guard, its transfers, its
//! outbox row, in one write.

use settle_ports::{CallContext, Database, Dialect, Durability, Row, SqlError, Statement, sql};
use settle_types::{OperationKey, PaymentId, Timestamp};

use crate::payment::{Payment, Transfer};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed the document first; read again.
    #[error("the payment changed meanwhile")]
    Stale,
    #[error("the document of a payment does not parse: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl From<settle_ports::RowError> for StoreError {
    fn from(error: settle_ports::RowError) -> Self {
        StoreError::Sql(error.into())
    }
}

/// A document with the version that its next write must find. Version 0: not stored yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub payment: Payment,
    pub version: u32,
}

/// Most transfers that one change of a document can cause; spaces their sequence numbers.
const TRANSFERS_PER_VERSION: u32 = 4;

/// Takes due payments; `lock` keeps racers from waiting for each other's rows.
macro_rules! claim_due {
    ($lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (SELECT id FROM payments WHERE due_at IS NOT NULL AND due_at <= $1 ",
            "ORDER BY due_at LIMIT $2 ",
            $lock,
            ") UPDATE payments SET due_at = $3 WHERE id IN (SELECT id FROM due) ",
            "RETURNING CAST(document AS TEXT), version"
        )
    };
}

/// The payment tables of one database.
pub struct Store<D> {
    pub database: D,
}

impl<D: Database> Store<D> {
    pub async fn by_key(&self, key: &OperationKey) -> Result<Option<Versioned>, StoreError> {
        self.one(
            sql("SELECT CAST(document AS TEXT), version FROM payments WHERE operation_key = $1")
                .bind(key.as_str()),
        )
        .await
    }

    pub async fn by_id(&self, id: PaymentId) -> Result<Option<Versioned>, StoreError> {
        self.one(
            sql("SELECT CAST(document AS TEXT), version FROM payments WHERE id = $1").bind(id.to_string()),
        )
        .await
    }

    pub async fn by_order(&self, order_id: &str, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let statement = sql(
            "SELECT CAST(document AS TEXT), version FROM payments WHERE order_id = $1 ORDER BY id LIMIT $2",
        )
        .bind(order_id)
        .bind(limit);
        let found = self.database.query(statement).await?;
        found.rows.iter().map(|row| versioned_of(row).map(|v| v.payment)).collect()
    }

    async fn one(&self, statement: Statement) -> Result<Option<Versioned>, StoreError> {
        let found = self.database.query(statement).await?;
        found.rows.first().map(versioned_of).transpose()
    }

    /// Writes a changed document, guarded by its version, with its transfers and outbox row. Only a
    /// first version may be relaxed: the number of a later one that a server lost would be given
    /// again, to another's, and guard nothing.
    pub async fn write(
        &self,
        changed: &mut Versioned,
        transfers: &[Transfer],
        due_at: Option<Timestamp>,
        context: &CallContext,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let next = changed.version.saturating_add(1);
        let durability = if changed.version == 0 { durability } else { Durability::Durable };
        let mut statements = Vec::with_capacity(transfers.len().saturating_add(2));
        statements.push(document_statement(changed, next, due_at)?);
        let first_seq = next.saturating_mul(TRANSFERS_PER_VERSION);
        for (transfer, seq) in transfers.iter().zip(first_seq..) {
            statements.push(transfer_statement(&changed.payment, transfer, seq));
        }
        statements.push(outbox_statement(&changed.payment, next, context));
        match self.database.execute(statements, durability).await {
            Ok(_) => {
                changed.version = next;
                Ok(())
            }
            Err(SqlError::Unmet(0) | SqlError::Conflict(_)) => Err(StoreError::Stale),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes at most `limit` payments whose outcome is due, in one statement, until `lease_until`.
    pub async fn claim_due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError> {
        let statement = match self.database.dialect() {
            Dialect::Sqlite => sql(claim_due!("")),
            Dialect::Postgres => sql(claim_due!("FOR UPDATE SKIP LOCKED")),
        };
        let statement = statement.bind(now).bind(limit).bind(lease_until);
        let done = self.database.execute(vec![statement], Durability::Relaxed).await?;
        let rows = done.first().map(|outcome| outcome.rows.as_slice()).unwrap_or_default();
        let mut claimed = rows.iter().map(versioned_of).collect::<Result<Vec<_>, _>>()?;
        // RETURNING promises no order; the oldest come first.
        claimed.sort_unstable_by_key(|claimed| claimed.payment.id);
        Ok(claimed)
    }

    pub async fn oldest_due(&self, now: Timestamp) -> Result<std::time::Duration, StoreError> {
        let found =
            self.database.query(sql("SELECT min(due_at) FROM payments WHERE due_at IS NOT NULL")).await?;
        let oldest = found.rows.first().map(|row| row.time_opt(0)).transpose()?.flatten();
        Ok(oldest.map(|due| now.since(due)).unwrap_or_default())
    }
}

fn versioned_of(row: &Row) -> Result<Versioned, StoreError> {
    Ok(Versioned { payment: serde_json::from_str(row.text(0)?)?, version: row.u32(1)? })
}

fn document_statement(
    changed: &Versioned,
    next: u32,
    due_at: Option<Timestamp>,
) -> Result<Statement, StoreError> {
    let payment = &changed.payment;
    let document = serde_json::to_string(payment)?;
    let statement = if changed.version == 0 {
        sql("INSERT INTO payments (id, operation_key, order_id, version, document, due_at)
             VALUES ($1, $2, $3, $4, json(CAST($5 AS TEXT)), $6)")
        .bind(payment.id.to_string())
        .bind(payment.key.as_str())
        .bind(payment.order_id.as_str())
        .bind(next)
        .bind(document)
        .bind(due_at)
    } else {
        sql("UPDATE payments SET version = $1, document = json(CAST($2 AS TEXT)), due_at = $3
             WHERE id = $4 AND version = $5")
        .bind(next)
        .bind(document)
        .bind(due_at)
        .bind(payment.id.to_string())
        .bind(changed.version)
    };
    Ok(statement.expect_rows(1))
}

fn transfer_statement(payment: &Payment, transfer: &Transfer, seq: u32) -> Statement {
    sql("INSERT INTO payment_transfers (payment_id, seq, debit, credit, amount_minor, currency, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
    .bind(payment.id.to_string())
    .bind(seq)
    .bind(transfer.debit.as_str())
    .bind(transfer.credit.as_str())
    .bind(transfer.amount.minor())
    .bind(transfer.amount.currency().code())
    .bind(payment.updated_at)
}

/// What is told of a change; the view `payment_messages` adds what never changes.
fn outbox_statement(payment: &Payment, seq: u32, context: &CallContext) -> Statement {
    sql("INSERT INTO payment_outbox (payment_id, seq, status, at, captured_minor, refunded_minor, currency,
                                     correlation_id, trace_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
    .bind(payment.id.to_string())
    .bind(seq)
    .bind(payment.status.as_str())
    .bind(payment.updated_at)
    .bind(payment.captured)
    .bind(payment.refunded)
    .bind(payment.amount.currency().code())
    .bind(context.correlation_id.as_str())
    .bind(context.trace_id())
}
