//! The view: what a handle shows its readers, and how it keeps up with what is appended to the file.
//!
//! A read costs no system call and no lock that is held during a write or a sync: it looks at the eight bytes of the
//! log's end through the map, and while they are zero nothing was appended since the view was made.

use std::ops::Deref;
use std::sync::Arc;

use crate::config::ReadMode;
use crate::disk::Map;
use crate::engine::read::partial_tail::PartialTail;
use crate::engine::read::sharded::ReadGuard;
use crate::engine::{Engine, lock};
use crate::events::event;
use crate::format::{END_MARK_LEN, Kind};
use crate::index::buckets::Buckets;
use crate::index::{Index, SortedIndex};
use crate::log::LogFile;
use crate::log::create::{self, Named};
use crate::log::read::{Reader, Start};
use crate::log::recover::{Decision, decide, has_end_mark};
use crate::log::scan::{Entry, RUN_LEN, Reason, Run, Scanner, Stop};
use crate::log::tail::Tail;
use crate::sync::MutexGuard;
use crate::{Error, Result};

/// One file's log as far as it was taken in, and the index over it.
pub(crate) struct View {
    pub(crate) reader: Reader,
    pub(crate) tail: Tail,
    pub(crate) index: Index,
    /// Which reading of the log this is; see [`crate::engine::write::sync::Position`].
    pub(crate) epoch: u64,
    /// Bytes of the records that the index points to.
    pub(crate) live_bytes: u64,
    pub(crate) buckets: Buckets,
    /// The file ends before an end mark could stand at the log's end, so the map must not be touched there.
    mark_missing: bool,
    /// What stands behind the log's end and is no complete record or batch, if it was looked at.
    partial_tail: Option<PartialTail>,
    /// This file's log was longer once, as this handle has read it: listings and mapped values of then may still be there.
    pub(crate) was_cut: bool,
    /// The index misses a record that the tail has passed, because reading a key failed while it was taken in: read the
    /// log anew.
    broken: bool,
}

/// What a look at the log's end says.
enum Peek {
    Quiet,
    /// There are bytes behind the end.
    More,
    /// The log is not the one that was taken in.
    Cut,
}

/// A map is made larger than its file, so that it need not be replaced with every append.
const SMALLEST_MAP: u64 = 1 << 20;

/// While a log is read, its index gets room for as many keys as so many times what was read of it may hold. More would have
/// to be given back more often, where the rest of the log has fewer keys, and be there until then.
const ROOM_AHEAD: u64 = 2;

impl View {
    /// Reads a whole log. `stop` says how the walk ended; it is not judged here.
    pub(crate) fn build(log: Arc<LogFile>, mode: ReadMode, epoch: u64) -> Result<(View, Stop)> {
        let tail = Tail::new(&log.header);
        let file_len = log.len()?;
        let mut view = View {
            reader: Reader { log: Arc::clone(&log), map: None, end: tail.end },
            mark_missing: !has_end_mark(file_len, tail.end),
            tail,
            index: Index::new(),
            epoch,
            live_bytes: 0,
            buckets: Buckets::default(),
            partial_tail: None,
            was_cut: false,
            broken: false,
        };
        if mode == ReadMode::Map {
            view.map(file_len);
        }
        let mut room_until = 0;
        let stop = Scanner::from_start(&log)?.walk(|run| {
            view.apply(run)?;
            let end = view.tail.end;
            if (room_until..file_len).contains(&end) {
                // What is to come may hold as many keys as what was read, byte by byte.
                room_until = file_len.min(end * ROOM_AHEAD);
                let keys = view.index.len() as u128 * u128::from(room_until) / u128::from(end);
                view.index.reserve(keys as usize);
            }
            Ok(())
        })?;
        view.index.shrink();
        view.stopped(&stop);
        Ok((view, stop))
    }

