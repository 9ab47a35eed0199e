//! Versioned, forward-only, checksummed migrations over the storage port.

use settle_types::Timestamp;

use crate::database::{Database, Durability, SqlError, Statement, sql};

/// One step of a schema. A released one is never edited: its checksum is stored.
#[derive(Debug)]
pub struct Migration {
    pub version: u32,
    /// Statements for SQLite, one each.
    pub sqlite: &'static [&'static str],
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
        let mut statements = vec![
            sql("CREATE TABLE IF NOT EXISTS schema_versions (
                   service TEXT NOT NULL, version INTEGER NOT NULL, checksum INTEGER NOT NULL,
                   applied_at INTEGER NOT NULL, PRIMARY KEY (service, version))"),
            sql("INSERT INTO schema_versions (service, version, checksum, applied_at) VALUES ($1, $2, $3, $4)")
                .bind(self.service)
                .bind(migration.version)
                .bind(migration.checksum())
                .bind(now),
        ];
        statements.extend(migration.sqlite.iter().map(|text| Statement {
            sql: text,
            params: Vec::new(),
            expect: None,
        }));
        match database.execute(statements, Durability::Durable).await {
            // Another instance was faster; what it wrote is what we would have written.
            Ok(_) | Err(SqlError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Migration {
    /// FNV-1a over the statements: notices an edit; not a security measure.
    fn checksum(&self) -> i64 {
        let bytes = self.sqlite.iter().flat_map(|text| text.bytes().chain([0]));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash.cast_signed()
    }
}
