//! Compaction: the live records in a new file, which then takes the old one's place.
//!
//! It goes on beside readers and writers, of this process and of others, in three parts.
//!
//! 1. In a short turn: the new file is made, so that everybody else can see that somebody is at work, and the log's
//!    end is noted.
//! 2. Without a lock: the live records before that end are copied in the order of the log, and synced. Then what was
//!    appended meanwhile is carried over, and what was appended while that was done, until little is left. Everything
//!    is read back as any reader would read it, and its index is built on the way.
//! 3. In a second turn: the little that is left is carried over, and the new file takes the old one's place, with the
//!    index that is ready. What the old one held in memory is given back after the turn.
//!
//! With a million keys, half of the file dead, and one thread that puts as fast as it can, the second turn takes 5 to
//! 7 ms on an ext4 disk: 0.1 ms to carry over the rest, 1 to 2 to sync it, less than 0.1 for `MOVED`, the rename and
//! the change of the view, and 3 to 4 for the sync of the directory. `benches/pause.rs` shows what others feel of it. The
//! longest of their waits comes after the turn, when the last one to have the old file open closes it: a file system that
//! is mounted with `discard` has the disk busy for 20 to 30 ms then, for a file of 288 MB, whoever removes it. To free it
//! piece by piece would need to know that nobody else has it mapped.
//!
//! The copy is not the store of one moment before the second turn has come to its end. It may hold values that were
//! replaced meanwhile: their successors come later in the log, and so in the copy. A tombstone is carried over if the
//! copy has a record of its key. So the new file has dead bytes too, if much is written meanwhile, but never more of
//! them than the old one.
//!
//! | state | after a crash here |
//! | --- | --- |
//! | temporary file being written | the store is untouched; the next writer removes the temporary file |
//! | temporary file synced | the same |
//! | `MOVED` appended to the old log | the path still names the old file, so `MOVED` means nothing; the next record follows it |
//! | renamed, directory not synced | the path names the old file or the new one, which hold the same; nothing was acknowledged in between |
//! | directory synced | compacted |
//!
//! Memory: eight bytes a key for the positions, until they are copied, and the new index beside the old one. If the handle
//! has listed, the new sorted index is built between copying and catching up, when no writer waits for it.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::disk::{Access, FileAttributes, FileStat};
use crate::engine::Engine;
use crate::engine::read::view::{Current, View};
use crate::engine::write::file_lock::{Deadline, Patience};
use crate::engine::write::sync::Position;
use crate::engine::write::turn::Turn;
use crate::events::event;
use crate::format::{Ancillary, FILE_HEADER_LEN, Kind};
use crate::index::PIECES;
use crate::log::LogFile;
use crate::log::copy::Copyist;
use crate::log::create::{self, Look, Named, TempFile};
use crate::log::recover::PRIVATE;
use crate::log::scan::{Reason, Run, Scanner, Step};
use crate::progress::{Progress, Watch};
use crate::{Error, Result};

/// What [`Cask::compact`](crate::Cask::compact) has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Where the log ended before, in bytes.
    pub before: u64,
    /// Where it ends now.
    pub after: u64,
    /// Keys that were carried over.
    pub keys: u64,
}

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

/// Who is waiting for it.
#[derive(Clone, Copy)]
enum Caller<'p> {
    /// Each turn has the patience that the configuration says.
    User,
    /// The end of the store, whose turns have one patience together.
    Closing(&'p Patience),
    /// Nobody: only the end of the store must not be kept waiting.
    Background,
}

/// How long a compaction in the background waits for its turn, and how often it looks meanwhile whether it is to stop.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

impl Engine {
    pub(crate) fn compact(&self, watch: &mut Watch<'_>) -> Result<Compaction> {
        self.check_writable()?;
        let _alone = self.automatic.pause();
        self.compact_for(Caller::User, watch)
    }

    pub(crate) fn compact_in_background(&self, watch: &mut Watch<'_>) -> Result<Compaction> {
        self.compact_for(Caller::Background, watch)
    }

