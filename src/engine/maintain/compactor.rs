//! The compactor: copies the live records to a new file, which then takes the old one's place.
//!
//! It works while readers and writers, in this process and others, go on:
//!
//! 1. [`Compactor::begin`], in a short turn: makes the new file, which other processes can see, and notes the log's end.
//! 2. Without a lock: [`Compactor::copy_live`] copies the live records before that end in the order of the log.
//!    [`Compactor::sort`] sorts their keys, if this handle has a sorted index. [`Compactor::catch_up`] carries over what was
//!    appended meanwhile, until little is left. Everything is read back as any reader reads it, which builds the new index.
//! 3. [`Compactor::finish`], in a second turn: carries over the rest, and gives the new file the old one's name and its place
//!    in the view.
//!
//! The copy is the store of one moment only at the end. Before that it may hold replaced values; the newer ones come later in
//! the log, and so in the copy. A tombstone is carried over if the copy has a record of its key. So the new file may have dead
//! bytes too, but never more than the old one.
//!
//! | state | after a crash here |
//! | --- | --- |
//! | temporary file being written | the store is untouched; the next writer removes the temporary file |
//! | temporary file synced | the same |
//! | `MOVED` appended to the old log | the path still names the old file, so `MOVED` means nothing; the next record follows it |
//! | renamed, directory not synced | the path names the old file or the new one, which hold the same pairs; nothing was acknowledged in between |
//! | directory synced | compacted |
//!
//! Memory: eight bytes a key for the positions, until they are copied, and the new index beside the old one. INTERNALS.md has
//! the times.

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
use crate::format::{Ancillary, Kind, Root};
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

/// The most rounds of carrying over without the lock. Each round should leave less, but a disk may be slower than its writers.
const ROUNDS: usize = 16;

/// A compaction under way: the old log, the new file, and how far the copy is.
pub(super) struct Compactor<'e> {
    writing: &'e Writing,
    /// The old file, and the epoch of its log.
    log: Arc<LogFile>,
    epoch: u64,
    /// The attributes that the new file has got.
    attributes: FileAttributes,
    /// Everything that is needed before this offset of the old log is in the copy.
    upto: u64,
    /// The sequence number of the record before that.
    previous_seq: u64,
    next: TempFile<'e>,
    copyist: Copyist,
    /// The new file as a reader sees it; the old file's view once the two are exchanged.
    pub(super) view: View,
    progress: Progress,
}

