//! The writer: one connection, many calls in one commit and one fsync, on a thread of its own.
//!
//! A call that does not wait for the disk is made on its caller's thread while the writer is idle:
//! it is over sooner than a change of threads. So is one that waits for a fast disk, while callers come
//! one by one; but only one of them in the process, so that the other threads serve on.
//!
//! Rules of a group. A call that fails leaves the others unharmed: the group is rolled back and runs
//! again, each call in a savepoint of its own. These copy every page before it changes, so a group
//! is first tried without. After any error SQLite may have rolled back everything: then the others
//! run again, one by one. No call is answered before COMMIT returned. When COMMIT itself fails,
//! nobody can say what is on disk: every member gets `outcome-unknown`, and the database is opened
//! anew. A failed fsync is never tried again (the kernel may have dropped the pages).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::connection::{AT_ONCE_TIME_MAX, Control, Guarded, OpenError, error_of, open};
use crate::sql::{Durability, Error, Outcome, Statement};

/// Calls that wait at once; more are refused rather than kept waiting.
const QUEUE_MAX: usize = 1024;
/// Most calls in one commit.
const GROUP_MAX: usize = 256;
/// After a group in which a call failed, so many groups have savepoints from the start.
const CAREFUL_GROUPS: u32 = 16;
/// A disk whose last sync took less is waited for on the caller's thread.
const FAST_SYNC: Duration = Duration::from_millis(1);
/// After a group of several, callers do not come one by one for so many groups.
const CROWDED_GROUPS: u32 = 32;
/// The log is copied into the database when it is longer than this. The pages of a longer one lie all over a large
/// database, and the sync at the copy's end holds up every other.
const WAL_PAGES_MAX: u64 = 1_000;
/// What relaxed calls may leave in the log for the disk. More is written at once, while others are made: left
/// to the next checkpoint, megabytes would go to the disk together, and every sync would wait for them.
const UNSYNCED_PAGES_MAX: u64 = 256;
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
    shared: Arc<Shared>,
}

/// Held by the call that waits for the disk on its caller's thread.
static WAITS_HERE: Mutex<()> = Mutex::new(());

/// What the thread and its callers share.
struct Shared {
    /// `None`: given up, to be opened anew.
    committer: Mutex<Option<Committer>>,
    /// Calls in the queue or at work.
    waiting: AtomicUsize,
    /// Groups until durable calls are made at once again.
    crowded: AtomicU32,
}

