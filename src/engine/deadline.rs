//! How long a call waits.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::disk::Clock;
use crate::sync::{Condvar, MutexGuard};

/// The end of a call's patience. The clock starts when the code first asks how much time is left, so a call that need not
/// wait does not read a clock.
#[derive(Debug)]
pub(crate) struct Deadline {
    clock: Clock,
    began: Cell<Option<Instant>>,
    /// `None`: for ever.
    timeout: Option<Duration>,
    /// Whether the error names the process that has the lock: the system is asked for all locks then.
    names_holder: bool,
}

impl Deadline {
    pub(crate) fn after(clock: &Clock, timeout: Option<Duration>) -> Deadline {
        Deadline { clock: clock.clone(), began: Cell::new(None), timeout, names_holder: true }
    }

    /// A deadline of one of many tries, whose error no caller sees.
    pub(crate) fn of_a_try(clock: &Clock, timeout: Duration) -> Deadline {
        Deadline { names_holder: false, ..Deadline::after(clock, Some(timeout)) }
    }

    /// The same timeout from now on.
    pub(crate) fn renewed(&self) -> Deadline {
        Deadline { clock: self.clock.clone(), began: Cell::new(None), ..*self }
    }

    /// The deadline of a try that is over after this time, and no later than this one.
    pub(crate) fn within(&self, time: Duration) -> Deadline {
        Deadline::of_a_try(&self.clock, self.left().map_or(time, |left| time.min(left)))
    }

    pub(crate) fn names_holder(&self) -> bool {
        self.names_holder
    }

    /// The time left: `None` for ever, zero if the time is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.saturating_sub(self.waited()))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    pub(crate) fn waited(&self) -> Duration {
        if let Some(began) = self.began.get() {
            return self.clock.since(began);
        }
        self.began.set(Some(self.clock.now()));
        Duration::ZERO
    }

    /// Waits until the condition is signalled, at most this long. May return earlier.
    pub(crate) fn wait<'m, T>(&self, signal: &Condvar, guard: MutexGuard<'m, T>, most: Duration) -> MutexGuard<'m, T> {
        self.clock.wait(signal, guard, most)
    }
}

/// How long several turns of one call may wait, all together. The work that they do with the lock does not count.
#[derive(Debug)]
pub(crate) struct Patience {
    /// `None`: for ever.
    left: Cell<Option<Duration>>,
}

impl Patience {
    pub(crate) fn new(timeout: Option<Duration>) -> Patience {
        Patience { left: Cell::new(timeout) }
    }

    /// For the next turn: what is left.
    pub(crate) fn deadline(&self, clock: &Clock) -> Deadline {
        Deadline::after(clock, self.left.get())
    }

    pub(crate) fn spend(&self, waited: Duration) {
        self.left.set(self.left.get().map(|left| left.saturating_sub(waited)));
    }
}
