//! A turn: the leader, the file's lock, and a log that was recognised and taken in up to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::{Durability, LockMode};
use crate::engine::read::view::{Current, Ingest};
use crate::engine::write::commit::abandoned;
use crate::engine::write::file_lock::{Deadline, Patience, REST};
use crate::engine::write::numbering::Writer;
use crate::engine::write::queue::Entered;
use crate::engine::write::sync::Position;
use crate::engine::{Engine, lock};
use crate::events::event;
use crate::format::END_MARK_LEN;
use crate::log::create::{self, Look, Named};
use crate::log::recover::{Decision, decide, keep_torn_tail};
use crate::log::scan::{Reason, Stop};
use crate::log::{LogFile, append};
use crate::sync::MutexGuard;
use crate::{Error, Result};

/// How often handles that do not sync with every write compare the path's inode with their own.
const IDENTITY_CHECK: Duration = Duration::from_secs(1);

/// A handle without a map that has had a turn so recently does not look whether there is much to read before it takes the
/// lock.
const SHORT_ABSENCE: Duration = Duration::from_millis(10);

/// While this lives, nobody else writes to the file: neither a thread of this process nor another process.
pub(crate) struct Turn<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) writer: MutexGuard<'e, Writer>,
    pub(crate) log: Arc<LogFile>,
    orderly: bool,
}

impl Engine {
    /// Waits for a place of one's own in the queue, and does something in a turn.
    pub(crate) fn solo<'e, T>(&'e self, deadline: Deadline, act: impl FnOnce(&mut Turn<'e>) -> Result<T>) -> Result<T> {
        self.check_writable()?;
        match self.queue.enter(None, &deadline, || Err(abandoned().into())) {
            Entered::Leader(_leader) => self.in_turn(&deadline, act),
            Entered::TimedOut => Err(self.lock_timeout(&deadline)),
            Entered::Done(outcome) => match outcome {
                Err(failure) => Err(failure.error()),
                Ok(_) => unreachable!("a waiter without work is settled by nobody"),
            },
        }
    }

    /// As [`Engine::solo`], for a call of several turns.
    pub(crate) fn solo_with<'e, T>(
        &'e self,
        patience: &Patience,
        act: impl FnOnce(&mut Turn<'e>) -> Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        let outcome = self.solo(patience.deadline(), |turn| {
            patience.spend(began.elapsed());
            act(turn)
        });
        if let Err(Error::LockTimeout { waited, .. }) = &outcome {
            patience.spend(*waited);
        }
        outcome
    }

    pub(crate) fn in_turn<'e, T>(
        &'e self,
        deadline: &Deadline,
        act: impl FnOnce(&mut Turn<'e>) -> Result<T>,
    ) -> Result<T> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let mut turn = Turn::begin(self, deadline)?;
        let result = act(&mut turn);
        turn.orderly = true;
        result
    }

    /// What can be said against a write before waiting for anything.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.config.get_read_only() {
            return Err(Error::ReadOnly { path: self.path.to_path_buf() });
        }
        self.check_process()?;
        self.syncs.check_poison()
    }
}

/// What a look at the log before the lock is taken comes to.
enum Approach {
    /// Nothing is new, or the lock is held already.
    Quiet,
    CaughtUp,
}

