//! A real PostgreSQL server in a simulated world, one call at a time.
//!
//! The simulation's thread stands still while a call is under way, so virtual time does not move and
//! nothing else happens: a run is as deterministic as with a database in memory.

use std::sync::mpsc;

use anyhow::{Context as _, Result};

use crate::sql::postgres::Postgres;
use crate::sql::{Backend as _, Durability, Error, Outcome, Statement};

/// Connections to the server: one reads, one writes.
const CONNECTIONS: usize = 1;

enum Job {
    Query(Statement, mpsc::Sender<Result<Outcome, Error>>),
    Execute(Vec<Statement>, Durability, mpsc::Sender<Result<Vec<Outcome>, Error>>),
}

/// A thread with the backend that ships, and a runtime in real time.
pub struct Server(mpsc::Sender<Job>);

impl Server {
    /// Nothing is connected yet; the thread ends when this is dropped.
    pub fn start(url: &str) -> Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let backend = {
            let _inside = runtime.enter();
            Postgres::new(url, CONNECTIONS)?
        };
        let work = move || {
            // Who asked may be gone with its simulation.
            for job in todo {
                match job {
                    Job::Query(statement, answer) => {
                        let _gone = answer.send(runtime.block_on(backend.query(statement)));
                    }
                    Job::Execute(statements, durability, answer) => {
                        let _gone = answer.send(runtime.block_on(backend.execute(statements, durability)));
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("simulated-server".to_owned());
        thread.spawn(work).context("a thread for the server")?;
        Ok(Self(jobs))
    }

    pub fn query(&self, statement: Statement) -> Result<Outcome, Error> {
        self.ask(|answer| Job::Query(statement, answer))
    }

    pub fn execute(&self, statements: Vec<Statement>, durability: Durability) -> Result<Vec<Outcome>, Error> {
        self.ask(|answer| Job::Execute(statements, durability, answer))
    }

    fn ask<T>(&self, job: impl FnOnce(mpsc::Sender<Result<T, Error>>) -> Job) -> Result<T, Error> {
        let gone = |_| Error::OutcomeUnknown("the server's thread is gone".to_owned());
        let (answer, answered) = mpsc::channel();
        self.0.send(job(answer)).map_err(|_| Error::NotApplied("the server's thread is gone".to_owned()))?;
        answered.recv().map_err(gone)?
    }
}
