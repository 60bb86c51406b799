//! A turn: the time in which a leader has the file's lock and knows the log up to its end.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Writing;
use super::file_lock::REST;
use super::writer::{Phase, Writer};
use crate::config::{Durability, LockMode};
use crate::engine::deadline::Deadline;
use crate::engine::read::view::View;
use crate::engine::read::{Current, Ingest};
use crate::events::event;
use crate::format::END_MARK_LEN;
use crate::index::Times;
use crate::log::leftovers::{self, Look};
use crate::log::path::{self, Named};
use crate::log::recover::{Decision, decide, keep_torn_tail};
use crate::log::scan::{Reason, Stop};
use crate::log::tail::Tail;
use crate::log::{LogFile, append};
use crate::sync::{MutexGuard, lock};
use crate::{Error, Result};

/// How often handles that do not sync with every write compare the path's inode with their own.
const IDENTITY_CHECK: Duration = Duration::from_secs(1);

/// A handle without a map that has had a turn so recently does not look whether there is much to read before it takes the
/// lock.
const SHORT_ABSENCE: Duration = Duration::from_millis(10);

/// The right to write. While it lives, no other thread and no other process writes to the file.
pub(crate) struct Turn<'e> {
    pub(crate) writing: &'e Writing,
    pub(crate) writer: MutexGuard<'e, Writer>,
    pub(crate) log: Arc<LogFile>,
    /// The log's end. Only this turn changes it.
    pub(crate) tail: Tail,
    /// Whether a key or a session before that can be over.
    pub(super) can_be_over: bool,
    /// What the clocks showed when this turn looked.
    look: OnceCell<(Duration, Times)>,
    /// Which sessions are over, of those that this turn has judged since its last write for a session.
    pub(super) judged: RefCell<BTreeMap<u64, bool>>,
    /// Keys that are over were removed, as many as in one turn.
    pub(super) has_swept: bool,
    /// This turn has kept the lock of the turn before: no other process has written since.
    pub(super) has_kept_lock: bool,
    /// The lock may linger when this turn ends.
    pub(super) may_linger: bool,
    orderly: bool,
}

/// The result of a look at the log before the lock is taken.
enum Approach {
    /// Nothing is new, or the lock is held already.
    Quiet,
    CaughtUp,
}

