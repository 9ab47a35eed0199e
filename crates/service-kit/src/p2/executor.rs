//! Runs futures whose only reason to wait is time.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasi::clocks::monotonic_clock;
use wasi::io::poll::{self, Pollable};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// What futures wait for since they were last polled.
    static WAITING: RefCell<Vec<Pollable>> = const { RefCell::new(Vec::new()) };
    static SPAWNED: RefCell<Vec<Work>> = const { RefCell::new(Vec::new()) };
}

/// Runs a future to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        let waiting = WAITING.take();
        poll::poll(&waiting.iter().collect::<Vec<_>>());
    }
}

/// Runs after the answer of this request.
pub fn spawn(work: impl Future<Output = ()> + 'static) {
    SPAWNED.with_borrow_mut(|spawned| spawned.push(Box::pin(work)));
}

pub fn run_spawned() {
    for work in SPAWNED.take() {
        block_on(work);
    }
}

pub async fn sleep(wait: Duration) {
    let until = monotonic_clock::now().saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    std::future::poll_fn(|_| {
        if monotonic_clock::now() >= until {
            return Poll::Ready(());
        }
        WAITING.with_borrow_mut(|waiting| waiting.push(monotonic_clock::subscribe_instant(until)));
        Poll::Pending
    })
    .await;
}
