//! Automatic compaction, in a background thread.
//!
//! After a write, the leader checks whether the [policy](CompactionPolicy) asks for a compaction, and starts a thread that
//! compacts and ends. So no thread runs while there is nothing to do, and none keeps a process from ending; the next writer
//! removes what it leaves half done. Closing the store, and a compaction that the user calls, stop the thread and wait for its
//! end: it checks for that after each piece, but not during a sync.
//!
//! If each process writes a little and closes the store, stopped copies would never get finished. So there are two levels. A log
//! is *due* when it has as many dead bytes as the policy asks for. A handle compacts it only if it has written that much
//! itself, since it may then stay open for long enough. A log is *overdue* with [twice](OVERDUE) as many dead bytes. Any handle
//! that writes compacts it, and closing the handle waits for that.
//!
//! Writers that are faster than the copy are [throttled](super::throttle).
//!
//! Several processes may find the log due at the same time. The first one makes its new file under the store's lock; the others
//! see that file and wait.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Maintenance;
use super::snapshot::Retry;
use super::throttle::{Budget, Throttle};
use crate::config::CompactionPolicy;
use crate::disk::Clock;
use crate::engine::deadline::Patience;
use crate::engine::read::view::View;
use crate::events::event;
use crate::fork::Background;
use crate::format::ROOTS_END;
use crate::progress::Progress;
use crate::sync::thread::Builder;
use crate::sync::{AtomicBool, AtomicU64, Mutex, lock};
use crate::{Error, Result};

/// The delay after the first failure. Each further failure doubles it.
const FIRST_DELAY: Duration = Duration::from_secs(10);

/// The longest delay after a failure.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// The delay while another process compacts.
const WHILE_OTHERS_COMPACT: Duration = Duration::from_secs(1);

/// A log is overdue at this multiple of the dead bytes that the policy asks for.
const OVERDUE: u64 = 2;

/// The background thread, and when the next one may start.
#[derive(Default)]
pub(crate) struct Automatic {
    state: Mutex<State>,
    /// The thread must end. Changed under the lock of `state`.
    stop: AtomicBool,
    /// A thread that writes a snapshot must end. Changed under the lock of `state`.
    give_up_snapshot: AtomicBool,
    /// Closing waits for the thread to finish.
    awaited: AtomicBool,
    /// How long the thread has waited for the file's lock while `awaited` was set, in nanoseconds.
    kept_waiting: AtomicU64,
    pub(crate) throttle: Throttle,
}

#[derive(Default)]
struct State {
    thread: Option<Background>,
    /// What the thread does, if it has not ended.
    running: Option<Work>,
    /// How many [`Pause`]s there are.
    pauses: usize,
    not_before: Option<Instant>,
    /// The delay after the last failure, if no compaction has succeeded since.
    delay: Option<Duration>,
    /// After a snapshot that could not be written.
    retry_snapshot: Option<Retry>,
}

impl State {
    fn is_rested(&self, clock: &Clock) -> bool {
        self.not_before.is_none_or(|moment| clock.now() >= moment)
    }

    /// Whether no compaction begins soon. One that another process makes may be over in a moment.
    fn rests_long(&self, clock: &Clock) -> bool {
        self.not_before.is_some_and(|moment| moment.saturating_duration_since(clock.now()) > WHILE_OTHERS_COMPACT)
    }
}

/// While this lives, no compaction runs or starts in the background.
pub(crate) struct Pause<'e>(&'e Automatic);

impl Automatic {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn must_give_up_snapshot(&self) -> bool {
        self.is_stopped() || self.give_up_snapshot.load(Ordering::Relaxed)
    }

    /// Stops the thread, if there is one, and waits for its end. No other begins while the result lives.
    pub(crate) fn pause(&self) -> Pause<'_> {
        let mut state = lock(&self.state);
        state.pauses += 1;
        self.stop.store(true, Ordering::Relaxed);
        let thread = state.thread.take();
        drop(state);
        if let Some(thread) = thread {
            thread.join();
        }
        Pause(self)
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    pub(crate) fn kept_waiting(&self) -> Duration {
        Duration::from_nanos(self.kept_waiting.load(Ordering::Relaxed))
    }

    /// Adds the time that the thread has waited for the lock while closing waited for the thread.
    pub(crate) fn keep_waiting(&self, waited: Duration) {
        self.kept_waiting.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
    }

