//! The compactor: copies what is live to a new file, and installs it.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::compact::Compaction;
use crate::disk::{Access, FileAttributes, FileStat};
use crate::engine::context::Context;
use crate::engine::deadline::Deadline;
use crate::engine::read::Current;
use crate::engine::read::view::View;
use crate::engine::write::Writing;
use crate::engine::write::sync_state::Position;
use crate::engine::write::turn::Turn;
use crate::engine::write::writer::Phase;
use crate::events::event;
use crate::format::{Ancillary, FILE_HEADER_LEN, Kind};
use crate::index::PIECES;
use crate::log::LogFile;
use crate::log::copy::Copyist;
use crate::log::leftovers::{self, Look};
use crate::log::owner::PRIVATE;
use crate::log::path::{self, Named};
use crate::log::run::Run;
use crate::log::scan::{Reason, Scanner, Step};
use crate::log::temp_file::TempFile;
use crate::progress::{Progress, Watch};
use crate::{Error, Result};

/// Why a store is not compacted where it is mounted as a single file.
const MOUNTED: &str = "the file is mounted by itself, so that no other file can take its place; \
    mount its directory instead, or compact it with a path that is no mount";

/// Why a store is not compacted in a directory that does not take the new file.
const NO_PLACE: &str = "its directory does not let a new file take its place; \
    compact it as a user that may write to the directory";

/// The rest that is carried over while writers wait.
const SMALL_REST: u64 = 64 << 10;

/// What was appended meanwhile is carried over without the lock this often at most. Each time, less should be left, but
/// a disk may be slower than its writers.
const ROUNDS: usize = 16;

/// The old log, the new file, and how far the one was copied to the other.
pub(super) struct Compactor<'e> {
    writing: &'e Writing,
    /// The old file, in this reading.
    log: Arc<LogFile>,
    epoch: u64,
    /// What the old file's were when the new one got them.
    attributes: FileAttributes,
    /// Everything before this offset of the old log is in the copy, as far as it is needed.
    upto: u64,
    /// The sequence number of the record before that.
    previous_seq: u64,
    next: TempFile<'e>,
    copyist: Copyist,
    /// The new file as a reader sees it; once it has taken the old one's place, that one's view.
    pub(super) view: View,
    progress: Progress,
}