    /// As [`Engine::compact`], for a caller that has made sure that nothing else compacts.
    pub(crate) fn compact_at_close(&self, patience: &Patience) -> Result<Compaction> {
        self.compact_for(Caller::Closing(patience), &mut |_| ControlFlow::Continue(()))
    }

    fn compact_for(&self, caller: Caller<'_>, watch: &mut Watch<'_>) -> Result<Compaction> {
        let deadline = || match caller {
            Caller::Closing(patience) => patience.deadline(),
            Caller::User | Caller::Background => self.deadline(),
        };
        let mut compactor = self.turn_for(caller, |turn| turn.begin_compaction(&deadline()))?;
        compactor.copy_live(watch)?;
        compactor.sort(watch)?;
        compactor.catch_up(watch)?;
        // What the compactor holds afterwards, the old view or the new file, is given back here, without the lock.
        self.turn_for(caller, |turn| turn.finish_compaction(&mut compactor))
    }

    fn turn_for<'e, T>(&'e self, caller: Caller<'_>, mut act: impl FnMut(&mut Turn<'e>) -> Result<T>) -> Result<T> {
        match caller {
            Caller::User => return self.solo(self.deadline(), act),
            Caller::Closing(patience) => return self.solo_with(patience, act),
            Caller::Background => {}
        }
        let deadline = Deadline::after(Some(BACKGROUND_PATIENCE));
        // Closing has the patience of the configuration.
        let patience = self.config.get_connection_timeout();
        let is_late = || {
            let automatic = &self.automatic;
            automatic.is_awaited() && patience.is_some_and(|patience| automatic.kept_waiting() >= patience)
        };
        loop {
            let awaited = self.automatic.is_awaited();
            let outcome = self.solo(Deadline::of_a_try(LOOK), &mut act);
            let Err(Error::LockTimeout { waited, .. }) = &outcome else { return outcome };
            if awaited {
                self.automatic.keep_waiting(*waited);
            }
            if self.automatic.is_stopped() || is_late() {
                return Err(cancelled(self));
            }
            if deadline.is_over() {
                return Err(self.lock_timeout(&deadline));
            }
        }
    }
}

/// The old log, the new file, and how far the one was copied to the other.
struct Compactor<'e> {
    engine: &'e Engine,
    /// The old file, in this reading.
    log: Arc<LogFile>,
    epoch: u64,
    /// What the old file's were when the new one got them.
    attributes: FileAttributes,
    /// Everything before this offset of the old log is in the copy, as far as it is needed.
    upto: u64,
    /// The index of the record before that.
    previous_seq: u64,
    next: TempFile<'e>,
    copyist: Copyist,
    /// The new file as a reader sees it; once it has taken the old one's place, that one's view.
    view: View,
    progress: Progress,
}

