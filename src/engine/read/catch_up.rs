//! Catching up: replaying what other processes have appended, and following a log that was compacted into another file.
//!
//! None of this takes the file's lock. Other processes may be writing, cutting or compacting while this reads.

use std::sync::Arc;

use super::partial_tail::PartialTail;
use super::rescan::may_blame_snapshot;
use super::view::{Peek, View};
use super::{Current, Ingest, Reading};
use crate::events::event;
use crate::log::LogFile;
use crate::log::create;
use crate::log::path::{self, Named};
use crate::log::recover::decide;
use crate::log::run::Run;
use crate::log::scan::{Reason, Scanner, Stop};
use crate::{Error, Result};

impl Reading {
    /// Replays what was appended before this call, up to an incomplete record or batch.
    pub(super) fn refresh(&self) -> Result<()> {
        let ingest = self.ingest();
        loop {
            let Some(view) = self.unless_current()? else { return Ok(()) };
            let (log, moved) = (Arc::clone(&view.reader.log), view.tail.moved);
            drop(view);
            if moved && self.moved_away(&log)? {
                self.follow(&ingest)?;
                continue;
            }
            let found = self.replay_appended(&ingest)?;
            if self.shown()?.tail.moved && self.moved_away(&log)? {
                // `MOVED` was among the records that were just replayed. The successor may have got later writes before this
                // call began.
                continue;
            }
            if !matches!(found.1.reason, Reason::Damaged(_)) {
                return Ok(());
            }
            // A record that is being written looks damaged too. Its state is sampled before it is read once more: if the record
            // is finished in between, either this reading or the next comparison sees it. If it changes, a writer is at work on
            // it. What was complete when this call began has been replayed, so this need not wait.
            let sampled = PartialTail::look(&log, &found.1)?;
            if self.replay_appended(&ingest)? != found {
                return Ok(());
            }
            // It is damaged only if a later record proves that it was once whole, and it is still not whole when it is read
            // after that proof.
            let decision = decide(&log, &found.1);
            if matches!(decision, Err(Error::Corrupt { .. } | Error::Truncated { .. }))
                && self.replay_appended(&ingest)? != found
            {
                return Ok(());
            }
            decision?;
            return self.change(&ingest, |view| {
                view.partial_tail = Some(sampled);
                Ok(())
            });
        }
    }

    /// The view as it is, unless it is current.
    fn unless_current(&self) -> Result<Option<Current<'_>>> {
        if self.shown_if_current()?.is_some() { Ok(None) } else { self.shown().map(Some) }
    }

    /// Replays what was appended, and says at which epoch and where the walk stopped.
    fn replay_appended(&self, ingest: &Ingest<'_>) -> Result<(u64, Stop)> {
        let (view, stop) = self.catch_up(ingest)?;
        Ok((view.epoch, stop))
    }

    /// Reads the log from the view's end and replays what is complete; reads all of it if it was cut. Returns the view, and
    /// where the walk stopped.
    pub(crate) fn catch_up(&self, ingest: &Ingest<'_>) -> Result<(Current<'_>, Stop)> {
        let view = self.shown()?;
        match view.peek()? {
            Peek::Quiet => {
                let stop = view.stop_at_end();
                return Ok((view, stop));
            }
            Peek::Cut => {
                let (log, epoch) = (Arc::clone(&view.reader.log), view.epoch + 1);
                drop(view);
                log.expect_same_header()?;
                let (mut view, stop) = View::build(log, &self.context.config, epoch)?;
                view.was_cut = true;
                let end = view.tail.end;
                self.replace(ingest, view)?;
                event!(info, "{}: the log was cut; read again up to {end}", self.context.path.display());
                return Ok((self.shown()?, stop));
            }
            Peek::More => {}
        }
        let (log, end, previous_seq) = (Arc::clone(&view.reader.log), view.tail.end, view.tail.previous_seq);
        drop(view);
        let mut scanner = Scanner::resume(&log, end, previous_seq)?;
        let replay = |view: &mut View, run: &Run| {
            // Other threads may peek before the walk has seen what follows this run, and the file may end here.
            view.mark_missing = true;
            view.replay(run)
        };
        let stop = match scanner.walk(|run| self.change(ingest, |view| replay(view, run))) {
            Ok(stop) => stop,
            // A record with a deadline needs its key's part of the snapshot, which is bad. Now all of the log is read.
            Err(error) if may_blame_snapshot(&error) && self.shown()?.is_broken_by_snapshot() => {
                return self.catch_up(ingest);
            }
            Err(error) => return Err(error),
        };
        self.change(ingest, |view| {
            view.stopped(&stop);
            Ok(())
        })?;
        Ok((self.shown()?, stop))
    }

    /// Replays what others have appended, without the file's lock. The turn that is about to take the lock decides about a tail
    /// that is incomplete or looks damaged.
    pub(crate) fn catch_up_early(&self) -> Result<()> {
        if self.shown()?.is_quiet()? {
            return Ok(());
        }
        let ingest = self.ingest();
        self.catch_up(&ingest).map(drop)
    }

    /// Goes on with the file that compaction has put in the place of this one.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`] if the path names a file that is no successor of this one: a restored backup, a salvaged copy or
    /// another store. That file lacks what was written here after the compaction, and holds what was not written here.
    pub(crate) fn follow(&self, ingest: &Ingest<'_>) -> Result<()> {
        let moved = self.shown()?.tail.previous_seq;
        let log = self.open_path()?;
        if !log.may_succeed(moved) {
            return Err(self.context.replaced());
        }
        self.go_on_with(ingest, log)
    }

    /// Opens the file that the path names now.
    pub(crate) fn open_path(&self) -> Result<Arc<LogFile>> {
        let context = &*self.context;
        let (opening, deadline) = (create::Opening { create: false, ..context.opening() }, context.deadline());
        create::open(&*context.disk, &context.path, opening, || context.wait_a_moment(&deadline)).map(Arc::new)
    }

    /// Reads a log and shows it in the place of this one.
    pub(crate) fn go_on_with(&self, ingest: &Ingest<'_>, log: Arc<LogFile>) -> Result<()> {
        let epoch = self.shown()?.epoch + 1;
        let view = self.read_log(log, epoch)?;
        self.replace(ingest, view)?;
        event!(debug, "{}: the file that has the path now is opened", self.context.path.display());
        Ok(())
    }

    /// Reads a whole log. A read-only handle reports damage here; a writer looks again under the lock before it writes.
    pub(super) fn read_log(&self, log: Arc<LogFile>, epoch: u64) -> Result<View> {
        let config = &self.context.config;
        let (view, stop) = View::build(log, config, epoch)?;
        if !config.get_read_only() {
            return Ok(view);
        }
        view.judge(stop, config).map(|(view, _)| view)
    }

    /// Whether the path names another file than this one. A path that names nothing does not: there is nothing else to show.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`] if this file has no name any more and the path still leads to it, as a mount of the single file
    /// does: a newer file exists that cannot be found from here.
    pub(crate) fn moved_away(&self, log: &LogFile) -> Result<bool> {
        match path::named(&*self.context.disk, &self.context.path, log.identity)? {
            Named::Another => Ok(true),
            Named::This | Named::Nothing => Ok(false),
            Named::Orphan => Err(self.context.replaced()),
        }
    }
}