    /// Decides on a log that was read without the lock, up to `stop`.
    ///
    /// What is damaged by the looks of it may have been in the making when it was read, and what proves that it is
    /// damaged may have been written after that. So it is read once more after the proof was seen: only if it still
    /// is as it was, it is damaged.
    pub(crate) fn judge(mut self, mut stop: Stop, mode: ReadMode) -> Result<(View, Decision)> {
        let log = Arc::clone(&self.reader.log);
        loop {
            let decision = decide(&log, &stop);
            if !matches!(decision, Err(Error::Corrupt { .. })) {
                return decision.map(|decision| (self, decision));
            }
            let again = match self.peek()? {
                Peek::Cut => {
                    let (view, again) = View::build(Arc::clone(&log), mode, self.epoch)?;
                    self = view;
                    again
                }
                Peek::Quiet | Peek::More => self.go_on()?,
            };
            if again == stop {
                return decision.map(|decision| (self, decision));
            }
            stop = again;
        }
    }

    /// Takes in what has been appended since.
    pub(crate) fn go_on(&mut self) -> Result<Stop> {
        let log = Arc::clone(&self.reader.log);
        let mut scanner = Scanner::resume(&log, self.tail.end, self.tail.previous_seq)?;
        let stop = scanner.walk(|run| self.apply(run))?;
        self.stopped(&stop);
        Ok(stop)
    }

    fn stopped(&mut self, stop: &Stop) {
        self.mark_missing = stop.reason == Reason::EndOfFile;
        self.partial_tail = None;
    }

    /// Takes in validated units that start at the log's end: all of them become visible at once.
    pub(crate) fn apply(&mut self, run: &Run) -> Result<()> {
        let Some(end) = run.end() else { return Ok(()) };
        self.reader.end = end;
        if self.reader.map.as_ref().is_some_and(|map| self.reader.end + END_MARK_LEN > map.len()) {
            self.map(self.reader.end + END_MARK_LEN);
        }
        // Until all of it is in: an error, or a panic, leaves the index without a record that the tail has passed.
        self.broken = true;
        for entries in run.entries.chunks(RUN_LEN) {
            // The places of all their keys in the index are fetched before the first of them is changed.
            if entries.len() > 1 {
                self.prefetch_slots(entries.iter().map(|entry| run.key(entry)));
            }
            for entry in entries {
                self.tail.observe(entry.offset, &entry.header, entry.proof);
                self.index_entry(entry, run.key(entry))?;
            }
        }
        self.broken = false;
        Ok(())
    }

    /// Has fetched what the hash index says of these keys, or of the first of them.
    pub(crate) fn prefetch_slots<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        keys.take(RUN_LEN).for_each(|key| self.index.prefetch(key));
    }

    /// Begins to fetch the records that writes of these keys, or of the first of them, are to replace.
    pub(crate) fn prefetch_replaced<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let replaced = keys.take(RUN_LEN).filter_map(|key| self.index.guess(key));
        replaced.for_each(|position| self.reader.prefetch(position));
    }

    /// Makes sure that the records that a run is to replace can be replaced: their keys say which they are, and their headers
    /// how many bytes die. After the write it would be too late: the run could not be taken in, and the file would be changed
    /// although damage is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    pub(crate) fn prove_replaced(&self, run: &Run) -> Result<()> {
        for entries in run.entries.chunks(RUN_LEN) {
            if entries.len() > 1 {
                self.prefetch_slots(entries.iter().map(|entry| run.key(entry)));
                self.prefetch_replaced(entries.iter().map(|entry| run.key(entry)));
            }
            for entry in entries.iter().filter(|entry| !matches!(entry.header.kind, Kind::Ancillary(_))) {
                if let Some(position) = self.find(run.key(entry))? {
                    self.reader.header(position)?;
                }
            }
        }
        Ok(())
    }

    fn index_entry(&mut self, entry: &Entry, key: &[u8]) -> Result<()> {
        let replaced = match entry.header.kind {
            Kind::Put => {
                self.live_bytes += entry.header.padded_len();
                self.index.apply_put(key, entry.offset, &self.reader)?
            }
            Kind::Delete => self.index.apply_delete(key, &self.reader)?,
            Kind::Ancillary(_) => None,
        };
        match (entry.header.kind, replaced) {
            (Kind::Put, None) => self.buckets.add(key),
            (Kind::Delete, Some(_)) => self.buckets.remove(key),
            _ => {}
        }
        if let Some(position) = replaced {
            self.live_bytes -= self.reader.header(position)?.padded_len();
        }
        Ok(())
    }

    /// Maps at least `len` bytes. A disk or a process limit that does not let us map leaves plain reads.
    fn map(&mut self, len: u64) {
        let generous = (len * 2).max(SMALLEST_MAP).next_multiple_of(SMALLEST_MAP);
        if self.reader.map.as_mut().and_then(Arc::get_mut).is_some_and(|map| map.resize(generous)) {
            return;
        }
        // There is none, or it cannot be resized, or somebody else, a listing say, still reads from it.
        let file = &self.reader.log.file;
        let map = file.map(generous).or_else(|_| file.map(len)).unwrap_or(None);
        self.reader.map = map.map(Arc::<Map>::new);
    }

    /// Whether a look at the log's end finds nothing new.
    pub(crate) fn is_quiet(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, Peek::Quiet))
    }

    /// Compares eight bytes at the log's end and the landmark with what they were.
    fn peek(&self) -> Result<Peek> {
        if self.broken || self.word(self.tail.landmark.offset)? != Some(self.tail.landmark.word) {
            return Ok(Peek::Cut);
        }
        if self.mark_missing {
            let marked = has_end_mark(self.reader.log.len()?, self.tail.end);
            return Ok(if marked { Peek::More } else { Peek::Quiet });
        }
        Ok(match self.word(self.tail.end)? {
            Some(0) => Peek::Quiet,
            Some(_) => Peek::More,
            None => Peek::Cut,
        })
    }

    /// Eight bytes of the file, `None` where a file that is read without a map ends before them.
    fn word(&self, offset: u64) -> Result<Option<u64>> {
        match self.reader.word(offset) {
            Ok(word) => Ok(Some(word)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing was appended and nothing was cut.
    fn is_at_end(&self) -> Result<bool> {
        Ok(match self.peek()? {
            Peek::Quiet => true,
            Peek::More => self.partial_tail.as_ref().is_some_and(|seen| seen.is_unchanged(&self.reader.log)),
            Peek::Cut => false,
        })
    }

    /// The position of a key's record, if the key is there.
    #[inline]
    pub(crate) fn find(&self, full_key: &[u8]) -> Result<Option<u64>> {
        self.index.find(full_key, &self.reader)
    }
}

/// A view that was current when it was asked for, and stays as it is while this is held.
pub(crate) struct Current<'e>(ReadGuard<'e, Option<View>>);

impl Deref for Current<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        self.0.as_ref().expect("made from a view that is there, and the guard keeps it")
    }
}