impl<'e> Turn<'e> {
    fn begin_compaction(&mut self, deadline: &Deadline) -> Result<Compactor<'e>> {
        let engine = self.engine;
        self.rewrite_ahead(deadline)?;
        // Under the store's lock, so of two that begin at the same time one sees the other. A second name of the store,
        // which its creator did not live to remove, goes as well.
        if create::remove_leftovers(&*engine.disk, &self.log, Look::Thorough) {
            return Err(self.overtaken());
        }
        self.expect_one_name()?;
        let found = engine.disk.stat(&engine.path);
        let found = found.map_err(|e| self.refused_if_no_place(Error::io("stat", &engine.path, e)))?;
        if found.mount_point {
            return Err(self.refused(MOUNTED.to_owned()));
        }
        // Brings up here, and not in the second turn, what has to be done before a handle's first write.
        self.reserve(1)?;
        let tail = self.view()?.tail.clone();
        let next = TempFile::new(&*engine.disk, &engine.path, PRIVATE, tail.highest_seq);
        let next = next.map_err(|error| self.refused_if_no_place(error))?;
        next.expect_room(self.view()?.live_bytes)?;
        let attributes = self.attributes()?;
        self.give_attributes(&next, &attributes)?;
        let mut copyist = Copyist::new(&next.header);
        copyist.write(&next)?;
        let log = Arc::new(LogFile::open(Arc::clone(&next.file), &engine.path)?);
        let (view, _) = View::build(log, engine.config.get_read_mode(), self.writer.epoch + 1)?;
        Ok(Compactor {
            engine,
            log: Arc::clone(&self.log),
            epoch: self.writer.epoch,
            attributes,
            upto: tail.end,
            previous_seq: tail.previous_seq,
            next,
            copyist,
            view,
            progress: Progress { done: 0, total: self.view()?.live_bytes },
        })
    }

    fn expect_one_name(&self) -> Result<FileStat> {
        let stat = self.log.file.stat().map_err(|e| self.log.io("stat", e))?;
        if stat.links == 0 {
            return Err(Error::Replaced { path: self.engine.path.to_path_buf() });
        }
        if stat.links > 1 {
            let reason = format!("it has {} hard links, and the others would go on naming the old file", stat.links);
            return Err(self.refused(reason));
        }
        Ok(stat)
    }

    fn attributes(&self) -> Result<FileAttributes> {
        self.log.file.attributes().map_err(|e| self.log.io("read the attributes", e))
    }

    fn give_attributes(&self, next: &TempFile<'_>, attributes: &FileAttributes) -> Result<()> {
        let kept = next.file.set_attributes(attributes);
        kept.map_err(|e| self.refused(format!("owner, permissions and attributes cannot be kept: {e}")))
    }

    fn finish_compaction(&mut self, compactor: &mut Compactor<'e>) -> Result<Compaction> {
        let engine = self.engine;
        if self.writer.epoch != compactor.epoch {
            return Err(self.overtaken());
        }
        let stat = self.expect_one_name()?;
        let attributes = self.attributes()?;
        if attributes != compactor.attributes {
            self.give_attributes(&compactor.next, &attributes)?;
        }
        // For the record that says that the log has moved, a statement that may have to come before it, and above both the
        // new file's `base_seq` and its mark.
        let index = self.reserve(4)?;
        compactor.carry_over(|_| Ok(()))?;
        compactor.close(index + 1)?;
        let (before, after) = (self.view()?.tail.end, compactor.view.tail.end);
        if after > before {
            return Err(self.refused(format!("the new file would have {after} bytes, the old one has {before}")));
        }

        if create::named(&*engine.disk, &engine.path, stat.identity)? != Named::This {
            return Err(Error::Replaced { path: engine.path.to_path_buf() });
        }
        // A descriptor for the sync of the directory: to have none left once the file is renamed would poison the handle.
        let reserve = engine.disk.open(&engine.path, Access::Read);
        let reserve = reserve.map_err(|e| Error::io("open", &engine.path, e))?;
        let (flags, index) = self.begin_records(index)?;
        self.writer.group.push(flags, Kind::Ancillary(Ancillary::Moved), index, b"", b"");
        self.write_group()?;
        // From the rename on, a reader of this process would open the new file by itself, and read all of it.
        let ingest = engine.ingest();
        let renamed = compactor.next.rename_to(&engine.path);
        renamed.map_err(|e| self.refused_if_no_place(Error::io("rename the compacted file", &engine.path, e)))?;
        engine.swap(&ingest, &mut compactor.view)?;
        drop((ingest, reserve));
        let synced = create::sync_name(&*engine.disk, &engine.path, &*compactor.next.file);
        // The path names the new file now, whatever else fails.
        self.go_on_in_new_file()?;
        synced.map_err(|e| engine.syncs.poison(&self.log, "sync of the directory", e))?;
        self.writer.directory_synced = true;
        engine.counters.compactions.fetch_add(1, Ordering::Relaxed);
        if let Some(due_at) = engine.due_at(self.view()?.live_bytes) {
            engine.automatic.throttle.start_over(due_at);
        }
        event!(info, "{}: compacted from {before} to {after} bytes", engine.path.display());
        Ok(Compaction { before, after, keys: engine.shown()?.index.len() as u64 })
    }

    /// Goes on with the new file, whose lock is held since it was made.
    fn go_on_in_new_file(&mut self) -> Result<()> {
        let engine = self.engine;
        let view = self.view()?;
        let (log, position) = (Arc::clone(&view.reader.log), Position { epoch: view.epoch, offset: view.tail.end });
        drop(view);
        self.release();
        self.writer.locked = Some(Arc::clone(&log));
        self.writer.start_over(position.epoch);
        // All of it was written by this handle and synced after that, and its header holds the block of the next index.
        let writer = &mut *self.writer;
        (writer.vetted, writer.vouched, writer.numbered) = (true, true, true);
        (writer.last_end, writer.covered) = (position.offset, log.len()?);
        writer.set_begun(position.offset);
        drop(engine.syncs.forget());
        engine.syncs.set_synced(position);
        self.log = log;
        Ok(())
    }

    fn refused(&self, reason: String) -> Error {
        Error::CompactionRefused { path: self.engine.path.to_path_buf(), reason }
    }

    /// Refuses where the directory does not take the new file, or does not let it have the store's name.
    fn refused_if_no_place(&self, error: Error) -> Error {
        let Error::Io { source, .. } = &error else { return error };
        match source.kind() {
            ErrorKind::ResourceBusy => self.refused(format!("{MOUNTED} ({source})")),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                self.refused(format!("{NO_PLACE} ({source})"))
            }
            _ => error,
        }
    }

    fn overtaken(&self) -> Error {
        overtaken(self.engine)
    }
}

