//! [`Stopper`].

use std::fmt;
use std::sync::Arc;

/// Ends a watch, a feed or the waits for a lock from another thread: see [`Feed::stopper`](crate::Feed::stopper),
/// [`Lock::stopper`](crate::Lock::stopper), [`Watch::stopper`](crate::Watch::stopper) and
/// [`CaskLock::stopper`](crate::CaskLock::stopper). Clones stop the same one.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-stopper-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::{Error, WatchFrom};
///
/// let mut watch = cask.changes("", WatchFrom::Now)?;
/// let stopper = watch.stopper();
/// std::thread::spawn(move || stopper.stop());
/// assert!(matches!(watch.next_timeout(None), Err(Error::Stopped)));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct Stopper(Arc<dyn Fn() + Send + Sync>);

// A stopper has no state of its own that a panic could leave half changed. Its closure is a trait object, so the compiler cannot see
// this.
impl std::panic::UnwindSafe for Stopper {}
impl std::panic::RefUnwindSafe for Stopper {}

impl Stopper {
    /// Returns a stopper that calls this closure, for the feeds and locks of a backend. The closure may be called from any thread, and more than
    /// once.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// use caskfile::Stopper;
    ///
    /// let stopped = Arc::new(AtomicBool::new(false));
    /// let flag = Arc::clone(&stopped);
    /// Stopper::new(move || flag.store(true, Ordering::Relaxed)).stop();
    /// assert!(stopped.load(Ordering::Relaxed));
    /// ```
    pub fn new(stop: impl Fn() + Send + Sync + 'static) -> Stopper {
        Stopper(Arc::new(stop))
    }

    /// Ends the watch, the feed, or the waits for the lock. Its calls return [`Error::Stopped`](crate::Error::Stopped) from now on, also
    /// one that waits now. In a forked child, this does nothing to the watch of the parent.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-stop-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// watch.stopper().stop();
    /// assert!(matches!(watch.next_timeout(None), Err(caskfile::Error::Stopped)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn stop(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").finish_non_exhaustive()
    }
}