    /// As [`Automatic::pause`], but lets the thread finish its work. Takes the time that it has waited for the lock from `patience`.
    fn finish(&self, patience: &Patience) -> Pause<'_> {
        let mut state = lock(&self.state);
        state.pauses += 1;
        let thread = state.thread.take();
        drop(state);
        self.awaited.store(true, Ordering::Relaxed);
        if let Some(thread) = thread {
            thread.join();
        }
        patience.spend(self.kept_waiting());
        Pause(self)
    }

    /// As [`Automatic::pause`], for good.
    pub(crate) fn end(&self) {
        std::mem::forget(self.pause());
    }

    fn may_begin(&self, state: &State, work: Work, clock: &Clock) -> bool {
        let is_rested = matches!(work, Work::WriteSnapshot) || state.is_rested(clock);
        state.pauses == 0 && state.running.is_none() && is_rested
    }

    /// Whether a snapshot of this view may be tried.
    pub(super) fn may_retry_snapshot(&self, view: &View, clock: &Clock) -> bool {
        lock(&self.state).retry_snapshot.is_none_or(|retry| retry.is_due(view, clock.now()))
    }

    /// Decides when the next snapshot may be tried.
    fn snapshot_ended(&self, retry: Option<Retry>) {
        let mut state = lock(&self.state);
        state.running = None;
        state.retry_snapshot = retry;
        self.give_up_snapshot.store(false, Ordering::Relaxed);
        self.throttle.end();
    }

    /// Decides when the next compaction may begin.
    fn ended(&self, outcome: &Result<bool>, clock: &Clock) {
        let mut state = lock(&self.state);
        state.running = None;
        self.throttle.end();
        let delay = match outcome {
            Ok(_) => {
                state.delay = None;
                return state.not_before = None;
            }
            Err(Error::CompactionCancelled { .. }) => return,
            Err(Error::CompactionOvertaken { .. }) => WHILE_OTHERS_COMPACT,
            Err(Error::CompactionRefused { .. }) => LONGEST_DELAY,
            Err(_) => {
                let delay = state.delay.map_or(FIRST_DELAY, |delay| (delay * 2).min(LONGEST_DELAY));
                *state.delay.insert(delay)
            }
        };
        state.not_before = clock.now().checked_add(delay);
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.pauses -= 1;
        if state.pauses == 0 {
            self.0.stop.store(false, Ordering::Relaxed);
        }
    }
}

/// What is done in the background.
#[derive(Clone, Copy)]
enum Work {
    Compact(Budget),
    WriteSnapshot,
}

/// Reports the end of a compaction or of a snapshot when it is dropped, also after a panic.
struct Running {
    maintenance: Arc<Maintenance>,
    work: Work,
    /// `false` for a snapshot that was given up.
    outcome: Result<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Maintenance { automatic, context, .. } = &*self.maintenance;
        let (what, is_compaction) = match self.work {
            Work::Compact(_) => ("compaction in the background", true),
            Work::WriteSnapshot => ("writing a snapshot", false),
        };
        match &self.outcome {
            Ok(_) | Err(Error::CompactionCancelled { .. } | Error::CompactionOvertaken { .. } | Error::Closed) => {}
            Err(error) => {
                if is_compaction {
                    context.counters.failed_compactions.fetch_add(1, Ordering::Relaxed);
                }
                event!(warn, "{}: {what}: {error:#}", context.path.display());
            }
        }
        if is_compaction {
            automatic.ended(&self.outcome, &context.clock);
        } else {
            let is_written = matches!(self.outcome, Ok(true));
            automatic.snapshot_ended(if is_written { None } else { self.maintenance.retry_snapshot() });
        }
    }
}

