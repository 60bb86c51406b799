//! The engine's clock: the system's, or one that a test moves.

use std::sync::PoisonError;
#[cfg(any(test, feature = "testing"))]
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Condvar, MutexGuard};

/// What the engine asks for the time, and what it waits with: the system's clocks by default.
///
/// There are two. Waiting goes by one that never goes back ([`Clock::now`]). The deadlines of keys are on the wall clock
/// ([`Clock::wall`]), which people and programs set, forward and back.
///
/// A test can make a clock that stands still until it is moved, and give it to a disk. So an hour passes in no time, and a
/// test can say what has to happen within it. Without the feature `testing` this type is empty.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// `None`: the system's.
    #[cfg(any(test, feature = "testing"))]
    moved: Option<Arc<Moved>>,
}

/// A clock that is moved.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
struct Moved {
    start: Instant,
    nanoseconds: AtomicU64,
    /// What the wall clock shows beyond [`WALL_START`] and the time that has passed, in milliseconds.
    wall_set: AtomicI64,
    /// By how many milliseconds the wall clock is set after each look at it.
    set_by_looks: AtomicI64,
    wall_looks: AtomicU64,
}

/// What the wall clock shows when a clock that is moved is made.
#[cfg(any(test, feature = "testing"))]
const WALL_START: Duration = Duration::from_secs(1_800_000_000);

/// What the monotonic clock shows then.
#[cfg(any(test, feature = "testing"))]
const MONOTONIC_START: Duration = Duration::from_secs(1_000);

/// How often a thread that waits looks at a clock that is moved.
#[cfg(any(test, feature = "testing"))]
const LOOK: Duration = Duration::from_millis(1);

/// A time by the wall clock in whole milliseconds, as deadlines are compared with.
pub(crate) fn whole_ms(wall: Duration) -> u64 {
    wall.as_millis().try_into().unwrap_or(u64::MAX)
}

impl Clock {
    /// Returns a clock that stands still until it is [moved](Clock::advance). Clones are the same clock.
    #[cfg(any(test, feature = "testing"))]
    pub fn standing_still() -> Clock {
        let moved = Moved {
            start: Instant::now(),
            nanoseconds: AtomicU64::new(0),
            wall_set: AtomicI64::new(0),
            set_by_looks: AtomicI64::new(0),
            wall_looks: AtomicU64::new(0),
        };
        Clock { moved: Some(Arc::new(moved)) }
    }

    /// Moves the clock. A thread that waits for this moment goes on.
    ///
    /// # Panics
    ///
    /// If this is the system's clock.
    #[cfg(any(test, feature = "testing"))]
    pub fn advance(&self, by: Duration) {
        self.moved().nanoseconds.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }

    #[cfg(any(test, feature = "testing"))]
    fn moved(&self) -> &Moved {
        self.moved.as_ref().expect("the system's clock moves by itself")
    }

    /// Sets the wall clock forward, or back if `by` is negative, by this many milliseconds. The other clock stays.
    ///
    /// # Panics
    ///
    /// As [`Clock::advance`].
    #[cfg(any(test, feature = "testing"))]
    pub fn set_wall(&self, by: i64) {
        self.moved().wall_set.fetch_add(by, Ordering::SeqCst);
    }

    /// Has the wall clock set by this many milliseconds after each look at it: so a test finds out whether a call that must look
    /// once looks twice.
    ///
    /// # Panics
    ///
    /// As [`Clock::advance`].
    #[cfg(any(test, feature = "testing"))]
    pub fn set_wall_at_looks(&self, by: i64) {
        self.moved().set_by_looks.store(by, Ordering::SeqCst);
    }

    /// Returns how often the wall clock was looked at.
    ///
    /// # Panics
    ///
    /// As [`Clock::advance`].
    #[cfg(any(test, feature = "testing"))]
    pub fn wall_looks(&self) -> u64 {
        self.moved().wall_looks.load(Ordering::SeqCst)
    }

    /// Moves the clock and returns `true`, unless it is the system's. For the pauses of a disk.
    #[cfg(any(test, feature = "testing"))]
    pub fn pass(&self, by: Duration) -> bool {
        let stood = self.moved.is_some();
        if stood {
            self.advance(by);
        }
        stood
    }

    /// Returns the time now.
    #[inline]
    pub fn now(&self) -> Instant {
        #[cfg(any(test, feature = "testing"))]
        if let Some(moved) = &self.moved {
            return moved.start + Duration::from_nanos(moved.nanoseconds.load(Ordering::SeqCst));
        }
        Instant::now()
    }

    /// Returns the time by the wall clock, since 1970-01-01 00:00 UTC. A clock that shows an earlier time counts as 1970.
    pub fn wall(&self) -> Duration {
        #[cfg(any(test, feature = "testing"))]
        if let Some(moved) = &self.moved {
            moved.wall_looks.fetch_add(1, Ordering::SeqCst);
            let set = moved.wall_set.fetch_add(moved.set_by_looks.load(Ordering::SeqCst), Ordering::SeqCst);
            let shown = WALL_START + Duration::from_nanos(moved.nanoseconds.load(Ordering::SeqCst));
            let by = Duration::from_millis(set.unsigned_abs());
            return if set < 0 { shown.saturating_sub(by) } else { shown.saturating_add(by) };
        }
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Returns the time by the monotonic clock of this process's time namespace. It stands still while the machine is suspended.
    pub(crate) fn monotonic(&self) -> Duration {
        #[cfg(any(test, feature = "testing"))]
        if let Some(moved) = &self.moved {
            return MONOTONIC_START + Duration::from_nanos(moved.nanoseconds.load(Ordering::SeqCst));
        }
        super::os::monotonic()
    }

    /// Returns the time since an earlier moment.
    #[inline]
    pub fn since(&self, moment: Instant) -> Duration {
        self.now().saturating_duration_since(moment)
    }

    /// Waits until the condition is signalled, at most this long. It may return earlier, as every wait for a condition may.
    pub(crate) fn wait<'m, T>(&self, signal: &Condvar, guard: MutexGuard<'m, T>, most: Duration) -> MutexGuard<'m, T> {
        #[cfg(any(test, feature = "testing"))]
        let most = if self.moved.is_some() { most.min(LOOK) } else { most };
        signal.wait_timeout(guard, most).unwrap_or_else(PoisonError::into_inner).0
    }
}