impl Writer {
    pub fn start(path: PathBuf) -> Result<Self, OpenError> {
        let connection = open(&path, false)?;
        let committer = Mutex::new(Some(Committer::new(connection)));
        let shared = Arc::new(Shared { committer, waiting: AtomicUsize::new(0), crowded: AtomicU32::new(0) });
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let shown = path.display().to_string();
        let thread = thread::Builder::new().name("sqlite-write".to_owned());
        let of_thread = shared.clone();
        let thread = thread
            .spawn(move || serve(&path, &of_thread, &jobs))
            .map_err(|error| OpenError::Unusable { path: shown, reason: error.to_string() })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), shared })
    }

    pub fn send(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<oneshot::Receiver<Result<Vec<Outcome>, Error>>, Error> {
        let (reply, receiver) = oneshot::channel();
        let stopped = || Error::NotApplied("the database stopped".to_owned());
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        let Err(job) = self.shared.at_once(Job { statements, durability, reply }) else {
            return Ok(receiver);
        };
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let error = match queue.try_send(job) {
            Ok(()) => return Ok(receiver),
            Err(TrySendError::Full(_)) => Error::NotApplied("too many writes are waiting".to_owned()),
            Err(TrySendError::Disconnected(_)) => stopped(),
        };
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        Err(error)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Committer>> {
        self.committer.lock().unwrap_or_else(|poisoned| {
            // A caller panicked in the middle of a call: what it left is not trusted.
            self.committer.clear_poison();
            let mut committer = poisoned.into_inner();
            *committer = None;
            committer
        })
    }

    /// How many durable calls came together.
    fn note_group(&self, calls: usize) {
        let before = self.crowded.load(Ordering::Relaxed);
        let crowded = if calls > 1 { CROWDED_GROUPS } else { before.saturating_sub(1) };
        self.crowded.store(crowded, Ordering::Relaxed);
    }

    /// `Some`: callers come one by one, and other threads serve while this one waits for the disk.
    fn may_wait_here(&self) -> Option<MutexGuard<'static, ()>> {
        if self.crowded.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let runtime = Handle::try_current().ok()?;
        if runtime.metrics().num_workers() > 1 { WAITS_HERE.try_lock().ok() } else { None }
    }

    /// Makes a call on this thread and answers it. `Err`: nothing was done, and it waits its turn.
    fn at_once(&self, job: Job) -> Result<(), Job> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return Err(job);
        }
        let sync = job.durability == Durability::Durable;
        let waits_here = if sync { self.may_wait_here() } else { None };
        if sync && waits_here.is_none() {
            return Err(job);
        }
        let Ok(mut committer) = self.committer.try_lock() else { return Err(job) };
        let fit = |current: &&mut Committer| {
            current.upkeep() == Upkeep::None && (!sync || current.last_sync < FAST_SYNC)
        };
        let Some(current) = committer.as_mut().filter(fit) else { return Err(job) };
        if current.set_sync(sync).is_err() {
            *committer = None;
            return Err(job);
        }
        current.connection.hurry(AT_ONCE_TIME_MAX);
        let made = current.try_together(slice::from_ref(&job));
        current.connection.take_time();
        let done = match made {
            Together::Committed(mut done) => done.pop().unwrap_or_else(|| Ok(Vec::new())),
            // Too long for here, or not possible at the moment.
            Together::Broken | Together::Refused(Error::NotApplied(_)) => return Err(job),
            Together::Refused(error) => Err(error),
            Together::Unknown(error) => {
                *committer = None;
                Err(error)
            }
        };
        // Err: the caller went away.
        let _ = job.reply.send(done);
        Ok(())
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

/// What the log needs once the callers have their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upkeep {
    None,
    /// Its pages go to the disk.
    Sync,
    /// They are copied into the database.
    Checkpoint,
}

fn serve(path: &Path, shared: &Shared, jobs: &Receiver<Job>) {
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
            if sync {
                shared.note_group(calls.len());
            }
            let (count, mut answers) = (calls.len(), Vec::with_capacity(calls.len()));
            let upkeep = commit(path, shared, calls, sync, &mut answers);
            // First idle, then heard: a caller's next call can be made at once.
            shared.waiting.fetch_sub(count, Ordering::Relaxed);
            for (reply, done) in answers {
                // Err: the caller went away.
                let _ = reply.send(done);
            }
            match upkeep {
                Upkeep::None => {}
                Upkeep::Sync => sync_log(path, shared),
                Upkeep::Checkpoint => {
                    if let Some(current) = shared.lock().as_mut() {
                        current.checkpoint();
                    }
                }
            }
        }
    }
}

fn commit(path: &Path, shared: &Shared, calls: Vec<Job>, sync: bool, answers: &mut Answers) -> Upkeep {
    let mut writer = shared.lock();
    let Some(current) = usable(path, &mut writer) else {
        refuse(calls, answers);
        return Upkeep::None;
    };
    if current.commit_group(calls, sync, answers).is_err() {
        // Close before anything else: the next call opens the database anew.
        *writer = None;
        return Upkeep::None;
    }
    let upkeep = current.upkeep();
    if upkeep == Upkeep::Sync {
        // Begun now: calls are made at once meanwhile, and count anew.
        current.note_sync();
    }
    upkeep
}

/// Not with the connection locked, so that relaxed calls go on.
fn sync_log(path: &Path, shared: &Shared) {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if let Err(error) = File::open(log).and_then(|log| log.sync_data()) {
        eprintln!("settle: {}: the log cannot be synced: {error}", path.display());
        *shared.lock() = None;
    }
}

