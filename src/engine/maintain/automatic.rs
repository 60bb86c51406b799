//! Compaction that starts by itself.
//!
//! Whoever has written looks whether the [policy](CompactionPolicy) says that it is time, and starts a thread that
//! compacts and ends. So there is no thread while there is nothing to do, none keeps a process from ending, and what one
//! leaves half done when the process ends the next writer removes. Closing the store, and a compaction that is asked
//! for, stop the thread and wait until it has let the file go: it looks after each piece, but neither during a sync nor
//! while it builds the sorted index.
//!
//! Where each process writes a little and closes the store, no copy would ever be finished. So there are two marks: the log
//! is *due* when it has as many dead bytes as the policy asks for, and *overdue* when it has [twice](OVERDUE) as many. A
//! handle begins a copy of a log that is due only if it has written that much itself, and so may go on for long enough.
//! A log that is overdue is compacted by any handle that writes, and closing finishes that.
//!
//! Writers that outrun it are [throttled](super::throttle).
//!
//! Several processes notice at about the same time. The first one makes its new file under the store's lock, the others
//! see it and wait.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Maintenance;
use super::throttle::{Budget, Throttle};
use crate::config::CompactionPolicy;
use crate::engine::deadline::Patience;
use crate::engine::lock;
use crate::engine::read::Current;
use crate::events::event;
use crate::fork::Background;
use crate::format::FILE_HEADER_LEN;
use crate::progress::Progress;
use crate::sync::thread::Builder;
use crate::sync::{AtomicBool, AtomicU64, Mutex};
use crate::{Error, Result};

/// How long to leave it alone after a failure: the first time, doubled each time after that, and at most.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// And when somebody else is at it.
const WHILE_OTHERS_COMPACT: Duration = Duration::from_secs(1);

/// A log is overdue at this multiple of the dead bytes that the policy asks for.
const OVERDUE: u64 = 2;

#[derive(Default)]
pub(crate) struct Automatic {
    state: Mutex<State>,
    /// The thread is to end; changed under the lock of `state`.
    stop: AtomicBool,
    /// Closing waits for the thread to finish.
    awaited: AtomicBool,
    /// For how long it has waited for the lock meanwhile, in nanoseconds.
    kept_waiting: AtomicU64,
    pub(crate) throttle: Throttle,
}

#[derive(Default)]
struct State {
    thread: Option<Background>,
    running: bool,
    /// How many do not want a thread to run: see [`Pause`].
    pauses: usize,
    not_before: Option<Instant>,
    delay: Option<Duration>,
}

impl State {
    fn is_rested(&self) -> bool {
        self.not_before.is_none_or(|moment| Instant::now() >= moment)
    }
}

/// As long as this lives, nothing compacts by itself.
pub(crate) struct Pause<'e>(&'e Automatic);

impl Automatic {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Stops the thread if there is one, waits for its end, and lets no other begin.
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

    /// The thread has waited for the lock while closing waited for the thread.
    pub(crate) fn keep_waiting(&self, waited: Duration) {
        self.kept_waiting.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
    }

