//! How the storage port speaks PostgreSQL, for every host that has it: the statements of one call
//! as ONE statement, and what the server's error codes mean.
//!
//! Hosts that pool connections give no transaction that spans calls, so a call is one statement
//! with a common table expression a part. They share one snapshot: parts do not see each other's
//! writes and must not touch the same row.

#![forbid(unsafe_code)]

/// The server's clock, in milliseconds since the Unix epoch.
pub const NOW: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)";

mod compose;
mod failure;
mod text;

pub use compose::{Call, Part, compose, compose_plainly};
pub use failure::{Failure, failure_of};
pub use text::{quoted_literal, written_out};
