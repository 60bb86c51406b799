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
    file: Mutex<Option<WatchedFile>>,
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
        Watcher { sleeper, is_stopped, process: Process::this(), polls, lag, file: Mutex::new(None), offset }
    }

    pub(crate) fn log(&self) -> Option<Arc<LogFile>> {
        lock(&self.file).as_ref().map(|file| Arc::clone(&file.log))
    }

    pub(super) fn left_at(&self) -> Option<LeftAt> {
        lock(&self.file).as_ref().and_then(|file| file.left_at)
    }

    pub(super) fn enter(&self, log: Arc<LogFile>, offset: u64) {
        self.passed(offset);
        *lock(&self.file) = Some(WatchedFile { log, left_at: None });
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

    /// The handle goes on in `next`, after a file that it has read up to `at`.
    fn leave(&self, left: &LogFile, at: LeftAt, next: &LogFile) {
        let mut file = lock(&self.file);
        let Some(WatchedFile { log, left_at }) = &mut *file else { return };
        let is_left = log.identity == left.identity;
        let rest = if is_left { at.offset.saturating_sub(self.offset.load(Relaxed)) } else { u64::MAX };
        if log.identity != next.identity && rest > self.lag {
            // Its position tells the watch whether it has missed anything.
            *file = None;
        } else if is_left {
            *left_at = Some(at);
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
        *lock(&watcher.file) = None;
        lock(&self.all).retain(|other| !std::ptr::eq(other.as_ptr(), &**watcher));
    }

    fn living(&self) -> Vec<Arc<Watcher>> {
        lock(&self.all).iter().filter_map(Weak::upgrade).collect()
    }

    /// Wakes all watches, which find that the store is closed.
    pub(crate) fn wake(&self) {
        self.living().iter().for_each(|watcher| watcher.sleeper.wake());
    }

    /// The handle goes on in `next`, after a file that it has read up to `at`. Old files with more than a watch's lag to read
    /// are given up, and those from before this one.
    pub(super) fn leave(&self, left: &LogFile, at: LeftAt, next: &LogFile) {
        if left.identity != next.identity {
            self.living().iter().for_each(|watcher| watcher.leave(left, at, next));
        }
    }

    /// The number of watches, and of those that the system reports no changes to.
    pub(crate) fn count(&self) -> (u64, u64) {
        let living = self.living();
        let polling = living.iter().filter(|watcher| watcher.polls.load(Relaxed)).count();
        (living.len() as u64, polling as u64)
    }
}
