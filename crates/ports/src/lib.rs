//! What a service needs of the world, as traits: the Rust face of `wit/`.
//!
//! The cores are generic over these. A component implements them by its imports; tests and
//! benchmarks implement them natively. Futures need not be `Send`: a guest has one thread.

mod acquirer;
mod database;
mod schema;
mod world;

pub use acquirer::{Acquirer, AcquirerError, ChargeOutcome, RefundOutcome, Standing};
pub use database::{
    Database, Dialect, Durability, Outcome, Row, RowError, SqlError, Statement, Value, insert_rows, sql,
};
pub use schema::{Migration, Schema, SchemaError};
pub use world::{CallContext, DueReport, Limiter, Rate, Verdict, World};
