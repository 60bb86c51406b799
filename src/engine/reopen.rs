//! Opening the file of a handle once more, after a failure that it cannot go on from.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Engine, lock};
use crate::engine::write::commit::abandoned;
use crate::engine::write::file_lock::Deadline;
use crate::engine::write::queue::Entered;
use crate::events::event;
use crate::{Error, Result};

impl Engine {
    /// As [`Cask::reopen`](crate::Cask::reopen).
    pub(crate) fn reopen(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.check_process()?;
        let (began, deadline) = (Instant::now(), self.deadline());
        match self.queue.enter(None, &deadline, || Err(abandoned().into())) {
            Entered::Leader(_leader) => {
                self.begin_anew(&deadline)?;
                self.opened_anew(began)?;
                event!(info, "{}: reopened", self.path.display());
                Ok(())
            }
            Entered::TimedOut => Err(self.lock_timeout(&deadline)),
            Entered::Done(outcome) => outcome.map(drop).map_err(|failure| failure.error()),
        }
    }

    /// The caller has the leader.
    fn begin_anew(&self, deadline: &Deadline) -> Result<()> {
        let epoch = {
            let mut writer = lock(&self.writer);
            if self.closing.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            // A description of its own: the system has notified the old one of an error, and will not do so again.
            let log = self.open_path()?;
            let exclusive = writer.locked.as_ref().filter(|locked| locked.identity != log.identity);
            if exclusive.is_some() {
                // Another file: its lock is taken while the old one's is held, which stays if this fails.
                self.wait_for_lock(&log, deadline)?;
            }
            // Of the same file the old description keeps the lock. The new one could only have it after that.
            let take_over = exclusive.is_some().then(|| Arc::clone(&log));
            if let Err(error) = self.go_on_with(&self.ingest(), log) {
                let _ = take_over.map(|log| log.file.unlock());
                return Err(error);
            }
            if let Some(old) = take_over.and_then(|log| writer.locked.replace(log)) {
                // A lock that cannot be given up goes with the file description.
                let _ = old.file.unlock();
            }
            let view = self.shown()?;
            writer.start_over(view.epoch);
            writer.forget_far_seqs(&view.tail);
            view.epoch
        };
        if self.config.get_read_only() {
            return Ok(());
        }
        let refused = self.syncs.check_poison().is_err();
        self.syncs.revive(epoch);
        // The first turn looks at the log's end under the lock, and mends it.
        let recovered = self.in_turn(deadline, |_turn| Ok(()));
        if recovered.is_err() && refused {
            self.syncs.refuse_again();
        }
        recovered
    }
}
