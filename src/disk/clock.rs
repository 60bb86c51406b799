//! The engine's clock: the system's, or one that a test moves.

use std::sync::PoisonError;
#[cfg(any(test, feature = "testing"))]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, MutexGuard};

/// What the engine asks for the time, and what it waits with: the system's clock by default.
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
}

/// How often a thread that waits looks at a clock that is moved.
#[cfg(any(test, feature = "testing"))]
const LOOK: Duration = Duration::from_millis(1);

impl Clock {
    /// Returns a clock that stands still until it is [moved](Clock::advance). Clones are the same clock.
    #[cfg(any(test, feature = "testing"))]
    pub fn standing_still() -> Clock {
        Clock { moved: Some(Arc::new(Moved { start: Instant::now(), nanoseconds: AtomicU64::new(0) })) }
    }

    /// Moves the clock. A thread that waits for this moment goes on.
    ///
    /// # Panics
    ///
    /// If this is the system's clock.
    #[cfg(any(test, feature = "testing"))]
    pub fn advance(&self, by: Duration) {
        let moved = self.moved.as_ref().expect("the system's clock moves by itself");
        moved.nanoseconds.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
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
