//! Recovery's view of the orders: which are due, who takes them, what is parked.

use settle_ports::{Database, Dialect, Durability, SqlError, sql};
use settle_types::{Money, OrderId, Timestamp};

use crate::order::{Order, Status};
use crate::store::{Lease, OwnedOrder, Store, StoreError, owned_order_of, select_orders};

/// An open saga as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaSummary {
    pub order_id: OrderId,
    pub state: Status,
    pub step: &'static str,
    pub tries: u32,
    pub due_at: Option<Timestamp>,
    /// What may have been taken and not given back.
    pub at_stake: Money,
}

/// Takes due orders; `lock` keeps racers from waiting for each other's rows.
macro_rules! claim_due {
    ($lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (SELECT id FROM orders ",
            "WHERE due_at IS NOT NULL AND (due_at <= $1 OR ($2 AND owner <> $3)) ORDER BY due_at LIMIT $4 ",
            $lock,
            ") UPDATE orders SET owner = $3, due_at = $5 WHERE id IN (SELECT id FROM due) ",
            "RETURNING id, user_id, status, failure_reason, total_minor, currency, items, payment_id, ",
            "created_at, updated_at, owner, due_at, correlation_id"
        )
    };
}

impl<D: Database> Store<D> {
    /// Takes over one order whose owner is gone. False: its owner lives, or it is settled.
    /// `exclusive` as in `claim_due`.
    pub async fn claim(
        &self,
        id: OrderId,
        lease: Lease<'_>,
        now: Timestamp,
        exclusive: bool,
    ) -> Result<bool, StoreError> {
        let statement = sql(
            "UPDATE orders SET owner = $1, due_at = $2
                             WHERE id = $3 AND due_at IS NOT NULL AND (due_at <= $4 OR ($5 AND owner <> $1))",
        )
        .bind(lease.owner)
        .bind(lease.until)
        .bind(id.to_string())
        .bind(now)
        .bind(exclusive);
        let done = self.database.execute(vec![statement], Durability::Relaxed).await?;
        Ok(done.first().is_some_and(|outcome| outcome.affected == 1))
    }

    /// Takes at most `limit` due orders in one statement. With `exclusive`, every order of another
    /// owner is due: this host alone has the database, so that owner is dead.
    pub async fn claim_due(
        &self,
        lease: Lease<'_>,
        now: Timestamp,
        exclusive: bool,
        limit: u32,
    ) -> Result<Vec<OwnedOrder>, StoreError> {
        let statement = match self.database.dialect() {
            Dialect::Sqlite => sql(claim_due!("")),
            Dialect::Postgres => sql(claim_due!("FOR UPDATE SKIP LOCKED")),
        };
        let statement = statement.bind(now).bind(exclusive).bind(lease.owner).bind(limit).bind(lease.until);
        let done = self.database.execute(vec![statement], Durability::Relaxed).await?;
        let rows = done.first().map(|outcome| outcome.rows.as_slice()).unwrap_or_default();
        let mut claimed = rows.iter().map(owned_order_of).collect::<Result<Vec<_>, _>>()?;
        // RETURNING promises no order; the oldest come first.
        claimed.sort_unstable_by_key(|claimed| claimed.order.id);
        Ok(claimed)
    }

    /// How long the oldest due order has been waiting; zero when none is due. `exclusive` as in `claim_due`.
    pub async fn oldest_due(&self, now: Timestamp) -> Result<std::time::Duration, StoreError> {
        let statement = sql("SELECT min(due_at) FROM orders WHERE due_at IS NOT NULL");
        let found = self.database.query(statement).await?;
        let oldest = found.rows.first().map(|row| row.time_opt(0)).transpose()?.flatten();
        Ok(oldest.map(|due| now.since(due)).unwrap_or_default())
    }

    /// Gives an order back until `due_at`, without a change of its saga.
    pub async fn release(&self, id: OrderId, owner: &str, due_at: Timestamp) -> Result<(), StoreError> {
        let statement =
            sql("UPDATE orders SET due_at = $1 WHERE id = $2 AND owner = $3 AND due_at IS NOT NULL")
                .bind(due_at)
                .bind(id.to_string())
                .bind(owner);
        self.database.execute(vec![statement], Durability::Relaxed).await?;
        Ok(())
    }

    /// Open and parked sagas, oldest first.
    pub async fn sagas(&self, state: Option<Status>, limit: u32) -> Result<Vec<SagaSummary>, StoreError> {
        // Two reads, each with a partial index of its own.
        let open = sql(select_orders!(
            "WHERE due_at IS NOT NULL AND (CAST($1 AS TEXT) IS NULL OR status = $1) ORDER BY due_at LIMIT $2"
        ));
        let parked = sql(select_orders!(
            "WHERE status = 'needs_attention' AND (CAST($1 AS TEXT) IS NULL OR status = $1) ORDER BY id LIMIT $2"
        ));
        let mut summaries = Vec::new();
        for statement in [parked, open] {
            let found = self.database.query(statement.bind(state.map(Status::as_str)).bind(limit)).await?;
            for row in &found.rows {
                let owned = owned_order_of(row)?;
                let tries = self.tries(owned.order.id).await?;
                summaries.push(summary(&owned.order, tries, owned.due_at));
            }
        }
        summaries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(summaries)
    }

    async fn tries(&self, id: OrderId) -> Result<u32, SqlError> {
        let statement = sql("SELECT tries FROM orders WHERE id = $1").bind(id.to_string());
        let found = self.database.query(statement).await?;
        Ok(found.rows.first().map(|row| row.u32(0)).transpose()?.unwrap_or(0))
    }
}

fn summary(order: &Order, tries: u32, due_at: Option<Timestamp>) -> SagaSummary {
    let step = match order.status {
        Status::PaymentPending => "payment",
        Status::Paid => "final_step",
        Status::Compensating | Status::NeedsAttention => "undo_payment",
        Status::Completed | Status::PaymentFailed | Status::Cancelled => "none",
    };
    SagaSummary { order_id: order.id, state: order.status, step, tries, due_at, at_stake: order.total }
}