impl<'e> Turn<'e> {
    /// Takes the lock, recognises the log, takes in what others have appended, and mends a torn tail.
    fn begin(engine: &'e Engine, deadline: &Deadline) -> Result<Turn<'e>> {
        let mut writer = lock(&engine.writer);
        if let Some(until) = writer.rest_until.take() {
            // Not a system call unless the last turn was contended, and never beyond the caller's patience.
            let rest = until.saturating_duration_since(Instant::now());
            let rest = deadline.left().map_or(rest, |left| left.min(rest));
            if !rest.is_zero() {
                engine.disk.system().pause(rest);
            }
        }
        let log = Arc::clone(&engine.shown()?.reader.log);
        let mut turn = Turn { engine, writer, log, orderly: false };
        let result = turn.catch_up(deadline);
        if let Err(error) = result {
            turn.orderly = true;
            return Err(error);
        }
        Ok(turn)
    }

    pub(crate) fn catch_up(&mut self, deadline: &Deadline) -> Result<()> {
        let engine = self.engine;
        loop {
            let approached = self.approach();
            if !matches!(approached, Ok(Approach::Quiet)) {
                self.log = Arc::clone(&engine.shown()?.reader.log);
            }
            self.take_lock(deadline)?;
            // Whoever led before may have failed while this one waited.
            engine.syncs.check_poison()?;
            let ingest = engine.ingest();
            let (epoch, stop) = engine.take_in(&ingest)?;
            let shown = engine.shown()?;
            let (same, moved) = (Arc::ptr_eq(&shown.reader.log, &self.log), shown.tail.moved);
            let mapped = shown.reader.map.is_some();
            if !same {
                // A reader of this process has found the log compacted into another file.
                let log = Arc::clone(&shown.reader.log);
                drop(shown);
                self.release();
                self.log = log;
                continue;
            }
            drop(shown);
            if epoch != self.writer.epoch {
                self.writer.start_over(epoch);
            }
            if stop.unit != self.writer.last_end || !mapped {
                // Others have written since, and may have extended the file. A handle that closes makes it shorter only if
                // no other maps it, so a handle without a map asks every time.
                (self.writer.last_end, self.writer.covered) = (stop.unit, self.log.len()?);
            }
            if moved && engine.moved_away(&self.log)? {
                // Others that find the same must not wait until this one has read the new file.
                self.release();
                self.writer.caught_up = None;
                approached?;
                continue;
            }
            self.check_identity()?;
            self.recover_tail(&ingest, &stop)?;
            return Ok(());
        }
    }

    /// Reads what others have written, or the file that the log has moved to, before the lock is taken: others would wait
    /// as long as that takes. Under the lock, only what comes after this is left to be read.
    ///
    /// An error says nothing about the log, which may be changing meanwhile. The turn decides under the lock.
    fn approach(&mut self) -> Result<Approach> {
        let engine = self.engine;
        if self.has_lock() {
            return Ok(Approach::Quiet);
        }
        let shown = engine.shown()?;
        if shown.reader.map.is_none() {
            // Each look is a system call then. In a short time others cannot have written much.
            let is_recent = |last: Instant| last.elapsed() < SHORT_ABSENCE;
            if self.writer.caught_up.replace(Instant::now()).is_some_and(is_recent) {
                return Ok(Approach::Quiet);
            }
        }
        if !shown.tail.moved && shown.is_quiet()? {
            return Ok(Approach::Quiet);
        }
        drop(shown);
        loop {
            engine.take_in_early()?;
            if !engine.shown()?.tail.moved {
                return Ok(Approach::CaughtUp);
            }
            let ingest = engine.ingest();
            let shown = engine.shown()?;
            let (log, moved) = (Arc::clone(&shown.reader.log), shown.tail.moved);
            drop(shown);
            if !moved || !engine.moved_away(&log)? {
                return Ok(Approach::CaughtUp);
            }
            engine.follow(&ingest)?;
        }
    }

    fn has_lock(&self) -> bool {
        // After a reopening it may be another description of the file that has it.
        self.writer.locked.as_ref().is_some_and(|locked| locked.identity == self.log.identity)
    }

    fn take_lock(&mut self, deadline: &Deadline) -> Result<()> {
        if self.has_lock() {
            return Ok(());
        }
        self.release();
        let contended = self.engine.wait_for_lock(&self.log, deadline)?;
        self.writer.contended |= contended;
        self.writer.locked = Some(Arc::clone(&self.log));
        Ok(())
    }

    /// Gives up the lock of a file that this handle is done with.
    pub(crate) fn release(&mut self) {
        if let Some(locked) = self.writer.locked.take() {
            // A lock that cannot be given up goes with the file description.
            let _ = locked.file.unlock();
        }
    }

    /// Refuses to write into a file that the path no longer names: nobody would find it again.
    ///
    /// Only under the lock and on a recognised log: at any other moment a compaction could be renaming.
    fn check_identity(&mut self) -> Result<()> {
        let often = self.engine.config.get_durability() == Durability::Sync;
        let due = self.writer.identity_checked.is_none_or(|last| last.elapsed() >= IDENTITY_CHECK);
        if !often && !due {
            return Ok(());
        }
        let engine = self.engine;
        match create::named(&*engine.disk, &engine.path, self.log.identity) {
            Ok(Named::This) => {}
            // This process may not look there any more: it has given up privileges. That the file still has a name is all
            // that it can know.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                if self.log.file.stat().map_err(|e| self.log.io("stat", e))?.links == 0 {
                    return Err(Error::Replaced { path: engine.path.to_path_buf() });
                }
            }
            Ok(_) => return Err(Error::Replaced { path: engine.path.to_path_buf() }),
            Err(error) => return Err(error),
        }
        self.writer.identity_checked = Some(Instant::now());
        Ok(())
    }

    /// Carries out what recovery decides about the log's end.
    fn recover_tail(&mut self, ingest: &Ingest<'_>, stop: &Stop) -> Result<()> {
        if self.writer.vetted && stop.reason == Reason::EndMark {
            return Ok(());
        }
        if !self.writer.vetted {
            // Whoever is still at work on one is left alone.
            let _at_work = create::remove_leftovers(&*self.engine.disk, &self.log, Look::Quick);
        }
        if let Decision::Cut { at, data_end, keep } = decide(&self.log, stop)? {
            let path = self.engine.path.display();
            if keep {
                let kept = keep_torn_tail(&*self.engine.disk, &self.log, at, data_end)?;
                event!(warn, "{path}: a torn tail with whole records in it is kept as {}", kept.display());
            }
            self.cut(ingest, at)?;
            self.engine.counters.torn_bytes.fetch_add(data_end - at, Ordering::Relaxed);
            if data_end > at {
                event!(warn, "{path}: a torn tail of {} bytes was cut off at {at}", data_end - at);
            }
        }
        self.writer.vetted = true;
        Ok(())
    }

    /// Makes the log end at `at`, which is where this handle's view of it ends.
    pub(crate) fn cut(&mut self, ingest: &Ingest<'_>, at: u64) -> Result<()> {
        self.shorten(ingest, at, append::cut)
    }

    /// Gives back what the file was extended by after the log's end, unless a reader may still touch that part of its map:
    /// one that was made when the log was longer. Another handle may have such a map. So may a listing or a mapped value of
    /// this handle, if this handle has ever found the log cut. A map that is made from now on shows no record after this
    /// end.
    pub(crate) fn trim(&mut self) -> Result<()> {
        let view = self.view()?;
        let (end, was_cut) = (view.tail.end, view.was_cut);
        drop(view);
        if was_cut || self.log.len()? <= end + END_MARK_LEN {
            return Ok(());
        }
        // Where the system does not say, somebody else may.
        if !self.log.file.is_mapped_elsewhere().unwrap_or(true) {
            let ingest = self.engine.ingest();
            self.shorten(&ingest, end, append::trim)?;
        }
        Ok(())
    }

    fn shorten(&mut self, ingest: &Ingest<'_>, at: u64, how: fn(&LogFile, u64) -> io::Result<()>) -> Result<()> {
        let engine = self.engine;
        let no_other_sync = engine.syncs.forget();
        engine.syncs.check_poison()?;
        // What was cut may have carried indexes that others saw, so the next write starts a new block.
        self.writer.numbered = false;
        if let Err(e) = how(&self.log, at) {
            return Err(engine.syncs.poison(&self.log, "cut", e));
        }
        drop(no_other_sync);
        (self.writer.last_end, self.writer.covered) = (at, at + END_MARK_LEN);
        let (_, stop) = engine.take_in(ingest)?;
        debug_assert_eq!((stop.unit, stop.reason), (at, Reason::EndMark));
        Ok(())
    }

    pub(crate) fn view(&self) -> Result<Current<'e>> {
        self.engine.shown()
    }

    /// The log's end, as far as it was validated.
    pub(crate) fn position(&self) -> Result<Position> {
        let view = self.view()?;
        Ok(Position { epoch: view.epoch, offset: view.tail.end })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.orderly {
            // A panic: what was written, and what of it is known, nobody can tell.
            let cause = io::Error::other("a panic while writing");
            self.engine.syncs.poison(&self.log, "write", cause);
        }
        if self.engine.config.get_lock_mode() == LockMode::PerWrite {
            self.release();
            let contended = std::mem::take(&mut self.writer.contended);
            if contended && self.engine.config.get_durability() != Durability::Sync {
                self.writer.rest_until = Some(Instant::now() + REST);
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;
    use crate::config::ReadMode;
    use crate::disk::sim::SimDisk;
    use crate::disk::{Access, Disk};
    use crate::engine::batch::{Action, Request};

    const PATH: &str = "/store";

    fn open(disk: &SimDisk) -> Arc<Engine> {
        let config = Config::new().durability(Durability::Os);
        Engine::open(Arc::new(disk.process()), Path::new(PATH), &config).unwrap()
    }

    fn put(engine: &Engine, key: &str, len: usize) {
        let mut request = Request::default();
        request.push(format!("\0{key}").as_bytes(), Action::Put(&vec![7; len]));
        engine.commit(request).unwrap();
    }

    fn has(engine: &Engine, key: &str) -> bool {
        engine.current().unwrap().find(format!("\0{key}").as_bytes()).unwrap().is_some()
    }

    fn file_len(disk: &SimDisk) -> usize {
        disk.contents(PATH).unwrap().len()
    }

    /// Changes a byte of the value of the record at a place.
    fn damage(disk: &SimDisk, at: u64) {
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        file.write_at(at + 40, &[1]).unwrap();
    }

    /// Otherwise each group makes the file longer, and its end mark may find no space.
    #[test]
    fn a_handle_notices_that_another_one_has_given_back_what_the_file_was_extended_by() {
        for (reads, durability) in [ReadMode::Map, ReadMode::Pread]
            .into_iter()
            .flat_map(|reads| [(reads, Durability::Os), (reads, Durability::Sync)])
        {
            let disk = SimDisk::new();
            let config = Config::new().durability(durability).read_mode(reads);
            let open = || Engine::open(Arc::new(disk.process()), Path::new(PATH), &config).unwrap();
            let engine = open();
            put(&engine, "first", 100);
            let len = file_len(&disk);
            let end = || engine.current().unwrap().tail.end;
            let other = open();
            other.close().unwrap();
            let given_back = file_len(&disk) as u64 == end() + END_MARK_LEN;
            assert_eq!(
                given_back,
                reads == ReadMode::Pread,
                "{reads:?}: it did not write, so the log's end is where it was"
            );
            put(&engine, "second", 100);
            assert!(file_len(&disk) >= len, "{reads:?}, {durability:?}: {} bytes", file_len(&disk));
            assert_eq!(lock(&engine.writer).covered, file_len(&disk) as u64);
        }
    }

    /// On the simulated disk, touching a map beyond the end of the file is a panic.
    #[test]
    fn a_handle_that_still_shows_a_log_that_was_cut_finds_the_file_as_long_as_it_knew_it() {
        for punches in [true, false] {
            let disk = SimDisk::new();
            disk.set_punches(punches);
            // It never hears of what the others write.
            let asleep = open(&disk);
            put(&asleep, "kept", 100);
            let writer = open(&disk);
            for n in 0..100 {
                put(&writer, &format!("lost-{n}"), 5000);
            }
            let reader = open(&disk);
            assert!(has(&reader, "lost-99"));
            let position = reader.current().unwrap().find(b"\0lost-99").unwrap().unwrap();
            let held = reader.current().unwrap().reader.clone();
            drop(writer);
            let len = file_len(&disk);

            let first_lost = reader.current().unwrap().find(b"\0lost-0").unwrap().unwrap();
            damage(&disk, first_lost);
            let recovering = open(&disk);
            assert_eq!(recovering.current().unwrap().tail.end, first_lost);
            assert!(file_len(&disk) >= len);
            recovering.close().unwrap();
            assert!(file_len(&disk) >= len, "another handle maps the file");
            put(&asleep, "next", 100);
            asleep.close().unwrap();
            assert!(file_len(&disk) >= len, "this one had never seen the longer log");

            let mut bytes = [1; 5000];
            held.read(position, &mut bytes).unwrap();
            assert_eq!(bytes, [0; 5000]);
            assert!(has(&reader, "kept") && has(&reader, "next") && !has(&reader, "lost-99"));
            drop(held);
            reader.close().unwrap();
            let end = open(&disk).current().unwrap().tail.end;
            let last = open(&disk);
            last.close().unwrap();
            assert_eq!(file_len(&disk) as u64, end + END_MARK_LEN, "nobody else maps the file");
        }
    }
}
