//! Which instance takes which request, and when another one is worth its memory: bookkeeping only.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

/// Requests that one instance serves in its life: its memory never shrinks.
const REQUESTS_PER_INSTANCE: usize = 20_000;
/// Requests in one instance at once; their fate is shared.
const CONCURRENT_PER_INSTANCE: usize = 64;
/// After this long without a request taken, those that wait get another instance; the queue is looked at
/// as often.
pub const STALL: Duration = Duration::from_millis(10);
/// Looks without a request between them, after which nobody looks until one comes.
const QUIET_LOOKS_MAX: u32 = 100;

/// The requests of one component that no instance has taken yet.
pub struct Queue<R> {
    waiting: VecDeque<R>,
    /// When a request was taken, an instance begun, or the first that waits came.
    moved_at: Instant,
    /// Looks since a request came; `None` while nobody looks.
    quiet_looks: Option<u32>,
    /// Instances that take requests, and how many of these have room, or nothing to do.
    live: usize,
    open: usize,
    idle: usize,
    cores: usize,
    max: usize,
}

/// One instance's part in a queue, given out when it is to begin and given back by `leave`.
pub struct Seat {
    /// Requests at work; `None` once it takes no more.
    calls: Option<usize>,
    served: usize,
}

impl Seat {
    /// Whether it takes requests, now or when others have their answers.
    pub fn is_open(&self) -> bool {
        self.calls.is_some()
    }

    pub fn has_room(&self) -> bool {
        self.calls.is_some_and(|calls| calls < CONCURRENT_PER_INSTANCE)
    }

    fn is_idle(&self) -> bool {
        self.calls == Some(0)
    }
}

impl<R> Queue<R> {
    /// For instances that run on `cores`, at most `max` at once.
    pub fn new(cores: usize, max: usize) -> Self {
        let (waiting, moved_at) = (VecDeque::new(), Instant::now());
        Self { waiting, moved_at, quiet_looks: None, live: 0, open: 0, idle: 0, cores, max }
    }

    /// Adds a request. Answers the seat of an instance that is to begin, and whether somebody is to `look`
    /// from now on.
    pub fn push(&mut self, request: R) -> (Option<Seat>, bool) {
        if self.waiting.is_empty() {
            self.moved_at = Instant::now();
        }
        self.waiting.push_back(request);
        let all_work = self.waiting.len() > self.idle;
        let useful = self.open == 0 || (all_work && self.live < self.cores);
        (self.begin_if(useful), self.quiet_looks.replace(0).is_none())
    }

    /// To be called every `STALL`: when requests wait and nobody takes any, another instance is to begin.
    /// Break: not any more, until `push` asks for it.
    pub fn look(&mut self) -> ControlFlow<(), Option<Seat>> {
        let stalled = !self.waiting.is_empty() && self.moved_at.elapsed() >= STALL;
        let quiet = self.quiet_looks.unwrap_or_default();
        if self.waiting.is_empty() && quiet >= QUIET_LOOKS_MAX {
            self.quiet_looks = None;
            return ControlFlow::Break(());
        }
        self.quiet_looks = Some(quiet.saturating_add(1));
        ControlFlow::Continue(self.begin_if(stalled))
    }

    /// The next request that is still wanted. When this fills the last instance with room and others
    /// wait, another one is to begin.
    pub fn take(&mut self, seat: &mut Seat, wanted: impl Fn(&R) -> bool) -> Option<(R, Option<Seat>)> {
        let request = loop {
            let request = self.waiting.pop_front()?;
            if wanted(&request) {
                break request;
            }
        };
        self.moved_at = Instant::now();
        seat.served = seat.served.saturating_add(1);
        let last = seat.served >= REQUESTS_PER_INSTANCE;
        self.set(seat, seat.calls.map(|calls| calls.saturating_add(1)).filter(|_| !last));
        let short = self.open == 0 && !self.waiting.is_empty();
        Some((request, self.begin_if(short)))
    }

    /// One request of an instance has its answer.
    pub fn done(&mut self, seat: &mut Seat) {
        self.set(seat, seat.calls.map(|calls| calls.saturating_sub(1)));
    }

    /// An instance takes no more requests.
    pub fn leave(&mut self, seat: &mut Seat) {
        self.set(seat, None);
    }

    /// All that wait, when there is no instance to take them.
    pub fn abandoned(&mut self) -> Vec<R> {
        if self.live > 0 {
            return Vec::new();
        }
        self.waiting.drain(..).collect()
    }

    fn begin_if(&mut self, useful: bool) -> Option<Seat> {
        if !useful || self.live >= self.max {
            return None;
        }
        self.moved_at = Instant::now();
        let mut seat = Seat { calls: None, served: 0 };
        self.set(&mut seat, Some(0));
        Some(seat)
    }

