//! Waiting for the file's lock, and for one's place in the queue, with a limit.

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

/// `flock` has no timed form, so the lock is polled. The pause between two tries grows to about the length of a
/// sync, which is how long a turn takes: a longer one would leave the lock to whoever polls more often, and a
/// shorter one would only burn time.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_micros(160);

/// After a turn for which it had to wait, a handle leaves the lock to others for this long before it tries again:
/// whoever has just had the lock would otherwise win it again each time, since the others are asleep when it is
/// given up.
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
    pub(crate) fn wait_for_lock(&self, log: &LogFile, deadline: &Deadline) -> Result<bool> {
        let mut pause = FIRST_PAUSE;
        let mut began: Option<Instant> = None;
        while !log.file.try_lock().map_err(|e| log.io("lock", e))? {
            let began = *began.get_or_insert_with(Instant::now);
            if deadline.is_over() {
                self.count_lock_wait(began);
                return Err(self.lock_timeout(deadline));
            }
            self.disk.pause(deadline.left().map_or(pause, |left| left.min(pause)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        began.inspect(|began| self.count_lock_wait(*began));
        Ok(began.is_some())
    }

    fn count_lock_wait(&self, began: Instant) {
        let nanoseconds = began.elapsed().as_nanos() as u64;
        self.counters.lock_waits.fetch_add(1, Ordering::Relaxed);
        self.counters.lock_waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}
