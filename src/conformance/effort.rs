//! How much the promises about threads try.

use std::panic::resume_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::ok;
use crate::{Error, Result, Store};

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

/// Closes the store while two other threads go on with `call`, after one of them has made this many calls. Returns what their calls gave until
/// they were `Closed`.
pub(super) fn close_beside<T: Send>(
    store: &dyn Store,
    calls: u64,
    call: impl Fn(usize, u64) -> Result<T> + Sync,
) -> Vec<Vec<T>> {
    let (made, closed) = (AtomicU64::new(0), AtomicBool::new(false));
    at_once(3, |thread| {
        let mut given = Vec::new();
        if thread == 0 {
            let _go_on = OnDrop(|| closed.store(true, Ordering::SeqCst));
            while made.load(Ordering::SeqCst) < calls {
                thread::yield_now();
            }
            ok(store.close(), "close beside calls");
            return given;
        }
        let _close = OnDrop(|| made.store(u64::MAX, Ordering::SeqCst));
        for round in 0.. {
            let late = closed.load(Ordering::SeqCst);
            match call(thread, round) {
                Ok(_) if late => panic!("a call that starts after a close must be Err(Closed), but gave Ok"),
                Ok(value) => given.push(value),
                Err(Error::Closed) => break,
                Err(error) => panic!("a call that meets a close must succeed or be Err(Closed), but gave {error:?}"),
            }
            made.fetch_max(round, Ordering::SeqCst);
        }
        given
    })
}

/// Lets other threads end, also after a panic.
pub(super) struct OnDrop<F: Fn()>(pub(super) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