    fn set(&mut self, seat: &mut Seat, calls: Option<usize>) {
        let before = (seat.is_open(), seat.has_room(), seat.is_idle());
        seat.calls = calls;
        let moved = |count: usize, before: bool, after: bool| {
            count.saturating_sub(before.into()).saturating_add(after.into())
        };
        self.live = moved(self.live, before.0, seat.is_open());
        self.open = moved(self.open, before.1, seat.has_room());
        self.idle = moved(self.idle, before.2, seat.is_idle());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn take(queue: &mut Queue<u32>, seat: &mut Seat) -> (u32, Option<Seat>) {
        queue.take(seat, |_| true).unwrap()
    }

    #[test]
    fn one_after_another_are_served_by_one_instance() {
        let mut queue = Queue::new(2, 8);
        let mut seat = queue.push(0).0.unwrap();
        for request in 1..100 {
            assert!(take(&mut queue, &mut seat).1.is_none());
            queue.done(&mut seat);
            assert!(queue.push(request).0.is_none());
        }
    }

    #[test]
    fn there_is_one_a_core_until_all_are_full() {
        let mut queue = Queue::new(2, 3);
        let mut seats: Vec<Seat> = (0..300).filter_map(|request| queue.push(request).0).collect();
        assert_eq!(seats.len(), 2, "both cores have work");
        for number in 0..CONCURRENT_PER_INSTANCE * 2 - 1 {
            assert!(take(&mut queue, &mut seats[number % 2]).1.is_none());
        }
        let mut third = take(&mut queue, &mut seats[1]).1.expect("all are full, and some wait");
        assert!(!seats[0].has_room() && !seats[1].has_room());
        for _ in 0..CONCURRENT_PER_INSTANCE {
            assert!(take(&mut queue, &mut third).1.is_none(), "three is the most");
        }
        assert!(queue.push(300).0.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_gets_another_instance_and_not_more_than_one_a_stall() {
        let mut queue = Queue::new(1, 8);
        let _computes = queue.push(0).0;
        let begun = |queue: &mut Queue<u32>| queue.look().continue_value().flatten();
        assert!(begun(&mut queue).is_none(), "it may be about to begin");
        tokio::time::advance(STALL).await;
        let mut helper = begun(&mut queue).unwrap();
        assert!(begun(&mut queue).is_none());
        assert_eq!(take(&mut queue, &mut helper).0, 0);
        tokio::time::advance(STALL).await;
        assert!(begun(&mut queue).is_none(), "it is at work");
        queue.push(1);
        assert!(begun(&mut queue).is_none(), "it came just now, whatever was before");
    }

    #[test]
    fn nobody_looks_at_a_queue_that_is_quiet() {
        let mut queue = Queue::new(1, 8);
        let (seat, unwatched) = queue.push(0);
        assert!(unwatched && !queue.push(1).1, "one is to look");
        let looks =
            |queue: &mut Queue<u32>, most| (0..most).take_while(|_| queue.look().is_continue()).count();
        assert_eq!(looks(&mut queue, 500), 500, "some wait");
        let mut seat = seat.unwrap();
        take(&mut queue, &mut seat);
        take(&mut queue, &mut seat);
        assert_eq!(looks(&mut queue, 500), 0, "nobody waits, and none has come for long");
        assert!(queue.push(2).1, "one is to look again");
        take(&mut queue, &mut seat);
        assert_eq!(looks(&mut queue, 500), QUIET_LOOKS_MAX as usize);
    }

    #[test]
    fn who_is_gone_is_passed_over_and_who_has_no_instance_is_told() {
        let mut queue = Queue::new(1, 8);
        let mut seat = queue.push(1).0.unwrap();
        queue.push(2);
        assert_eq!(queue.take(&mut seat, |request| *request != 1).unwrap().0, 2);
        queue.push(3);
        assert!(queue.abandoned().is_empty(), "it will take it");
        queue.leave(&mut seat);
        queue.leave(&mut seat);
        assert_eq!(queue.abandoned(), [3]);
        assert!(queue.push(4).0.is_some());
    }

    #[test]
    fn an_instance_that_is_used_up_takes_no_more() {
        let mut queue = Queue::new(1, 8);
        let mut seat = queue.push(0).0.unwrap();
        for request in 1..REQUESTS_PER_INSTANCE {
            take(&mut queue, &mut seat);
            queue.done(&mut seat);
            queue.push(u32::try_from(request).unwrap());
        }
        assert!(take(&mut queue, &mut seat).1.is_none());
        assert!(!seat.is_open());
        assert!(queue.push(0).0.is_some());
    }
}
