//! [`Lock`]: a lock of the contract, and [`LockOptions`].

use std::fmt;
use std::time::Duration;

use super::{Held, Stopper};
use crate::Result;

/// A lock that all handles and processes with a store share: see [`Store::new_lock`](crate::Store::new_lock).
///
/// It has one holder at a time. While it is held, its key has the holder's [value](LockOptions::value), and all see it. The holder
/// renews it by itself, as long as its process runs. It is lost
///
/// - after its [time to live](LockOptions::ttl) without a renewal: the process is dead or stopped, or does not reach the store;
/// - when a plain write of any handle puts or deletes its key, as an operator may do;
/// - when the store that it was made with is closed.
///
/// The holder learns of it by [`Held::loss`], and does not take the lock back. It can take the lock again after it was released or lost,
/// as any other. Dropping the value releases the lock, but cannot return an error.
///
/// A lock is not held by a thread: any thread can use the value.
///
/// # What is not promised
///
/// A process can be stopped at any moment, and go on after it has lost the lock. What it does then to anything but this lock, the store
/// does not prevent: the [token](Held::token) is there for that. [`Batch::expect_held`](crate::Batch::expect_held) is the same within a
/// [`Cask`](crate::Cask).
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-lock-{}", std::process::id()));
/// use caskfile::{Config, LockOptions, new_store};
///
/// let store = new_store("caskfile", &path, &Config::new())?;
/// let lock = store.new_lock(b"leader", &LockOptions::new().value("node-1"))?;
/// let held = lock.lock(None)?;
/// assert_eq!(store.get(b"leader")?.value, b"node-1");
/// assert!(held.is_held());
/// lock.unlock()?;
/// assert!(!store.exists(b"leader")?);
/// # drop(lock);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub trait Lock: Send + Sync {
    /// Takes the lock if it is free. Returns `None` otherwise. Another one that waits for it may go first.
    ///
    /// # Errors
    ///
    /// - [`Error::AlreadyHeld`](crate::Error::AlreadyHeld) if it is held through this value.
    /// - [`Error::Stopped`](crate::Error::Stopped) after [`Stopper::stop`], [`Error::Closed`](crate::Error::Closed).
    /// - Those of every write.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-lock-try-lock-{}", std::process::id()));
    /// # use caskfile::{Config, new_store};
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let one = store.new_lock(b"leader", &Default::default())?;
    /// let other = store.new_lock(b"leader", &Default::default())?;
    /// let held = one.try_lock()?;
    /// assert!(held.is_some() && other.try_lock()?.is_none());
    /// # drop((one, other));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn try_lock(&self) -> Result<Option<Held>>;

    /// Waits for the lock and takes it. Waits at most this long; with `None` for ever.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`](crate::Error::TimedOut) if others have it for the whole time.
    /// - [`Error::Stopped`](crate::Error::Stopped) after [`Stopper::stop`], and [`Error::Closed`](crate::Error::Closed), also while it
    ///   waits.
    /// - Those of [`Lock::try_lock`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-lock-lock-{}", std::process::id()));
    /// # use caskfile::{Config, new_store};
    /// use std::time::Duration;
    ///
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let lock = store.new_lock(b"leader", &Default::default())?;
    /// let other = store.new_lock(b"leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// let waiter = std::thread::spawn(move || other.lock(Some(Duration::from_secs(60))).map(|held| held.token()));
    /// lock.unlock()?;
    /// assert!(waiter.join().unwrap()? > held.token());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn lock(&self, timeout: Option<Duration>) -> Result<Held>;

    /// Releases the lock. Its key is removed, or stays as that of a plain put: [`LockOptions::delete_on_unlock`]. Afterwards it can be
    /// taken again, through this value too.
    ///
    /// # Errors
    ///
    /// - [`Error::NotHeld`](crate::Error::NotHeld) if it was not taken through this value, or is lost. The lock of another holder stays
    ///   as it is.
    /// - Those of every write. The lock is not held any more then, and is free at the end of its time to live.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-lock-unlock-{}", std::process::id()));
    /// # use caskfile::{Config, new_store};
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let lock = store.new_lock(b"leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// lock.unlock()?;
    /// assert!(!held.is_held() && matches!(lock.unlock(), Err(caskfile::Error::NotHeld)));
    /// assert!(lock.try_lock()?.is_some());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn unlock(&self) -> Result<()>;

    /// Returns what ends the waits for this lock from another thread. All waits through this value return
    /// [`Error::Stopped`](crate::Error::Stopped) from then on, and it cannot be taken through it any more. A lock that is held stays
    /// held.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-lock-stopper-{}", std::process::id()));
    /// # use caskfile::{Config, new_store};
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let lock = store.new_lock(b"leader", &Default::default())?;
    /// lock.stopper().stop();
    /// assert!(matches!(lock.lock(None), Err(caskfile::Error::Stopped)));
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn stopper(&self) -> Stopper;
}

