//! Writers that outrun the compaction in the background are held back.
//!
//! Without a sync, a log can grow at twice the pace at which it is copied: the compaction would never catch up, and the
//! log would grow without end. So a compaction earns the log its growth: for each piece that is copied, the log may end
//! a little further on, and by the time when all is copied, a tenth further than it did. Whoever has written looks
//! whether the log has passed that limit, and pauses then, without a lock, until the copying is there.
//!
//! Measured with a million records of 144 bytes, overwritten three times in batches of 1,000 on two cores: 1.3 instead of
//! 2.2 million records a second, and 2.16 times the live bytes at most instead of 4 at the end, and of 10 after nine
//! times. Single puts lose nothing that could be measured, since they outrun the copying by little.
//!
//! How long is bounded for each call, so that the compaction of a slow disk makes nobody stop: one that writes a small
//! record pauses for [`LOOKS`] times [`LOOK`], 5 ms, at most, and longer only if it has written much. Nobody pauses for what
//! others have written. So the limit is none to many threads, or on a slow disk: it is what one or two threads keep that
//! write as fast as they can where copying makes 200 MB/s.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Maintenance;
use crate::engine::write::commit::{Outcome, Written};
use crate::format::FILE_HEADER_LEN;
use crate::sync::AtomicU64;

/// What the log may grow by until all of it is copied, in hundredths: with what follows, a tenth. A log that is compacted
/// when half of it is dead has less than 2.2 times its live bytes then.
const GROWTH_PERCENT: u64 = 8;

/// It may grow by this much at once, so that hardly anybody waits while the compaction begins, nor between two pieces of a
/// small store.
const SLACK: u64 = 512 << 10;

/// Who pauses looks this often whether to go on: the copying of a piece takes a few milliseconds.
const LOOK: Duration = Duration::from_micros(500);

/// So often after a write, and as often again for each [`PORTION`] that was written: 5 ms for 64 KiB lets a thread write
/// 13 MB/s however slow the copying is, about half of what a disk that copies 200 MB/s earns it.
const LOOKS: u64 = 10;
const PORTION: u64 = 64 << 10;

/// How far the log may go at present.
#[derive(Default)]
pub(crate) struct Throttle {
    /// Where the log may end. Zero: nothing is being compacted in the background, and it may end anywhere.
    limit: AtomicU64,
}

impl Throttle {
    pub(crate) fn begin(&self, budget: Budget) {
        self.advance(budget, 0);
    }

    pub(crate) fn advance(&self, budget: Budget, done: u64) {
        self.limit.store(budget.limit(done), Ordering::Relaxed);
    }

    /// The log goes on in its new file. Its next compaction cannot begin before the thread of this one has ended, and on a
    /// busy machine that may take long enough to write all of it again.
    pub(crate) fn start_over(&self, due_at: u64) {
        if self.limit.load(Ordering::Relaxed) != 0 {
            self.limit.store(due_at.saturating_add(SLACK), Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self) {
        self.limit.store(0, Ordering::Relaxed);
    }
}

/// What a compaction found when it became due.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// Where the log ended.
    pub(crate) end: u64,
    /// Bytes to be copied.
    pub(crate) live: u64,
}

impl Budget {
    /// Where the log may end when so many bytes were copied: what was appended meanwhile is to be copied as well.
    fn limit(self, done: u64) -> u64 {
        let growth = (self.end - FILE_HEADER_LEN as u64) / 100 * GROWTH_PERCENT;
        let whole = self.live + growth;
        let earned = u128::from(growth) * u128::from(done.min(whole)) / u128::from(whole.max(1));
        self.end + SLACK + earned as u64
    }
}

impl Maintenance {
    /// Pauses whoever has written up to so many bytes as long as the log is longer than a compaction in the background lets
    /// it be, if that is not for too long. Called without a lock.
    pub(crate) fn throttle(&self, outcome: &Outcome, log_bytes: u64) {
        if matches!(outcome, Ok(Written { last_index: Some(_), .. })) {
            let mut looks = LOOKS + log_bytes / PORTION * LOOKS;
            while looks > 0 && self.is_held_back() {
                self.context.disk.system().pause(LOOK);
                looks -= 1;
            }
        }
    }

    fn is_held_back(&self) -> bool {
        let limit = self.automatic.throttle.limit.load(Ordering::Relaxed);
        let is_behind = || self.reading.shown().is_ok_and(|view| view.tail.end > limit);
        limit != 0 && !self.automatic.is_stopped() && is_behind()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Config;
    use crate::disk::sim::{SimDisk, Verb};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};

