//! Sessions and locks, as programs hold them.
//!
//! A [`Session`] lives as long as its handle renews it, and its keys live with it. A [`CaskLock`] is a key that belongs to a session of its
//! own. What the log says of them, and what decides that one is over, is in [`write::sessions`](super::write::sessions); [`renew`] has the
//! thread that renews them, [`line`](mod@line) the line in which threads and processes wait for a lock.

mod claim;
mod line;
mod list;
mod lock;
mod renew;

use std::sync::Arc;
use std::time::Duration;

use super::cask::Cask;
use super::deadline::Deadline;
use super::write::live::LiveSession;
use super::write::request::{Action, Condition, Holding, no_memory};
use super::write::sessions::{Beginning, Released};
use crate::format::{FullKey, MAX_EXPIRING_VALUE_LEN};
use crate::loss::LockLoss;
use crate::memory::copied;
use crate::store::KvPair;
use crate::{Error, Result};

pub(crate) use claim::CaskClaim;
pub(crate) use line::Queues;
pub use list::{SessionKey, SessionState, SessionStatus};
pub use lock::CaskLock;
pub(crate) use renew::Renewal;

/// How long dropping a session, or a lock, tries to say that it is over.
const PATIENCE_OF_DROP: Duration = Duration::from_secs(1);

/// A session: keys that live as long as this process renews it.
///
/// A thread of the handle renews it at a third of its time to live. If the process dies, or is stopped for longer than that, the session
/// is over, and its keys are absent for all. [`Session::end`] ends it, and so do dropping it and closing the store.
///
/// A forked child has no sessions: its copy does nothing.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-session-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use std::time::Duration;
///
/// let session = cask.session(Duration::from_secs(20))?;
/// session.put(&cask, "workers/7", "host-a")?;
/// assert!(cask.exists("workers/7")?);
/// session.end()?;
/// assert!(!cask.exists("workers/7")?);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct Session {
    cask: Cask,
    live: Arc<LiveSession>,
}

impl Cask {
    /// Begins a session. Its keys are over when it is: `ttl` after its last renewal at the latest.
    ///
    /// The time to live goes by the machine's monotonic clock, which no one sets, and which stands still while the machine is suspended.
    /// A power cut ends all sessions. A short time to live makes the keys of a dead process vanish sooner where the system does not tell
    /// that it is dead, and needs more renewals. A process that is stopped for longer loses its session.
    ///
    /// # Cost
    ///
    /// A record of 88 bytes now and for each renewal, three times per `ttl`; none is synced for itself. Two threads per handle with
    /// sessions, and two descriptors per session. An opening reads the last record of each, and there is no
    /// [snapshot](crate::SnapshotPolicy) of the index with more than 4,096 keys and sessions that have an end.
    ///
    /// # Errors
    ///
    /// - [`Error::ZeroTtl`].
    /// - [`Error::NoSessions`] if the system does not say which machine and boot this is.
    /// - [`Error::SessionOver`] if the process was stopped for longer than `ttl` in this call.
    /// - Those of every write.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-cask-session-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::Duration;
    ///
    /// let session = cask.session(Duration::from_secs(20))?;
    /// assert!(session.is_live());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn session(&self, ttl: Duration) -> Result<Session> {
        self.check_open()?;
        if ttl.is_zero() {
            return Err(Error::ZeroTtl);
        }
        let engine = &self.engine;
        let (live, _) = engine.writing.in_session_turn(&engine.context.deadline(), |turn| {
            let begun = turn.begin_session(&Beginning { ttl, lock: None })?;
            turn.sweep();
            Ok(begun)
        })?;
        keep(self, &live)?;
        Ok(Session { cask: self.clone(), live })
    }

    /// Renews all sessions of this handle, as its thread does from time to time. For tests on a disk where that thread does not run.
    ///
    /// # Errors
    ///
    /// Those of every write.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-renew-sessions-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let session = cask.session(std::time::Duration::from_secs(20))?;
    /// cask.renew_sessions()?;
    /// assert!(session.is_live());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    #[cfg(any(test, feature = "testing"))]
    pub fn renew_sessions(&self) -> Result<()> {
        self.check_open()?;
        let writing = &self.engine.writing;
        writing.in_session_turn(&self.engine.context.deadline(), |turn| turn.renew(&writing.registry.all()))
    }
}