impl<'e> Compactor<'e> {
    /// Makes the new file, and notes where the log ends.
    pub(super) fn begin(turn: &mut Turn<'e>, deadline: &Deadline) -> Result<Compactor<'e>> {
        let writing = turn.writing;
        let context = &*writing.context;
        turn.rewrite_ahead(deadline)?;
        // Under the store's lock, so of two compactions that begin at the same time one sees the other. A second name of the
        // store, which its maker did not live to remove, goes as well.
        if leftovers::remove_leftovers(&*context.disk, &turn.log, Look::Thorough) {
            return Err(overtaken(context));
        }
        expect_one_name(&turn.log, context)?;
        let found = context.disk.stat(&context.path);
        let found = found.map_err(|e| refused_if_no_place(context, Error::io("stat", &context.path, e)))?;
        if found.mount_point {
            return Err(refused(context, MOUNTED.to_owned()));
        }
        // What a handle does before its first write is done here, and not in the second turn.
        turn.reserve(1)?;
        let live_bytes = turn.view()?.keys.live_bytes;
        let next = TempFile::new(&*context.disk, &context.path, PRIVATE, turn.tail.highest_seq);
        let next = next.map_err(|error| refused_if_no_place(context, error))?;
        next.expect_room(live_bytes)?;
        let attributes = attributes(&turn.log)?;
        give_attributes(&next, &attributes, context)?;
        let mut copyist = Copyist::new(&next.header);
        copyist.write(&next)?;
        let log = Arc::new(LogFile::open(Arc::clone(&next.file), &context.path)?);
        let (view, _) = View::build(log, context.config.get_read_mode(), turn.writer.epoch + 1)?;
        Ok(Compactor {
            writing,
            log: Arc::clone(&turn.log),
            epoch: turn.writer.epoch,
            attributes,
            upto: turn.tail.end,
            previous_seq: turn.tail.previous_seq,
            next,
            copyist,
            view,
            progress: Progress { done: 0, total: live_bytes },
        })
    }

    /// Carries over the rest, and installs the new file in the place of the old one.
    pub(super) fn finish(&mut self, turn: &mut Turn<'e>) -> Result<Compaction> {
        let (context, reading) = (&*self.writing.context, &*self.writing.reading);
        if turn.writer.epoch != self.epoch {
            return Err(overtaken(context));
        }
        let stat = expect_one_name(&turn.log, context)?;
        let attributes = attributes(&turn.log)?;
        if attributes != self.attributes {
            give_attributes(&self.next, &attributes, context)?;
        }
        // For `MOVED`, for a statement that may have to come before it, and above both the new file's `base_seq` and its mark.
        let seq = turn.reserve(4)?;
        self.carry_over(|_| Ok(()))?;
        self.close(seq + 1)?;
        let (before, after) = (turn.tail.end, self.view.tail.end);
        if after > before {
            let reason = format!("the new file would have {after} bytes, the old one has {before}");
            return Err(refused(context, reason));
        }
        if path::named(&*context.disk, &context.path, stat.identity)? != Named::This {
            return Err(context.replaced());
        }
        // Opened for its descriptor, which the sync of the directory needs: to have none left once the file is renamed would
        // poison the handle.
        let reserve = context.disk.open(&context.path, Access::Read);
        let reserve = reserve.map_err(|e| Error::io("open", &context.path, e))?;
        let (flags, seq) = turn.begin_records(seq);
        turn.writer.group.push(flags, Kind::Ancillary(Ancillary::Moved), seq, b"", b"");
        turn.write_group()?;
        // From the rename on, a reader of this process would open the new file by itself, and read all of it.
        let ingest = reading.ingest();
        let renamed = self.next.rename_to(&context.path);
        renamed.map_err(|e| refused_if_no_place(context, Error::io("rename the compacted file", &context.path, e)))?;
        reading.swap(&ingest, &mut self.view)?;
        drop((ingest, reserve));
        let synced = path::sync_name(&*context.disk, &context.path, &*self.next.file);
        // The path names the new file now, even if something else fails.
        go_on_in_new_file(turn)?;
        synced.map_err(|e| self.writing.syncs.poison(&turn.log, "sync of the directory", e))?;
        context.counters.compactions.fetch_add(1, Ordering::Relaxed);
        event!(info, "{}: compacted from {before} to {after} bytes", context.path.display());
        Ok(Compaction { before, after, keys: turn.view()?.index().len() as u64 })
    }

    /// Copies what is live of the log up to its end when the compaction began.
    pub(super) fn copy_live(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let reader = self.old()?.reader.clone();
        let positions = self.live_positions()?;
        self.view.keys.index.reserve(positions.len());
        for &position in &positions {
            self.copyist.push(&reader, position, false)?;
            if self.copyist.has_a_piece() {
                self.write()?;
                self.report(watch)?;
            }
        }
        self.write()?;
        self.view.keys.index.shrink();
        if self.view.index().len() != positions.len() {
            return Err(self.wrong("it has other keys than the old one"));
        }
        Ok(())
    }

    /// Where the live records are that lie before the noted end, in the order of the log.
    fn live_positions(&self) -> Result<Vec<u64>> {
        let mut positions = Vec::with_capacity(self.old()?.index().len());
        // Piece by piece, so that nobody waits long for the view. What is replaced or removed meanwhile is missing here,
        // and its successor or tombstone lies behind the noted end.
        for piece in 0..PIECES {
            positions.extend(self.old()?.index().positions_in(piece).filter(|&position| position < self.upto));
        }
        positions.sort_unstable();
        Ok(positions)
    }

    /// Sorts the keys of the copy if this handle has its keys sorted: else the next listing would do it while writers wait.
    /// What is carried over from here on goes into both indexes.
    pub(super) fn sort(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        if self.old()?.index().sorted().is_some() {
            let (writing, progress) = (self.writing, self.progress);
            let built = self.view.index().build_sorted(&self.view.reader, || report(writing, progress, watch))?;
            let installed = self.view.keys.index.install_sorted(built);
            debug_assert!(installed, "only this thread changes the copy's index");
        }
        Ok(())
    }

    /// Carries over what was appended meanwhile, and while that was done, until little is left.
    pub(super) fn catch_up(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        for _ in 0..ROUNDS {
            self.next.sync()?;
            self.report(watch)?;
            drop(self.writing.reading.current()?);
            let rest = self.old()?.tail.end - self.upto;
            self.progress.total = self.progress.done + rest;
            if rest <= SMALL_REST {
                break;
            }
            self.carry_over(|compactor| compactor.report(watch))?;
        }
        Ok(())
    }

    /// Carries over what was appended to the old log up to its end as it is known now.
    fn carry_over(&mut self, mut report: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let old = self.old()?;
        let (reader, end, log) = (old.reader.clone(), old.tail.end, Arc::clone(&self.log));
        drop(old);
        let mut scanner = Scanner::resume(&log, self.upto, self.previous_seq)?;
        let mut unit = Run::default();
        while self.upto < end {
            let Step::Unit = scanner.step(&mut unit)? else {
                // It was there when it was taken in.
                return Err(overtaken(&self.writing.context));
            };
            for entry in &unit.entries {
                // What is replaced by now has a successor further on. If a key is removed, then after what is in the
                // copy: what was carried over just now is still there.
                let needed = match entry.header.kind {
                    Kind::Put => self.old()?.find(unit.key(entry))? == Some(entry.offset),
                    Kind::Delete => self.view.find(unit.key(entry))?.is_some(),
                    Kind::Ancillary(_) => false,
                };
                if needed {
                    self.copyist.push_again(&reader, entry, false)?;
                }
                (self.upto, self.previous_seq) = (entry.offset + entry.header.padded_len(), entry.header.seq);
            }
            if self.copyist.has_a_piece() {
                self.write()?;
                report(self)?;
            }
        }
        self.write()
    }

    /// The old log's view, if it still is the one that is being copied.
    fn old(&self) -> Result<Current<'e>> {
        let view = self.writing.reading.shown()?;
        // An epoch stands for one reading of one file.
        if view.epoch == self.epoch { Ok(view) } else { Err(overtaken(&self.writing.context)) }
    }

