-- A role and a schema for each service, for operators who do not give the application an
-- administrator's URL. No service can read another's tables.
--
--   psql -v password="$(openssl rand -hex 24)" -f roles.sql postgres://administrator@host/database
--
-- Run once; running it again changes the passwords and nothing else. Each service's URL is then
-- postgres://settle_NAME:PASSWORD@host/database, in the variable database_NAME.

\set ON_ERROR_STOP on
BEGIN;

SELECT format('CREATE ROLE %I LOGIN NOINHERIT', role)
FROM unnest(ARRAY['settle_identity', 'settle_order', 'settle_payment', 'settle_acquirer']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec

SELECT unnest(ARRAY[
  format('ALTER ROLE %I PASSWORD %L', role, :'password'),
  format('ALTER ROLE %I SET search_path = %I', role, role),
  -- A connection that comes back to a pool inside a transaction would hand it to the next request.
  format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', role, '5s'),
  format('ALTER ROLE %I SET statement_timeout = %L', role, '5s'),
  format('ALTER ROLE %I SET lock_timeout = %L', role, '3s'),
  format('GRANT %I TO CURRENT_USER', role),
  format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', role, role)
])
FROM unnest(ARRAY['settle_identity', 'settle_order', 'settle_payment', 'settle_acquirer']) AS role \gexec

COMMIT;
