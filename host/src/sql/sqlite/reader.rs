//! Readers: a few connections that see every committed write and never wait for the writer. A short
//! read is made on its caller's thread.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::connection::{AT_ONCE_TIME_MAX, Guarded, OpenError, open};
use crate::sql::{Error, Outcome, Statement};

const READERS: usize = 2;
/// Reads that wait at once; more are refused rather than kept waiting.
const QUEUE_MAX: usize = 1024;

type Reply = oneshot::Sender<Result<Outcome, Error>>;
type Job = (Statement, Reply);

pub struct Readers {
    queue: SyncSender<Job>,
    /// For reads on their caller's thread.
    at_once: Mutex<Guarded>,
}

impl Readers {
    pub fn start(path: &Path) -> Result<Self, OpenError> {
        let (queue, jobs) = sync_channel::<Job>(QUEUE_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..READERS {
            let (reader, jobs) = (open(path, true)?, jobs.clone());
            let thread = std::thread::Builder::new().name(format!("sqlite-read-{number}"));
            let started = thread.spawn(move || serve(&reader, &jobs));
            started.map_err(|error| OpenError::Unusable {
                path: path.display().to_string(),
                reason: error.to_string(),
            })?;
        }
        let at_once = open(path, true)?;
        at_once.hurry(AT_ONCE_TIME_MAX);
        Ok(Self { queue, at_once: Mutex::new(at_once) })
    }

    pub fn send(&self, statement: Statement) -> Result<oneshot::Receiver<Result<Outcome, Error>>, Error> {
        let (reply, receiver) = oneshot::channel();
        if let Some(done) = self.at_once(&statement) {
            // Err: the receiver is here.
            let _ = reply.send(done);
            return Ok(receiver);
        }
        match self.queue.try_send((statement, reply)) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(Error::NotApplied("too many reads are waiting".to_owned())),
            Err(TrySendError::Disconnected(_)) => Err(Error::NotApplied("the database stopped".to_owned())),
        }
    }

    /// `None`: it takes too long for this thread, or another read is at it.
    fn at_once(&self, statement: &Statement) -> Option<Result<Outcome, Error>> {
        let reader = self.at_once.try_lock().ok()?;
        match read(&reader, statement) {
            Err(Error::NotApplied(_)) => None,
            done => Some(done),
        }
    }
}

/// Ends when the queue's sender is dropped.
fn serve(reader: &Guarded, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((statement, reply)) = next else { return };
        // A caller that went away needs no answer.
        let _ = reply.send(read(reader, &statement));
    }
}

fn read(reader: &Guarded, statement: &Statement) -> Result<Outcome, Error> {
    let outcome = reader.run(statement)?;
    match statement.expect {
        Some(expected) if expected != outcome.rows.len() as u64 => Err(Error::Unmet(0)),
        _ => Ok(outcome),
    }
}