/// Held by whoever changes the view, so that the file is read by one thread at a time and no record is taken in
/// twice. Never held during a sync.
pub(crate) struct Ingest<'e>(#[allow(dead_code, reason = "held for its lock")] MutexGuard<'e, ()>);

impl Current<'_> {
    /// The sorted index of a view that has one.
    pub(crate) fn sorted(&self) -> &SortedIndex {
        self.index.sorted().expect("`Engine::sorted` has made this view")
    }

    /// Reads the record at a position. A long record is read without the view's lock, so changes of the view do not wait for
    /// it: the log only grows, so the record stays where it is, and the reader keeps the file.
    #[inline]
    pub(crate) fn read<T>(self, position: u64, read: impl FnOnce(&Reader, &Start) -> Result<T>) -> Result<T> {
        let start = self.reader.start(position)?;
        if !start.is_long() {
            return read(&self.reader, &start);
        }
        let reader = self.reader.clone();
        drop(self);
        read(&reader, &start)
    }
}

impl Engine {
    /// Answers from a view that is current when this is called. Another process may cut the log while the answer is looked
    /// for, and what was cut reads as damaged: then the answer is looked for again, in what is there now.
    #[inline]
    pub(crate) fn answer<T>(&self, mut answer: impl FnMut(Current<'_>) -> Result<T>) -> Result<T> {
        loop {
            let view = self.current()?;
            let epoch = view.epoch;
            match answer(view) {
                Err(Error::Corrupt { .. } | Error::Io { .. }) if self.current()?.epoch != epoch => {}
                answered => return answered,
            }
        }
    }

    /// The view, after taking in whatever was appended before this call.
    pub(crate) fn current(&self) -> Result<Current<'_>> {
        if let Some(view) = self.shown_if_current()? {
            return Ok(view);
        }
        self.refresh()?;
        self.shown()
    }