    /// Writes what was copied, and reads it back as any reader would: what does not verify never takes the old file's
    /// place.
    fn write(&mut self) -> Result<()> {
        self.copyist.write(&self.next)?;
        let stop = self.view.catch_up()?;
        if (stop.unit, stop.reason) != (self.copyist.end(), Reason::EndMark) {
            return Err(self.wrong(&format!("at {} it does not read back: {:?}", stop.at, stop.reason)));
        }
        self.progress.done = stop.unit - FILE_HEADER_LEN as u64;
        Ok(())
    }

    /// Reports the progress, and stops if the caller wants to.
    fn report(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        self.progress.total = self.progress.total.max(self.progress.done);
        report(self.writing, self.progress, watch)
    }

    /// Makes the new file what it is to be when others see it. The old log does not grow any more.
    fn close(&mut self, base_seq: u64) -> Result<()> {
        self.next.set_base_seq(base_seq)?;
        self.copyist.push_mark(base_seq + 1);
        self.write()?;
        self.next.sync()?;
        self.view.reader.log = Arc::new(LogFile::open(Arc::clone(&self.next.file), &self.writing.context.path)?);
        let old = self.old()?;
        if (self.view.index().len(), self.view.keys.live_bytes) != (old.index().len(), old.keys.live_bytes) {
            return Err(self.wrong("it has other pairs than the old one"));
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> Error {
        let message = format!(
            "the compacted file {} is not what it should be: {what}; it is not used, the store is as it was. Please report this",
            self.next.path.display()
        );
        Error::internal(message)
    }
}

fn report(writing: &Writing, progress: Progress, watch: &mut Watch<'_>) -> Result<()> {
    writing.check_writable()?;
    let flow = watch(progress);
    // The closure may have forked, and this may be the child.
    writing.context.check_process()?;
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(cancelled(&writing.context)),
    }
}

/// Goes on with the new file, whose lock is held since it was made.
fn go_on_in_new_file(turn: &mut Turn<'_>) -> Result<()> {
    let view = turn.view()?;
    let log = Arc::clone(&view.reader.log);
    turn.adopt(&view);
    drop(view);
    turn.writer.release();
    turn.writer.locked = Some(Arc::clone(&log));
    // All of it was written by this handle and synced after that, and its header holds the block of the next number.
    let (end, writer) = (turn.tail.end, &mut *turn.writer);
    writer.phase = Phase::BlockReserved;
    (writer.log_end, writer.file_len) = (end, log.len()?);
    writer.set_written_back(end);
    let syncs = &*turn.writing.syncs;
    drop(syncs.forget());
    syncs.set_synced(Position { epoch: writer.epoch, offset: end });
    turn.log = log;
    Ok(())
}

fn expect_one_name(log: &LogFile, context: &Context) -> Result<FileStat> {
    let stat = log.file.stat().map_err(|e| log.io("stat", e))?;
    if stat.links == 0 {
        return Err(context.replaced());
    }
    if stat.links > 1 {
        let reason = format!("it has {} hard links, and the others would go on naming the old file", stat.links);
        return Err(refused(context, reason));
    }
    Ok(stat)
}

fn attributes(log: &LogFile) -> Result<FileAttributes> {
    log.file.attributes().map_err(|e| log.io("read the attributes", e))
}

fn give_attributes(next: &TempFile<'_>, attributes: &FileAttributes, context: &Context) -> Result<()> {
    let kept = next.file.set_attributes(attributes);
    kept.map_err(|e| refused(context, format!("owner, permissions and attributes cannot be kept: {e}")))
}

fn refused(context: &Context, reason: String) -> Error {
    Error::CompactionRefused { path: context.path.to_path_buf(), reason }
}

/// Refuses where the directory does not take the new file, or does not let it have the store's name.
fn refused_if_no_place(context: &Context, error: Error) -> Error {
    let Error::Io { source, .. } = &error else { return error };
    match source.kind() {
        ErrorKind::ResourceBusy => refused(context, format!("{MOUNTED} ({source})")),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            refused(context, format!("{NO_PLACE} ({source})"))
        }
        _ => error,
    }
}

fn overtaken(context: &Context) -> Error {
    Error::CompactionOvertaken { path: context.path.to_path_buf() }
}

pub(super) fn cancelled(context: &Context) -> Error {
    Error::CompactionCancelled { path: context.path.to_path_buf() }
}
