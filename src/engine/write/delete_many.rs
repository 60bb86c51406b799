//! Removing all keys of a scan.

use super::outcome::Failure;
use super::request::{Action, Request};
use super::turn::Turn;
use crate::Result;
use crate::engine::read::Reading;
use crate::engine::read::scan::{Moment, Scan};
use crate::limits::Shared;

impl Turn<'_> {
    /// Removes all keys of a scan that is begun in this turn, and returns how many there were.
    pub(crate) fn delete_scanned(&mut self, scan: impl FnOnce(&Reading, Moment) -> Result<Scan>) -> Result<u64> {
        self.rewrite_ahead(&self.writing.context.deadline())?;
        // What is over is removed too, and the plan does not count it.
        let mut scan = scan(&self.writing.reading, Moment::Never)?;
        let (mut deleted, mut key) = (0, Vec::new());
        loop {
            let mut request = Request::default();
            let view = self.view()?;
            while !is_a_piece(self.log.limits, request.len() as u64, request.log_bytes) {
                key.clear();
                // Verified: a damaged key would remove another one.
                let Some(next) = scan.next_key(view.index(), &mut key) else { break };
                next?;
                request.make_room(1, key.len(), &self.writing.context.path)?;
                request.push(&key, Action::Delete);
            }
            drop(view);
            let last = scan.is_empty();
            // Also without a deletion: the answer must be durable too.
            for outcome in self.commit(std::slice::from_ref(&request)) {
                deleted += outcome.map_err(Failure::error)?.deleted;
            }
            if last {
                return Ok(deleted);
            }
        }
    }
}

/// Returns whether this many deletions are written at once.
fn is_a_piece(limits: Shared, ops: u64, log_bytes: u64) -> bool {
    ops >= limits.group_records() || log_bytes >= limits.deletion_bytes()
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::request::{MAX_BATCH_BYTES, MAX_BATCH_OPS};
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn deletions_are_written_in_pieces_of_the_size_of_a_batch() {
        let (real, ops, largest) = (&Limits::REAL, MAX_BATCH_OPS as u64, MAX_BATCH_BYTES / 2);
        assert!(!is_a_piece(real, ops - 1, largest - 1));
        assert!(is_a_piece(real, ops, 0) && is_a_piece(real, 1, largest));
    }
}
