//! Durability: what a turn syncs before its calls return.

use super::sync_state::Position;
use super::turn::Turn;
use super::writer::Phase;
use crate::config::Durability;
use crate::format::{Ancillary, Kind, RECORD_HEADER_LEN, Root};
use crate::log::path::{self, directory};
use crate::sync::lock;
use crate::{Error, Result};

impl Turn<'_> {
    /// Everything before this offset is on stable storage, by this handle's own syncs; 0 if it has made none.
    pub(super) fn synced(&self) -> u64 {
        self.writing.syncs.synced(self.writer.epoch)
    }

    /// The log's end, and what else a sync covers that begins now.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.writer.epoch, offset: self.tail.end, root: self.writer.root }
    }

    /// Brings everything in the log to stable storage.
    pub(super) fn sync(&mut self) -> Result<()> {
        let sampled = self.position();
        self.writing.syncs.sync(&self.log, sampled)?;
        self.writer.set_written_back(self.log.limits, sampled.offset);
        Ok(())
    }

    /// Syncs the file's name. A power cut that takes back the file's creation or rename would take acknowledged writes with it.
    pub(super) fn sync_name(&mut self) -> Result<()> {
        if self.writer.phase < Phase::NameSynced {
            let (disk, path) = (&*self.writing.context.disk, &self.writing.context.path);
            let synced = path::sync_name(disk, path, &*self.log.file);
            synced.map_err(|e| Error::io("sync the directory", directory(path), e))?;
            self.writer.reach(Phase::NameSynced);
        }
        Ok(())
    }

    /// Syncs, or has the interval thread sync, as the configuration asks.
    pub(super) fn settle(&mut self) -> Result<()> {
        let durability = self.writing.context.config.get_durability();
        if durability == Durability::Sync {
            return self.make_durable();
        }
        // Before that phase, a sync of this handle proves nothing: see `prepare`.
        if durability != Durability::Os && self.writer.phase >= Phase::TailResynced {
            if let Some(interval) = &*lock(&self.writing.interval) {
                interval.written(&self.log, self.position());
            }
        }
        self.begin_write_back()?;
        self.writing.syncs.check_poison()
    }

    /// Makes sure that the whole log as it is now is on stable storage.
    pub(crate) fn make_durable(&mut self) -> Result<()> {
        self.writing.syncs.check_poison()?;
        if self.synced() >= self.tail.end {
            return self.writing.syncs.check_poison();
        }
        if self.writer.phase < Phase::TailResynced {
            // This handle has written nothing yet, so only records of others have to be made durable.
            return if self.tail.is_proven() { self.sync_name() } else { self.prepare() };
        }
        self.sync()
    }

    /// States at the head of the file how much of the log this handle has brought to stable storage, if that is at least
    /// `step` bytes more than the file states. A statement that is not written does no harm: the one before it is true as
    /// well.
    fn write_root(&mut self, step: u64) {
        let synced_to = self.statable();
        let may_state = self.writer.phase >= Phase::TailResynced && self.writing.syncs.check_poison().is_ok();
        if may_state && self.log.header.has_roots && synced_to > self.log.start() {
            // An error concerns this statement alone, or has poisoned the handle.
            let _ = self.raise_root(synced_to, step);
        }
    }

    /// How much the root may state to be on stable storage, by this handle's own syncs.
    fn statable(&self) -> u64 {
        match self.tail.trailing_mark {
            // Possibly no sync covers the mark.
            Some(_) => self.synced().min(self.tail.end - RECORD_HEADER_LEN as u64),
            None => self.synced(),
        }
    }

    fn raise_root(&mut self, synced_to: u64, step: u64) -> Result<()> {
        let last = self.log.root()?;
        // Another handle may have stated almost as much. To follow its root costs a sync.
        self.writer.stated = self.log.stated_by(last);
        let snapshot = last.map_or(0, |last| last.snapshot);
        // Otherwise each handle that opens the file would find out again.
        let is_bad = snapshot > 0 && snapshot == self.writing.reading.distrusted();
        if synced_to < self.writer.stated + step && !is_bad {
            return Ok(());
        }
        self.follow_root(last, synced_to, if is_bad { 0 } else { snapshot })
    }

    /// Leads the root to a snapshot that ends at `end`. Returns `false` if it is not known to be on stable storage.
    pub(crate) fn lead_root_to(&mut self, snapshot: u64, end: u64) -> Result<bool> {
        let synced_to = self.statable();
        if synced_to < end {
            return Ok(false);
        }
        let last = self.log.root()?;
        self.follow_root(last, synced_to, snapshot)?;
        Ok(true)
    }

    /// Writes the root after the one that is there.
    fn follow_root(&mut self, last: Option<Root>, synced_to: u64, snapshot: u64) -> Result<()> {
        if last.map_or(0, |last| last.generation) != self.writing.syncs.synced_root(self.writer.epoch) {
            self.write_root_again()?;
            self.sync()?;
        }
        let root = Root::after(last, synced_to).with_snapshot(snapshot);
        self.log.write_root(&root)?;
        (self.writer.stated, self.writer.root) = (root.synced_to, root.generation);
        Ok(())
    }

    /// Writes the root that is there once more: the same bytes to the same place. The next sync covers it then.
    ///
    /// Another handle has written it, and perhaps no sync covers it, or one that failed. If the other slot were written now, a
    /// power cut could take the root, and tear the slot that holds the one before it.
    pub(super) fn write_root_again(&mut self) -> Result<()> {
        if let Some(last) = self.log.root()? {
            self.log.write_root(&last)?;
            self.writer.root = last.generation;
        }
        Ok(())
    }

    /// As [`Turn::write_root`], if the file states much less than this handle knows.
    pub(super) fn write_root_if_due(&mut self) {
        let step = self.log.limits.root_step();
        if self.synced() >= self.writer.stated + step {
            self.write_root(step);
        }
    }

    /// Leaves the file as a clean close does: proven, if it is synced, and shortened to its log's end.
    pub(super) fn tidy(&mut self) -> Result<()> {
        self.writing.syncs.check_poison()?;
        if self.writer.phase >= Phase::TailResynced {
            // Whatever the durability: the root states only what is synced, and what it states cannot be lost unseen.
            self.make_durable()?;
        }
        let is_synced = self.synced() >= self.tail.end;
        let seq = self.next_seq();
        // Without a mark, for which no number may be left, the next opening reads the log as after a crash.
        if is_synced && !self.tail.is_proven() && self.log.seq_bound(self.tail.previous_seq).admits(seq) {
            // No caller sees a mark's number, so its block need not be on stable storage first.
            let flags = self.begin_group();
            self.writer.group.push(flags, Kind::Ancillary(Ancillary::Mark), seq, b"", b"");
            self.write_group()?;
        }
        self.write_root(1);
        // The sync that a root may need can fail.
        self.writing.syncs.check_poison()?;
        self.trim()
    }
}
