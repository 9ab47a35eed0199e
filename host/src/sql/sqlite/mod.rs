//! SQLite: one file a service, WAL, one writer with group commit, readers beside it.
//!
//! `writer.rs` owns the only connection that writes. `reader.rs` owns the ones that read.
//! `connection.rs` opens both and runs one statement within its budget.

pub mod connection;
mod reader;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::{Answer, Backend, Dialect, Durability, Error, Outcome, Statement};
use reader::Readers;
use writer::Writer;

pub use connection::OpenError;

/// One SQLite database.
pub struct Sqlite {
    writer: Writer,
    readers: Readers,
}

impl Sqlite {
    /// Opens or creates the database and its threads.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let path: PathBuf = path.to_owned();
        // The writer first: it creates the file and sets WAL mode.
        let writer = Writer::start(path.clone())?;
        let readers = Readers::start(&path)?;
        Ok(Self { writer, readers })
    }
}

impl Backend for Sqlite {
    fn query(&self, statement: Statement) -> Answer<Outcome> {
        answer_of(self.readers.send(statement))
    }

    fn execute(&self, statements: Vec<Statement>, durability: Durability) -> Answer<Vec<Outcome>> {
        answer_of(self.writer.send(statements, durability))
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn now(&self) -> Answer<u64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Box::pin(std::future::ready(Ok(millis)))
    }
}

/// Waits for a thread's answer. A thread that ended without one says nothing of the write.
fn answer_of<T: Send + 'static>(sent: Result<oneshot::Receiver<Result<T, Error>>, Error>) -> Answer<T> {
    match sent {
        Ok(receiver) => Box::pin(async move {
            receiver.await.unwrap_or_else(|_| Err(Error::OutcomeUnknown("the database stopped".to_owned())))
        }),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}
