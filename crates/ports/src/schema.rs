//! Versioned, forward-only, checksummed migrations over the storage port.

use std::borrow::Cow;
use std::fmt::Write as _;

use settle_types::Timestamp;

use crate::database::{Database, Dialect, Durability, SqlError, Statement, sql};

/// One step of a schema. A released one is never edited: its checksum is stored.
///
/// Its statements are definitions in the words of PostgreSQL (`BIGINT`, `BYTEA`, `JSONB`), which
/// SQLite takes as they are. `WITHOUT ROWID` at the end of one is for SQLite alone.
#[derive(Debug)]
pub struct Migration {
    pub version: u32,
    pub statements: &'static [&'static str],
}

/// All steps of one service's tables. `service` prefixes the bookkeeping table.
#[derive(Debug)]
pub struct Schema {
    pub service: &'static str,
    pub migrations: &'static [Migration],
}

/// Why the database cannot be used by this release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("database schema {found} of `{service}` is newer than this release, which knows up to {known}")]
    TooNew { service: &'static str, found: u32, known: u32 },
    #[error("migration {version} of `{service}` was changed after it had been applied")]
    Edited { service: &'static str, version: u32 },
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl Schema {
    /// Brings the database to the newest version. Safe when several instances race: the version
    /// row's primary key lets each step commit once.
    pub async fn migrate(&self, database: &impl Database, now: Timestamp) -> Result<(), SchemaError> {
        let applied = match self.applied(database).await {
            Ok(applied) => applied,
            // No bookkeeping table yet: the one state in which the read is refused.
            Err(SqlError::Invalid(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let known = self.migrations.last().map_or(0, |m| m.version);
        if let Some(&(found, _)) = applied.iter().find(|(version, _)| *version > known) {
            return Err(SchemaError::TooNew { service: self.service, found, known });
        }
        for migration in self.migrations {
            match applied.iter().find(|(version, _)| *version == migration.version) {
                Some((_, sum)) if *sum == migration.checksum() => {}
                Some(_) => {
                    return Err(SchemaError::Edited { service: self.service, version: migration.version });
                }
                None => self.apply(database, migration, now).await?,
            }
        }
        Ok(())
    }

    async fn applied(&self, database: &impl Database) -> Result<Vec<(u32, i64)>, SqlError> {
        let statement =
            sql("SELECT version, checksum FROM schema_versions WHERE service = $1 ORDER BY version")
                .bind(self.service);
        let outcome = database.query(statement).await?;
        outcome.rows.iter().map(|row| Ok((row.u32(0)?, row.int(1)?))).collect()
    }

    async fn apply(
        &self,
        database: &impl Database,
        migration: &Migration,
        now: Timestamp,
    ) -> Result<(), SchemaError> {
        let statements = match database.dialect() {
            Dialect::Sqlite => self.sqlite(migration, now),
            Dialect::Postgres => vec![self.postgres(migration, now)],
        };
        match database.execute(statements, Durability::Durable).await {
            // Another instance was faster; what it wrote is what we would have written.
            Ok(_) | Err(SqlError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sqlite(&self, migration: &Migration, now: Timestamp) -> Vec<Statement> {
        let mut statements = vec![
            sql(VERSIONS_TABLE),
            sql("INSERT INTO schema_versions (service, version, checksum, applied_at) VALUES ($1, $2, $3, $4)")
                .bind(self.service)
                .bind(migration.version)
                .bind(migration.checksum())
                .bind(now),
        ];
        statements.extend(migration.statements.iter().map(|text| sql(text)));
        statements
    }

    /// One block, since a call is one statement there. Racers wait for each other at the lock.
    fn postgres(&self, migration: &Migration, now: Timestamp) -> Statement {
        let (service, version, checksum) = (self.service, migration.version, migration.checksum());
        let mut block = format!(
            "DO $settle$ BEGIN
             PERFORM pg_advisory_xact_lock(hashtext('settle schema {service}'));
             {VERSIONS_TABLE};
             IF EXISTS (SELECT FROM schema_versions WHERE service = '{service}' AND version = {version}) THEN
               RETURN;
             END IF;
             INSERT INTO schema_versions VALUES ('{service}', {version}, {checksum}, {});
             ",
            now.as_column()
        );
        for text in migration.statements {
            // Writing to a string cannot fail.
            let _ = writeln!(block, "{};", text.trim_end().trim_end_matches("WITHOUT ROWID"));
        }
        block.push_str("END $settle$");
        Statement { sql: Cow::Owned(block), params: Vec::new(), expect: None }
    }
}

const VERSIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_versions (
    service TEXT NOT NULL, version BIGINT NOT NULL, checksum BIGINT NOT NULL,
    applied_at BIGINT NOT NULL, PRIMARY KEY (service, version))";

impl Migration {
    /// FNV-1a over the statements: notices an edit; not a security measure. Never negative: the
    /// wasmCloud 1.x lattice cannot carry a negative number back.
    fn checksum(&self) -> i64 {
        let bytes = self.statements.iter().flat_map(|text| text.bytes().chain([0]));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash >> 1).cast_signed()
    }
}
