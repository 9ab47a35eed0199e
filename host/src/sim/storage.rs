//! Databases that lose what was not fsynced, refuse, stall, and leave writes in doubt.
//!
//! A disk outlives machines, as a database server does; every machine reaches it through a
//! `SimDatabase` of its own. It is SQLite in memory, or a schema of a real PostgreSQL server.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::machine::Life;
use super::server::Server;
use super::{Call, EPOCH_MILLIS, Fault, Sim, Step, lock};
use crate::sql::sqlite::OpenError;
use crate::sql::sqlite::connection::{Guarded, error_of, open};
use crate::sql::{Answer, Backend, Dialect, Durability, Error, Outcome, Statement, Value};

/// Longest time that a full disk stays full.
const FULL_MILLIS_MAX: u64 = 8_000;

/// One database. It belongs to the world and outlives machines.
pub struct Disk {
    name: String,
    /// Never loses power: another company's, or a real server's.
    sturdy: bool,
    /// No write before this virtual time.
    full_until: Mutex<Duration>,
    contents: Mutex<Contents>,
}

enum Contents {
    Memory(Memory),
    Server(Server),
}

/// SQLite in memory, with what is needed to lose a part of it.
struct Memory {
    live: Guarded,
    /// Every call that wrote, in order; the first `synced` of them survive a crash.
    written: Vec<Vec<Statement>>,
    synced: usize,
    crashes: u64,
}

impl Disk {
    /// An empty database in memory.
    pub fn new(name: &str, sturdy: bool) -> Result<Self, OpenError> {
        let live = open(Path::new(":memory:"), false)?;
        Ok(Self::of(
            name,
            sturdy,
            Contents::Memory(Memory { live, written: Vec::new(), synced: 0, crashes: 0 }),
        ))
    }

    /// A schema of a real PostgreSQL server, by the URL of its role.
    ///
    /// Errors: the URL is wrong, or no thread can be made.
    pub fn on_server(name: &str, url: &str) -> anyhow::Result<Self> {
        Ok(Self::of(name, true, Contents::Server(Server::start(url)?)))
    }

    fn of(name: &str, sturdy: bool, contents: Contents) -> Self {
        let (full_until, contents) = (Mutex::default(), Mutex::new(contents));
        Self { name: name.to_owned(), sturdy, full_until, contents }
    }

    /// Reads as a checker does: no faults, no time.
    pub fn read(&self, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        let statement = Statement { sql: sql.to_owned(), params: vec![], expect: None };
        self.query(statement).map(|outcome| outcome.rows)
    }

    /// Makes an empty disk as something before this world left it; it is there for good.
    pub fn prepare(&self, statements: &[&str]) -> Result<(), Error> {
        let statement = |sql: &&str| Statement { sql: (*sql).to_owned(), params: vec![], expect: None };
        self.write(statements.iter().map(statement).collect(), Durability::Durable).map(drop)
    }

    fn query(&self, statement: Statement) -> Result<Outcome, Error> {
        match &*lock(&self.contents) {
            Contents::Memory(memory) => memory.live.run(&statement),
            Contents::Server(server) => server.query(statement),
        }
    }

    fn write(&self, statements: Vec<Statement>, durability: Durability) -> Result<Vec<Outcome>, Error> {
        match &mut *lock(&self.contents) {
            Contents::Memory(memory) => memory.write(statements, durability),
            Contents::Server(server) => server.execute(statements, durability),
        }
    }

    /// The machine below loses power: some of what was not synced is gone. Answers how much.
    fn crash(&self, sim: &Sim) -> Result<usize, Error> {
        match &mut *lock(&self.contents) {
            Contents::Memory(memory) => memory.crash(sim),
            Contents::Server(_) => Ok(0),
        }
    }

    fn crashes(&self) -> u64 {
        match &*lock(&self.contents) {
            Contents::Memory(memory) => memory.crashes,
            Contents::Server(_) => 0,
        }
    }

    fn dialect(&self) -> Dialect {
        match &*lock(&self.contents) {
            Contents::Memory(_) => Dialect::Sqlite,
            Contents::Server(_) => Dialect::Postgres,
        }
    }
}

impl Memory {
    fn write(&mut self, statements: Vec<Statement>, durability: Durability) -> Result<Vec<Outcome>, Error> {
        let outcomes = self.live.commit(&statements)?;
        self.written.push(statements);
        if durability == Durability::Durable {
            self.synced = self.written.len();
        }
        Ok(outcomes)
    }

    fn crash(&mut self, sim: &Sim) -> Result<usize, Error> {
        let unsynced = self.written.len() - self.synced;
        let survive = usize::try_from(sim.below(unsynced as u64 + 1)).unwrap_or(0);
        let keep = self.synced + survive;
        self.written.truncate(keep);
        self.synced = keep;
        self.crashes += 1;
        let live =
            open(Path::new(":memory:"), false).map_err(|error| Error::NotApplied(error.to_string()))?;
        for statements in &self.written {
            live.commit(statements)?;
        }
        self.live = live;
        Ok(unsynced - survive)
    }
}

