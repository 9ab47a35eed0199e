//! The tables of the payment service.
//!
//! A transfer is one row that names both accounts, so that no write can leave the ledger
//! unbalanced: the check constraints hold what bookkeeping needs.

use settle_ports::{Migration, Schema};

/// Forward-only; a released migration is never edited.
pub const SCHEMA: Schema = Schema { service: "payment", migrations: &[FIRST, LEAN_OUTBOX] };

const FIRST: Migration = Migration {
    version: 1,
    statements: &[
        "CREATE TABLE payments (
               id TEXT PRIMARY KEY,
               operation_key TEXT NOT NULL UNIQUE,
               order_id TEXT NOT NULL,
               version BIGINT NOT NULL,
               document JSONB NOT NULL,
               due_at BIGINT
             ) WITHOUT ROWID",
        "CREATE INDEX payments_by_order ON payments (order_id)",
        "CREATE INDEX payments_due ON payments (due_at) WHERE due_at IS NOT NULL",
        "CREATE TABLE payment_transfers (
               payment_id TEXT NOT NULL,
               seq BIGINT NOT NULL,
               debit TEXT NOT NULL CHECK (debit IN ('acquirer', 'customer', 'refunds')),
               credit TEXT NOT NULL CHECK (credit IN ('acquirer', 'customer', 'refunds')),
               amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
               currency TEXT NOT NULL,
               at BIGINT NOT NULL,
               PRIMARY KEY (payment_id, seq),
               CHECK (debit <> credit)
             ) WITHOUT ROWID",
        "CREATE VIEW payment_ledger AS
               SELECT payment_id, seq, debit AS account, amount_minor, currency, at FROM payment_transfers
               UNION ALL
               SELECT payment_id, seq, credit, -amount_minor, currency, at FROM payment_transfers",
        "CREATE TABLE payment_outbox (
               payment_id TEXT NOT NULL,
               seq BIGINT NOT NULL,
               type TEXT NOT NULL,
               payload TEXT NOT NULL,
               PRIMARY KEY (payment_id, seq)
             ) WITHOUT ROWID",
    ],
};

/// A message is columns, and what its payment never changes is read there; it was a JSON text. The time
/// of a message from then stays null: no words that both databases know would read it.
const LEAN_OUTBOX: Migration = Migration {
    version: 2,
    statements: &[
        "ALTER TABLE payment_outbox ADD COLUMN status TEXT",
        "ALTER TABLE payment_outbox ADD COLUMN at BIGINT",
        "ALTER TABLE payment_outbox ADD COLUMN captured_minor BIGINT",
        "ALTER TABLE payment_outbox ADD COLUMN refunded_minor BIGINT",
        "ALTER TABLE payment_outbox ADD COLUMN currency TEXT",
        "ALTER TABLE payment_outbox ADD COLUMN correlation_id TEXT",
        "ALTER TABLE payment_outbox ADD COLUMN trace_id TEXT",
        "UPDATE payment_outbox SET
           status = json(payload) ->> 'status',
           captured_minor = CAST(json(payload) ->> 'captured' AS BIGINT),
           refunded_minor = CAST(json(payload) ->> 'refunded' AS BIGINT),
           currency = json(payload) ->> 'currency',
           correlation_id = json(payload) ->> 'correlation_id',
           trace_id = substr(json(payload) ->> 'traceparent', 4, 32)",
        "ALTER TABLE payment_outbox DROP COLUMN type",
        "ALTER TABLE payment_outbox DROP COLUMN payload",
        "CREATE VIEW payment_messages AS
           SELECT t.payment_id, t.seq, t.status, t.at, t.captured_minor, t.refunded_minor, t.currency,
             t.correlation_id, t.trace_id, p.order_id
           FROM payment_outbox t JOIN payments p ON p.id = t.payment_id",
    ],
};
