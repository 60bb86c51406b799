//! Taking the file's lock, with a limit of time.
//!
//! `flock` has no timed form, so a process polls it. A process that polls loses for seconds against one that takes the lock
//! again right after giving it up, so processes that wait stand in a [line](super::line). Nothing depends on the line: the
//! file's lock is what protects the file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Writing;
use super::line::{COURTESY, Line};
use crate::Result;
use crate::disk::PLACES;
use crate::engine::deadline::Deadline;
use crate::log::LogFile;

/// A handle that waits long reads, at this interval, what others have written. What it has not read by then, it reads with the
/// lock, while all others wait.
const READ_PAUSE: Duration = Duration::from_millis(10);

/// A handle that had to wait for its turn, and does not sync in it, leaves the lock to others for this long afterwards.
/// Otherwise its next turn would be over before the next process looks.
pub(super) const REST: Duration = Duration::from_micros(200);

/// A handle without patience tries for this long where the lock of another one may only linger, so that a burst of writes does not
/// keep it out. The next turn of that handle sees it in line, and without one the lock is released soon.
const GRACE: Duration = Duration::from_micros(500);

impl Writing {
    /// Takes the file's lock; `true` if it had to wait for it. Tries at least once, however little time is left.
    ///
    /// A process that comes while others stand in line takes the last place, even if it has just had the lock. Otherwise it
    /// could win the lock each time, since the others are asleep when it releases it.
    pub(crate) fn wait_for_lock(&self, log: &LogFile, deadline: &Deadline) -> Result<bool> {
        let file = &*log.file;
        let try_lock = || file.try_lock().map_err(|e| log.io("lock", e));
        let others_wait = || file.waiting_line().and_then(|line| line.place_of_another(0..PLACES)).is_some();
        if (!others_wait() || deadline.is_over()) && try_lock()? {
            return Ok(false);
        }
        let clock = &self.context.clock;
        let (mut line, began) = (Line::new(file, clock), clock.now());
        let mut read = began;
        let grace = if file.locks_linger() { GRACE } else { Duration::ZERO };
        let left = || deadline.left().map(|left| left.max(grace.saturating_sub(clock.since(began))));
        let outcome = loop {
            line.look();
            if line.ahead.is_none() || clock.since(line.since) >= COURTESY || left() == Some(Duration::ZERO) {
                match try_lock() {
                    Ok(false) => {}
                    Ok(true) => break Ok(true),
                    Err(error) => break Err(error),
                }
            }
            if left() == Some(Duration::ZERO) {
                break Err(self.context.lock_timeout(Some(log.identity), deadline));
            }
            if clock.since(read) >= READ_PAUSE {
                // Errors are left to the turn, as in `Turn::approach`.
                let _ = self.reading.catch_up_early();
                read = clock.now();
            }
            let pause = line.pause();
            self.context.disk.system().pause(left().map_or(pause, |left| left.min(pause)));
        };
        drop(line);
        let nanoseconds = clock.since(began).as_nanos() as u64;
        self.context.counters.lock_waits.fetch_add(1, Ordering::Relaxed);
        self.context.counters.lock_waited.fetch_add(nanoseconds, Ordering::Relaxed);
        outcome
    }
}