impl<'e> Turn<'e> {
    /// Takes the lock, recognises the log, replays what others have appended, and recovers a torn tail.
    pub(super) fn begin(writing: &'e Writing, deadline: &Deadline) -> Result<Turn<'e>> {
        let mut writer = lock(&writing.writer);
        if let Some(until) = writer.rest_until.take() {
            // Costs a system call only if the last turn was contended, and never exceeds the caller's deadline.
            let rest = until.saturating_duration_since(writing.context.clock.now());
            let rest = deadline.left().map_or(rest, |left| left.min(rest));
            if !rest.is_zero() {
                writing.context.disk.system().pause(rest);
            }
        }
        let view = writing.reading.shown()?;
        let (log, tail) = (Arc::clone(&view.reader.log), view.tail.clone());
        let can_be_over = view.keys.lifetimes.can_be_over();
        drop(view);
        let mut turn = Turn {
            writing,
            writer,
            log,
            tail,
            can_be_over,
            look: OnceCell::new(),
            judged: RefCell::default(),
            has_swept: false,
            has_kept_lock: false,
            may_linger: false,
            orderly: false,
        };
        turn.take_lock_back();
        turn.has_kept_lock |= turn.has_lock();
        let result = turn.catch_up(deadline);
        if let Err(error) = result {
            turn.end();
            return Err(error);
        }
        Ok(turn)
    }

    /// Marks a turn that has come to its end. Without this, a drop of the turn comes from a panic, and poisons the
    /// handle.
    pub(super) fn end(&mut self) {
        self.orderly = true;
    }

    pub(super) fn catch_up(&mut self, deadline: &Deadline) -> Result<()> {
        let reading = &*self.writing.reading;
        loop {
            let approached = self.approach();
            if !matches!(approached, Ok(Approach::Quiet)) {
                self.log = Arc::clone(&reading.shown()?.reader.log);
            }
            self.take_lock(deadline)?;
            // The leader before may have failed while this one waited.
            self.writing.syncs.check_poison()?;
            let ingest = reading.ingest();
            let looks_at_path = self.looks_at_path();
            let (view, stop) = match self.unchanged(looks_at_path)? {
                Some(view) => {
                    let stop = view.stop_at_end();
                    (view, stop)
                }
                None => reading.catch_up(&ingest)?,
            };
            if !Arc::ptr_eq(&view.reader.log, &self.log) {
                // A reader of this process has found the log compacted into another file.
                let log = Arc::clone(&view.reader.log);
                drop(view);
                self.writer.release();
                self.log = log;
                continue;
            }
            let (mapped, moved) = (view.reader.map.is_some(), view.tail.moved);
            self.adopt(&view);
            drop(view);
            if stop.unit != self.writer.log_end || !mapped && !self.has_kept_lock {
                // Others have written since, and may have extended the file. A handle that closes shortens a file only if no
                // other handle maps it, so a handle without a map asks each time when it has taken the lock.
                (self.writer.log_end, self.writer.file_len) = (stop.unit, self.log.len()?);
            }
            if moved && reading.moved_away(&self.log)? {
                // Others that find the same must not wait until this one has read the new file.
                self.writer.release();
                self.writer.looked = None;
                approached?;
                continue;
            }
            // Also if this is another reading of the log than before.
            if looks_at_path || self.writer.identity_checked.is_none() {
                self.check_identity()?;
            }
            // The lock may have been given up since the turn began. What was over or not then does not count.
            self.look.take();
            self.judged.get_mut().clear();
            self.keep_owner();
            return self.recover_tail(&ingest, &stop);
        }
    }

    /// Reads what others have written, or the file that the log has moved to, before it takes the lock, so that others do not
    /// wait for this. Under the lock, only what comes later is left to be read.
    ///
    /// An error says nothing about the log, which may be changing meanwhile. The turn decides under the lock.
    fn approach(&mut self) -> Result<Approach> {
        if self.has_lock() {
            return Ok(Approach::Quiet);
        }
        let reading = &*self.writing.reading;
        let view = reading.shown()?;
        if view.reader.map.is_none() {
            // Each look is a system call then. In a short time others cannot have written much.
            let clock = &self.writing.context.clock;
            let is_recent = |last: Instant| clock.since(last) < SHORT_ABSENCE;
            if self.writer.looked.replace(clock.now()).is_some_and(is_recent) {
                return Ok(Approach::Quiet);
            }
        }
        if !view.tail.moved && view.is_quiet()? {
            return Ok(Approach::Quiet);
        }
        drop(view);
        loop {
            reading.catch_up_early()?;
            if !reading.shown()?.tail.moved {
                return Ok(Approach::CaughtUp);
            }
            let ingest = reading.ingest();
            let view = reading.shown()?;
            let (log, moved) = (Arc::clone(&view.reader.log), view.tail.moved);
            drop(view);
            if !moved || !reading.moved_away(&log)? {
                return Ok(Approach::CaughtUp);
            }
            reading.follow(&ingest)?;
        }
    }

    fn has_lock(&self) -> bool {
        // After a reopening, another description of the file may have it.
        self.writer.locked.as_ref().is_some_and(|locked| locked.identity == self.log.identity)
    }

    fn take_lock(&mut self, deadline: &Deadline) -> Result<()> {
        if self.has_lock() {
            return Ok(());
        }
        self.writer.release();
        self.has_kept_lock = false;
        let contended = self.writing.wait_for_lock(&self.log, deadline)?;
        self.writer.contended |= contended;
        self.writer.locked = Some(Arc::clone(&self.log));
        Ok(())
    }

    /// The view, if it must be that of the log as it is: this handle has kept the lock since its last write, so no other process has
    /// written. The look at the log's end that is left out here would be the first touch of a page of the map after each page of
    /// records. It would notice what changes the file without the lock. Such changes are still looked for, as often as the path is.
    fn unchanged(&self, looks_at_path: bool) -> Result<Option<Current<'e>>> {
        if !self.has_kept_lock || looks_at_path || self.writer.phase < Phase::BlockReserved {
            return Ok(None);
        }
        let (epoch, log_end) = (self.writer.epoch, self.writer.log_end);
        Ok(Some(self.view()?).filter(|view| (view.epoch, view.tail.end) == (epoch, log_end) && !view.is_broken()))
    }

    /// Whether this turn looks which file the path names.
    fn looks_at_path(&self) -> bool {
        let context = &*self.writing.context;
        context.config.get_durability() == Durability::Sync
            || self.writer.identity_checked.is_none_or(|last| context.clock.since(last) >= IDENTITY_CHECK)
    }