    /// The view, if it is current.
    #[inline]
    fn shown_if_current(&self) -> Result<Option<Current<'_>>> {
        let mut view = self.shown()?;
        if view.tail.moved {
            // Without the view's lock: a look at the path can take long, and writers would wait for it.
            let log = Arc::clone(&view.reader.log);
            drop(view);
            if self.moved_away(&log)? {
                return Ok(None);
            }
            view = self.shown()?;
            if !Arc::ptr_eq(&log, &view.reader.log) {
                return Ok(None);
            }
        }
        Ok(view.is_at_end()?.then_some(view))
    }

    /// The view as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::Forked`] in a forked child: a thread of the parent may have had the view's lock at
    /// the moment of the fork, and the child would wait for it for ever.
    #[inline]
    pub(crate) fn shown(&self) -> Result<Current<'_>> {
        self.check_process()?;
        let guard = self.view.read();
        if guard.is_none() { Err(Error::Closed) } else { Ok(Current(guard)) }
    }

    pub(crate) fn ingest(&self) -> Ingest<'_> {
        Ingest(lock(&self.ingest))
    }

    /// Changes the view.
    pub(crate) fn change<T>(&self, _: &Ingest<'_>, change: impl FnOnce(&mut View) -> Result<T>) -> Result<T> {
        self.view.write().as_mut().ok_or(Error::Closed).and_then(change)
    }

    /// Puts another view in the place of this one, and leaves that where the other was: to unmap a large file, and to
    /// free its index, takes longer than anybody should have to wait.
    pub(crate) fn swap(&self, _: &Ingest<'_>, other: &mut View) -> Result<()> {
        // Once it is closed, closed it stays.
        self.view.write().as_mut().map(|view| std::mem::swap(view, other)).ok_or(Error::Closed)
    }

    /// Puts another view in the place of this one.
    pub(crate) fn replace(&self, ingest: &Ingest<'_>, mut view: View) -> Result<()> {
        self.swap(ingest, &mut view)
    }

    /// Without the lock: other processes may be writing, cutting or compacting while this reads.
    fn refresh(&self) -> Result<()> {
        let ingest = self.ingest();
        loop {
            if self.shown_if_current()?.is_some() {
                return Ok(());
            }
            let view = self.shown()?;
            let (log, moved) = (Arc::clone(&view.reader.log), view.tail.moved);
            drop(view);
            if moved && self.moved_away(&log)? {
                self.follow(&ingest)?;
                continue;
            }
            let found = self.take_in(&ingest)?;
            if self.shown()?.tail.moved && self.moved_away(&log)? {
                // `MOVED` was among what was just taken in, and the file that took this one's place may have got
                // later writes before this call began.
                continue;
            }
            if !matches!(found.1.reason, Reason::Damaged(_)) {
                return Ok(());
            }
            // What will be remembered is looked at before the record is read once more: if it is finished in
            // between, either this reading or the next comparison tells. If it changes, somebody is at work on it;
            // whatever was complete when this call began has been taken in, so there is nothing to wait for.
            let looked = PartialTail::look(&log, &found.1)?;
            if self.take_in(&ingest)? != found {
                return Ok(());
            }
            // A record in the making looks damaged. Only if what follows proves that it was once whole, and it still
            // is not when it is read after that, somebody has damaged it.
            let decision = decide(&log, &found.1);
            if matches!(decision, Err(Error::Corrupt { .. })) && self.take_in(&ingest)? != found {
                return Ok(());
            }
            decision?;
            return self.change(&ingest, |view| {
                view.partial_tail = Some(looked);
                Ok(())
            });
        }
    }

    /// Reads the log from the view's end, or anew if it was cut, and takes in what is complete. Returns the view's
    /// epoch and where the walk stopped.
    pub(crate) fn take_in(&self, ingest: &Ingest<'_>) -> Result<(u64, Stop)> {
        let view = self.shown()?;
        let (log, tail, epoch) = (Arc::clone(&view.reader.log), view.tail.clone(), view.epoch);
        match view.peek()? {
            Peek::Quiet => {
                let reason = if view.mark_missing { Reason::EndOfFile } else { Reason::EndMark };
                return Ok((epoch, Stop { unit: tail.end, at: tail.end, previous_seq: tail.previous_seq, reason }));
            }
            Peek::Cut => {
                drop(view);
                log.expect_same_header()?;
                let (mut view, stop) = View::build(log, self.config.get_read_mode(), epoch + 1)?;
                view.was_cut = true;
                let end = view.tail.end;
                self.replace(ingest, view)?;
                event!(info, "{}: somebody has cut the log; read anew up to {end}", self.path.display());
                return Ok((epoch + 1, stop));
            }
            Peek::More => drop(view),
        }
        let mut scanner = Scanner::resume(&log, tail.end, tail.previous_seq)?;
        let take = |view: &mut View, run: &Run| {
            // Until it is known what stands behind this run: other threads peek meanwhile, and the file may end here.
            view.mark_missing = true;
            view.apply(run)
        };
        let stop = scanner.walk(|run| self.change(ingest, |view| take(view, run)))?;
        self.change(ingest, |view| {
            view.stopped(&stop);
            Ok(())
        })?;
        Ok((epoch, stop))
    }

    /// Takes in what others have appended, without the file's lock. What is incomplete, or looks damaged, is left to the
    /// turn that is about to take the lock.
    pub(crate) fn take_in_early(&self) -> Result<()> {
        if self.shown()?.is_quiet()? {
            return Ok(());
        }
        let ingest = self.ingest();
        self.take_in(&ingest).map(drop)
    }

    /// Goes on with the file that compaction has put in the place of this one.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`] if the path names a file that is no successor of this one: a restored backup, a salvaged copy or
    /// another store. What was written after the compaction is not in there, and what is read now is not in here.
    pub(crate) fn follow(&self, ingest: &Ingest<'_>) -> Result<()> {
        let moved = self.shown()?.tail.previous_seq;
        let log = self.open_path()?;
        if !log.may_succeed(moved) {
            return Err(Error::Replaced { path: self.path.to_path_buf() });
        }
        self.go_on_with(ingest, log)
    }

    /// Opens the file that the path names now.
    pub(crate) fn open_path(&self) -> Result<Arc<LogFile>> {
        let (opening, deadline) = (create::Opening { create: false, ..self.opening() }, self.deadline());
        create::open(&*self.disk, &self.path, opening, || self.wait_a_moment(&deadline)).map(Arc::new)
    }

    /// Reads a log and shows it in the place of this one.
    pub(crate) fn go_on_with(&self, ingest: &Ingest<'_>, log: Arc<LogFile>) -> Result<()> {
        let epoch = self.shown()?.epoch + 1;
        let view = self.read_log(log, epoch)?;
        self.replace(ingest, view)?;
        event!(debug, "{}: the file that has the path now is opened", self.path.display());
        Ok(())
    }

    /// Reads a whole log without the lock, and finds damage that is proven to be damage.
    pub(crate) fn read_log(&self, log: Arc<LogFile>, epoch: u64) -> Result<View> {
        let mode = self.config.get_read_mode();
        let (view, stop) = View::build(log, mode, epoch)?;
        if !self.config.get_read_only() {
            // A writer looks again, under the lock, before it writes.
            return Ok(view);
        }
        view.judge(stop, mode).map(|(view, _)| view)
    }

    /// Whether the path names another file than this one. A path that names nothing does not: there is nothing else
    /// to show.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`] if the file has no name any more, and the path leads to it all the same: there is a newer file
    /// that cannot be found from here.
    pub(crate) fn moved_away(&self, log: &LogFile) -> Result<bool> {
        match create::named(&*self.disk, &self.path, log.identity)? {
            Named::Another => Ok(true),
            Named::This | Named::Nothing => Ok(false),
            Named::Orphan => Err(Error::Replaced { path: self.path.to_path_buf() }),
        }
    }

    /// The view, with its sorted index. That is built at the first call, and kept up to date from then on.
    pub(crate) fn sorted<'e>(&'e self, view: Current<'e>) -> Result<Current<'e>> {
        let mut view = view;
        while view.index.sorted().is_none() {
            drop(view);
            let ingest = self.ingest();
            let shown = self.shown()?;
            if shown.index.sorted().is_none() {
                // Others may read meanwhile. Nobody may write: what they would change is being sorted.
                let built = shown.index.build_sorted(&shown.reader, || Ok(()))?;
                drop(shown);
                let installed = self.change(&ingest, |view| Ok(view.index.install_sorted(built)))?;
                debug_assert!(installed, "nobody changes the index while `ingest` is held");
            }
            drop(ingest);
            view = self.current()?;
        }
        Ok(view)
    }
}
