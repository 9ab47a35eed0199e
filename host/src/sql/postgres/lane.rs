//! A lane: calls of one kind on their way to the server, one journey after another.
//!
//! A call that finds no journey under way sets out at once, and alone: nobody waits for company. Those
//! that come meanwhile wait for its end, a little, and go together: one write to the socket, one
//! transaction, one sync of the server's log.
//!
//! Rules of a group that writes. A call that fails leaves the others unharmed: the server rolls all
//! of them back, and each is made again alone. No call is answered before COMMIT was. When COMMIT's
//! answer is lost, nobody can say what is on disk: every member gets `outcome-unknown`.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, join3};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::call::{Call, Made, Ready, Trouble, after_it_was_sent, is_refusal};
use super::pool::{self, Connection, Pool};
use crate::sql::{Error, Outcome};

/// Longest wait for the journey under way. The server may be far, or a lock be held.
const COMPANY_TIME_MAX: Duration = Duration::from_millis(4);
/// Most calls of one journey.
const GROUP_MAX: usize = 16;
/// Calls that wait; more are refused rather than kept waiting. The last of them waits for 64 journeys, a
/// quarter of a second.
const QUEUE_MAX: usize = 1024;
/// Longest wait for the server's answer to one call. The server ends it a little earlier.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(6);
/// A call that waits for somebody's lock holds up its group no longer than this; alone it may.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '100ms'";

type Answer = Result<Vec<Outcome>, Error>;

/// What the calls of a lane do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A group is a transaction.
    Write,
    /// A group shares its way and no more.
    Read,
}

pub struct Lane {
    pool: Pool,
    way: Way,
    traffic: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    waiting: VecDeque<Job>,
    /// A journey is under way, and not for long.
    under_way: bool,
}

struct Job {
    call: Call,
    reply: oneshot::Sender<Answer>,
}

impl Job {
    fn answer(self, answer: Answer) {
        // Err: the caller went away.
        let _ = self.reply.send(answer);
    }
}

fn answer_all(group: Vec<Job>, error: &Error) {
    group.into_iter().for_each(|job| job.answer(Err(error.clone())));
}

impl Lane {
    pub fn new(pool: Pool, way: Way) -> Arc<Self> {
        Arc::new(Self { pool, way, traffic: Mutex::default() })
    }

    pub async fn make(self: Arc<Self>, call: Call) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.queue(Job { call, reply })?;
        answer.await.unwrap_or_else(|_| Err(Error::OutcomeUnknown("the host stopped".to_owned())))
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(self: &Arc<Self>, job: Job) -> Result<(), Error> {
        let mut traffic = self.traffic();
        if traffic.waiting.len() >= QUEUE_MAX {
            return Err(Error::NotApplied("too many calls are waiting".to_owned()));
        }
        traffic.waiting.push_back(job);
        self.set_out(&mut traffic);
        Ok(())
    }

    /// Begins a journey if none is under way and somebody waits.
    fn set_out(self: &Arc<Self>, traffic: &mut Traffic) {
        let Ok(runtime) = Handle::try_current() else { return };
        if traffic.under_way {
            return;
        }
        // The callers of the others went away.
        traffic.waiting.retain(|job| !job.reply.is_closed());
        if traffic.waiting.is_empty() {
            return;
        }
        traffic.under_way = true;
        let group = traffic.waiting.drain(..traffic.waiting.len().min(GROUP_MAX)).collect();
        runtime.spawn(travel(Journey(self.clone()), group));
    }
}

/// The journey that others wait for. When it is dropped the next begins.
struct Journey(Arc<Lane>);

impl Drop for Journey {
    fn drop(&mut self) {
        let mut traffic = self.0.traffic();
        traffic.under_way = false;
        self.0.set_out(&mut traffic);
    }
}

