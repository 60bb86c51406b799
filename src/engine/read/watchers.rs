//! What a handle shares with its watches: closing wakes them, and a watch that is not read does not keep an old file for ever.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use crate::disk::Sleeper;
use crate::fork::Process;
use crate::log::LogFile;
use crate::sync::{AtomicBool, AtomicU64, Mutex, lock};

/// What a watch shares with its handle and its stoppers.
pub(crate) struct Watcher {
    pub(crate) sleeper: Box<dyn Sleeper>,
    pub(crate) is_stopped: AtomicBool,
    /// A forked child shares the descriptors that wake the parent's threads.
    process: Process,
    /// The system reports no changes to this watch, so it looks by itself now and then.
    pub(crate) polls: AtomicBool,
    /// How many bytes of an old file may be left to read.
    lag: u64,
    /// The file that the watch reads; `None` once the handle has given it up.
    log: Mutex<Option<Arc<LogFile>>>,
    /// How far the watch has read it.
    offset: AtomicU64,
}

// Its fields change one by one, each as a whole. The sleeper and the file are trait objects, so the compiler cannot see this.
impl std::panic::UnwindSafe for Watcher {}
impl std::panic::RefUnwindSafe for Watcher {}

struct WatchedFile {
    log: Arc<LogFile>,
    /// Where the handle's view of it ended when the handle went on in another file. `None` before.
    left_at: Option<LeftAt>,
}

/// Where a handle has left a file: everything before this offset was validated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftAt {
    pub(crate) offset: u64,
    /// The sequence number of the record before it.
    pub(crate) previous_seq: u64,
}

/// All watches of a handle.
#[derive(Default)]
pub(crate) struct Watchers {
    all: Mutex<Vec<Weak<Watcher>>>,
    /// Changes that a watch has found although the system should have reported them and did not.
    pub(crate) unreported: AtomicU64,
}

impl Watcher {
    pub(crate) fn new(sleeper: Box<dyn Sleeper>, lag: u64) -> Watcher {
        let (is_stopped, polls, offset) = Default::default();
        Watcher { sleeper, is_stopped, process: Process::this(), polls, lag, log: Mutex::new(None), offset }
    }

    pub(crate) fn log(&self) -> Option<Arc<LogFile>> {
        lock(&self.log).clone()
    }

    pub(super) fn enter(&self, log: Arc<LogFile>, offset: u64) {
        self.passed(offset);
        *lock(&self.log) = Some(log);
    }

    pub(super) fn passed(&self, offset: u64) {
        self.offset.store(offset, Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
        if self.process.is_this() {
            self.sleeper.wake();
        }
    }

    /// The handle goes on in `next`, after a file that ends at `end`.
    fn leave(&self, left: &LogFile, end: u64, next: &LogFile) {
        let mut log = lock(&self.log);
        let gives_up = log.as_ref().is_some_and(|log| {
            let rest =
                if log.identity == left.identity { end.saturating_sub(self.offset.load(Relaxed)) } else { u64::MAX };
            log.identity != next.identity && rest > self.lag
        });
        if gives_up {
            // Its position tells the watch whether it has missed anything.
            *log = None;
        }
    }
}

impl Watchers {
    pub(crate) fn add(&self, watcher: &Arc<Watcher>) {
        let mut all = lock(&self.all);
        all.retain(|watcher| watcher.strong_count() > 0);
        all.push(Arc::downgrade(watcher));
    }

    /// A watch is dropped. Its stoppers can live on, and must keep no file.
    pub(crate) fn remove(&self, watcher: &Arc<Watcher>) {
        *lock(&watcher.log) = None;
        lock(&self.all).retain(|other| !std::ptr::eq(other.as_ptr(), &**watcher));
    }

    fn living(&self) -> Vec<Arc<Watcher>> {
        lock(&self.all).iter().filter_map(Weak::upgrade).collect()
    }

    /// Wakes all watches, which find that the store is closed.
    pub(crate) fn wake(&self) {
        self.living().iter().for_each(|watcher| watcher.sleeper.wake());
    }

    /// The handle goes on in `next`, after a file that ends at `end`. Old files with more than a watch's lag to read are given
    /// up, and those from before this one.
    pub(super) fn leave(&self, left: &LogFile, end: u64, next: &LogFile) {
        if left.identity != next.identity {
            self.living().iter().for_each(|watcher| watcher.leave(left, end, next));
        }
    }

    /// The number of watches, and of those that the system reports no changes to.
    pub(crate) fn count(&self) -> (u64, u64) {
        let living = self.living();
        let polling = living.iter().filter(|watcher| watcher.polls.load(Relaxed)).count();
        (living.len() as u64, polling as u64)
    }
}