fn overtaken(engine: &Engine) -> Error {
    Error::CompactionOvertaken { path: engine.path.to_path_buf() }
}

fn cancelled(engine: &Engine) -> Error {
    Error::CompactionCancelled { path: engine.path.to_path_buf() }
}

impl<'e> Compactor<'e> {
    /// Copies what is live of the log up to its end when the compaction began.
    fn copy_live(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let reader = self.old()?.reader.clone();
        let positions = self.live_positions()?;
        self.view.index.reserve(positions.len());
        for &position in &positions {
            self.copyist.push(&reader, position, false)?;
            if self.copyist.has_a_piece() {
                self.write()?;
                self.report(watch)?;
            }
        }
        self.write()?;
        self.view.index.shrink();
        if self.view.index.len() != positions.len() {
            return Err(self.wrong("it has other keys than the old one"));
        }
        Ok(())
    }

    /// Where the live records are that lie before the noted end, in the order of the log.
    fn live_positions(&self) -> Result<Vec<u64>> {
        let mut positions = Vec::with_capacity(self.old()?.index.len());
        // Piece by piece, so that nobody waits long for the view. What is replaced or removed meanwhile is missing here,
        // and its successor or tombstone lies behind the noted end.
        for piece in 0..PIECES {
            positions.extend(self.old()?.index.positions_in(piece).filter(|&position| position < self.upto));
        }
        positions.sort_unstable();
        Ok(positions)
    }

    /// Sorts the keys of the copy if this handle has its keys sorted: else the next listing would do it while writers wait.
    /// What is carried over from here on goes into both indexes.
    fn sort(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        if self.old()?.index.sorted().is_some() {
            let (engine, progress) = (self.engine, self.progress);
            let built = self.view.index.build_sorted(&self.view.reader, || report(engine, progress, watch))?;
            let installed = self.view.index.install_sorted(built);
            debug_assert!(installed, "only this thread changes the copy's index");
        }
        Ok(())
    }