    /// As [`Automatic::pause`], but the thread finishes its work.
    fn finish(&self) -> Pause<'_> {
        let mut state = lock(&self.state);
        state.pauses += 1;
        let thread = state.thread.take();
        drop(state);
        self.awaited.store(true, Ordering::Relaxed);
        if let Some(thread) = thread {
            thread.join();
        }
        Pause(self)
    }

    /// As [`Automatic::pause`], for good.
    pub(crate) fn end(&self) {
        std::mem::forget(self.pause());
    }

    fn may_begin(&self, state: &State) -> bool {
        state.pauses == 0 && !state.running && state.is_rested()
    }

    /// Decides when the next one may begin.
    fn ended(&self, outcome: &Result<()>) {
        let mut state = lock(&self.state);
        state.running = false;
        self.throttle.end();
        let delay = match outcome {
            Ok(()) => {
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
        state.not_before = Instant::now().checked_add(delay);
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

/// Says how a compaction has ended, also if that was a panic.
struct Running {
    maintenance: Arc<Maintenance>,
    outcome: Result<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        match &self.outcome {
            Ok(()) | Err(Error::CompactionCancelled { .. } | Error::CompactionOvertaken { .. } | Error::Closed) => {}
            Err(error) => {
                self.maintenance.context.counters.failed_compactions.fetch_add(1, Ordering::Relaxed);
                event!(warn, "{}: compaction in the background: {error:#}", self.maintenance.context.path.display());
            }
        }
        self.maintenance.automatic.ended(&self.outcome);
    }
}

impl Maintenance {
    /// Starts a compaction in the background if the policy says so. Called after a write, without a lock.
    pub(crate) fn compact_if_due(self: &Arc<Self>) {
        let Some(budget) = self.due() else { return };
        let mut state = lock(&self.automatic.state);
        if !self.automatic.may_begin(&state) {
            return;
        }
        let maintenance = Arc::clone(self);
        let work = move || {
            // Made in here: were there no thread for it, it would be dropped under the lock that its end takes.
            let panicked = Err(Error::internal("a panic"));
            let mut running = Running { maintenance, outcome: panicked };
            let maintenance = Arc::clone(&running.maintenance);
            let watch = &mut |progress: Progress| {
                maintenance.automatic.throttle.advance(budget, progress.done);
                match maintenance.automatic.is_stopped() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            running.outcome = maintenance.compact_in_background(watch).map(drop);
        };
        self.automatic.throttle.begin(budget);
        match Builder::new().name("caskfile-compact".to_owned()).spawn(work) {
            // The one before has ended.
            Ok(thread) => (state.thread, state.running) = (Some(Background::new(thread)), true),
            Err(_) => {
                self.automatic.throttle.end();
                state.not_before = Instant::now().checked_add(FIRST_DELAY);
            }
        }
    }

    /// Compacts a log that is overdue, before the store is closed. Waits for a compaction that is under way already. What
    /// fails here is no error of closing: the store is as it was.
    ///
    /// Waiting for the lock takes from the patience of closing, also if it is the thread that waits.
    pub(crate) fn compact_if_overdue(&self, patience: &Patience) {
        let written = self.context.counters.written.load(Ordering::Relaxed);
        if written == 0 || !self.is_overdue() || std::thread::panicking() || self.writing.check_writable().is_err() {
            return;
        }
        let _alone = self.automatic.finish();
        patience.spend(self.automatic.kept_waiting());
        let rested = lock(&self.automatic.state).is_rested();
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

    /// What there is to be compacted, if that is worth while.
    fn due(&self) -> Option<Budget> {
        let view = self.reading.shown().ok()?;
        let budget = Budget { end: view.tail.end, live: view.keys.live_bytes };
        drop(view);
        if budget.end < self.due_at(budget.live)? {
            return None;
        }
        let is_busy = self.context.counters.written.load(Ordering::Relaxed) >= self.dead_asked(budget.live)?;
        (is_busy || self.is_overdue()).then_some(budget)
    }

    fn is_overdue(&self) -> bool {
        let overdue = |view: Current<'_>| Some(view.tail.end >= self.end_with(view.keys.live_bytes, OVERDUE)?);
        self.reading.shown().ok().and_then(overdue).unwrap_or(false)
    }

    /// Where a log with so many live bytes has to end to be worth while.
    pub(crate) fn due_at(&self, live: u64) -> Option<u64> {
        self.end_with(live, 1)
    }

    /// Where a log ends that has this multiple of the dead bytes that the policy asks for.
    fn end_with(&self, live: u64, times: u64) -> Option<u64> {
        let dead = self.dead_asked(live)?.saturating_mul(times);
        Some(live.saturating_add(dead).saturating_add(FILE_HEADER_LEN as u64))
    }

    fn dead_asked(&self, live: u64) -> Option<u64> {
        let CompactionPolicy::Automatic { dead_percent, min_dead_bytes } = self.context.config.get_compaction() else {
            return None;
        };
        let dead = (u128::from(live) * u128::from(dead_percent)).div_ceil(100).max(min_dead_bytes.into());
        Some(dead.try_into().unwrap_or(u64::MAX))
    }
}