    #[test]
    fn a_log_may_grow_by_its_slack_at_once_and_by_the_rest_as_it_is_copied() {
        let header = FILE_HEADER_LEN as u64;
        let (end, live) = (header + 200_000, 100_000);
        let budget = Budget { end, live };
        // All that is to be copied: what is live, and the growth.
        let whole = live + 16_000;
        let limits = [0, whole / 4, whole / 2, whole, whole + 1, u64::MAX].map(|done| budget.limit(done) - end - SLACK);
        assert_eq!(limits, [0, 4_000, 8_000, 16_000, 16_000, 16_000]);
        let nothing = Budget { end: header, live: 0 };
        assert_eq!([0, 1].map(|done| nothing.limit(done)), [header + SLACK; 2]);
    }

    #[test]
    fn a_log_of_which_half_is_dead_stays_below_its_aim() {
        for live in [32 << 20, 144_000_000, 1 << 40] {
            // The one before had not ended when this one became due.
            let budget = Budget { end: FILE_HEADER_LEN as u64 + 2 * live + SLACK, live };
            assert!(budget.limit(u64::MAX) < live / 10 * 22, "{live}");
        }
    }

    /// A store of which two MiB were written, and how often a put of so many bytes pauses in it.
    struct Paced {
        disk: SimDisk,
        engine: Engine,
    }

    impl Paced {
        fn new() -> Paced {
            let disk = SimDisk::new();
            let engine = Engine::open(Arc::new(disk.clone()), "/store".as_ref(), &Config::new()).unwrap();
            let paced = Paced { disk, engine };
            paced.pauses_of(2 << 20);
            paced
        }

        fn pauses_of(&self, len: usize) -> u64 {
            let before = self.disk.calls_of(Verb::Pause);
            let mut request = Request::default();
            request.push(b"\0key", Action::Put(&vec![7; len]));
            self.engine.commit(request).unwrap();
            self.disk.calls_of(Verb::Pause) - before
        }

        /// As if a compaction were running, and the log had used all of its slack, but for so many bytes.
        fn begin(&self, left: u64) -> Budget {
            let end = self.engine.reading.shown().unwrap().tail.end;
            let budget = Budget { end: end + left - SLACK, live: 10 << 20 };
            self.engine.maintenance.automatic.throttle.begin(budget);
            budget
        }
    }

    #[test]
    fn who_is_ahead_of_the_copying_is_held_back_until_it_has_come_on() {
        let paced = Paced::new();
        assert_eq!(paced.pauses_of(100), 0);
        let budget = paced.begin(10_000);
        assert_eq!([paced.pauses_of(1000), paced.pauses_of(1000)], [0, 0]);
        assert_eq!([paced.pauses_of(10_000), paced.pauses_of(100)], [LOOKS, LOOKS]);
        paced.engine.maintenance.automatic.throttle.advance(budget, 10 << 20);
        assert_eq!(paced.pauses_of(100), 0);
    }

    #[test]
    fn a_new_file_may_grow_until_it_is_due_while_the_thread_that_has_made_it_ends() {
        let paced = Paced::new();
        let end = paced.engine.reading.shown().unwrap().tail.end;
        // A compaction that was asked for holds nobody back.
        paced.engine.maintenance.automatic.throttle.start_over(end - SLACK);
        assert_eq!(paced.pauses_of(100), 0);
        paced.begin(1 << 30);
        paced.engine.maintenance.automatic.throttle.start_over(end + 10_000 - SLACK);
        assert_eq!([paced.pauses_of(1000), paced.pauses_of(10_000)], [0, LOOKS]);
    }

    #[test]
    fn who_writes_much_is_held_back_for_longer() {
        let paced = Paced::new();
        paced.begin(0);
        assert_eq!([paced.pauses_of(1 << 20), paced.pauses_of(100)], [17 * LOOKS, LOOKS]);
    }

    #[test]
    fn nobody_is_held_back_for_what_others_have_written_or_for_having_written_nothing() {
        let paced = Paced::new();
        let other = Engine::open(Arc::new(paced.disk.process()), "/store".as_ref(), &Config::new()).unwrap();
        paced.begin(0);
        let mut request = Request::default();
        request.push(b"\0key", Action::Put(&[7; 1 << 20]));
        other.commit(request).unwrap();
        assert_eq!(paced.pauses_of(100), LOOKS);
        let before = paced.disk.calls_of(Verb::Pause);
        let mut request = Request::default();
        request.push(b"\0absent", Action::Delete);
        paced.engine.commit(request).unwrap();
        assert_eq!(paced.disk.calls_of(Verb::Pause), before);
    }

    #[test]
    fn a_compaction_that_has_ended_or_is_to_end_holds_nobody_back() {
        let paced = Paced::new();
        paced.begin(0);
        let alone = paced.engine.maintenance.automatic.pause();
        assert_eq!(paced.pauses_of(1 << 20), 0);
        drop(alone);
        assert_eq!(paced.pauses_of(100), LOOKS);
        paced.engine.maintenance.automatic.throttle.end();
        assert_eq!(paced.pauses_of(1 << 20), 0);
    }
}