    /// Carries over what was appended meanwhile, and while that was done, until little is left.
    fn catch_up(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        for _ in 0..ROUNDS {
            self.next.sync()?;
            self.report(watch)?;
            drop(self.engine.current()?);
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
                return Err(overtaken(self.engine));
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
        let view = self.engine.shown()?;
        // An epoch stands for one reading of one file.
        if view.epoch == self.epoch { Ok(view) } else { Err(overtaken(self.engine)) }
    }

    /// Writes what was copied, and reads it back as any reader would: what does not verify never takes the old file's
    /// place.
    fn write(&mut self) -> Result<()> {
        self.copyist.write(&self.next)?;
        let stop = self.view.go_on()?;
        if (stop.unit, stop.reason) != (self.copyist.end(), Reason::EndMark) {
            return Err(self.wrong(&format!("at {} it does not read back: {:?}", stop.at, stop.reason)));
        }
        self.progress.done = stop.unit - FILE_HEADER_LEN as u64;
        Ok(())
    }

    /// Says how far it is, and looks whether to go on.
    fn report(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        self.progress.total = self.progress.total.max(self.progress.done);
        report(self.engine, self.progress, watch)
    }

    /// Makes the new file what it is to be when others see it. The old log does not grow any more.
    fn close(&mut self, base_seq: u64) -> Result<()> {
        self.next.set_base_seq(base_seq)?;
        self.copyist.push_mark(base_seq + 1);
        self.write()?;
        self.next.sync()?;
        self.view.reader.log = Arc::new(LogFile::open(Arc::clone(&self.next.file), &self.engine.path)?);
        let old = self.old()?;
        if (self.view.index.len(), self.view.live_bytes) != (old.index.len(), old.live_bytes) {
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

fn report(engine: &Engine, progress: Progress, watch: &mut Watch<'_>) -> Result<()> {
    engine.check_writable()?;
    let flow = watch(progress);
    // It may have forked, and this may be the child.
    engine.check_process()?;
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(cancelled(engine)),
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Config;
    use crate::disk::sim::SimDisk;
    use crate::engine::batch::{Action, Request};

    #[test]
    fn what_is_written_before_anything_was_copied_is_carried_over_and_not_copied_as_well() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        let put = |key: &[u8], len: usize| {
            let mut request = Request::default();
            request.push(key, Action::Put(&vec![7; len]));
            engine.commit(request).unwrap();
        };
        put(b"\0first", 10_000);
        put(b"\0first", 100);
        let mut compactor = engine.solo(engine.deadline(), |turn| turn.begin_compaction(&engine.deadline())).unwrap();
        put(b"\0second", 100);
        let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
        compactor.copy_live(watch).unwrap();
        assert_eq!(compactor.view.index.len(), 1);
        compactor.catch_up(watch).unwrap();
        let done = engine.solo(engine.deadline(), |turn| turn.finish_compaction(&mut compactor)).unwrap();
        assert_eq!(done.keys, 2);
        let view = engine.current().unwrap();
        assert!(view.find(b"\0first").unwrap().is_some() && view.find(b"\0second").unwrap().is_some());
        assert!(view.index.sorted().is_none(), "nothing was listed");
    }

    #[test]
    fn a_compaction_that_is_stopped_while_it_sorts_ends_there() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        for number in 0..200 {
            let mut request = Request::default();
            request.push(format!("\0{number}").as_bytes(), Action::Put(b"value"));
            engine.commit(request).unwrap();
        }
        drop(engine.scan(b"\0", b"").unwrap());
        let mut compactor = engine.solo(engine.deadline(), |turn| turn.begin_compaction(&engine.deadline())).unwrap();
        compactor.copy_live(&mut |_| ControlFlow::Continue(())).unwrap();
        let mut calls = 0;
        let stopped = compactor.sort(&mut |_| {
            calls += 1;
            if calls < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(stopped, Err(Error::CompactionCancelled { .. })), "{stopped:?}");
        assert!(compactor.view.index.sorted().is_none());
    }

    #[test]
    fn a_compaction_keeps_the_sorted_index_that_a_listing_has_made() {
        let engine = Engine::open(Arc::new(SimDisk::new()), "/store".as_ref(), &Config::new()).unwrap();
        let put = |key: &[u8]| {
            let mut request = Request::default();
            request.push(key, Action::Put(b"value"));
            engine.commit(request).unwrap();
        };
        put(b"\0first");
        put(b"\0first");
        drop(engine.scan(b"\0", b"").unwrap());
        let mut appended = false;
        engine
            .compact(&mut |_| {
                if !std::mem::replace(&mut appended, true) {
                    put(b"\0meanwhile");
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(engine.current().unwrap().index.sorted().map(|sorted| sorted.len()), Some(2));
        // Compares it with a new one.
        engine.verify().unwrap();
    }
}
