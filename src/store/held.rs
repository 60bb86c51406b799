//! [`Held`]: what the holder of a lock has in its hands.

use std::any::Any;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::loss::LockLoss;

/// A lock that was taken: see [`Lock::lock`](crate::Lock::lock) and [`CaskLock::lock`](crate::CaskLock::lock). Clones are the same.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-held-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::{Batch, LockOptions};
///
/// let lock = cask.lock("leader", &LockOptions::new().value("node-1"))?;
/// let held = lock.try_lock()?.expect("no other process wants it");
/// cask.write(Batch::new().expect_held(&held).put("config", "1"))?;
/// lock.unlock()?;
/// assert!(!held.is_held());
/// assert!(cask.write(Batch::new().expect_held(&held).put("config", "2")).is_err());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct Held {
    token: u64,
    loss: LockLoss,
    /// What the backend knows beside the loss.
    claim: Option<Arc<dyn Claim>>,
}

/// What a backend of this library knows of a lock that it has given.
pub(crate) trait Claim: Send + Sync {
    /// Whether the lock is held, as far as this process knows. Not asked once the loss has come.
    fn is_held(&self) -> bool;

    /// The claim, to find its type.
    fn as_any(&self) -> &dyn Any;
}

/// The claim of a backend elsewhere.
struct Check<F>(F);

impl<F: Fn() -> bool + Send + Sync + 'static> Claim for Check<F> {
    fn is_held(&self) -> bool {
        (self.0)()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

// It has no state of its own that a panic could leave half changed. The compiler cannot see this of a trait object.
impl UnwindSafe for Held {}
impl RefUnwindSafe for Held {}

impl Held {
    /// Returns what the holder of a lock gets, for a backend whose locks end with their loss: the fencing token, and the signal of the
    /// loss. The token must be higher than that of every holder before.
    ///
    /// ```
    /// use caskfile::{Held, LockLoss};
    ///
    /// let (sender, loss) = LockLoss::channel()?;
    /// let held = Held::new(7, loss);
    /// assert!(held.token() == 7 && held.is_held());
    /// sender.lose();
    /// assert!(!held.is_held());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(token: u64, loss: LockLoss) -> Held {
        Held { token, loss, claim: None }
    }

    /// Returns the same as [`Held::new`], for a backend whose locks end at a time. [`Held::is_held`] asks `is_live`, so that a process
    /// that was stopped finds its lock over, even before a thread of it can send the loss.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// use caskfile::{Held, LockLoss};
    ///
    /// let (_sender, loss) = LockLoss::channel()?;
    /// let over = Instant::now() + Duration::from_millis(1); // a renewal would set it later
    /// let held = Held::with_check(7, loss, move || Instant::now() < over);
    /// std::thread::sleep(Duration::from_millis(2));
    /// assert!(!held.is_held() && !held.loss().is_lost());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_check(token: u64, loss: LockLoss, is_live: impl Fn() -> bool + Send + Sync + 'static) -> Held {
        Held { token, loss, claim: Some(Arc::new(Check(is_live))) }
    }

    pub(crate) fn of(token: u64, loss: LockLoss, claim: Arc<dyn Claim>) -> Held {
        Held { token, loss, claim: Some(claim) }
    }

    /// Returns the fencing token: a number that is higher for each holder of this lock than for those before. A store or a device that
    /// remembers the highest token that it has seen, and refuses lower ones, is safe from a holder that does not know yet that it has
    /// lost the lock. A [`Cask`](crate::Cask) does so itself with [`Batch::expect_held`](crate::Batch::expect_held).
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-held-token-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let first = lock.lock(None)?.token();
    /// lock.unlock()?;
    /// assert!(lock.lock(None)?.token() > first);
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Returns whether the lock is held, as far as this process knows: it was renewed less than its time to live ago, and no loss is
    /// known. In a forked child it is not held.
    ///
    /// The answer is of the moment of the call. A process can be stopped right after it, for any time. What must not be done without the
    /// lock needs the [token](Held::token), or [`Batch::expect_held`](crate::Batch::expect_held).
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-held-is-held-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// assert!(held.is_held());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_held(&self) -> bool {
        self.loss.is_here() && !self.loss.is_lost() && self.claim.as_ref().is_none_or(|claim| claim.is_held())
    }

    /// Returns the signal that comes when the lock is lost or released. A process that runs gets it within a tenth of a second.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-held-loss-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// cask.delete("leader")?; // an operator takes the lock away
    /// assert!(held.loss().wait(None));
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn loss(&self) -> &LockLoss {
        &self.loss
    }

    /// The claim, if it is that of this type of lock.
    pub(crate) fn claim<C: Claim + 'static>(&self) -> Option<&C> {
        self.claim.as_ref()?.as_any().downcast_ref()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("token", &self.token).finish_non_exhaustive()
    }
}
