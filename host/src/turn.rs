//! A task that goes on while it is woken, instead of going to the end of the runtime's queue.
//!
//! An instance is woken all the time while it works: by the database, by new requests, by itself; a
//! connection wakes itself when it reads a body. The runtime polls such a task again only after all others,
//! and wakes another thread to take it, to a core that does not have its memory at hand. Here it is polled
//! again at once, so that one turn serves many requests, and their writes reach the database together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// Then the others have their turn, whoever wakes it.
const TURN_TIME_MAX: Duration = Duration::from_millis(3);

/// Nobody polls it.
const RESTING: u8 = 0;
const POLLED: u8 = 1;
/// Woken since its poll began.
const WOKEN: u8 = 2;

struct Turn {
    state: AtomicU8,
    /// Wakes the task when it rests.
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| (state != RESTING).then_some(WOKEN));
        if noted.is_err() {
            self.task.wake();
        }
    }
}

/// As `tokio::spawn`; see the module.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(LongTurn::new(task));
}

struct LongTurn<F> {
    task: Pin<Box<F>>,
    turn: Arc<Turn>,
    waker: Waker,
}

impl<F> LongTurn<F> {
    fn new(task: F) -> Self {
        let turn = Arc::new(Turn { state: AtomicU8::new(RESTING), task: AtomicWaker::new() });
        Self { task: Box::pin(task), waker: turn.clone().into(), turn }
    }
}

impl<F: Future> Future for LongTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.turn.task.register(cx.waker());
        let began = Instant::now();
        loop {
            this.turn.state.store(POLLED, Ordering::Release);
            let polled = this.task.as_mut().poll(&mut Context::from_waker(&this.waker));
            let woken = this.turn.state.swap(RESTING, Ordering::AcqRel) == WOKEN;
            if polled.is_ready() || !woken {
                return polled;
            }
            if began.elapsed() >= TURN_TIME_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often the task's own waker is used.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// One turn: whether the task is ready, and the count of the waker that it was given.
    fn turn(task: &mut (impl Future + Unpin)) -> (bool, Arc<Count>) {
        let count = Arc::new(Count::default());
        let polled = Pin::new(task).poll(&mut Context::from_waker(&count.clone().into()));
        (polled.is_ready(), count)
    }

    /// The same, with the count at the turn's end.
    fn counted(task: &mut (impl Future + Unpin)) -> (bool, usize) {
        let (ready, count) = turn(task);
        (ready, count.get())
    }

    #[test]
    fn what_wakes_itself_is_over_in_one_turn() {
        let mut left = 10;
        let mut task = LongTurn::new(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            left -= 1;
            if left > 0 { Poll::Pending } else { Poll::Ready(()) }
        }));
        assert_eq!(counted(&mut task), (true, 0));
    }

    #[test]
    fn what_never_rests_lets_others_have_their_turn() {
        let mut polls = 0;
        let mut task = LongTurn::new(poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let began = Instant::now();
        assert_eq!(counted(&mut task), (false, 1));
        assert!(began.elapsed() >= TURN_TIME_MAX);
        assert_eq!(counted(&mut task), (false, 1), "and goes on after them");
        drop(task);
        assert!(polls > 2);
    }

    #[test]
    fn what_rests_is_woken_from_any_thread_and_by_its_last_waker() {
        let (told, tell) = futures_channel::oneshot::channel::<()>();
        let mut task = LongTurn::new(tell);
        assert_eq!(counted(&mut task), (false, 0));
        let (ready, count) = turn(&mut task);
        assert!(!ready);
        std::thread::scope(|scope| {
            scope.spawn(|| told.send(()));
        });
        assert_eq!(count.get(), 1);
        assert_eq!(counted(&mut task), (true, 0));
    }
}
