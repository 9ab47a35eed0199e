-- Finished orders leave the order service's tables for a schema of their own.
--
--   psql -f archive.sql postgres://administrator@host/database      (once; makes the function)
--   SELECT settle_archive.move_orders(older_than => '30 days', most => 1000);
--
-- The function answers how many orders it moved; call it until it answers 0. One call is one
-- transaction: an order is here or there. It stays as long as anybody can still move it or ask
-- again: while it is open, may be cancelled, or holds an idempotency key. Payments stay: they are the
-- books. After an upgrade that changes the service's columns, rename the old schema and run this again.
CREATE SCHEMA IF NOT EXISTS settle_archive;
CREATE TABLE IF NOT EXISTS settle_archive.orders (LIKE settle_order.orders INCLUDING DEFAULTS, PRIMARY KEY (id));
CREATE TABLE IF NOT EXISTS settle_archive.order_journal (LIKE settle_order.order_journal INCLUDING ALL);
CREATE TABLE IF NOT EXISTS settle_archive.order_outbox (LIKE settle_order.order_outbox INCLUDING ALL);

CREATE OR REPLACE FUNCTION settle_archive.move_orders(older_than interval, most integer) RETURNS bigint
LANGUAGE sql AS $$
  WITH clock AS (
    SELECT CAST(extract(epoch FROM now()) * 1000 AS bigint) AS now,
           CAST(extract(epoch FROM now() - older_than) * 1000 AS bigint) AS until
  ),
  chosen AS (
    SELECT o.id FROM clock, settle_order.orders o
    JOIN settle_order.order_journal placed ON placed.order_id = o.id AND placed.seq = 0
    WHERE o.updated_at <= clock.until AND o.due_at IS NULL
      AND o.status IN ('completed', 'payment_failed', 'cancelled')
      AND CAST(CAST(placed.event AS jsonb) -> 'placed' ->> 'cancel_until' AS bigint) <= clock.now
      AND (o.key_scope IS NULL OR o.key_expires_at <= clock.now)
    ORDER BY o.id LIMIT most FOR UPDATE OF o SKIP LOCKED
  ),
  orders AS (
    DELETE FROM settle_order.orders WHERE id IN (SELECT id FROM chosen) RETURNING *
  ),
  journal AS (
    DELETE FROM settle_order.order_journal WHERE order_id IN (SELECT id FROM chosen) RETURNING *
  ),
  outbox AS (
    DELETE FROM settle_order.order_outbox WHERE order_id IN (SELECT id FROM chosen) RETURNING *
  ),
  kept_journal AS (INSERT INTO settle_archive.order_journal SELECT * FROM journal),
  kept_outbox AS (INSERT INTO settle_archive.order_outbox SELECT * FROM outbox),
  kept AS (INSERT INTO settle_archive.orders SELECT * FROM orders RETURNING 1)
  SELECT count(*) FROM kept
$$;
