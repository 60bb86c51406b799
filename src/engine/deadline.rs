//! How long a call waits.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The end of a call's patience. The clock starts when the code first asks how much time is left, so a call that need not
/// wait does not read a clock.
#[derive(Debug)]
pub(crate) struct Deadline {
    began: Cell<Option<Instant>>,
    /// `None`: for ever.
    timeout: Option<Duration>,
    /// Whether the error names the process that has the lock: the system is asked for all locks then.
    names_holder: bool,
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline { began: Cell::new(None), timeout, names_holder: true }
    }

    /// A deadline of one of many tries, whose error no caller sees.
    pub(crate) fn of_a_try(timeout: Duration) -> Deadline {
        Deadline { names_holder: false, ..Deadline::after(Some(timeout)) }
    }

    /// The same timeout from now on.
    pub(crate) fn renewed(&self) -> Deadline {
        Deadline { began: Cell::new(None), ..*self }
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
            return began.elapsed();
        }
        self.began.set(Some(Instant::now()));
        Duration::ZERO
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
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.left.get())
    }

    pub(crate) fn spend(&self, waited: Duration) {
        self.left.set(self.left.get().map(|left| left.saturating_sub(waited)));
    }
}