/// The writer, opened anew when the last one was given up.
fn usable<'a>(path: &Path, writer: &'a mut Option<Committer>) -> Option<&'a mut Committer> {
    if writer.is_none() {
        match open(path, false) {
            Ok(connection) => *writer = Some(Committer::new(connection)),
            Err(error) => {
                eprintln!("settle: {error}");
                thread::sleep(REOPEN_WAIT);
            }
        }
    }
    writer.as_mut()
}

fn refuse(calls: Vec<Job>, answers: &mut Answers) {
    refuse_with(calls, &Error::NotApplied("the database cannot be opened".to_owned()), answers);
}

/// The connection, with its present `synchronous` setting.
struct Committer {
    connection: Guarded,
    /// COMMIT waits for the disk.
    synced: bool,
    /// How many more groups have savepoints from the start.
    careful: u32,
    /// How long the last COMMIT took that waited for the disk.
    last_sync: Duration,
    /// Pages that the log had when it was synced last.
    synced_pages: u64,
}

type Done = Result<Vec<Outcome>, Error>;
/// Told when the writer is free again.
type Answers = Vec<(Reply, Done)>;

impl Committer {
    fn new(connection: Guarded) -> Self {
        Self { connection, synced: true, careful: 0, last_sync: Duration::ZERO, synced_pages: 0 }
    }

    /// Commits calls together, with an answer for each; one that fails is answered alone.
    fn commit_group(
        &mut self,
        calls: Vec<Job>,
        sync: bool,
        answers: &mut Answers,
    ) -> Result<(), CommitFailed> {
        if self.set_sync(sync).is_err() {
            refuse(calls, answers);
            return Err(CommitFailed);
        }
        match self.try_together(&calls) {
            Together::Committed(done) => {
                answers.extend(calls.into_iter().map(|call| call.reply).zip(done));
                Ok(())
            }
            Together::Broken if calls.len() > 1 => self.commit_singly(calls, answers),
            Together::Broken => {
                let error = Error::NotApplied("the transaction was rolled back".to_owned());
                refuse_with(calls, &error, answers);
                Ok(())
            }
            Together::Refused(error) => {
                refuse_with(calls, &error, answers);
                Ok(())
            }
            Together::Unknown(error) => {
                refuse_with(calls, &error, answers);
                Err(CommitFailed)
            }
        }
    }

    /// The group was rolled back as a whole: each call gets a transaction of its own.
    fn commit_singly(&mut self, calls: Vec<Job>, answers: &mut Answers) -> Result<(), CommitFailed> {
        let mut calls = calls.into_iter();
        while let Some(call) = calls.next() {
            let sync = self.synced;
            if self.commit_group(vec![call], sync, answers).is_err() {
                refuse(calls.collect(), answers);
                return Err(CommitFailed);
            }
        }
        Ok(())
    }

    fn try_together(&mut self, calls: &[Job]) -> Together {
        let several = calls.len() > 1;
        if several && self.careful == 0 {
            match self.try_once(calls, false) {
                Together::Refused(_) => self.careful = CAREFUL_GROUPS,
                done => return done,
            }
        }
        self.careful = self.careful.saturating_sub(several.into());
        self.try_once(calls, several)
    }

    /// Without savepoints, one call's error refuses all.
    fn try_once(&mut self, calls: &[Job], savepoints: bool) -> Together {
        if let Err(error) = self.connection.control(Control::Begin) {
            return Together::Refused(error_of(error));
        }
        let mut done = Vec::with_capacity(calls.len());
        for call in calls {
            let ran = if savepoints {
                self.run_in_savepoint(call)
            } else {
                self.connection.run_all(&call.statements).map(Ok).map_err(Broken::Call)
            };
            match ran {
                Ok(outcome) => done.push(outcome),
                // SQLite gave up the whole transaction (full disk, I/O error), not only this call.
                Err(_) if calls.len() > 1 && self.is_over() => return Together::Broken,
                Err(broken) => {
                    self.roll_back();
                    return match broken {
                        Broken::Call(error) => Together::Refused(error),
                        Broken::All => Together::Broken,
                    };
                }
            }
        }
        let began = Instant::now();
        let committed = self.connection.control(Control::Commit);
        if self.synced {
            self.last_sync = began.elapsed();
            self.note_sync();
        }
        match committed {
            Ok(()) => Together::Committed(done),
            Err(error) => {
                self.roll_back();
                Together::Unknown(Error::OutcomeUnknown(error.to_string()))
            }
        }
    }

