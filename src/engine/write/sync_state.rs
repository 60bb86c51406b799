//! The syncs of a handle: how much of the log they have brought to stable storage, and the error of one that failed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::SyncScope;
use crate::events::event;
use crate::log::LogFile;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, lock};
use crate::{Error, Result};

/// A position in one reading of the log. A log that is read again, after a cut or in another file, is another epoch. Knowledge
/// about one epoch says nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    /// The generation of the last root that this handle has written: a sync brings it to stable storage too.
    pub(crate) root: u64,
}

/// Syncs of one handle: one at a time, counted, and none after one that failed.
#[derive(Default)]
pub(crate) struct SyncState {
    /// Locked during a sync. The kernel reports a write-back error once per open file description, so of two syncs at the same
    /// time, one would succeed. Locked before `synced` and `failure`.
    one_at_a_time: Mutex<()>,
    /// Everything before this position is on stable storage, by this handle's own successful syncs.
    synced: Mutex<Option<Position>>,
    /// Whether writes are refused, with the error in `failure`. Set under the lock of `failure`.
    poisoned: AtomicBool,
    failure: Mutex<Failure>,
    pub(crate) syncs: AtomicU64,
}

/// The failure that has poisoned a handle.
#[derive(Default)]
struct Failure {
    error: Option<Error>,
    /// The epoch with which the handle was reopened. Syncs of earlier epochs still fail with the error.
    over_since: u64,
}

impl SyncState {
    /// The handle's synced position in this epoch; 0 if it knows of none.
    pub(crate) fn synced(&self, epoch: u64) -> u64 {
        self.last_in(epoch).map_or(0, |synced| synced.offset)
    }

    /// The generation of the last root of this handle that is on stable storage, in this epoch; 0 if it knows of none.
    pub(crate) fn synced_root(&self, epoch: u64) -> u64 {
        self.last_in(epoch).map_or(0, |synced| synced.root)
    }

    fn last_in(&self, epoch: u64) -> Option<Position> {
        lock(&self.synced).filter(|synced| synced.epoch == epoch)
    }

    /// Syncs the file. After that, everything before `sampled` is on stable storage; it was validated before this call.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] if this sync or one before it failed: a sync that succeeds after a failed one proves nothing.
    pub(crate) fn sync(&self, log: &LogFile, sampled: Position) -> Result<()> {
        let _alone = lock(&self.one_at_a_time);
        self.check_poison()?;
        self.check_past(sampled.epoch)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        if let Err(e) = log.file.sync(SyncScope::Data) {
            return Err(self.poison(log, "sync", e));
        }
        self.set_synced(sampled);
        Ok(())
    }

    /// Records the synced position. [`SyncState::sync`] does this itself.
    pub(crate) fn set_synced(&self, sampled: Position) {
        let mut synced = lock(&self.synced);
        // A background sync may finish after the log was read again, and is about an epoch that is over.
        let newer = synced.is_none_or(|old| old < sampled);
        if newer {
            *synced = Some(sampled);
        }
    }

    /// Forgets the synced position: the log is about to be cut, or was read again.
    ///
    /// Waits for a sync that is under way, whose result would otherwise be recorded after this. No other begins while the
    /// returned guard lives, since a cut syncs too.
    pub(crate) fn forget(&self) -> MutexGuard<'_, ()> {
        let alone = lock(&self.one_at_a_time);
        *lock(&self.synced) = None;
        alone
    }

    /// Refuses all further writes, and returns the error for them.
    pub(crate) fn poison(&self, log: &LogFile, operation: &'static str, cause: io::Error) -> Error {
        let error = Error::Poisoned { path: log.path.to_path_buf(), operation, cause: Arc::new(cause) };
        let mut failure = lock(&self.failure);
        if self.poisoned.load(Ordering::Relaxed) {
            // The first failure is the one to report.
            return failure.error.clone().unwrap_or(error);
        }
        failure.error = Some(error.clone());
        self.poisoned.store(true, Ordering::Release);
        drop(failure);
        event!(error, "{error:#}");
        error
    }

    pub(crate) fn check_poison(&self) -> Result<()> {
        if !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        lock(&self.failure).error.clone().map_or(Ok(()), Err)
    }

    /// Refuses to sync writes from before the handle was poisoned, even if it was reopened since: a sync of the old file
    /// description that succeeds now would prove nothing.
    fn check_past(&self, epoch: u64) -> Result<()> {
        let failure = lock(&self.failure);
        failure.error.clone().filter(|_| epoch < failure.over_since).map_or(Ok(()), Err)
    }

    /// Allows writes again, from this epoch on: the file was opened once more. What was written before is not claimed to be
    /// synced.
    pub(crate) fn revive(&self, epoch: u64) {
        let _no_sync_under_way = self.forget();
        lock(&self.failure).over_since = epoch;
        self.poisoned.store(false, Ordering::Release);
    }

    /// Refuses writes again, with the error that refused them before.
    pub(crate) fn refuse_again(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::log::testing::{Draft, open_on};

    /// The background thread may have begun that sync before the handle was reopened.
    #[test]
    fn writes_from_before_a_failure_are_not_synced_after_reopening() {
        let disk = SimDisk::new();
        let log = open_on(&disk, Draft::new().bytes);
        let syncs = SyncState::default();
        let (before, after) = (Position { epoch: 1, offset: 64, root: 0 }, Position { epoch: 2, offset: 64, root: 0 });
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        assert!(matches!(syncs.sync(&log, before), Err(Error::Poisoned { .. })));
        syncs.revive(after.epoch);
        let calls = disk.calls_of(Verb::SyncData);
        assert!(matches!(syncs.sync(&log, before), Err(Error::Poisoned { .. })));
        assert_eq!(disk.calls_of(Verb::SyncData), calls, "the old description may have lost its error");
        syncs.check_poison().unwrap();
        syncs.sync(&log, after).unwrap();
        assert_eq!(syncs.synced(after.epoch), after.offset);
    }

    /// The system reports a failed write-back to one sync only.
    #[test]
    fn a_sync_that_waited_for_one_that_failed_fails_too() {
        let disk = SimDisk::new();
        let log = Arc::new(open_on(&disk, Draft::new().bytes));
        let syncs = Arc::<SyncState>::default();
        let upto = Position { epoch: 1, offset: 64, root: 0 };
        let (sender, waiting) = std::sync::mpsc::channel();
        let (second, its_log) = (Arc::clone(&syncs), Arc::clone(&log));
        disk.before(When::next().of(Verb::SyncData), Repeat::Once, move |_| {
            let (second, its_log) = (Arc::clone(&second), Arc::clone(&its_log));
            sender.send(std::thread::spawn(move || second.sync(&its_log, upto))).unwrap();
        });
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        assert!(matches!(syncs.sync(&log, upto), Err(Error::Poisoned { .. })));
        assert!(matches!(waiting.recv().unwrap().join().unwrap(), Err(Error::Poisoned { .. })));
        assert_eq!(syncs.synced(upto.epoch), 0);
    }
}
