//! Durability: what a turn syncs before its calls return.

use super::sync_state::Position;
use super::turn::Turn;
use super::writer::Phase;
use crate::config::Durability;
use crate::format::{Ancillary, Kind};
use crate::log::path::{self, directory};
use crate::sync::lock;
use crate::{Error, Result};

impl Turn<'_> {
    /// Everything before this offset is on stable storage, by this handle's own syncs; 0 if it has made none.
    pub(super) fn synced(&self) -> u64 {
        self.writing.syncs.synced(self.writer.epoch)
    }

    fn position(&self) -> Position {
        Position { epoch: self.writer.epoch, offset: self.tail.end }
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

    /// Leaves the file as a clean close does: proven, if it is synced, and shortened to its log's end.
    pub(super) fn tidy(&mut self) -> Result<()> {
        self.writing.syncs.check_poison()?;
        if self.writer.phase >= Phase::TailResynced {
            // Whatever the durability: shortening the file syncs it anyway, and a proven log opens faster.
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
        self.trim()
    }
}
