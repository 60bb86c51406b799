//! How much the promises about threads try.

use std::panic::resume_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many rounds threads go: until they have met often.
///
/// The calls of a fast backend are so short that thousands of rounds of one thread can be over before the next thread runs. So not
/// rounds are counted but meetings: rounds in which a thread sees that another one was at work meanwhile.
pub(super) struct Effort {
    began: Instant,
    least: u64,
    met: AtomicU64,
}

impl Effort {
    /// Meetings that show a mistake of any backend. A fast one has them in milliseconds.
    const ENOUGH: u64 = 1_000;
    /// Those of a slow backend, each of whose calls overlaps with others anyway.
    const FEW: u64 = 100;
    const SHORT: Duration = Duration::from_millis(40);
    /// The end, on a machine that is too busy to let threads meet.
    const LONG: Duration = Duration::from_millis(500);

    /// Each thread goes `least` rounds or more.
    pub(super) fn new(least: u64) -> Effort {
        Effort { began: Instant::now(), least, met: AtomicU64::new(0) }
    }

    /// The numbers of the rounds of one thread, from 0.
    pub(super) fn rounds(&self) -> impl Iterator<Item = u64> + '_ {
        (0..).take_while(|round| *round < self.least || self.goes_on())
    }

    fn goes_on(&self) -> bool {
        let (met, time) = (self.met.load(Ordering::Relaxed), self.began.elapsed());
        met < Effort::ENOUGH && (time < Effort::SHORT || (met < Effort::FEW && time < Effort::LONG))
    }

    pub(super) fn meet(&self) {
        self.met.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls `work` in this many threads at the same moment, and returns what each gave. Panics with the first panic among them, so
/// that the message is that of the broken promise.
pub(super) fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    work(thread)
                })
            })
            .collect();
        let ended: Vec<_> = started.into_iter().map(|thread| thread.join()).collect();
        ended.into_iter().map(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
