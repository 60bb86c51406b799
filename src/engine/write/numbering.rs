//! Numbering: sequence numbers for a group, from a block whose first record is on stable storage.
//!
//! A number that a reader may have seen is never assigned again, also not after a power cut that loses its record. So numbers
//! come in blocks, and a number is handed out only once a record of its block is on stable storage: the next writer then
//! starts above that block.

use super::turn::Turn;
use super::writer::Phase;
use crate::Result;
use crate::format::{Ancillary, Flags, Kind, MAX_SEQ, RECORD_HEADER_LEN};

const ALL_USED: &str = "all sequence numbers are used up";

impl Turn<'_> {
    /// Reserves `count` sequence numbers, and one more for a `SYNCED_TO` before them. Returns the first. If no record of
    /// their block is known to be on stable storage, writes and syncs a mark. The mark takes the additional number: after a
    /// sync, no `SYNCED_TO` is needed.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<u64> {
        let limits = self.log.limits;
        debug_assert!(count < limits.block_len(), "a block has a mark of its own too");
        self.prepare()?;
        let mut next = self.next_seq();
        if limits.block_of(next + count) != limits.block_of(next) {
            next = limits.block_start(limits.block_of(next) + 1);
        }
        if next + count > MAX_SEQ {
            return Err(self.writing.context.full(ALL_USED));
        }
        if !self.tail.is_block_stable(limits.block_of(next), self.synced()) {
            self.append_mark(next)?;
            next += 1;
        }
        Ok(next)
    }

    /// Whether as many numbers can be reserved without a sync.
    pub(super) fn has_numbers(&self, count: u64) -> bool {
        let (limits, next) = (self.log.limits, self.next_seq());
        let block = limits.block_of(next);
        self.writer.phase == Phase::BlockReserved
            && limits.block_of(next + count) == block
            && self.tail.is_block_stable(block, self.synced())
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.tail.highest_seq.max(self.writer.highest_used_seq) + 1
    }

    /// Does what a handle must do once before it acknowledges, states or numbers anything.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if self.writer.phase == Phase::BlockReserved {
            return Ok(());
        }
        self.sync_name()?;
        if self.writer.phase < Phase::TailResynced && !self.tail.is_proven() {
            self.rewrite_rest()?;
            self.sync()?;
        }
        // Above everything that the file shows, and above everything that this handle has ever used: a number of the file's
        // last block may have been seen and then lost in a power cut.
        let limits = self.log.limits;
        let block = limits.block_of(self.next_seq() - 1) + 1;
        if limits.block_start(block) >= MAX_SEQ - limits.block_len() {
            return Err(self.writing.context.full(ALL_USED));
        }
        // The mark's sync covers the root too. Without that, writing the next root costs a sync.
        let _ = self.write_root_again();
        self.append_mark(limits.block_start(block))?;
        self.writer.phase = Phase::BlockReserved;
        Ok(())
    }

    /// Appends and syncs a mark: with the first number of a block, or with the flag that the log up to here is synced, or
    /// both.
    fn append_mark(&mut self, seq: u64) -> Result<()> {
        let flags = self.begin_group();
        self.writer.group.push(flags, Kind::Ancillary(Ancillary::Mark), seq, b"", b"");
        self.write_group()?;
        self.sync()
    }

    /// Begins a group at the log's end. Returns the flags of its first record, which say what this handle knows to be on stable
    /// storage.
    pub(super) fn begin_group(&mut self) -> Flags {
        self.begin_group_synced(self.synced())
    }

    pub(super) fn begin_group_synced(&mut self, synced: u64) -> Flags {
        let (tail, is_synced) = (&self.tail, synced >= self.tail.end);
        let group = &mut self.writer.group;
        group.reset(self.log.seed, tail.end);
        if is_synced {
            return Flags { synced: true, more: false };
        }
        if let Some(mark) = &tail.trailing_mark {
            // The mark counts as proven, but it may not be on stable storage. So it is written again, in the same write as
            // the records after it.
            group.reset(self.log.seed, tail.end - RECORD_HEADER_LEN as u64);
            group.rewrite(mark);
        }
        Flags::NONE
    }

    /// Begins a group whose records' numbers start at `seq`, which was reserved for them. Returns the flags of the first record
    /// and its number.
    pub(crate) fn begin_records(&mut self, seq: u64) -> (Flags, u64) {
        // Read once: a sync of the interval may end at any moment.
        let synced = self.synced();
        let flags = self.begin_group_synced(synced);
        if !flags.synced && synced > self.tail.proven {
            // Other processes have appended since this handle's last sync. No record states yet what that sync has brought to
            // stable storage.
            self.writer.group.push_synced_to(seq, synced);
            return (flags, seq + 1);
        }
        (flags, seq)
    }
}
