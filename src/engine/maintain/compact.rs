//! Compaction: the calls that compact the store, and how each waits for its two turns.
//!
//! The [compactor](super::compactor) does the work. The user's call, the background thread and closing a store differ in how
//! long they wait for a turn, and in when they give up.

use std::ops::ControlFlow;
use std::time::Duration;

use super::Maintenance;
use super::compactor::{Compactor, cancelled};
use crate::engine::deadline::{Deadline, Patience};
use crate::engine::write::turn::Turn;
use crate::progress::Watch;
use crate::{Error, Result};

/// What a compaction has done: the result of [`Cask::compact`](crate::Cask::compact).
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-compaction-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// for n in 0..100 {
///     cask.put("key", format!("{n}"))?;
/// }
/// let compaction = cask.compact()?;
/// assert_eq!((compaction.keys, compaction.after), (1, cask.stats()?.log_end));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Where the log ended before, in bytes from the start of the file.
    pub before: u64,
    /// The length of the log after, in bytes.
    pub after: u64,
    /// How many keys were copied. Those that are over count too, as long as the log has no delete of them.
    pub keys: u64,
}

/// Which call waits for the compaction.
#[derive(Clone, Copy)]
pub(super) enum Caller<'p> {
    /// The user's call: each turn may wait for the connection timeout.
    User,
    /// Closing the store: all of its turns together may wait for the connection timeout.
    Closing(&'p Patience),
    /// No call waits, but closing the store must not wait long for the thread.
    Background,
}

/// How long a compaction in the background waits for its turn.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(60);

/// How often it checks meanwhile whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

impl Maintenance {
    pub(crate) fn compact(&self, watch: &mut Watch<'_>) -> Result<Compaction> {
        self.writing.check_writable()?;
        let _alone = self.automatic.pause();
        self.compact_for(Caller::User, watch)
    }

    pub(crate) fn compact_in_background(&self, watch: &mut Watch<'_>) -> Result<Compaction> {
        self.compact_for(Caller::Background, watch)
    }

    /// As [`Maintenance::compact`], for a caller that has paused automatic compaction.
    pub(crate) fn compact_at_close(&self, patience: &Patience) -> Result<Compaction> {
        self.compact_for(Caller::Closing(patience), &mut |_| ControlFlow::Continue(()))
    }

    fn compact_for(&self, caller: Caller<'_>, watch: &mut Watch<'_>) -> Result<Compaction> {
        let deadline = || match caller {
            Caller::Closing(patience) => patience.deadline(&self.context.clock),
            Caller::User | Caller::Background => self.context.deadline(),
        };
        // A wrong image would become permanent. Before the turn, so that writers do not wait for this.
        self.reading.rescan()?;
        let mut compactor = self.turn_for(caller, |turn| Compactor::begin(turn, &deadline()))?;
        compactor.copy_live(watch)?;
        compactor.sort(watch)?;
        compactor.catch_up(watch)?;
        // The compactor is dropped after the turn, without the lock. It holds the old view then, or the new file after an error.
        self.turn_for(caller, |turn| {
            let done = compactor.finish(turn)?;
            if let Some(due_at) = self.due_at(turn.view()?.keys.live_bytes()) {
                self.automatic.throttle.start_over(due_at);
            }
            Ok(done)
        })
    }

