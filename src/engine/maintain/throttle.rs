//! The throttle: slows writers that are faster than the compaction in the background.
//!
//! Without syncs, a log can grow at twice the rate at which it is copied. The compaction would never catch up, and the log
//! would grow without end. So the log has a limit while it is compacted: each copied piece raises it a little, to about a
//! tenth more than the log's length when all is copied. A thread that has written checks the limit. If the log has passed it,
//! the thread pauses, without a lock, until the copy has advanced.
//!
//! The pause of each call is bounded, so that writers do not stop on a slow disk: at most [`LOOKS`] times [`LOOK`] for a small
//! record, and more for more bytes. No thread pauses for what others have written. On a slow disk, or with many threads, the
//! log can still exceed the limit. INTERNALS.md has the figures.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Maintenance;
use crate::engine::write::outcome::{Outcome, Written};
use crate::format::ROOTS_END;
use crate::sync::AtomicU64;

/// How much the log may grow until all of it is copied, in percent; with [`SLACK`], about a tenth. So a log that is compacted
/// when half of it is dead stays below 2.2 times its live bytes.
const GROWTH_PERCENT: u64 = 8;

/// How much it may grow at once, so that few writers wait while the compaction begins, or between two pieces of a small store.
const SLACK: u64 = 512 << 10;

/// One pause. The copy of a piece takes a few milliseconds.
const LOOK: Duration = Duration::from_micros(500);

/// The most pauses after a write, and for each [`PORTION`] that it has written. With 5 ms for 64 KiB, a thread can write
/// 13 MB/s however slow the copy is.
const LOOKS: u64 = 10;
const PORTION: u64 = 64 << 10;

/// The limit of the log at present.
#[derive(Default)]
pub(crate) struct Throttle {
    /// Where the log may end. Set by the compaction, and read by writers without a lock. 0 if no compaction runs in the background, and there is no limit.
    limit: AtomicU64,
}

impl Throttle {
    pub(crate) fn begin(&self, budget: Budget) {
        self.advance(budget, 0);
    }

