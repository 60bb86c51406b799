//! [`Held`]: what the holder of a lock has in its hands.

use std::sync::Arc;

use crate::engine::context::Context;
use crate::engine::write::live::LiveSession;
use crate::engine::write::request::Holding;
use crate::loss::LockLoss;

/// A lock that was taken: see [`CaskLock::lock`](crate::CaskLock::lock). Clones are the same.
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
    /// The full key.
    key: Arc<[u8]>,
    token: u64,
    live: Arc<LiveSession>,
    context: Arc<Context>,
}

impl Held {
    pub(super) fn new(key: &[u8], token: u64, live: Arc<LiveSession>, context: Arc<Context>) -> Held {
        Held { key: Arc::from(key), token, live, context }
    }

    /// Returns the fencing token: a number that is higher for each holder of this lock than for those before. A store or a device that
    /// remembers the highest token that it has seen, and refuses lower ones, is safe from a holder that does not know yet that it has
    /// lost the lock. caskfile itself does so with [`Batch::expect_held`](crate::Batch::expect_held).
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

    /// Returns whether the lock is held, as far as this process knows: its session was renewed less than its time to live ago, and no
    /// loss is known.
    ///
    /// The answer is of the moment of the call. A process can be stopped right after it, for any time. What must not be done without the
    /// lock needs [`Batch::expect_held`](crate::Batch::expect_held), or the [token](Held::token).
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
        self.context.is_this_process() && self.live.is_live(self.context.machine_time())
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
        self.live.loss()
    }

    pub(super) fn live(&self) -> &Arc<LiveSession> {
        &self.live
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn holding(&self) -> Holding {
        Holding { session: self.live.session, nonce: self.live.nonce, acquired: self.token }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("token", &self.token).finish_non_exhaustive()
    }
}
