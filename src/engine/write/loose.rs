//! Loose records: what a handle writes for itself and for other handles, beside the operations of its callers.

use super::turn::Turn;
use crate::Result;
use crate::engine::write::request::no_memory;
use crate::format::{Flags, Kind};
use crate::log::group::record_len;

impl Turn<'_> {
    /// Appends a loose record in a group of its own, without a sync. Returns its offset.
    pub(crate) fn append_loose(&mut self, kind: Kind, value: &[u8]) -> Result<u64> {
        debug_assert!(kind.is_loose());
        let appended = self.push_loose(kind, value).and_then(|at| self.write_group().map(|()| at));
        // The value may be long.
        self.writer.group.advance();
        appended
    }

    fn push_loose(&mut self, kind: Kind, value: &[u8]) -> Result<u64> {
        let seq = self.reserve(2)?;
        let synced = self.synced();
        self.begin_group_synced(synced);
        let group = &mut self.writer.group;
        let room = group.make_room(record_len(0, size_of::<u64>()) + record_len(0, value.len()));
        room.map_err(|_| no_memory(&self.writing.context.path))?;
        let mut next = seq;
        // A loose record has no flags, so it cannot say what is on stable storage.
        if synced > self.tail.proven {
            group.push_synced_to(next, synced);
            next += 1;
        }
        let at = group.end();
        group.push(Flags::NONE, kind, next, b"", value);
        Ok(at)
    }
}
