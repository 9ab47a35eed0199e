//! The disk alone: what no durable order can be faster than.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::phase::Phase;

const FSYNC_BYTES: usize = 8 << 10;
/// What one order adds to a log of ours, by and large: 17 pages and 9.
const ORDER_BYTES: usize = 52 << 10;

/// Writes a little and syncs it, over and over: what a durable commit cannot be faster than.
pub fn fsyncs(folder: &Path, time: Duration) -> Result<Phase> {
    paced_fsyncs(folder, time, Duration::ZERO)
}

/// The same with a pause after each: some disks stall when they are asked now and then.
pub fn paced_fsyncs(folder: &Path, time: Duration, pause: Duration) -> Result<Phase> {
    let (mut log, started, mut latencies) = (Log::create(folder, FSYNC_BYTES)?, Instant::now(), Vec::new());
    while started.elapsed() < time {
        let begun = Instant::now();
        log.sync()?;
        latencies.push(begun.elapsed());
        thread::sleep(pause);
    }
    Ok(Phase::new(latencies, started.elapsed()))
}

/// Arrivals at a fixed rate per second, each of which needs two syncs in turn, as an order does: of two
/// logs, with as many bytes, and those that wait share one.
pub fn syncs_at(folder: &Path, rate: f64, time: Duration) -> Result<Phase> {
    let (first, second) = (Log::create(folder, ORDER_BYTES)?, Log::create(folder, ORDER_BYTES)?);
    let ((arrive, arrived), (pass, passed)) = (channel(), channel());
    let started = Instant::now();
    let mut latencies = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0_u32.. {
                let due = Duration::from_secs_f64(f64::from(number) / rate);
                thread::sleep(due.saturating_sub(started.elapsed()));
                if due > time || arrive.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        let passing = scope.spawn(move || {
            first.sync_for(&arrived, |began| {
                // Err: the other log failed, and says so.
                let _ = pass.send(began);
            })
        });
        second.sync_for(&passed, |began| latencies.push(began.elapsed()))?;
        passing.join().map_err(|_| anyhow!("a thread panicked"))?
    })?;
    Ok(Phase::new(latencies, started.elapsed()))
}

/// A file that is written over and over, as a log is; it is gone when it is dropped.
struct Log {
    file: File,
    /// Of one write.
    bytes: Vec<u8>,
    written: usize,
}

impl Log {
    const WRITES: usize = 64;

    fn create(folder: &Path, bytes: usize) -> Result<Self> {
        let mut file = tempfile::tempfile_in(folder)?;
        let bytes = vec![1; bytes];
        for _ in 0..Self::WRITES {
            file.write_all(&bytes)?;
        }
        file.sync_all()?;
        Ok(Self { file, bytes, written: 0 })
    }

    fn sync(&mut self) -> Result<()> {
        self.write()?;
        Ok(self.file.sync_data()?)
    }

    fn write(&mut self) -> Result<()> {
        let at = self.written % Self::WRITES * self.bytes.len();
        self.written += 1;
        Ok(self.file.write_all_at(&self.bytes, at as u64)?)
    }

    /// One sync for all that wait, until nobody comes any more.
    fn sync_for(mut self, waiting: &Receiver<Instant>, mut done: impl FnMut(Instant)) -> Result<()> {
        while let Ok(first) = waiting.recv() {
            let group: Vec<Instant> = std::iter::once(first).chain(waiting.try_iter()).collect();
            for _ in 1..group.len() {
                self.write()?;
            }
            self.sync()?;
            group.into_iter().for_each(&mut done);
        }
        Ok(())
    }
}
