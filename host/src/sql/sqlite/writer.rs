//! The writer: one thread, one connection, many calls in one commit and one fsync.
//!
//! Rules of a group. Each call runs in a savepoint of its own, so a call that fails leaves the
//! others unharmed. After any error SQLite may have rolled back everything: then the others run
//! again, one by one. No call is answered before COMMIT returned. When COMMIT itself fails, nobody
//! can say what is on disk: every member gets `outcome-unknown`, and the database is opened anew.
//! A failed fsync is never tried again (the kernel may have dropped the pages).

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::connection::{Guarded, OpenError, error_of, open};
use crate::sql::{Durability, Error, Outcome, Statement};

/// Calls that wait at once; more are refused rather than kept waiting.
const QUEUE_MAX: usize = 1024;
/// Most calls in one commit.
const GROUP_MAX: usize = 256;
/// The log is copied into the database when it is longer than this.
const WAL_PAGES_MAX: u64 = 4_000;
/// Wait before a database that could not be opened again is tried once more.
const REOPEN_WAIT: Duration = Duration::from_millis(100);

type Reply = oneshot::Sender<Result<Vec<Outcome>, Error>>;

struct Job {
    statements: Vec<Statement>,
    durability: Durability,
    reply: Reply,
}

/// The way to the writer thread; dropping it ends the thread after the calls that wait.
pub struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub fn start(path: PathBuf) -> Result<Self, OpenError> {
        let connection = open(&path, false)?;
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let shown = path.display().to_string();
        let thread = thread::Builder::new().name("sqlite-write".to_owned());
        let thread = thread
            .spawn(move || serve(&path, connection, &jobs))
            .map_err(|error| OpenError::Unusable { path: shown, reason: error.to_string() })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub fn send(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<oneshot::Receiver<Result<Vec<Outcome>, Error>>, Error> {
        let (reply, receiver) = oneshot::channel();
        let stopped = || Error::NotApplied("the database stopped".to_owned());
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        match queue.try_send(Job { statements, durability, reply }) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(Error::NotApplied("too many writes are waiting".to_owned())),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Err: the thread panicked; there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

/// A COMMIT that failed: the connection cannot be trusted any more.
struct CommitFailed;

fn serve(path: &Path, connection: Guarded, jobs: &Receiver<Job>) {
    let mut writer = Some(Committer { connection, synced: true });
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(std::iter::from_fn(|| jobs.try_recv().ok()).take(GROUP_MAX - 1));
        // Relaxed calls first: they need not wait for the others' fsync.
        let (relaxed, durable): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|job| job.durability == Durability::Relaxed);
        for (calls, sync) in [(relaxed, false), (durable, true)] {
            if calls.is_empty() {
                continue;
            }
            let Some(current) = usable(path, &mut writer) else {
                refuse(calls);
                continue;
            };
            if current.commit_group(calls, sync).is_err() {
                // Close before anything else: the next call opens the database anew.
                writer = None;
            }
        }
        if let Some(current) = writer.as_ref() {
            current.checkpoint();
        }
    }
}

/// The writer, opened anew when the last one was given up.
fn usable<'a>(path: &Path, writer: &'a mut Option<Committer>) -> Option<&'a mut Committer> {
    if writer.is_none() {
        match open(path, false) {
            Ok(connection) => *writer = Some(Committer { connection, synced: true }),
            Err(error) => {
                eprintln!("settle: {error}");
                thread::sleep(REOPEN_WAIT);
            }
        }
    }
    writer.as_mut()
}

fn refuse(calls: Vec<Job>) {
    for call in calls {
        let _ = call.reply.send(Err(Error::NotApplied("the database cannot be opened".to_owned())));
    }
}

/// The connection, with its present `synchronous` setting.
struct Committer {
    connection: Guarded,
    /// COMMIT waits for the disk.
    synced: bool,
}

type Done = Result<Vec<Outcome>, Error>;