/// Shows no contents. With it, `unwrap_err` on the result of [`Store::new_lock`](crate::Store::new_lock) compiles.
impl fmt::Debug for dyn Lock + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Lock")
    }
}

/// Options of a lock: see [`Store::new_lock`](crate::Store::new_lock) and [`Cask::lock`](crate::Cask::lock).
///
/// ```
/// use std::time::Duration;
///
/// use caskfile::LockOptions;
///
/// let options = LockOptions::new().value("host-a").ttl(Duration::from_secs(5));
/// assert_ne!(options, LockOptions::default());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing until a lock has them"]
pub struct LockOptions {
    value: Vec<u8>,
    ttl: Duration,
    delete_on_unlock: bool,
}

impl Default for LockOptions {
    fn default() -> LockOptions {
        LockOptions { value: Vec::new(), ttl: Duration::from_secs(20), delete_on_unlock: true }
    }
}

impl LockOptions {
    /// Returns the default options: no value, a time to live of 20 seconds, and a key that is removed when the lock is released.
    pub fn new() -> LockOptions {
        LockOptions::default()
    }

    /// Sets the value of the lock's key while the lock is held, which others can read: the name of the holder, for example.
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> LockOptions {
        self.value = value.into();
        self
    }

    /// Sets after which time a holder that does not renew the lock has lost it. A holder renews it by itself, three times in this time. If
    /// the holder dies, the next one need not wait for it, where the system tells that the process is gone.
    pub fn ttl(mut self, ttl: Duration) -> LockOptions {
        self.ttl = ttl;
        self
    }

    /// Sets whether [`Lock::unlock`] removes the key. Otherwise the pair stays, as that of a plain put. A lock that is lost, or that
    /// ends because the store is closed, takes its key along in any case.
    pub fn delete_on_unlock(mut self, delete: bool) -> LockOptions {
        self.delete_on_unlock = delete;
        self
    }

    /// Returns the value, for a backend that implements [`Store::new_lock`](crate::Store::new_lock).
    ///
    /// ```
    /// assert_eq!(caskfile::LockOptions::new().value("host-a").get_value(), b"host-a");
    /// ```
    pub fn get_value(&self) -> &[u8] {
        &self.value
    }

    /// Returns the time to live, for a backend that implements [`Store::new_lock`](crate::Store::new_lock).
    ///
    /// ```
    /// assert_eq!(caskfile::LockOptions::new().get_ttl(), std::time::Duration::from_secs(20));
    /// ```
    pub fn get_ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns whether [`Lock::unlock`] removes the key, for a backend that implements [`Store::new_lock`](crate::Store::new_lock).
    ///
    /// ```
    /// assert!(caskfile::LockOptions::new().get_delete_on_unlock());
    /// ```
    pub fn get_delete_on_unlock(&self) -> bool {
        self.delete_on_unlock
    }
}
