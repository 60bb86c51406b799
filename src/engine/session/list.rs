//! [`Cask::sessions`]: what the store says of its sessions.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Result;
use crate::engine::cask::Cask;
use crate::engine::read::view::View;
use crate::format::split_full_key;
use crate::index::{Keys, MachineTime};

/// A session of any process, as the store knows it: see [`Cask::sessions`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// The session: the sequence number of its first record.
    pub session: u64,
    /// Its time to live, in whole milliseconds. `None` if the store does not say it any more.
    pub ttl: Option<Duration>,
    /// Whether it is over.
    pub state: SessionState,
    /// Its keys, in the order in which they were set.
    pub keys: Vec<SessionKey>,
}

/// Whether a session is over: see [`SessionStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// It is over this long from now, if its process does not renew it before.
    Live(Duration),
    /// It is over. Its keys are absent for all calls, until a write removes them.
    Over,
    /// It was renewed on another machine, in a container with a boot identity of its own, or before this machine was started; or this
    /// process has no `/proc`, which says the boot. So no clock tells. Its keys are there. A process that wants one of its locks waits for
    /// one time to live.
    Unknown,
}

/// A key of a session: see [`SessionStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionKey {
    /// The bucket's name, which is empty for the default bucket.
    pub bucket: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// The sequence number of the write that set its value.
    pub last_index: u64,
    /// The fencing token, if the key is a lock.
    pub token: Option<u64>,
}

impl Cask {
    /// Returns the sessions of the store, in the order in which they began: those that have not ended, and those that have ended and whose
    /// keys are not removed yet. They are those of all processes and all buckets. Each lock that is held has a session of its own.
    ///
    /// A session whose process has died is live here until its deadline, or until a write has found out.
    ///
    /// # Cost
    ///
    /// One look at each key of a session, while no write of this process can go on.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed), [`Error::Forked`](crate::Error::Forked), [`Error::Corrupt`](crate::Error::Corrupt),
    /// [`Error::Io`](crate::Error::Io).
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-sessions-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{LockOptions, SessionState};
    ///
    /// let lock = cask.lock("leader", &LockOptions::new().value("node-1"))?;
    /// let held = lock.lock(None)?;
    /// let sessions = cask.sessions()?;
    /// assert!(matches!(sessions[0].state, SessionState::Live(left) if Some(left) <= sessions[0].ttl));
    /// assert_eq!((&sessions[0].keys[0].key[..], sessions[0].keys[0].token), (&b"leader"[..], Some(held.token())));
    /// lock.unlock()?;
    /// assert!(cask.sessions()?.is_empty());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn sessions(&self) -> Result<Vec<SessionStatus>> {
        self.check_open()?;
        let now = self.engine.context.machine_time();
        self.engine.reading.answer(|view| sessions(&view, now))
    }
}

fn sessions(view: &View, now: Option<MachineTime>) -> Result<Vec<SessionStatus>> {
    let known = &view.keys.lifetimes.sessions;
    let all: BTreeSet<u64> = known.live().map(|newest| newest.record.session).chain(known.ended()).collect();
    let status = |session| {
        let record = known.newest(session).map(|newest| newest.record);
        let state = match (record, now) {
            _ if known.is_over(session, now) => SessionState::Over,
            (Some(record), Some(now)) if record.boot == now.boot => {
                SessionState::Live(Duration::from_millis(record.deadline - now.ms))
            }
            _ => SessionState::Unknown,
        };
        let keys = known.pairs_of(session).map(|position| key_of(view, position)).collect::<Result<_>>()?;
        Ok(SessionStatus { session, ttl: record.map(|record| Duration::from_millis(record.ttl)), state, keys })
    };
    all.into_iter().map(status).collect()
}

/// The key of the owned pair whose record is at this position.
fn key_of(view: &View, position: u64) -> Result<SessionKey> {
    let (reader, mut full) = (&view.reader, Vec::new());
    let header = reader.header(position)?;
    reader.key_into(position, &header, &mut full)?;
    if !view.index().points_to(&full, position) {
        // The key was changed in the file, so the record does not verify.
        full.clear();
        reader.read_verified(position, &mut full)?;
    }
    let (bucket, key) = split_full_key(&full).ok_or_else(|| reader.not_its_position(position))?;
    let owner = view.keys.lifetimes.sessions.owner(position);
    let token = owner.map(|owner| owner.acquired).filter(|&acquired| acquired > 0);
    Ok(SessionKey { bucket: bucket.to_vec(), key: key.to_vec(), last_index: header.seq, token })
}