impl Session {
    /// Sets the value of a key that is over when the session is. `cask` says in which bucket; it is the handle that the session was made
    /// with, a clone of it, or one of its buckets. Returns the new pair.
    ///
    /// A put of the key by others, or by other calls, takes the key from the session.
    ///
    /// # Errors
    ///
    /// - [`Error::SessionOver`] if it is over. The pair may be in the log and is hidden then. Also if `cask` is a handle of another store, or
    ///   another handle of this one: there is no such session there.
    /// - [`Error::ValueTooLong`] if the value has more than [`MAX_EXPIRING_VALUE_LEN`] bytes.
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-session-put-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let session = cask.session(std::time::Duration::from_secs(20))?;
    /// let pair = session.put(&cask.bucket("workers")?, "7", "host-a")?;
    /// assert_eq!(cask.bucket("workers")?.get("7")?, pair);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put(&self, cask: &Cask, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<KvPair> {
        cask.check_open()?;
        let (key, value) = (key.as_ref(), value.as_ref());
        if !Arc::ptr_eq(&cask.engine, &self.cask.engine) {
            return Err(Error::SessionOver);
        }
        let holding = Holding { session: self.live.session, nonce: self.live.nonce, acquired: 0 };
        cask.put_owned(&FullKey::new(&cask.bucket, key)?, key, value, holding, None)
    }

    /// Returns whether the session lives, as far as this process knows: it was renewed less than its time to live ago, and no other process
    /// is known to have ended it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-session-is-live-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let session = cask.session(std::time::Duration::from_secs(20))?;
    /// assert!(session.is_live());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_live(&self) -> bool {
        let context = &self.cask.engine.context;
        context.is_this_process() && self.live.is_live(context.machine_time())
    }

    /// Returns the signal that comes when the session is over. A process that runs gets it within a tenth of a second.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-session-loss-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let session = cask.session(std::time::Duration::from_secs(20))?;
    /// assert!(!session.loss().is_lost());
    /// # drop(session);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn loss(&self) -> &LockLoss {
        self.live.loss()
    }

    /// Ends the session. Its keys are absent when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::SessionOver`] if it was over already.
    /// - Those of every write. The session is over at the end of its time to live then.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-session-end-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let session = cask.session(std::time::Duration::from_secs(20))?;
    /// session.put(&cask, "workers/7", "host-a")?;
    /// session.end()?;
    /// assert!(cask.is_empty()?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn end(self) -> Result<()> {
        self.cask.check_open()?;
        end(&self.cask, &self.live, None, &self.cask.engine.context.deadline())
    }
}

impl Cask {
    /// Puts a pair of a session.
    fn put_owned(
        &self,
        full_key: &FullKey,
        key: &[u8],
        value: &[u8],
        holding: Holding,
        condition: Option<Condition>,
    ) -> Result<KvPair> {
        if value.len() > MAX_EXPIRING_VALUE_LEN {
            return Err(Error::ValueTooLong { len: value.len(), max: MAX_EXPIRING_VALUE_LEN });
        }
        // Before anything is written: afterwards a lack of memory could not be an error.
        let copy = copied(value).map_err(|_| no_memory(&self.engine.context.path))?;
        let last_index = self.commit(full_key, Action::PutOwned(value, holding), condition)?;
        let last_index = last_index.ok_or_else(|| Error::internal("a put that succeeds writes a record"))?;
        Ok(KvPair { key: key.to_vec(), value: copy, last_index })
    }
}

/// Makes sure that a thread renews a session that has just begun.
fn keep(cask: &Cask, live: &LiveSession) -> Result<()> {
    let begun = cask.engine.renewal.begin(&cask.engine.writing, &cask.engine.maintenance);
    begun.inspect_err(|_| end_dropped(cask, live, None))
}

/// Ends a session in the log, and in this process in any case.
fn end(cask: &Cask, live: &LiveSession, lock: Option<Released<'_>>, deadline: &Deadline) -> Result<()> {
    // A forked child shares the signal of the loss, and may have a copy of a mutex that is locked for ever.
    cask.check_open()?;
    let writing = &cask.engine.writing;
    let ended = writing.in_session_turn(deadline, |turn| turn.end_session(live, lock));
    writing.registry.lose(live.session);
    live.lose();
    ended
}

/// Ends a session that its holder drops, without much patience.
fn end_dropped(cask: &Cask, live: &LiveSession, lock: Option<Released<'_>>) {
    let context = &cask.engine.context;
    if context.is_this_process() && !live.loss().is_lost() {
        // If this fails, the session is over at the end of its time to live.
        let _ = end(cask, live, lock, &Deadline::of_a_try(&context.clock, PATIENCE_OF_DROP));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        end_dropped(&self.cask, &self.live, None);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("session", &self.live.session).finish_non_exhaustive()
    }
}
