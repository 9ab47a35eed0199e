//! PostgreSQL: one statement a call; calls that come together share their way.
//!
//! A call takes a lane (durable, relaxed, reading), where it waits for a connection with others of
//! its kind. Readers have connections of their own, which cannot write.

mod call;
mod composed;
mod lane;
mod pool;
pub mod provision;
mod value;

use std::mem;
use std::sync::Arc;

use anyhow::Result;
use settle_postgres::Call as Text;

use super::{Answer, Backend, Dialect, Durability, Error, Outcome, Statement, Value};
use call::Call;
use composed::Composed;
use lane::{Lane, Way};

/// One database of one service: its role, its schema.
pub struct Postgres {
    composed: Composed,
    durable: Arc<Lane>,
    relaxed: Arc<Lane>,
    reading: Arc<Lane>,
}

impl Postgres {
    /// `url` in libpq's syntax; `sslmode=require` checks the server's certificate against the
    /// system's roots. Nothing is connected yet.
    pub fn new(url: &str, connections: usize) -> Result<Self> {
        let (writers, readers) = pool::writers_and_readers(url, connections)?;
        Ok(Self {
            composed: Composed::default(),
            durable: Lane::new(writers.clone(), Way::Write),
            relaxed: Lane::new(writers, Way::Write),
            reading: Lane::new(readers, Way::Read),
        })
    }
}

impl Backend for Postgres {
    fn query(&self, mut statement: Statement) -> Answer<Outcome> {
        let reading = self.reading.clone();
        Box::pin(async move {
            let expect = statement.expect;
            let text = Arc::new(Text::Plain { sql: mem::take(&mut statement.sql), returns_rows: true });
            let answered = reading.make(Call { text, statements: vec![statement] }).await;
            let mut outcomes = answered.map_err(|failed| match failed {
                // A read leaves nothing behind, whatever became of it.
                Error::OutcomeUnknown(text) => Error::NotApplied(text),
                other => other,
            })?;
            let mut outcome = outcomes.pop().ok_or_else(|| Error::Invalid("no rows came back".into()))?;
            outcome.affected = 0;
            match expect {
                Some(expected) if expected != outcome.rows.len() as u64 => Err(Error::Unmet(0)),
                _ => Ok(outcome),
            }
        })
    }

    fn execute(&self, statements: Vec<Statement>, durability: Durability) -> Answer<Vec<Outcome>> {
        let lane = match durability {
            Durability::Durable => self.durable.clone(),
            Durability::Relaxed => self.relaxed.clone(),
        };
        let text = self.composed.call(&statements, durability);
        Box::pin(async move { lane.make(Call { text: text?, statements }).await })
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn now(&self) -> Answer<u64> {
        let sql = settle_postgres::NOW.to_owned();
        let answered = self.query(Statement { sql, params: vec![], expect: None });
        Box::pin(async move {
            match answered.await?.rows.first().and_then(|row| row.first()) {
                Some(Value::Int64(millis)) => Ok(u64::try_from(*millis).unwrap_or_default()),
                _ => Err(Error::Invalid("the server's clock is not a number".to_owned())),
            }
        })
    }
}