    /// As [`Throttle::begin`], unless there is a limit.
    pub(crate) fn begin_once(&self, budget: Budget) {
        let _ = self.limit.compare_exchange(0, budget.limit(0), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, budget: Budget, done: u64) {
        self.limit.store(budget.limit(done), Ordering::Relaxed);
    }

    /// Limits the log in its new file. The next compaction cannot begin before the thread of this one has ended, and on a busy
    /// machine the log could grow a lot until then.
    pub(crate) fn start_over(&self, due_at: u64) {
        if self.limit.load(Ordering::Relaxed) != 0 {
            self.limit.store(due_at.saturating_add(SLACK), Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self) {
        self.limit.store(0, Ordering::Relaxed);
    }
}

/// The log's size when its compaction became due.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// Where the log ended.
    pub(crate) end: u64,
    /// Bytes to be copied.
    pub(crate) live: u64,
}

impl Budget {
    /// Where the log may end when `done` bytes are copied. What is appended meanwhile must be copied too.
    fn limit(self, done: u64) -> u64 {
        let growth = (self.end - ROOTS_END) / 100 * GROWTH_PERCENT;
        let whole = self.live + growth;
        let earned = u128::from(growth) * u128::from(done.min(whole)) / u128::from(whole.max(1));
        self.end + SLACK + earned as u64
    }
}

impl Maintenance {
    /// Pauses a thread that has written `log_bytes` bytes while the log is longer than its limit, for a bounded time. Called
    /// without a lock.
    pub(crate) fn throttle(&self, outcome: &Outcome, log_bytes: u64) {
        if matches!(outcome, Ok(Written { last_index: Some(_), .. })) {
            let mut looks = LOOKS + log_bytes / PORTION * LOOKS;
            while looks > 0 && self.is_over_limit() {
                self.writing.stop_lingering();
                self.context.disk.system().pause(LOOK);
                looks -= 1;
            }
        }
    }

    fn is_over_limit(&self) -> bool {
        let limit = self.automatic.throttle.limit.load(Ordering::Relaxed);
        let is_beyond = || self.reading.shown().is_ok_and(|view| view.tail.end > limit);
        limit != 0 && !self.automatic.is_stopped() && is_beyond()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Config;
    use crate::config::Durability;
    use crate::disk::sim::{SimDisk, Verb};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};
    use crate::limits::Limits;

    #[test]
    fn the_limit_rises_from_the_slack_with_every_copied_piece() {
        let header = ROOTS_END;
        let (end, live) = (header + 200_000, 100_000);
        let budget = Budget { end, live };
        // To be copied: the live bytes and the growth.
        let whole = live + 16_000;
        let limits = [0, whole / 4, whole / 2, whole, whole + 1, u64::MAX].map(|done| budget.limit(done) - end - SLACK);
        assert_eq!(limits, [0, 4_000, 8_000, 16_000, 16_000, 16_000]);
        let nothing = Budget { end: header, live: 0 };
        assert_eq!([0, 1].map(|done| nothing.limit(done)), [header + SLACK; 2]);
    }

    #[test]
    fn a_log_that_is_half_dead_stays_below_2_2_times_its_live_bytes() {
        for live in [32 << 20, 144_000_000, 1 << 40] {
            // The compaction before was still running when this one became due, so the log is longer by the slack.
            let budget = Budget { end: ROOTS_END + 2 * live + SLACK, live };
            assert!(budget.limit(u64::MAX) < live / 10 * 22, "{live}");
        }
    }

    /// A store to which 2 MiB were written, with a count of its pauses.
    struct Throttled {
        disk: SimDisk,
        engine: Engine,
    }

    impl Throttled {
        fn new() -> Throttled {
            let disk = SimDisk::new();
            let engine = Engine::open(Arc::new(disk.clone()), "/store".as_ref(), &Config::new()).unwrap();
            let store = Throttled { disk, engine };
            store.pauses_of(2 << 20);
            store
        }

        fn pauses_of(&self, len: usize) -> u64 {
            let before = self.disk.calls_of(Verb::Pause);
            let mut request = Request::default();
            request.push(b"\0key", Action::Put(&vec![7; len]));
            self.engine.commit(request).unwrap();
            self.disk.calls_of(Verb::Pause) - before
        }

        /// Sets the limit as if a compaction were running and the log had used all of its slack except `left` bytes.
        fn begin(&self, left: u64) -> Budget {
            let end = self.engine.reading.shown().unwrap().tail.end;
            let budget = Budget { end: end + left - SLACK, live: 10 << 20 };
            self.engine.maintenance.automatic.throttle.begin(budget);
            budget
        }
    }

    #[test]
    fn a_writer_beyond_the_limit_pauses_until_the_copy_advances() {
        let store = Throttled::new();
        assert_eq!(store.pauses_of(100), 0);
        let budget = store.begin(10_000);
        assert_eq!([store.pauses_of(1000), store.pauses_of(1000)], [0, 0]);
        assert_eq!([store.pauses_of(10_000), store.pauses_of(100)], [LOOKS, LOOKS]);
        store.engine.maintenance.automatic.throttle.advance(budget, 10 << 20);
        assert_eq!(store.pauses_of(100), 0);
    }

    /// The system would release a lock that lingers, but a thread that knows that it will sleep does not wait for that.
    #[test]
    fn a_writer_that_pauses_has_no_lock() {
        let disk = SimDisk::new();
        disk.set_limits(Limits { burst_turns: 1, burst_gap: u64::MAX, ..Limits::WITHOUT_BACKGROUND });
        disk.set_waiting_line(true);
        disk.set_lingering(Some(u32::MAX));
        let config = Config::new().durability(Durability::Os);
        let engine = Engine::open(Arc::new(disk.clone()), "/store".as_ref(), &config).unwrap();
        let store = Throttled { disk, engine };
        store.pauses_of(2 << 20);
        assert_eq!(store.pauses_of(100), 0);
        assert_eq!(store.disk.locks().len(), 1, "the lock lingers");
        store.begin(0);
        store.disk.on_pause(|disk, _| assert!(disk.locks().is_empty(), "it sleeps with the lock"));
        assert_eq!(store.pauses_of(100), LOOKS);
    }

    #[test]
    fn a_new_file_may_grow_until_it_is_due() {
        let store = Throttled::new();
        let end = store.engine.reading.shown().unwrap().tail.end;
        // A compaction that the user has called has no limit.
        store.engine.maintenance.automatic.throttle.start_over(end - SLACK);
        assert_eq!(store.pauses_of(100), 0);
        store.begin(1 << 30);
        store.engine.maintenance.automatic.throttle.start_over(end + 10_000 - SLACK);
        assert_eq!([store.pauses_of(1000), store.pauses_of(10_000)], [0, LOOKS]);
    }

    #[test]
    fn a_large_write_pauses_longer() {
        let store = Throttled::new();
        store.begin(0);
        assert_eq!([store.pauses_of(1 << 20), store.pauses_of(100)], [17 * LOOKS, LOOKS]);
    }

    #[test]
    fn no_thread_pauses_for_the_writes_of_others_or_without_a_write() {
        let store = Throttled::new();
        let other = Engine::open(Arc::new(store.disk.process()), "/store".as_ref(), &Config::new()).unwrap();
        store.begin(0);
        let mut request = Request::default();
        request.push(b"\0key", Action::Put(&[7; 1 << 20]));
        other.commit(request).unwrap();
        assert_eq!(store.pauses_of(100), LOOKS);
        let before = store.disk.calls_of(Verb::Pause);
        let mut request = Request::default();
        request.push(b"\0absent", Action::Delete);
        store.engine.commit(request).unwrap();
        assert_eq!(store.disk.calls_of(Verb::Pause), before);
    }

    #[test]
    fn a_compaction_that_ends_does_not_throttle() {
        let store = Throttled::new();
        store.begin(0);
        let alone = store.engine.maintenance.automatic.pause();
        assert_eq!(store.pauses_of(1 << 20), 0);
        drop(alone);
        assert_eq!(store.pauses_of(100), LOOKS);
        store.engine.maintenance.automatic.throttle.end();
        assert_eq!(store.pauses_of(1 << 20), 0);
    }
}
