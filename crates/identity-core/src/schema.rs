//! The tables of the identity service.

use settle_ports::{Migration, Schema};

/// Forward-only; a released migration is never edited.
pub const SCHEMA: Schema = Schema {
    service: "identity",
    migrations: &[
        Migration {
            version: 1,
            statements: &["CREATE TABLE identity_users (
               id TEXT PRIMARY KEY,
               username TEXT NOT NULL UNIQUE,
               password_hash TEXT NOT NULL,
               role TEXT NOT NULL,
               created_at BIGINT NOT NULL
             ) WITHOUT ROWID"],
        },
        Migration {
            version: 2,
            statements: &["CREATE TABLE identity_revoked (
               what TEXT PRIMARY KEY,
               before_at BIGINT NOT NULL,
               expires_at BIGINT NOT NULL
             ) WITHOUT ROWID"],
        },
    ],
};