    /// Refuses to write into a file that the path no longer names: a later opening would not find it.
    ///
    /// Only under the lock and on a recognised log: at any other moment a compaction could be renaming.
    fn check_identity(&mut self) -> Result<()> {
        let context = &*self.writing.context;
        match path::named(&*context.disk, &context.path, self.log.identity) {
            Ok(Named::This) => {}
            // This process has given up the privilege to look there. It can only ask whether the file still has a name.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                if self.log.file.stat().map_err(|e| self.log.io("stat", e))?.links == 0 {
                    return Err(context.replaced());
                }
            }
            Ok(_) => return Err(context.replaced()),
            Err(error) => return Err(error),
        }
        self.writer.identity_checked = Some(context.clock.now());
        Ok(())
    }

    /// The time by the wall clock, and what keys and sessions are compared with. The clocks are looked at once in a turn, after the turn
    /// has replayed what others wrote.
    pub(super) fn look(&self) -> (Duration, Times) {
        *self.look.get_or_init(|| self.writing.context.look())
    }

    /// Carries out what recovery decides about the log's end.
    fn recover_tail(&mut self, ingest: &Ingest<'_>, stop: &Stop) -> Result<()> {
        let is_first = self.writer.phase < Phase::Recovered;
        if !is_first && stop.reason == Reason::EndMark {
            return Ok(());
        }
        let context = &*self.writing.context;
        if is_first {
            // A file whose maker is still at work is left alone.
            let _at_work = leftovers::remove_leftovers(&*context.disk, &self.log, Look::Quick);
        }
        if let Decision::Cut { at, data_end, keep } = decide(&self.log, stop)? {
            let path = context.path.display();
            if keep {
                let kept = keep_torn_tail(&*context.disk, &self.log, at, data_end)?;
                event!(warn, "{path}: a torn tail with whole records in it is kept as {}", kept.display());
            }
            self.cut(ingest, at)?;
            context.counters.torn_bytes.fetch_add(data_end - at, Ordering::Relaxed);
            if data_end > at {
                event!(warn, "{path}: a torn tail of {} bytes was cut off at {at}", data_end - at);
            }
        }
        self.writer.reach(Phase::Recovered);
        Ok(())
    }

    /// Makes the log end at `at`, where this handle's view of it ends.
    pub(super) fn cut(&mut self, ingest: &Ingest<'_>, at: u64) -> Result<()> {
        self.shorten(ingest, at, append::cut)
    }

    /// Shortens the file to the log's end, unless a reader may still touch the rest through its map. Another handle may have
    /// such a map. So may a listing or a mapped value of this handle, if this handle has ever found the log cut. A map that is
    /// made from now on shows no record after this end.
    pub(super) fn trim(&mut self) -> Result<()> {
        let end = self.tail.end;
        if self.view()?.was_cut || self.log.len()? <= end + END_MARK_LEN {
            return Ok(());
        }
        // Where the system does not say, another handle may have one.
        if !self.log.file.is_mapped_elsewhere().unwrap_or(true) {
            let ingest = self.writing.reading.ingest();
            self.shorten(&ingest, end, append::trim)?;
        }
        Ok(())
    }

    fn shorten(&mut self, ingest: &Ingest<'_>, at: u64, how: fn(&LogFile, u64) -> io::Result<()>) -> Result<()> {
        let syncs = &*self.writing.syncs;
        let no_other_sync = syncs.forget();
        syncs.check_poison()?;
        // Others may have seen the sequence numbers that are cut, so the next write starts a new block.
        self.writer.phase = self.writer.phase.min(Phase::TailResynced);
        if let Err(e) = how(&self.log, at) {
            return Err(syncs.poison(&self.log, "cut", e));
        }
        drop(no_other_sync);
        let (view, stop) = self.writing.reading.catch_up(ingest)?;
        debug_assert_eq!((stop.unit, stop.reason), (at, Reason::EndMark));
        self.adopt(&view);
        (self.writer.log_end, self.writer.file_len) = (at, at + END_MARK_LEN);
        Ok(())
    }

    /// Goes on from the log's end as the view has it.
    pub(crate) fn adopt(&mut self, view: &View) {
        self.follow(view);
        if view.epoch != self.writer.epoch {
            self.writer.start_over(view.epoch);
        }
    }

    /// Takes over what the view says of the log's end, after a change of it in this turn.
    pub(super) fn follow(&mut self, view: &View) {
        self.tail.clone_from(&view.tail);
        self.can_be_over = view.keys.lifetimes.can_be_over();
    }

    pub(crate) fn view(&self) -> Result<Current<'e>> {
        self.writing.reading.shown()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.orderly {
            // A panic: how much was written is unknown.
            let cause = io::Error::other("a panic while writing");
            self.writing.syncs.poison(&self.log, "write", cause);
        }
        let context = &*self.writing.context;
        let config = &context.config;
        if config.get_lock_mode() == LockMode::PerWrite {
            self.leave_lock();
            let contended = std::mem::take(&mut self.writer.contended);
            if contended && config.get_durability() != Durability::Sync {
                self.writer.rest_until = Some(context.clock.now() + REST);
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;
    use crate::config::{ReadMode, SnapshotPolicy};
    use crate::disk::sim::SimDisk;
    use crate::disk::{Access, Disk};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};

    const PATH: &str = "/store";

    fn open(disk: &SimDisk) -> Engine {
        // A snapshot would change the files' lengths.
        let config = Config::new().durability(Durability::Os).snapshots(SnapshotPolicy::Never);
        Engine::open(Arc::new(disk.process()), Path::new(PATH), &config).unwrap()
    }

    fn put(engine: &Engine, key: &str, len: usize) {
        let mut request = Request::default();
        request.push(format!("\0{key}").as_bytes(), Action::Put(&vec![7; len]));
        engine.commit(request).unwrap();
    }

    fn has(engine: &Engine, key: &str) -> bool {
        engine.reading.current().unwrap().find(format!("\0{key}").as_bytes()).unwrap().is_some()
    }

    fn file_len(disk: &SimDisk) -> usize {
        disk.contents(PATH).unwrap().len()
    }

    /// Changes a byte of the value of the record at a place.
    fn damage(disk: &SimDisk, at: u64) {
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        file.write_at(at + 40, &[1]).unwrap();
    }

    /// Otherwise each group would extend the file, and there may be no space for its end mark.
    #[test]
    fn a_handle_notices_that_another_one_has_shortened_the_file() {
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
            let end = || engine.reading.current().unwrap().tail.end;
            let other = open();
            other.close().unwrap();
            let was_shortened = file_len(&disk) as u64 == end() + END_MARK_LEN;
            assert_eq!(
                was_shortened,
                reads == ReadMode::Pread,
                "{reads:?}: the first handle did not write, so the log's end is where it was"
            );
            put(&engine, "second", 100);
            assert!(file_len(&disk) >= len, "{reads:?}, {durability:?}: {} bytes", file_len(&disk));
            assert_eq!(lock(&engine.writing.writer).file_len, file_len(&disk) as u64);
        }
    }

    /// On the simulated disk, touching a map beyond the end of the file is a panic.
    #[test]
    fn a_file_is_not_shortened_while_a_handle_shows_the_longer_log() {
        for punches in [true, false] {
            let disk = SimDisk::new();
            disk.set_punches(punches);
            // This handle makes no call while the others write.
            let asleep = open(&disk);
            put(&asleep, "kept", 100);
            let writer = open(&disk);
            for n in 0..100 {
                put(&writer, &format!("lost-{n}"), 5000);
            }
            let reader = open(&disk);
            assert!(has(&reader, "lost-99"));
            let position = reader.reading.current().unwrap().find(b"\0lost-99").unwrap().unwrap();
            let held = reader.reading.current().unwrap().reader.clone();
            drop(writer);
            let len = file_len(&disk);

            let first_lost = reader.reading.current().unwrap().find(b"\0lost-0").unwrap().unwrap();
            damage(&disk, first_lost);
            let recovering = open(&disk);
            assert_eq!(recovering.reading.current().unwrap().tail.end, first_lost);
            assert!(file_len(&disk) >= len);
            recovering.close().unwrap();
            assert!(file_len(&disk) >= len, "another handle maps the file");
            put(&asleep, "next", 100);
            asleep.close().unwrap();
            assert!(file_len(&disk) >= len, "another handle has read the longer log, which this one has not");

            let mut bytes = [1; 5000];
            held.read(position, &mut bytes).unwrap();
            assert_eq!(bytes, [0; 5000]);
            assert!(has(&reader, "kept") && has(&reader, "next") && !has(&reader, "lost-99"));
            drop(held);
            reader.close().unwrap();
            let end = open(&disk).reading.current().unwrap().tail.end;
            let last = open(&disk);
            last.close().unwrap();
            assert_eq!(file_len(&disk) as u64, end + END_MARK_LEN, "no other handle maps the file");
        }
    }

    /// On the simulated disk, touching a map beyond the end of the file is a panic.
    #[test]
    fn a_close_leaves_the_file_as_long_as_its_own_listing_shows_it() {
        let disk = SimDisk::new();
        let writer = open(&disk);
        for n in 0..100 {
            put(&writer, &format!("lost-{n}"), 5000);
        }
        let handle = open(&disk);
        assert!(has(&handle, "lost-99"));
        let (listing, last, cut_from) = {
            let view = handle.reading.current().unwrap();
            let find = |key: &[u8]| view.find(key).unwrap().unwrap();
            (view.reader.clone(), find(b"\0lost-99"), find(b"\0lost-50"))
        };
        drop(writer);
        damage(&disk, cut_from);
        open(&disk).close().unwrap();
        put(&handle, "next", 100);
        handle.close().unwrap();
        let mut bytes = [1; 5000];
        listing.read(last, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 5000], "the cut has removed it");
    }
}
