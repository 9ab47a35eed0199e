//! The tables of the payment service.
//!
//! A transfer is one row that names both accounts, so that no write can leave the ledger
//! unbalanced: the check constraints hold what bookkeeping needs.

use settle_ports::{Migration, Schema};

/// Forward-only; a released migration is never edited.
pub const SCHEMA: Schema = Schema {
    service: "payment",
    migrations: &[Migration {
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
    }],
};
