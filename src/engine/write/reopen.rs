//! Opening the file of a handle once more, after a failure that the handle cannot go on from.

use std::sync::Arc;

use super::Writing;
use crate::engine::deadline::Deadline;
use crate::sync::lock;
use crate::{Error, Result};

impl Writing {
    pub(crate) fn reopen(&self) -> Result<()> {
        if self.context.is_closing() {
            return Err(Error::Closed);
        }
        self.context.check_process()?;
        let deadline = self.context.deadline();
        self.lead(&deadline, || self.begin_again(&deadline))
    }

    fn begin_again(&self, deadline: &Deadline) -> Result<()> {
        let epoch = self.open_again(deadline)?;
        if self.context.config.get_read_only() {
            return Ok(());
        }
        let refused = self.syncs.check_poison().is_err();
        self.syncs.revive(epoch);
        // The first turn looks at the log's end under the lock, and recovers it.
        let recovered = self.in_turn(deadline, |_turn| Ok(()));
        if recovered.is_err() && refused {
            self.syncs.refuse_again();
        }
        recovered
    }

    /// Opens the file that has the path now, shows its log, and returns the epoch of that reading.
    fn open_again(&self, deadline: &Deadline) -> Result<u64> {
        let reading = &*self.reading;
        let mut writer = lock(&self.writer);
        if self.context.is_closing() {
            return Err(Error::Closed);
        }
        writer.stop_lingering();
        // A new description: the system reports a write-back error to each description once, and the old one has got it.
        let log = reading.open_path()?;
        let exclusive = writer.locked.as_ref().filter(|locked| locked.identity != log.identity);
        if exclusive.is_some() {
            // Another file: this handle takes its lock while it holds the old one's, which stays if this fails.
            self.wait_for_lock(&log, deadline)?;
        }
        // The same file: the old description keeps the lock. The new one could get it only after the old one had
        // released it, and another process could come in between.
        let take_over = exclusive.is_some().then(|| Arc::clone(&log));
        if let Err(error) = reading.go_on_with(&reading.ingest(), log) {
            let _ = take_over.map(|log| log.file.unlock());
            return Err(error);
        }
        if let Some(log) = take_over {
            writer.release();
            writer.locked = Some(log);
        }
        let view = reading.shown()?;
        writer.start_over(view.epoch);
        writer.forget_far_seqs(&view.tail);
        Ok(view.epoch)
    }
}
