//! The thread that syncs at intervals.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::sync_state::{Position, SyncState};
use crate::disk::Clock;
use crate::fork::Background;
use crate::log::LogFile;
use crate::sync::thread::Builder;
use crate::sync::{Condvar, Mutex, lock};

/// The background thread of [`Durability::Interval`](crate::Durability::Interval).
///
/// It holds the file only while there is something to sync. Closing the store waits for the thread, which syncs what is left. A
/// process that ends does not wait for it.
pub(crate) struct IntervalSync {
    shared: Arc<Shared>,
    thread: Option<Background>,
}

struct Shared {
    syncs: Arc<SyncState>,
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dirty: Option<Dirty>,
    stop: bool,
}

/// A range that is written and not yet synced.
struct Dirty {
    log: Arc<LogFile>,
    upto: Position,
    since: Instant,
}

impl IntervalSync {
    pub(crate) fn start(interval: Duration, syncs: Arc<SyncState>, clock: Clock) -> io::Result<IntervalSync> {
        let shared = Arc::new(Shared { syncs, clock, state: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = Builder::new().name("caskfile-sync".to_owned()).spawn(move || own.run(interval))?;
        Ok(IntervalSync { shared, thread: Some(Background::new(thread)) })
    }

    /// Notes a write up to `upto` that readers see and that is not synced.
    pub(crate) fn written(&self, log: &Arc<LogFile>, upto: Position) {
        let mut state = lock(&self.shared.state);
        let since = state.dirty.as_ref().map_or_else(|| self.shared.clock.now(), |dirty| dirty.since);
        state.dirty = Some(Dirty { log: Arc::clone(log), upto, since });
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for IntervalSync {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take_if(|thread| thread.is_here()) else { return };
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_one();
        thread.join();
    }
}

impl Shared {
    fn run(&self, interval: Duration) {
        let mut state = lock(&self.state);
        while !(state.stop && state.dirty.is_none()) {
            let Some(dirty) = &state.dirty else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // Half of the interval gathers writes; the other half is for the sync itself. If the interval is too long for an
            // `Instant`, only closing the store syncs.
            let left = match dirty.since.checked_add(interval / 2) {
                _ if state.stop => Duration::ZERO,
                Some(due) => due.saturating_duration_since(self.clock.now()),
                None => Duration::MAX,
            };
            if !left.is_zero() {
                state = self.clock.wait(&self.changed, state, left);
                continue;
            }
            if let Some(dirty) = state.dirty.take() {
                drop(state);
                if self.syncs.synced(dirty.upto.epoch) < dirty.upto.offset {
                    // A failure poisons the handle, and the next write returns the error.
                    let _ = self.syncs.sync(&dirty.log, dirty.upto);
                }
                drop(dirty);
                state = lock(&self.state);
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::{SimDisk, Verb};
    use crate::log::testing::{Draft, open_on};
    use crate::patience::with_a_deadline;

    #[test]
    fn the_thread_syncs_after_half_an_interval_and_at_the_end() {
        let Some(()) = with_a_deadline(the_thread_syncs_after_half_an_interval_and_at_the_end) else { return };
        let start = |interval: Duration| {
            let disk = SimDisk::new();
            let log = Arc::new(open_on(&disk, Draft::new().bytes));
            let thread = IntervalSync::start(interval, Arc::default(), Clock::default()).unwrap();
            (disk, log, thread)
        };
        let (slow_disk, slow_log, slow) = start(Duration::from_secs(3600));
        let (quick_disk, quick_log, quick) = start(Duration::ZERO);
        // By the time that the quick thread has synced 99 times, the slow one could have synced too.
        for offset in 1..100 {
            slow.written(&slow_log, Position { epoch: 1, offset, root: 0 });
            quick.written(&quick_log, Position { epoch: 1, offset, root: 0 });
            while quick_disk.calls_of(Verb::SyncData) < offset {
                std::thread::yield_now();
            }
        }
        assert_eq!(slow_disk.calls_of(Verb::SyncData), 0);
        drop(slow);
        assert_eq!(slow_disk.calls_of(Verb::SyncData), 1);
    }

    #[test]
    fn synced_writes_are_not_synced_again_at_the_end() {
        let Some(()) = with_a_deadline(synced_writes_are_not_synced_again_at_the_end) else { return };
        let disk = SimDisk::new();
        let log = Arc::new(open_on(&disk, Draft::new().bytes));
        let syncs = Arc::new(SyncState::default());
        let thread = IntervalSync::start(Duration::from_secs(3600), Arc::clone(&syncs), Clock::default()).unwrap();
        let upto = Position { epoch: 1, offset: 64, root: 0 };
        thread.written(&log, upto);
        syncs.sync(&log, upto).unwrap();
        drop(thread);
        assert_eq!(disk.calls_of(Verb::SyncData), 1);
    }
}
