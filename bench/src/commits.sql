-- What one order writes, statement by statement, as the host sends it: the bookkeeping of a
-- completed order in PostgreSQL's own hands, with no service around it.
\set n random(1, 9000000000000000000)
-- 1. The order with its idempotency key, its journal and outbox: durable.
WITH p0 AS (INSERT INTO orders (id, user_id, status, total_minor, currency, items, owner, due_at, correlation_id,
    created_at, updated_at, key_scope, key_fingerprint, key_expires_at)
  VALUES ('b-' || CAST(:n AS text), '01a1ff0e-2639-7c56-ac24-a08848a99336', 'payment_pending', 1250, 'EUR',
    '[{"product_id":"book","quantity":1,"unit_price":{"minor":1250,"currency":"EUR"}}]', '7ec0ada335e6dabd',
    NULL, '71385f224e01f9ac3528a880f273a428', 1795280502412, 1795280502412,
    sha256(CAST(CAST(:n AS text) AS bytea)), sha256('body'), 1795366902412)
  ON CONFLICT (key_scope) DO NOTHING RETURNING 1),
p1 AS (INSERT INTO order_journal (order_id, seq, version, at, event, status, trace_id)
  VALUES ('b-' || CAST(:n AS text), 0, 1, 1795280502412,
    '{"placed":{"order_id":"01a1ff0e-7e8c-7c6f-b914-4a2cade82038","total":{"minor":1250,"currency":"EUR"},"deadline":1795280562412,"cancel_until":1795366902412,"final_step":"succeeds"}}',
    'payment_pending', 'cba1e8943bf90e22d8f17192f1ededa6') RETURNING 1),
p2 AS (INSERT INTO order_outbox (order_id, seq) VALUES ('b-' || CAST(:n AS text), 0) RETURNING 1)
SELECT (SELECT count(*) FROM p0), (SELECT count(*) FROM p1), (SELECT count(*) FROM p2);
-- 2. The acquirer's own ledger: relaxed.
WITH p0 AS (INSERT INTO acquirer_charges
    (key, state, amount_minor, currency, method, captured_minor, captures, charge_calls)
  VALUES ('b-' || CAST(:n AS text) || '/charge', 'taken', 1250, 'EUR', '', 1250, 1, 1)
  ON CONFLICT (key) DO NOTHING RETURNING 1),
relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
SELECT (SELECT count(*) FROM p0), (SELECT count(*) FROM relaxed);
-- 3. The payment's document, ledger and outbox: durable.
WITH p0 AS (INSERT INTO payments (id, operation_key, order_id, version, document, due_at)
  VALUES ('b-' || CAST(:n AS text), 'b-' || CAST(:n AS text) || '/charge', 'b-' || CAST(:n AS text), 1,
    CAST('{"id":"01a1ff0e-7e90-733e-8a71-138aaa5c42e0","key":"01a1ff0e-7e8c-7c6f-b914-4a2cade82038/charge","order_id":"01a1ff0e-7e8c-7c6f-b914-4a2cade82038","status":"captured","amount":{"minor":1250,"currency":"EUR"},"captured":1250,"refunded":0,"undone": false,"created_at":1795280502416,"updated_at":1795280502417}' AS jsonb),
    NULL) RETURNING 1),
p1 AS (INSERT INTO payment_transfers (payment_id, seq, debit, credit, amount_minor, currency, at)
  VALUES ('b-' || CAST(:n AS text), 4, 'acquirer', 'customer', 1250, 'EUR', 1795280502417) RETURNING 1),
p2 AS (INSERT INTO payment_outbox (payment_id, seq, status, at, captured_minor, refunded_minor, currency,
    correlation_id, trace_id)
  VALUES ('b-' || CAST(:n AS text), 1, 'captured', 1795280502417, 1250, 0, 'EUR',
    '71385f224e01f9ac3528a880f273a428', 'cba1e8943bf90e22d8f17192f1ededa6') RETURNING 1)
SELECT (SELECT count(*) FROM p0), (SELECT count(*) FROM p1), (SELECT count(*) FROM p2);
-- 4. The order's end, with both events: relaxed.
WITH p0 AS (INSERT INTO order_journal (order_id, seq, version, at, event, status, trace_id)
  VALUES ('b-' || CAST(:n AS text), 1, 1, 1795280502419,
      '{"payment_approved":{"payment_id":"01a1ff0e-7e90-733e-8a71-138aaa5c42e0"}}', 'paid', 'cba1e8943bf90e22d8f17192f1ededa6'),
    ('b-' || CAST(:n AS text), 2, 1, 1795280502419, '"final_step_done"', 'completed', 'cba1e8943bf90e22d8f17192f1ededa6') RETURNING 1),
p1 AS (INSERT INTO order_outbox (order_id, seq)
  VALUES ('b-' || CAST(:n AS text), 1), ('b-' || CAST(:n AS text), 2) RETURNING 1),
p2 AS (UPDATE orders SET status = 'completed', payment_id = '01a1ff0e-7e90-733e-8a71-138aaa5c42e0', due_at = NULL,
    tries = 0, updated_at = 1795280502419 WHERE id = 'b-' || CAST(:n AS text) RETURNING 1),
relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
SELECT (SELECT count(*) FROM p0), (SELECT count(*) FROM p1), (SELECT count(*) FROM p2), (SELECT count(*) FROM relaxed);