impl Guarded {
    fn commit(&self, statements: &[Statement]) -> Result<Vec<Outcome>, Error> {
        let control = |sql: &str| self.connection.execute_batch(sql).map_err(error_of);
        control("BEGIN IMMEDIATE")?;
        let done = self.run_all(statements);
        control(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done
    }
}

/// One machine's way to a disk.
#[derive(Clone)]
pub struct SimDatabase {
    pub sim: Arc<Sim>,
    pub disk: Arc<Disk>,
    pub life: Arc<Life>,
}

impl SimDatabase {
    async fn query(self, statement: Statement) -> Result<Outcome, Error> {
        let (sim, life, disk) = (&self.sim, &self.life, &self.disk);
        let call = life.call(Call::Read { database: &disk.name }, format!("{} read", disk.name)).await;
        life.wait(sim.latency()).await;
        if sim.hits(Fault::StorageRefuses, call.step) {
            return Err(Error::NotApplied("simulated: unavailable".to_owned()));
        }
        let outcome = disk.query(statement);
        life.called(&call).await;
        life.wait(sim.latency()).await;
        outcome
    }

    async fn execute(
        self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Vec<Outcome>, Error> {
        let (sim, life, disk) = (&self.sim, &self.life, &self.disk);
        let call = Call::Write { database: &disk.name, statements: &statements };
        let (step, count) = ((sim.steps)(&call), statements.len());
        let what = format!("{} write {durability:?}: {step}, {count} statements", disk.name);
        let call = life.call(call, what).await;
        if sim.hits(Fault::StorageSlow, call.step) {
            life.wait(Duration::from_millis(500 + sim.below(4_000))).await;
        }
        life.wait(sim.latency()).await;
        if !disk.sturdy && sim.strikes(Fault::StorageCrash) {
            let lost = disk.crash(sim)?;
            sim.tell(format!("{} crashes, {lost} writes lost", disk.name));
            if lost > 0 {
                sim.took_effect(Fault::StorageCrash, call.step);
            }
        }
        self.refused(call.step)?;
        if !disk.sturdy && sim.hits(Fault::StorageCrashInCommit, call.step) {
            let lost = disk.write(statements, Durability::Relaxed).and_then(|_| disk.crash(sim))?;
            sim.tell(format!("#{} {} crashes as it commits, {lost} writes lost", call.number, disk.name));
            return Err(Error::OutcomeUnknown("simulated: the server died".to_owned()));
        }
        let done = disk.write(statements, durability);
        let shown = done.as_ref().map_or_else(|error| format!("{error:?}"), |_| "ok".to_owned());
        sim.tell(format!("#{} {} {shown}", call.number, disk.name));
        if done.is_ok() && sim.hits(Fault::StorageUnknownDone, call.step) {
            return Err(Error::OutcomeUnknown("simulated: done".to_owned()));
        }
        let crashes = disk.crashes();
        life.called(&call).await;
        life.wait(sim.latency()).await;
        if disk.crashes() != crashes {
            // The answer was on its way when the server died.
            return Err(Error::OutcomeUnknown("simulated: the server died".to_owned()));
        }
        done
    }

    /// The errors of a write that is not done.
    fn refused(&self, step: Step) -> Result<(), Error> {
        let (sim, mut full_until) = (&self.sim, lock(&self.disk.full_until));
        if sim.strikes(Fault::StorageFull) {
            *full_until = sim.elapsed() + Duration::from_millis(sim.below(FULL_MILLIS_MAX));
        }
        if sim.elapsed() < *full_until {
            sim.took_effect(Fault::StorageFull, step);
            return Err(Error::NotApplied("simulated: full".to_owned()));
        }
        if sim.hits(Fault::StorageRefuses, step) {
            return Err(Error::NotApplied("simulated: refused".to_owned()));
        }
        if sim.hits(Fault::StorageConflict, step) {
            return Err(Error::Conflict("simulated: another was faster".to_owned()));
        }
        if sim.hits(Fault::StorageUnknownNotDone, step) {
            return Err(Error::OutcomeUnknown("simulated: not done".to_owned()));
        }
        Ok(())
    }
}

impl Backend for SimDatabase {
    fn query(&self, statement: Statement) -> Answer<Outcome> {
        Box::pin(self.clone().query(statement))
    }

    fn execute(&self, statements: Vec<Statement>, durability: Durability) -> Answer<Vec<Outcome>> {
        Box::pin(self.clone().execute(statements, durability))
    }

    fn dialect(&self) -> Dialect {
        self.disk.dialect()
    }

    /// The server's clock is right.
    fn now(&self) -> Answer<u64> {
        let millis = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        Box::pin(std::future::ready(Ok(EPOCH_MILLIS.saturating_add(millis))))
    }
}
