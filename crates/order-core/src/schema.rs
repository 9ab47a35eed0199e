//! The tables of the order service.
//!
//! The journal is also the history, and what is told of an order: one fact has one place. A row of the
//! outbox only says that an entry is still to be told; the view `order_messages` says what. An order's
//! items are an immutable snapshot and live with it, and so does the idempotency key that made it. `due_at` is the lease while a driver owns the saga, its timer while
//! nobody does, and null once the saga is settled.

use settle_ports::{Migration, Schema};

/// Forward-only; a released migration is never edited.
pub const SCHEMA: Schema = Schema { service: "order", migrations: &[FIRST, LEAN_OUTBOX, KEYS_WITH_ORDERS] };

const FIRST: Migration = Migration {
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
};

/// A message is what its journal entry says; it was stored a second time.
const LEAN_OUTBOX: Migration = Migration {
    version: 2,
    statements: &[
        "ALTER TABLE order_outbox DROP COLUMN type",
        "ALTER TABLE order_outbox DROP COLUMN payload",
        "CREATE VIEW order_messages AS
           SELECT t.order_id, t.seq, j.status, j.at, j.event, j.trace_id, o.user_id, o.correlation_id
           FROM order_outbox t
           JOIN order_journal j ON j.order_id = t.order_id AND j.seq = t.seq
           JOIN orders o ON o.id = t.order_id",
    ],
};

/// A table with two indexes less to write for an order, and one index more.
const KEYS_WITH_ORDERS: Migration = Migration {
    version: 3,
    statements: &[
        "ALTER TABLE orders ADD COLUMN key_scope BYTEA",
        "ALTER TABLE orders ADD COLUMN key_fingerprint BYTEA",
        "ALTER TABLE orders ADD COLUMN key_expires_at BIGINT",
        "UPDATE orders SET key_scope = k.scope, key_fingerprint = k.fingerprint, key_expires_at = k.expires_at
         FROM order_idempotency k WHERE k.order_id = orders.id",
        "CREATE UNIQUE INDEX orders_by_key ON orders (key_scope)",
        "DROP TABLE order_idempotency",
    ],
};
