//! The tables of the order service.
//!
//! The journal is also the history: one fact has one place. An order's items are an immutable
//! snapshot and live with it. `due_at` is the lease while a driver owns the saga, its timer while
//! nobody does, and null once the saga is settled.

use settle_ports::{Migration, Schema};

/// Forward-only; a released migration is never edited.
pub const SCHEMA: Schema = Schema {
    service: "order",
    migrations: &[Migration {
        version: 1,
        statements: &[
            "CREATE TABLE orders (
               id TEXT PRIMARY KEY,
               user_id TEXT NOT NULL,
               status TEXT NOT NULL,
               failure_reason TEXT,
               total_minor BIGINT NOT NULL CHECK (total_minor > 0),
               currency TEXT NOT NULL,
               items TEXT NOT NULL,
               payment_id TEXT,
               owner TEXT NOT NULL,
               due_at BIGINT,
               tries BIGINT NOT NULL DEFAULT 0,
               correlation_id TEXT NOT NULL,
               created_at BIGINT NOT NULL,
               updated_at BIGINT NOT NULL
             ) WITHOUT ROWID",
            "CREATE INDEX orders_by_user ON orders (user_id, id)",
            "CREATE INDEX orders_due ON orders (due_at) WHERE due_at IS NOT NULL",
            "CREATE INDEX orders_parked ON orders (id) WHERE status = 'needs_attention'",
            "CREATE TABLE order_journal (
               order_id TEXT NOT NULL,
               seq BIGINT NOT NULL,
               version BIGINT NOT NULL,
               at BIGINT NOT NULL,
               event TEXT NOT NULL,
               status TEXT NOT NULL,
               trace_id TEXT NOT NULL,
               PRIMARY KEY (order_id, seq)
             ) WITHOUT ROWID",
            "CREATE TABLE order_outbox (
               order_id TEXT NOT NULL,
               seq BIGINT NOT NULL,
               type TEXT NOT NULL,
               payload TEXT NOT NULL,
               PRIMARY KEY (order_id, seq)
             ) WITHOUT ROWID",
            "CREATE TABLE order_idempotency (
               scope BYTEA PRIMARY KEY,
               fingerprint BYTEA NOT NULL,
               order_id TEXT NOT NULL,
               expires_at BIGINT NOT NULL
             ) WITHOUT ROWID",
            "CREATE INDEX order_idempotency_expiry ON order_idempotency (expires_at)",
        ],
    }],
};