async fn travel(journey: Journey, group: Vec<Job>) {
    let lane = journey.0.clone();
    let mut going = pin!(go(&lane, group));
    let again = match timeout(COMPANY_TIME_MAX, &mut going).await {
        Ok(again) => again,
        Err(_) => {
            drop(journey);
            going.await
        }
    };
    for job in again {
        let lane = lane.clone();
        // Alone, nothing is left to be made again.
        tokio::spawn(async move { go(&lane, vec![job]).await });
    }
}

/// Makes calls and answers them. Those that come back were undone because of another of their group.
async fn go(lane: &Lane, group: Vec<Job>) -> Vec<Job> {
    let connection = match pool::connection(&lane.pool).await {
        Ok(connection) => connection,
        Err(error) => {
            answer_all(group, &error);
            return vec![];
        }
    };
    let late = match timeout(ANSWER_TIME_MAX, prepare(&group, &connection)).await {
        Err(_) => Error::NotApplied("the database did not prepare in time".to_owned()),
        Ok(ready) => {
            let shared = lane.way == Way::Write && ready.iter().filter(|call| call.is_ok()).count() > 1;
            match timeout(ANSWER_TIME_MAX, send(ready, &connection, shared)).await {
                Err(_) => Error::OutcomeUnknown("the database did not answer in time".to_owned()),
                Ok((made, end)) => return answer(group, made, &end),
            }
        }
    };
    pool::discard(connection);
    answer_all(group, &late);
    vec![]
}

async fn prepare<'a>(group: &'a [Job], connection: &Connection) -> Vec<Result<Ready<'a>, Trouble>> {
    let mut ready = Vec::with_capacity(group.len());
    for job in group {
        ready.push(job.call.prepare(connection).await);
    }
    ready
}

/// What became of the calls of a journey, beside what each was told.
enum End {
    /// Each stands as it was told.
    AsTold,
    /// The transaction was rolled back.
    Undone,
    /// COMMIT was not answered.
    Unknown(Error),
    /// There was no transaction: what was refused may have been so for that.
    Apart,
}

async fn send(
    ready: Vec<Result<Ready<'_>, Trouble>>,
    connection: &Connection,
    shared: bool,
) -> (Vec<Result<Made, Trouble>>, End) {
    // The first poll of each sends it, in this order; none waits for the answer to the one before.
    let every = join_all(ready.into_iter().map(async |call| call?.send(connection).await));
    if !shared {
        return (every.await, End::AsTold);
    }
    let (begin, commit) = (connection.batch_execute(BEGIN), connection.batch_execute("COMMIT"));
    let (begun, made, committed) = join3(begin, every, commit).await;
    let end = match committed {
        _ if begun.is_err() => End::Apart,
        _ if made.iter().any(is_refused) => End::Undone,
        Ok(()) => End::AsTold,
        Err(error) if is_refusal(&error) => End::Undone,
        Err(error) => End::Unknown(after_it_was_sent(&error)),
    };
    (made, end)
}

fn is_refused(made: &Result<Made, Trouble>) -> bool {
    matches!(made, Err(Trouble::Server(error)) if is_refusal(error))
}

/// Answers each job, but for those that must be made again.
fn answer(group: Vec<Job>, made: Vec<Result<Made, Trouble>>, end: &End) -> Vec<Job> {
    let mut again = Vec::new();
    for (job, made) in group.into_iter().zip(made) {
        match (made, end) {
            (Err(Trouble::Host(error)), _) => job.answer(Err(error)),
            (_, End::Undone) => again.push(job),
            (Err(Trouble::Server(error)), End::Apart) if is_refusal(&error) => again.push(job),
            (Err(Trouble::Server(error)), _) => job.answer(Err(after_it_was_sent(&error))),
            (Ok(_), End::Unknown(error)) => job.answer(Err(error.clone())),
            (Ok(made), End::AsTold | End::Apart) => {
                let outcomes = job.call.outcomes(&made);
                job.answer(outcomes);
            }
        }
    }
    again
}