impl<'e> Compactor<'e> {
    /// Makes the new file, and notes the log's end.
    pub(super) fn begin(turn: &mut Turn<'e>, deadline: &Deadline) -> Result<Compactor<'e>> {
        let writing = turn.writing;
        let context = &*writing.context;
        turn.rewrite_ahead(deadline)?;
        // Under the store's lock, so that of two compactions that begin at the same time one sees the other. Also removes a
        // second name of the store that a killed process has left.
        if leftovers::remove_leftovers(&*context.disk, &turn.log, Look::Thorough) {
            return Err(overtaken(context));
        }
        expect_one_name(&turn.log, context)?;
        let found = context.disk.stat(&context.path);
        let found = found.map_err(|e| refused_if_no_place(context, Error::io("stat", &context.path, e)))?;
        if found.mount_point {
            return Err(refused(context, MOUNTED.to_owned()));
        }
        // Does what a handle does before its first write, so that the second turn need not.
        turn.reserve(1)?;
        writing.reading.rescan()?;
        let live_bytes = turn.view()?.keys.live_bytes();
        let next = TempFile::new(&*context.disk, &context.path, PRIVATE, turn.tail.highest_seq);
        let next = next.map_err(|error| refused_if_no_place(context, error))?;
        next.expect_room(live_bytes)?;
        let attributes = attributes(&turn.log)?;
        give_attributes(&next, &attributes, context)?;
        let mut copyist = Copyist::new(&next.header, &turn.log);
        copyist.write(&next)?;
        let log = Arc::new(LogFile::open(Arc::clone(&next.file), &context.path)?);
        let (view, _) = View::build(log, &context.config, turn.writer.epoch + 1)?;
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

    /// Carries over the rest, and installs the new file.
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
        // Four numbers: a statement that may come before `MOVED`, `MOVED` itself, and above both the new file's `base_seq` and
        // its mark.
        let seq = turn.reserve(4)?;
        self.carry_over(|_| Ok(()))?;
        // The view was made by a walk over the whole log: see `begin`.
        let floor = turn.tail.last_event.ok_or_else(|| self.wrong("the last write before it is unknown"))?;
        self.close(seq + 1, floor)?;
        let (before, after) = (turn.tail.end, self.view.tail.end);
        // The old file may lack `ROOTS`, and compaction is the way to get it.
        if after - self.view.reader.log.start() > before - turn.log.start() {
            let reason = format!("the new file would have {after} bytes, the old one has {before}");
            return Err(refused(context, reason));
        }
        if path::named(&*context.disk, &context.path, stat.identity)? != Named::This {
            return Err(context.replaced());
        }
        // Reserves a descriptor for the sync of the directory: if there were none left after the rename, the handle would be
        // poisoned.
        let reserve = context.disk.open(&context.path, Access::Read);
        let reserve = reserve.map_err(|e| Error::io("open", &context.path, e))?;
        let (flags, seq) = turn.begin_records(seq);
        turn.writer.group.push(flags, Kind::Ancillary(Ancillary::Moved), seq, b"", b"");
        turn.write_group()?;
        // Otherwise a reader of this process could find the new file after the rename, and read all of it.
        let ingest = reading.ingest();
        let renamed = self.next.rename_to(&context.path);
        renamed.map_err(|e| refused_if_no_place(context, Error::io("rename the compacted file", &context.path, e)))?;
        reading.swap(&ingest, &mut self.view)?;
        drop((ingest, reserve));
        let synced = path::sync_name(&*context.disk, &context.path, &*self.next.file);
        // The path names the new file now, even if the sync has failed.
        let gone_on = go_on_in_new_file(turn);
        // First, whatever else has failed: without its name, no write to the new file is durable.
        synced.map_err(|e| self.writing.syncs.poison(&turn.log, "sync of the directory", e))?;
        gone_on?;
        context.counters.compactions.fetch_add(1, Ordering::Relaxed);
        event!(info, "{}: compacted from {before} to {after} bytes", context.path.display());
        Ok(Compaction { before, after, keys: turn.view()?.index().len() as u64 })
    }

    /// Copies the live records before the noted end.
    pub(super) fn copy_live(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let reader = self.old()?.reader.clone();
        let mut positions = self.live_positions()?;
        let keys = positions.len();
        self.view.keys.index.reserve(keys);
        // A session that is renewed or ends meanwhile is missing here: its next record comes after the noted end.
        positions.extend(self.old()?.keys.lifetimes.sessions.positions().filter(|&position| position < self.upto));
        positions.sort_unstable();
        for &position in &positions {
            self.copyist.push(&reader, position, false)?;
            if self.copyist.has_a_piece() {
                self.write()?;
                self.report(watch)?;
            }
        }
        self.write()?;
        self.view.keys.index.shrink();
        if self.view.index().len() != keys {
            return Err(self.wrong("it has other keys than the old one"));
        }
        Ok(())
    }

    /// The positions of the keys' live records before the noted end, in any order.
    fn live_positions(&self) -> Result<Vec<u64>> {
        let mut positions = Vec::with_capacity(self.old()?.index().len());
        // Piece by piece, so that no writer waits long for the view. A record that is replaced or removed meanwhile is
        // missing here; its successor or tombstone comes after the noted end.
        for piece in 0..PIECES {
            positions.extend(self.old()?.index().positions_in(piece).filter(|&position| position < self.upto));
        }
        Ok(positions)
    }

    /// Builds the copy's sorted index if this handle has one. Otherwise the next listing would build it while writers wait.
    /// Records that are carried over later go into both indexes.
    pub(super) fn sort(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let is_ordered = self.old()?.index().is_ordered();
        self.view.keys.index.keep_ordered(is_ordered);
        if self.old()?.index().sorted().is_some() {
            let (writing, progress) = (self.writing, self.progress);
            let built = self.view.index().build_sorted(&self.view.reader, || report(writing, progress, watch))?;
            let installed = self.view.keys.index.install_sorted(built);
            debug_assert!(installed, "only this thread changes the copy's index");
        }
        Ok(())
    }

    /// Carries over what was appended meanwhile, in rounds, until little is left.
    pub(super) fn catch_up(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        for _ in 0..ROUNDS {
            self.next.sync()?;
            self.report(watch)?;
            drop(self.writing.reading.current()?);
            let rest = self.old()?.tail.end - self.upto;
            self.progress.total = self.progress.done + rest;
            if rest <= self.log.limits.small_rest() {
                break;
            }
            self.carry_over(|compactor| compactor.report(watch))?;
        }
        Ok(())
    }

    /// Carries over what was appended to the old log, up to the end of its view.
    fn carry_over(&mut self, mut report: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let old = self.old()?;
        let (reader, end, log) = (old.reader.clone(), old.tail.end, Arc::clone(&self.log));
        drop(old);
        let mut scanner = Scanner::resume(&log, self.upto, self.previous_seq)?;
        let mut unit = Run::default();
        while self.upto < end {
            let Step::Unit = scanner.step(&mut unit)? else {
                // The view has these records, so the log was cut meanwhile.
                return Err(overtaken(&self.writing.context));
            };
            for entry in &unit.entries {
                // A put that was replaced has a successor further on. A tombstone comes after every record of its key that the
                // copy has so far. The records of a session are as the puts of a key, and its END is as a tombstone.
                let needed = match entry.header.kind {
                    Kind::Put | Kind::PutWith | Kind::PutOwned => {
                        self.old()?.find(unit.key(entry))? == Some(entry.offset)
                    }
                    Kind::Delete => self.view.find(unit.key(entry))?.is_some(),
                    Kind::Session => match unit.session(entry) {
                        Some(record) if record.is_end() => {
                            self.view.keys.lifetimes.sessions.newest(record.session).is_some()
                        }
                        Some(record) => {
                            let newest = self.old()?.keys.lifetimes.sessions.newest(record.session).copied();
                            newest.is_some_and(|newest| newest.position == entry.offset)
                        }
                        None => false,
                    },
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

    /// The old log's view, if the log was neither cut nor exchanged.
    fn old(&self) -> Result<Current<'e>> {
        let view = self.writing.reading.shown()?;
        // An epoch is one reading of one file.
        if view.epoch == self.epoch { Ok(view) } else { Err(overtaken(&self.writing.context)) }
    }

    /// Writes what was copied, and reads it back as any reader does: a copy that does not verify never takes the old file's
    /// place.
    fn write(&mut self) -> Result<()> {
        self.copyist.write(&self.next)?;
        let stop = self.view.catch_up()?;
        if (stop.unit, stop.reason) != (self.copyist.end(), Reason::EndMark) {
            return Err(self.wrong(&format!("at {} it does not read back: {:?}", stop.at, stop.reason)));
        }
        self.progress.done = stop.unit - self.view.reader.log.start();
        Ok(())
    }

    /// Reports the progress, and fails if the caller wants to stop.
    fn report(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        self.progress.total = self.progress.total.max(self.progress.done);
        report(self.writing, self.progress, watch)
    }

    /// Completes the new file: its `base_seq` and floor, its mark, its root, a sync, and a comparison with the old log, which no longer grows.
    fn close(&mut self, base_seq: u64, floor: u64) -> Result<()> {
        self.next.set_seqs(base_seq, floor)?;
        let mark = self.copyist.push_mark(base_seq);
        self.write()?;
        self.next.write_root(mark)?;
        self.next.sync()?;
        self.view.reader.log = Arc::new(LogFile::open(Arc::clone(&self.next.file), &self.writing.context.path)?);
        // The header had another floor when the view was made.
        self.view.tail.last_event = Some(floor);
        let old = self.old()?;
        if (self.view.index().len(), self.view.keys.live_bytes()) != (old.index().len(), old.keys.live_bytes()) {
            return Err(self.wrong("it has other pairs than the old one"));
        }
        if !old.keys.lifetimes.sessions.is_copied_by(&self.view.keys.lifetimes.sessions) {
            return Err(self.wrong("it has other sessions than the old one"));
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
    // The caller's closure may have forked, and this may be the child.
    writing.context.check_process()?;
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(cancelled(&writing.context)),
    }
}

/// Continues the turn in the new file. Its lock has been held since it was made.
fn go_on_in_new_file(turn: &mut Turn<'_>) -> Result<()> {
    let view = turn.view()?;
    let log = Arc::clone(&view.reader.log);
    turn.adopt(&view);
    drop(view);
    turn.writer.release();
    turn.writer.locked = Some(Arc::clone(&log));
    // This handle has written and synced all of the file. The next sequence number is in the block of `base_seq`, which
    // the file header holds.
    let (end, writer) = (turn.tail.end, &mut *turn.writer);
    writer.phase = Phase::BlockReserved;
    (writer.log_end, writer.file_len) = (end, log.len()?);
    writer.root = Root::FIRST_GENERATION;
    writer.set_written_back(log.limits, end);
    let syncs = &*turn.writing.syncs;
    drop(syncs.forget());
    syncs.set_synced(Position { epoch: writer.epoch, offset: end, root: writer.root });
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

/// The refusal of a compaction in a directory that does not take the new file, or does not let it have the store's name.
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
