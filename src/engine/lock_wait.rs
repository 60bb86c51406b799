//! Waiting for the file's lock, and for one's place in the queue, with a limit.
//!
//! `flock` has no timed form, so the lock is polled; and who polls loses against a process that takes the lock again
//! right after it has given it up, for seconds. So those who wait agree who is *next*: whoever holds a second lock, on one
//! byte far beyond the end of the file. It alone tries for the file's lock, and who sees that somebody is next waits
//! behind that one. It costs one system call where nobody waits, needs no file of its own, leaves nothing behind when a
//! process dies, and the limits of time stay exact. Nothing depends on it: the file's lock is what protects the file.
//!
//! Measured on two cores that were busy with other work (so the times themselves say little): of two and of eight
//! processes that put durably as fast as they can, the one that got the fewest puts got 94 to 99 and 84 to 97 hundredths of
//! a fair share, where a rest after each contended turn had given it 1 to 66 and 8 to 42, with about the same number
//! of puts in all. See `benches/fairness.rs`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Engine;
use crate::log::LogFile;
use crate::{Error, Result};

/// The end of a call's patience.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    began: Instant,
    /// `None`: for ever.
    timeout: Option<Duration>,
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline { began: Instant::now(), timeout }
    }

    /// How long to wait yet: `None` for ever, zero if the time is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.saturating_sub(self.began.elapsed()))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    pub(crate) fn waited(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The pause between two tries begins at about the length of a sync, which is how long a turn takes, and gets shorter.
const LONGEST_PAUSE: Duration = Duration::from_micros(160);

/// Whoever is next tries this often.
const NEXT_PAUSE: Duration = Duration::from_micros(20);

/// And so long others wait for one who is next and does not take the lock.
const COURTESY: Duration = Duration::from_millis(20);

/// After a turn without a sync for which it had to wait, a handle leaves the lock to others for this long. Its next turn
/// would be over before anybody else looked whether somebody is next.
pub(crate) const REST: Duration = Duration::from_micros(200);

impl Engine {
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.config.get_connection_timeout())
    }

    pub(crate) fn lock_timeout(&self, deadline: &Deadline) -> Error {
        Error::LockTimeout { path: self.path.to_path_buf(), waited: deadline.waited() }
    }

    /// Pauses before another try at a lock that somebody else has.
    pub(crate) fn wait_a_moment(&self, deadline: &Deadline) -> Result<()> {
        if deadline.is_over() {
            return Err(self.lock_timeout(deadline));
        }
        self.disk.pause(deadline.left().map_or(LONGEST_PAUSE, |left| left.min(LONGEST_PAUSE)));
        Ok(())
    }

    /// Takes the file's lock; `true` if it had to wait for it. Tries at least once, however little time is left.
    ///
    /// Of those who wait, one is next, and it alone tries for the lock; whoever comes while somebody is next waits behind
    /// that one, also if it has just had the lock itself. That it wins it again each time, because the others are asleep
    /// when it gives it up, cannot happen. Who is next may have been stopped, so nobody waits for that one for long.
    pub(crate) fn wait_for_lock(&self, log: &LogFile, deadline: &Deadline) -> Result<bool> {
        let file = &*log.file;
        let try_lock = || file.try_lock().map_err(|e| log.io("lock", e));
        if (deadline.is_over() || !file.is_another_next()) && try_lock()? {
            return Ok(false);
        }
        let (mut pause, mut next, began) = (LONGEST_PAUSE, false, Instant::now());
        let outcome = loop {
            // Where that cannot be told, everybody is on their own.
            next = next || file.try_be_next().unwrap_or(true);
            if next || deadline.is_over() || began.elapsed() >= COURTESY {
                match try_lock() {
                    Ok(false) => {}
                    Ok(true) => break Ok(true),
                    Err(error) => break Err(error),
                }
            }
            if deadline.is_over() {
                break Err(self.lock_timeout(deadline));
            }
            // Who has waited long looks often, and so before those who have just come.
            pause = if next { NEXT_PAUSE } else { (pause * 3 / 4).max(NEXT_PAUSE) };
            self.disk.pause(deadline.left().map_or(pause, |left| left.min(pause)));
        };
        if next {
            file.be_next_no_more();
        }
        let nanoseconds = began.elapsed().as_nanos() as u64;
        self.counters.lock_waits.fetch_add(1, Ordering::Relaxed);
        self.counters.lock_waited.fetch_add(nanoseconds, Ordering::Relaxed);
        outcome
    }
}