impl Maintenance {
    /// Starts in the background what is due: a compaction, or a snapshot of the index. Called after a write, without a lock.
    pub(crate) fn begin_if_due(self: &Arc<Self>) {
        let Some(work) = self.due() else { return };
        let mut state = lock(&self.automatic.state);
        let may_compact = state.pauses == 0 && state.is_rested(&self.context.clock);
        if let (Work::Compact(budget), Some(Work::WriteSnapshot), true) = (work, state.running, may_compact) {
            // The snapshot would be worthless. Until its thread ends, the log may not grow more than while it is compacted.
            self.automatic.give_up_snapshot.store(true, Ordering::Relaxed);
            self.automatic.throttle.begin_once(budget);
            return;
        }
        if !self.automatic.may_begin(&state, work, &self.context.clock) {
            return;
        }
        let maintenance = Arc::clone(self);
        let run = move || {
            // `Running` is made in the thread. If it were made here and no thread could be started, it would be dropped here,
            // while `state` is locked, and would lock it again.
            let panicked = Err(Error::internal("a panic"));
            let mut running = Running { maintenance, work, outcome: panicked };
            let maintenance = Arc::clone(&running.maintenance);
            let Work::Compact(budget) = work else {
                running.outcome = maintenance.write_due_snapshot();
                return;
            };
            let watch = &mut |progress: Progress| {
                maintenance.automatic.throttle.advance(budget, progress.done);
                match maintenance.automatic.is_stopped() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            running.outcome = maintenance.compact_in_background(watch).map(|_| true);
        };
        if let Work::Compact(budget) = work {
            self.automatic.throttle.begin(budget);
        }
        let name = match work {
            Work::Compact(_) => "caskfile-compact",
            Work::WriteSnapshot => "caskfile-snapshot",
        };
        match Builder::new().name(name.to_owned()).spawn(run) {
            // The thread before has ended.
            Ok(thread) => (state.thread, state.running) = (Some(Background::new(thread)), Some(work)),
            Err(_) => {
                self.automatic.throttle.end();
                state.not_before = self.context.clock.now().checked_add(FIRST_DELAY);
            }
        }
    }

    /// Waits for a snapshot that is being written in the background, before the store is closed. If it were given up, most of it
    /// would be written twice: a close would begin the next one.
    pub(crate) fn finish_snapshot(&self, patience: &Patience) {
        let is_written = matches!(lock(&self.automatic.state).running, Some(Work::WriteSnapshot));
        if is_written {
            drop(self.automatic.finish(patience));
        }
    }

    /// Compacts a log that is overdue, before the store is closed. Waits for a compaction that is under way. A failure here is no
    /// error of closing: the store is as it was.
    ///
    /// Time that this or the thread waits for the lock is taken from `patience`.
    pub(crate) fn compact_if_overdue(&self, patience: &Patience) {
        let written = self.context.counters.written.load(Ordering::Relaxed);
        if written == 0 || !self.is_overdue() || std::thread::panicking() || self.writing.check_writable().is_err() {
            return;
        }
        let _alone = self.automatic.finish(patience);
        let rested = lock(&self.automatic.state).is_rested(&self.context.clock);
        if !rested || !self.is_overdue() {
            return;
        }
        match self.compact_at_close(patience) {
            Ok(_) | Err(Error::CompactionOvertaken { .. } | Error::LockTimeout { .. } | Error::Closed) => {}
            Err(error) => {
                self.context.counters.failed_compactions.fetch_add(1, Ordering::Relaxed);
                event!(warn, "{}: compaction while closing: {error:#}", self.context.path.display());
            }
        }
    }

    /// What is due. A compaction comes first: it makes a snapshot worthless. One that has failed may not begin for a long time, or
    /// never succeed.
    fn due(&self) -> Option<Work> {
        let view = self.reading.shown().ok()?;
        let may_come = |_: &Budget| !lock(&self.automatic.state).rests_long(&self.context.clock);
        if let Some(budget) = self.compaction_due(&view).filter(may_come) {
            return Some(Work::Compact(budget));
        }
        self.snapshot_is_due(&view).then_some(Work::WriteSnapshot)
    }

    /// The log's size, if it is due and this handle should compact it.
    fn compaction_due(&self, view: &View) -> Option<Budget> {
        let budget = Budget { end: view.tail.end, live: view.keys.live_bytes() };
        if compared_end(view) < self.due_at(budget.live)? {
            return None;
        }
        let is_busy = self.context.counters.written.load(Ordering::Relaxed) >= self.dead_asked(budget.live)?;
        (is_busy || self.view_is_overdue(view)).then_some(budget)
    }

    fn is_overdue(&self) -> bool {
        self.reading.shown().is_ok_and(|view| self.view_is_overdue(&view))
    }

    fn view_is_overdue(&self, view: &View) -> bool {
        self.end_with(view.keys.live_bytes(), OVERDUE).is_some_and(|end| compared_end(view) >= end)
    }

    /// The end of a log with this many live bytes when it becomes due; `None` without automatic compaction.
    pub(crate) fn due_at(&self, live: u64) -> Option<u64> {
        self.end_with(live, 1)
    }

    /// The end of a log that has `times` as many dead bytes as the policy asks for.
    fn end_with(&self, live: u64, times: u64) -> Option<u64> {
        let dead = self.dead_asked(live)?.saturating_mul(times);
        Some(live.saturating_add(dead).saturating_add(ROOTS_END))
    }

    /// How many dead bytes the policy asks for.
    fn dead_asked(&self, live: u64) -> Option<u64> {
        let CompactionPolicy::Automatic { dead_percent, min_dead_bytes } = self.context.config.get_compaction() else {
            return None;
        };
        let dead = (u128::from(live) * u128::from(dead_percent)).div_ceil(100).max(min_dead_bytes.into());
        Some(dead.try_into().unwrap_or(u64::MAX))
    }
}

/// The log's end without the last snapshot of the index, which is not dead.
fn compared_end(view: &View) -> u64 {
    view.tail.end - view.tail.images.last
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
