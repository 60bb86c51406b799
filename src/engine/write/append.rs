//! Appending a group, and showing it to readers.

use std::io;
use std::sync::atomic::Ordering;

use super::turn::Turn;
use crate::Result;
use crate::config::Durability;
use crate::engine::read::Ingest;
use crate::format::MAX_FILE_LEN;
use crate::log::append;
use crate::log::scan::{Reason, Stop};
use crate::log::search::search;

impl<'e> Turn<'e> {
    /// Appends the group and shows it to readers.
    ///
    /// # Errors
    ///
    /// If the write fails, whole units of the group that reached the file stay and are shown, and the rest is cut off. The
    /// caller compares the log's end with its records.
    pub(crate) fn write_group(&mut self) -> Result<()> {
        // Before the group, so that the sync of the group covers the root.
        self.write_root_if_due();
        let (context, syncs) = (&*self.writing.context, &*self.writing.syncs);
        let writer = &mut *self.writer;
        let end = writer.group.end();
        if end > MAX_FILE_LEN {
            return Err(context.full("the file has reached 8 TiB"));
        }
        // If the handle was poisoned in this turn, the log's end is unknown.
        syncs.check_poison()?;
        let bound = self.log.seq_bound(self.tail.previous_seq);
        if writer.group.run.entries.first().is_some_and(|entry| !bound.admits(entry.header.seq)) {
            // No reader would accept such a record.
            return Err(context.full("its sequence numbers cannot go on so far above the last one; reopen the store"));
        }
        let ingest = self.prove()?;
        let writer = &mut *self.writer;
        let start = writer.group.start();
        let first = writer.group.run.entries.first().map_or(end, |entry| entry.offset);
        writer.highest_used_seq = writer.group.run.entries.last().map_or(0, |entry| entry.header.seq);
        writer.log_end = end;
        let (bytes, records) = writer.group.finish_run();
        let is_image = records.entries.last().is_some_and(|entry| entry.header.kind.is_loose());
        let counted = if is_image { 0 } else { bytes.len() as u64 };
        let synced_from = (context.config.get_durability() == Durability::Sync).then_some(first);
        let written = append::append(&self.log, &mut writer.file_len, start, bytes, records.ends(), synced_from);
        context.counters.groups.fetch_add(1, Ordering::Relaxed);
        context.counters.written.fetch_add(counted, Ordering::Relaxed);
        let Err(error) = written else {
            let shown = self.writing.reading.change(&ingest, |view| {
                view.replay_proven(&self.writer.group.run, &self.writer.proven)?;
                self.follow(view);
                Ok(())
            });
            // The group is in the file. If the index could not replay it, because another record's key could not be read, the
            // log is read again.
            return shown.or_else(|_| self.look_again(&ingest, end).map(drop));
        };
        let error = self.log.io("append", error);
        let stop = self.look_again(&ingest, first)?;
        // A disk or a limit that accepts no byte at all accepts no end mark either, and needs none.
        let is_clean = search(&self.log, &stop).is_ok_and(|beyond| beyond.data_end == stop.unit);
        if stop.reason != Reason::EndMark || !is_clean {
            self.cut(&ingest, stop.unit)?;
        }
        Err(error)
    }

    /// Makes sure that the records which the group is to replace can be replaced. Returns the right to change the view, with which
    /// this was found out.
    fn prove(&mut self) -> Result<Ingest<'e>> {
        let reading = &*self.writing.reading;
        loop {
            let ingest = reading.ingest();
            let view = reading.shown()?;
            if (view.epoch, view.tail.end) != (self.writer.epoch, self.tail.end) {
                // Something that does not take the lock has changed the file, and a reader has read it again.
                drop(view);
                let cause = io::Error::other("the log has changed while its lock was held");
                return Err(self.writing.syncs.poison(&self.log, "append", cause));
            }
            let writer = &mut *self.writer;
            let proven = view.keys.prove_replaced(&writer.group.run, &view.reader, &mut writer.proven);
            let snapshot = view.snapshot;
            drop(view);
            let Err(error) = proven else { return Ok(ingest) };
            drop(ingest);
            if !reading.gave_up_snapshot(snapshot, &error)? {
                return Err(error);
            }
        }
    }

    /// Replays what this handle's own write has left in the file. Before the write, the log was whole up to `end`. If it can no
    /// longer be read up to there, the outcome of the write is unknown, and nothing may be written or cut where the walk has
    /// stopped: that may be anywhere in the log.
    fn look_again(&mut self, ingest: &Ingest<'_>, end: u64) -> Result<Stop> {
        let found = self.writing.reading.catch_up(ingest).and_then(|(view, stop)| {
            if stop.unit >= end { Ok((view, stop)) } else { Err(stop.is_damage_in(&self.log)) }
        });
        match found {
            Ok((view, stop)) => {
                self.adopt(&view);
                Ok(stop)
            }
            Err(error) => {
                let cause = io::Error::other(error);
                Err(self.writing.syncs.poison(&self.log, "look at what a write has left", cause))
            }
        }
    }

    /// Begins write-back of what was written, if it is much, without waiting for it.
    pub(super) fn begin_write_back(&mut self) -> Result<()> {
        let Some(range) = self.writer.due_write_back(self.log.limits) else { return Ok(()) };
        let begun = self.log.file.write_back(range, 0);
        begun.map_err(|e| self.writing.syncs.poison(&self.log, "write-back", e))
    }
}
