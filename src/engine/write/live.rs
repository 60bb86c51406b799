//! The sessions of a handle: what it knows of each beside what the log says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fork::Process;
use crate::format::{Owner, SessionRecord};
use crate::index::MachineTime;
use crate::loss::{LockLoss, LossSender};
use crate::sync::{AtomicU64, Condvar, Mutex, lock};

/// A session of this handle.
pub(crate) struct LiveSession {
    /// The sequence number of its first record.
    pub(crate) session: u64,
    pub(crate) nonce: u64,
    /// Milliseconds.
    pub(crate) ttl: u64,
    /// The deadline of its last record that this handle has written, in milliseconds of the machine's clock.
    deadline: AtomicU64,
    loss: LossSender,
    /// The lock that it is for, if it is for one.
    pub(crate) lock: Option<OwnLock>,
}

/// A lock that this handle has taken.
pub(crate) struct OwnLock {
    /// The full key.
    pub(crate) key: Box<[u8]>,
    pub(crate) owner: Owner,
}

impl LiveSession {
    pub(super) fn new(record: &SessionRecord, loss: LossSender, lock: Option<OwnLock>) -> LiveSession {
        let &SessionRecord { session, nonce, ttl, deadline, .. } = record;
        LiveSession { session, nonce, ttl, deadline: AtomicU64::new(deadline), loss, lock }
    }

    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Acquire)
    }

    pub(super) fn set_deadline(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Release);
    }

    pub(crate) fn loss(&self) -> &LockLoss {
        self.loss.loss()
    }

    /// Reports that the session is over, or that its holder has given it up.
    pub(crate) fn lose(&self) {
        self.loss.lose();
    }

    /// Whether the session lives, as far as this handle knows.
    pub(crate) fn is_live(&self, now: Option<MachineTime>) -> bool {
        !self.loss().is_lost() && now.is_some_and(|now| now.ms < self.deadline())
    }
}

/// All sessions of a handle that are not known to be over.
pub(crate) struct Registry {
    state: Mutex<State>,
    pub(crate) changed: Condvar,
    /// The number of this handle as an owner, plus 1; 0 if it is none.
    owner: AtomicU64,
    /// A forked child has a copy, and must leave the parent's sessions alone.
    process: Process,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) sessions: Vec<Arc<LiveSession>>,
    /// They are to be renewed soon, since they go on in another file.
    pub(crate) renew_soon: bool,
    /// The thread that renews them must end.
    pub(crate) stop: bool,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            state: Mutex::default(),
            changed: Condvar::new(),
            owner: AtomicU64::new(0),
            process: Process::this(),
        }
    }
}

impl Registry {
    pub(crate) fn lock(&self) -> crate::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn is_here(&self) -> bool {
        self.process.is_this()
    }

    pub(super) fn set_owner(&self, owner: u64) {
        self.owner.store(owner + 1, Ordering::Relaxed);
    }

    /// Whether this handle is that owner.
    pub(crate) fn is_owner(&self, owner: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == owner + 1
    }

    pub(crate) fn all(&self) -> Vec<Arc<LiveSession>> {
        self.lock().sessions.clone()
    }

    pub(super) fn add(&self, session: &Arc<LiveSession>) {
        self.lock().sessions.push(Arc::clone(session));
        self.changed.notify_all();
    }

    /// The session is over: reports it, and forgets the session.
    pub(crate) fn lose(&self, session: u64) {
        let mut state = self.lock();
        let lost =
            state.sessions.iter().position(|live| live.session == session).map(|at| state.sessions.swap_remove(at));
        drop(state);
        if let Some(lost) = lost {
            lost.lose();
        }
    }

    /// Has the thread renew all sessions now.
    pub(crate) fn renew_soon(&self) {
        self.lock().renew_soon = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }
}