    pub(super) fn turn_for<'e, T>(
        &'e self,
        caller: Caller<'_>,
        mut act: impl FnMut(&mut Turn<'e>) -> Result<T>,
    ) -> Result<T> {
        match caller {
            Caller::User => return self.writing.solo(self.context.deadline(), act),
            Caller::Closing(patience) => return self.writing.solo_with(patience, act),
            Caller::Background => {}
        }
        let clock = &self.context.clock;
        let deadline = Deadline::after(clock, Some(BACKGROUND_PATIENCE));
        // Closing waits no longer than this for the lock.
        let patience = self.context.config.get_connection_timeout();
        let is_late = || {
            let automatic = &self.automatic;
            automatic.is_awaited() && patience.is_some_and(|patience| automatic.kept_waiting() >= patience)
        };
        loop {
            let awaited = self.automatic.is_awaited();
            let outcome = self.writing.solo(Deadline::of_a_try(clock, LOOK), &mut act);
            let Err(Error::LockTimeout { waited, .. }) = &outcome else { return outcome };
            if awaited {
                self.automatic.keep_waiting(*waited);
            }
            if self.automatic.is_stopped() || is_late() {
                return Err(cancelled(&self.context));
            }
            if deadline.is_over() {
                return Err(self.context.lock_timeout(None, &deadline));
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Config;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};
    use std::sync::Arc;

    #[test]
    fn a_write_before_the_copy_is_carried_over_and_not_copied_twice() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        let put = |key: &[u8], len: usize| {
            let mut request = Request::default();
            request.push(key, Action::Put(&vec![7; len]));
            engine.commit(request).unwrap();
        };
        put(b"\0first", 10_000);
        put(b"\0first", 100);
        let mut compactor = engine
            .writing
            .solo(engine.context.deadline(), |turn| Compactor::begin(turn, &engine.context.deadline()))
            .unwrap();
        put(b"\0second", 100);
        let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
        compactor.copy_live(watch).unwrap();
        assert_eq!(compactor.view.index().len(), 1);
        compactor.catch_up(watch).unwrap();
        let done = engine.writing.solo(engine.context.deadline(), |turn| compactor.finish(turn)).unwrap();
        assert_eq!(done.keys, 2);
        let view = engine.reading.current().unwrap();
        assert!(view.find(b"\0first").unwrap().is_some() && view.find(b"\0second").unwrap().is_some());
        assert!(view.index().sorted().is_none(), "nothing was listed");
    }

    #[test]
    fn a_compaction_keeps_the_sorted_index_that_a_listing_has_made() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        let put = |key: &[u8]| {
            let mut request = Request::default();
            request.push(key, Action::Put(b"value"));
            engine.commit(request).unwrap();
        };
        put(b"\0first");
        put(b"\0first");
        drop(engine.reading.scan(b"\0", b"").unwrap());
        let mut appended = false;
        engine
            .maintenance
            .compact(&mut |_| {
                if !std::mem::replace(&mut appended, true) {
                    put(b"\0meanwhile");
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(engine.reading.current().unwrap().index().sorted().map(|sorted| sorted.len()), Some(2));
        // Compares the sorted index with a new one.
        engine.maintenance.verify().unwrap();
    }

    #[test]
    fn a_compaction_can_be_stopped_while_it_sorts() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        for number in 0..200 {
            let mut request = Request::default();
            request.push(format!("\0{number}").as_bytes(), Action::Put(b"value"));
            engine.commit(request).unwrap();
        }
        drop(engine.reading.scan(b"\0", b"").unwrap());
        let deadline = || engine.context.deadline();
        let mut compactor = engine.writing.solo(deadline(), |turn| Compactor::begin(turn, &deadline())).unwrap();
        compactor.copy_live(&mut |_| ControlFlow::Continue(())).unwrap();
        let mut calls = 0;
        let stopped = compactor.sort(&mut |_| {
            calls += 1;
            if calls < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(stopped, Err(Error::CompactionCancelled { .. })), "{stopped:?}");
        assert!(compactor.view.index().sorted().is_none());
    }

    /// The caller's closure may print what it gets.
    #[test]
    fn a_compaction_reports_about_once_a_megabyte_also_while_it_sorts() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        let mut request = Request::default();
        for number in 0..20_000 {
            request.push(format!("\0a long beginning that all share, {number}").as_bytes(), Action::Put(b"value"));
        }
        engine.commit(request).unwrap();
        drop(engine.reading.scan(b"\0", b"").unwrap());
        let mut reports = 0;
        let done = engine.maintenance.compact(&mut |_| {
            reports += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(done.unwrap().keys, 20_000);
        assert!(reports < 20, "{reports} reports of a log of less than two megabytes");
    }

    /// A power cut could take the new name, and every write after it.
    #[test]
    fn a_failed_sync_of_the_directory_poisons_the_handle_whatever_fails_after_it() {
        let disk = SimDisk::new();
        let engine = Engine::open(Arc::new(disk.clone()), "/store".as_ref(), &Config::new()).unwrap();
        let put = || {
            let mut request = Request::default();
            request.push(b"\0key", Action::Put(b"value"));
            engine.commit(request)
        };
        put().unwrap();
        put().unwrap();
        disk.fail(When::next().of(Verb::SyncDir), Fault::Os(libc::EIO), Repeat::Once);
        let after = disk.clone();
        disk.before(When::next().of(Verb::SyncDir), Repeat::Once, move |_| {
            after.fail(When::next().of(Verb::Len), Fault::Os(libc::EIO), Repeat::Once);
        });
        engine.maintenance.compact(&mut |_| ControlFlow::Continue(())).unwrap_err();
        let error = put().unwrap_err().error();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    }
}
