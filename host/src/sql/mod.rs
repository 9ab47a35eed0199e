//! `settle:sql`: the storage port, for guests.
//!
//! This module turns calls of a component into calls of a `Backend`, and lets through only the
//! databases that the manifest grants. It knows no dialect; the backends are beside it.

mod databases;
pub mod postgres;
pub mod sqlite;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use wasmtime::component::{Accessor, HasData, Linker, Resource};

use crate::bindings::settle::sql::database as wit;
use crate::guest::Ctx;

pub use databases::Databases;
pub use wit::{Dialect, Durability, Error, Outcome, Statement, Value};

/// Most rows of one result.
const ROWS_MAX: usize = 10_000;
/// Most bytes of one result.
const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of one parameter.
const PARAM_BYTES_MAX: usize = 1024 * 1024;

impl Value {
    /// What a value weighs in a budget.
    fn bytes(&self) -> usize {
        match self {
            Value::Null | Value::Boolean(_) | Value::Int64(_) => 8,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        }
    }

    /// What every backend refuses alike.
    fn check(&self) -> Result<(), Error> {
        if self.bytes() > PARAM_BYTES_MAX {
            return Err(Error::TooLarge(format!("a parameter has at most {PARAM_BYTES_MAX} bytes")));
        }
        match self {
            Value::Text(text) if text.contains('\0') => {
                Err(Error::Invalid("a text holds no zero character".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// One database, real or simulated. See `wit/sql/database.wit` for the promises.
pub trait Backend: Send + Sync {
    fn query(&self, statement: Statement) -> Answer<Outcome>;
    fn execute(&self, statements: Vec<Statement>, durability: Durability) -> Answer<Vec<Outcome>>;
    fn dialect(&self) -> Dialect;
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Answer<u64>;
}

/// The databases of one component, by the names that the manifest grants.
pub type Granted = Arc<HashMap<String, Arc<dyn Backend>>>;

/// A database that a guest holds open.
pub struct Opened(Arc<dyn Backend>);

/// Marks the port in the linker.
pub struct SqlPort;

impl HasData for SqlPort {
    type Data<'a> = &'a mut Ctx;
}

pub fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    wit::add_to_linker::<_, SqlPort>(linker, |ctx| ctx)
}

impl wit::Host for Ctx {}

impl wit::HostDatabase for Ctx {
    fn get_dialect(&mut self, database: Resource<Opened>) -> Dialect {
        // A handle that is not in the table cannot be made by a guest; the answer does not matter.
        self.table.get(&database).map_or(Dialect::Sqlite, |opened| opened.0.dialect())
    }

    fn drop(&mut self, database: Resource<Opened>) -> wasmtime::Result<()> {
        self.table.delete(database)?;
        Ok(())
    }
}

impl<T: Send> wit::HostDatabaseWithStore<T> for SqlPort {
    async fn open(accessor: &Accessor<T, Self>, name: String) -> Result<Resource<Opened>, Error> {
        accessor.with(|mut access| {
            let ctx = access.get();
            let backend = ctx.databases.get(&name).cloned();
            let backend =
                backend.ok_or_else(|| Error::Invalid(format!("database `{name}` is not granted")))?;
            ctx.table.push(Opened(backend)).map_err(|error| Error::NotApplied(error.to_string()))
        })
    }

    async fn query(
        accessor: &Accessor<T, Self>,
        database: Resource<Opened>,
        statement: Statement,
    ) -> Result<Outcome, Error> {
        backend(accessor, &database)?.query(statement).await
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        database: Resource<Opened>,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, Error> {
        backend(accessor, &database)?.execute(statements, durability).await
    }

    async fn now(accessor: &Accessor<T, Self>, database: Resource<Opened>) -> Result<u64, Error> {
        backend(accessor, &database)?.now().await
    }
}

fn backend<T>(
    accessor: &Accessor<T, SqlPort>,
    database: &Resource<Opened>,
) -> Result<Arc<dyn Backend>, Error> {
    accessor.with(|mut access| {
        let opened = access.get().table.get(database);
        opened.map(|opened| opened.0.clone()).map_err(|error| Error::Invalid(error.to_string()))
    })
}