impl Committer {
    /// Commits calls together and answers them; one that fails is answered alone.
    fn commit_group(&mut self, calls: Vec<Job>, sync: bool) -> Result<(), CommitFailed> {
        if self.set_sync(sync).is_err() {
            refuse(calls);
            return Err(CommitFailed);
        }
        match self.try_together(&calls) {
            Together::Committed(done) => {
                for (call, done) in calls.into_iter().zip(done) {
                    let _ = call.reply.send(done);
                }
                Ok(())
            }
            Together::Broken if calls.len() > 1 => self.commit_singly(calls),
            Together::Broken => {
                refuse_with(calls, &Error::NotApplied("the transaction was rolled back".to_owned()));
                Ok(())
            }
            Together::Refused(error) => {
                refuse_with(calls, &error);
                Ok(())
            }
            Together::Unknown(error) => {
                refuse_with(calls, &error);
                Err(CommitFailed)
            }
        }
    }

    /// The group was rolled back as a whole: each call gets a transaction of its own.
    fn commit_singly(&mut self, calls: Vec<Job>) -> Result<(), CommitFailed> {
        let mut calls = calls.into_iter();
        while let Some(call) = calls.next() {
            let sync = self.synced;
            if self.commit_group(vec![call], sync).is_err() {
                refuse(calls.collect());
                return Err(CommitFailed);
            }
        }
        Ok(())
    }

    fn try_together(&self, calls: &[Job]) -> Together {
        let connection = &self.connection.connection;
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
            return Together::Refused(error_of(error));
        }
        let mut done = Vec::with_capacity(calls.len());
        for call in calls {
            match self.run_call(call, calls.len() > 1) {
                Ok(outcome) => done.push(outcome),
                Err(Broken::Alone(error)) => return self.rolled_back(error),
                Err(Broken::All) => {
                    self.roll_back();
                    return Together::Broken;
                }
            }
        }
        match connection.execute_batch("COMMIT") {
            Ok(()) => Together::Committed(done),
            Err(error) => {
                self.roll_back();
                Together::Unknown(Error::OutcomeUnknown(error.to_string()))
            }
        }
    }

    /// The only call of the transaction failed.
    fn rolled_back(&self, error: Error) -> Together {
        self.roll_back();
        Together::Refused(error)
    }

    fn roll_back(&self) {
        if !self.connection.connection.is_autocommit() {
            // Err: SQLite has rolled back already.
            let _ = self.connection.connection.execute_batch("ROLLBACK");
        }
    }

    /// One call: in a savepoint when others share the transaction.
    fn run_call(&self, call: &Job, shared: bool) -> Result<Done, Broken> {
        let connection = &self.connection.connection;
        let control = |sql: &str| connection.execute_batch(sql).map_err(|_| Broken::All);
        if shared {
            control("SAVEPOINT call")?;
        }
        let failure = match self.connection.run_all(&call.statements) {
            Ok(outcomes) => {
                if shared {
                    control("RELEASE call")?;
                }
                return Ok(Ok(outcomes));
            }
            Err(failure) => failure,
        };
        if connection.is_autocommit() && shared {
            // SQLite gave up the whole transaction (full disk, I/O error), not only this call.
            return Err(Broken::All);
        }
        if !shared {
            return Err(Broken::Alone(failure));
        }
        control("ROLLBACK TO call")?;
        control("RELEASE call")?;
        Ok(Err(failure))
    }
    fn set_sync(&mut self, sync: bool) -> rusqlite::Result<()> {
        if self.synced != sync {
            // NORMAL in WAL mode: no fsync at COMMIT; the log's order stays.
            let mode = if sync { "FULL" } else { "NORMAL" };
            self.connection.connection.pragma_update(None, "synchronous", mode)?;
            self.synced = sync;
        }
        Ok(())
    }

    /// Copies the log into the database when it is long. Errors: the log grows until the next try.
    fn checkpoint(&self) {
        if self.connection.wal_pages.load(Ordering::Relaxed) > WAL_PAGES_MAX {
            let checkpoint = "PRAGMA wal_checkpoint(RESTART)";
            let _ = self.connection.connection.query_row(checkpoint, [], |_| Ok(()));
        }
    }
}

/// How a call broke the transaction.
enum Broken {
    /// Its own error; it was the only call.
    Alone(Error),
    /// The whole transaction is gone.
    All,
}

/// What became of a transaction.
enum Together {
    Committed(Vec<Done>),
    /// Rolled back because of the only call in it.
    Refused(Error),
    /// Rolled back as a whole.
    Broken,
    /// COMMIT failed.
    Unknown(Error),
}

fn refuse_with(calls: Vec<Job>, error: &Error) {
    for call in calls {
        let _ = call.reply.send(Err(error.clone()));
    }
}
