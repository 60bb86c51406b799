//! Rewriting the unproven tail.
//!
//! After a crash, records at the log's end may be in the page cache only, and a sync that failed before may have lost them
//! without a trace. So a handle that comes to such a log writes those bytes again before it relies on them, and syncs.

use std::sync::Arc;

use super::sync_state::Position;
use super::turn::Turn;
use super::writer::{Phase, Rewritten};
use crate::Result;
use crate::config::LockMode;
use crate::engine::deadline::Deadline;
use crate::log::rewrite::{check_again, whole_up_to, write_again};

impl Turn<'_> {
    /// Writes what is left of the unproven tail again, and checks all of it.
    pub(super) fn rewrite_rest(&mut self) -> Result<()> {
        let done = self.writer.rewritten.with_proof(&self.tail);
        write_again(&self.log, done.to, self.tail.end)?;
        check_again(&self.log, done.checked, done.checked_after, self.tail.end)
    }

    /// Rewrites most of the unproven tail in pieces, and gives the lock up after each piece and for the sync, so that other
    /// writers do not wait for all of a long tail. What they append meanwhile comes after it, and is rewritten too. If they cut
    /// the log, that is another epoch, and this begins again.
    ///
    /// Each piece waits for the lock once, and each wait may take the deadline's whole time, since this handle has had a
    /// turn before it.
    ///
    /// Only for the beginning of a turn: decisions of a turn do not hold after the lock was given up.
    pub(crate) fn rewrite_ahead(&mut self, deadline: &Deadline) -> Result<()> {
        if self.writer.phase >= Phase::TailResynced
            || self.writing.context.config.get_lock_mode() == LockMode::Exclusive
        {
            return Ok(());
        }
        let (at_once, mut budget, mut is_synced) = (self.log.limits.rewritten_at_once(), None, true);
        loop {
            let done = self.writer.rewritten.with_proof(&self.tail);
            let left = if self.tail.is_proven() { 0 } else { self.tail.end.saturating_sub(done.to) };
            // A writer that appends faster than this rewrites is stopped in the end, by the lock.
            let budget = budget.get_or_insert(left * 2);
            let is_done = left <= at_once || *budget < at_once;
            if is_done && is_synced {
                return Ok(());
            }
            let (log, epoch) = (Arc::clone(&self.log), self.writer.epoch);
            if is_done {
                self.writer.release();
                // It proves nothing yet: not all is rewritten.
                self.writing.syncs.sync(&log, Position { epoch, offset: 0, root: 0 })?;
                is_synced = true;
                let checked = whole_up_to(&log, done.checked, done.checked_after, done.to)?;
                self.catch_up(&deadline.renewed())?;
                if self.writer.epoch == epoch {
                    (self.writer.rewritten.checked, self.writer.rewritten.checked_after) = checked;
                }
                continue;
            }
            let to = done.to + at_once;
            write_again(&log, done.to, to)?;
            self.writer.rewritten = Rewritten { to, ..done };
            (*budget, is_synced) = (*budget - at_once, false);
            self.writer.release();
            let begun = log.file.write_back(done.to..to, 0);
            begun.map_err(|e| self.writing.syncs.poison(&log, "write-back", e))?;
            self.catch_up(&deadline.renewed())?;
        }
    }
}