    /// One of several calls; its failure is its own.
    fn run_in_savepoint(&self, call: &Job) -> Result<Done, Broken> {
        let control = |what| self.connection.control(what).map_err(|_| Broken::All);
        control(Control::Savepoint)?;
        let done = self.connection.run_all(&call.statements);
        if done.is_err() {
            control(Control::RollBackTo)?;
        }
        control(Control::Release)?;
        Ok(done)
    }

    /// Whether SQLite has ended the transaction by itself.
    fn is_over(&self) -> bool {
        self.connection.connection.is_autocommit()
    }

    fn roll_back(&self) {
        if !self.is_over() {
            // Err: SQLite has rolled back already.
            let _ = self.connection.control(Control::RollBack);
        }
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

    fn upkeep(&self) -> Upkeep {
        if self.pages() > WAL_PAGES_MAX {
            Upkeep::Checkpoint
        } else if self.unsynced_pages() > UNSYNCED_PAGES_MAX {
            Upkeep::Sync
        } else {
            Upkeep::None
        }
    }

    /// In the log, after the last commit.
    fn pages(&self) -> u64 {
        self.connection.wal_pages.load(Ordering::Relaxed)
    }

    fn unsynced_pages(&self) -> u64 {
        // Fewer than at the last sync: the log has begun anew.
        self.pages().checked_sub(self.synced_pages).unwrap_or(self.pages())
    }

    fn note_sync(&mut self) {
        self.synced_pages = self.pages();
    }

    /// Copies the log into the database. Errors: the log grows until the next try.
    fn checkpoint(&mut self) {
        let checkpoint = "PRAGMA wal_checkpoint(RESTART)";
        let _ = self.connection.connection.query_row(checkpoint, [], |_| Ok(()));
        self.note_sync();
    }
}

/// How a call broke the transaction.
enum Broken {
    /// By its own error, without a savepoint.
    Call(Error),
    /// The whole transaction is gone.
    All,
}

/// What became of a transaction.
enum Together {
    Committed(Vec<Done>),
    /// Rolled back because of a call in it.
    Refused(Error),
    /// Rolled back as a whole.
    Broken,
    /// COMMIT failed.
    Unknown(Error),
}

fn refuse_with(calls: Vec<Job>, error: &Error, answers: &mut Answers) {
    answers.extend(calls.into_iter().map(|call| (call.reply, Err(error.clone()))));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sql::Value;

    fn call(writer: &Writer, sql: &str, params: Vec<Value>, durability: Durability) {
        let statement = Statement { sql: sql.to_owned(), params, expect: None };
        writer.send(vec![statement], durability).unwrap().blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn relaxed_calls_leave_little_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(folder.path().join("test.db")).unwrap();
        let log = || {
            let committer = writer.shared.lock();
            let committer = committer.as_ref().unwrap();
            (committer.pages(), committer.unsynced_pages())
        };
        call(&writer, "CREATE TABLE test (bytes BLOB)", vec![], Durability::Durable);
        assert_eq!(log().1, 0);
        let (insert, bytes) = ("INSERT INTO test VALUES ($1)", vec![Value::Bytes(vec![7; 4_000])]);
        while log().0 < UNSYNCED_PAGES_MAX * 3 {
            call(&writer, insert, bytes.clone(), Durability::Relaxed);
            let unsynced = log().1;
            assert!(unsynced <= UNSYNCED_PAGES_MAX + 4, "{unsynced} pages are not on the disk");
        }
        call(&writer, insert, bytes, Durability::Durable);
        assert_eq!(log().1, 0);
    }
}
