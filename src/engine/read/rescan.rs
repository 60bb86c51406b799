//! Rescanning: a handle that was opened through a snapshot reads the log from its start after all.
//!
//! It does so when a part of the image turns out to be damaged or wrong, and for calls that need what a snapshot does not say.
//! What it has answered before stays true: each part was verified when it was loaded. An error comes from the log only.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Current, Reading};
use crate::engine::read::view::View;
use crate::events::event;
use crate::index::{Index, SortedIndex};
use crate::log::LogFile;
use crate::log::read::Reader;
use crate::log::recover::decide;
use crate::log::scan::Scanner;
use crate::replay::KeySpace;
use crate::sync::lock;
use crate::{Error, Result};

/// Keys that are read from a log's start.
struct Rescan {
    log: Arc<LogFile>,
    keys: KeySpace,
    /// Everything before this offset is replayed.
    end: u64,
    previous_seq: u64,
    /// As [`Tail::last_event`](crate::log::tail::Tail::last_event).
    last_event: u64,
}

/// The damage that a walk over the whole log has met. The log is not read again for each call that meets it.
pub(super) struct Unreadable {
    epoch: u64,
    error: Error,
}

impl Rescan {
    fn begin(log: Arc<LogFile>) -> Rescan {
        Rescan {
            keys: KeySpace::new(&log.header),
            end: log.start(),
            previous_seq: 0,
            last_event: log.header.floor(),
            log,
        }
    }

    /// Replays the log up to where a view ends.
    fn walk_to(&mut self, reader: &Reader) -> Result<()> {
        let reader = Reader { unread: 0, ..reader.clone() };
        let log = Arc::clone(&self.log);
        let stopped = Scanner::resume(&log, self.end, self.previous_seq)?.walk_to(reader.end, |run| {
            if let Some(last) = run.entries.last() {
                (self.end, self.previous_seq) = (last.end(), last.header.seq);
            }
            let events = run.entries.iter().filter(|entry| entry.header.kind.is_event());
            self.last_event = events.map(|entry| entry.header.seq).fold(self.last_event, u64::max);
            self.keys.replay(run, &reader)
        })?;
        // The view has records beyond that, so a cut would be as wrong as going on.
        stopped.map_or(Ok(()), |stop| Err(decide(&log, &stop).err().unwrap_or_else(|| stop.is_damage_in(&log))))
    }
}

/// The keys up to where a reader ends, and their order, by a walk over the whole log. For a scan under way whose order turns out
/// to be damaged or wrong.
///
/// # Errors
///
/// Those of [`Reading::rescan`].
pub(super) fn keys_of_whole_log(reader: &Reader) -> Result<(Index, SortedIndex)> {
    let mut rescan = Rescan::begin(Arc::clone(&reader.log));
    rescan.walk_to(reader)?;
    let index = rescan.keys.index;
    let sorted = index.build_sorted(&Reader { unread: 0, ..reader.clone() }, || Ok(()))?.into_sorted();
    Ok((index, sorted))
}

/// Whether an error says something about what a snapshot leads to: bytes that are not right, or that the medium does not give.
/// Want of memory, and what may be gone in a moment, does not: that call fails, and the next one reads again.
pub(super) fn may_blame_snapshot(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => !error.is_retryable() && source.kind() != ErrorKind::OutOfMemory,
        _ => false,
    }
}

impl Reading {
    /// Notes that a snapshot is damaged or wrong. The next root that this handle writes leads to it no more.
    #[cold]
    pub(crate) fn distrust(&self, snapshot: u64) {
        event!(warn, "{}: the snapshot at {snapshot} cannot be used", self.context.path.display());
        self.distrusted.store(snapshot, Ordering::Relaxed);
    }

    /// Whether a question is to be asked again after this error: it was asked of a view that came from the snapshot at that offset.
    /// The snapshot may be wrong, so the whole log has been read now.
    ///
    /// # Errors
    ///
    /// Those of [`Reading::rescan`].
    #[cold]
    pub(crate) fn gave_up_snapshot(&self, snapshot: u64, error: &Error) -> Result<bool> {
        if snapshot == 0 || !may_blame_snapshot(error) {
            return Ok(false);
        }
        self.distrust(snapshot);
        self.rescan()?;
        Ok(true)
    }

    /// The snapshot that turned out to be damaged or wrong; 0 if there is none.
    pub(crate) fn distrusted(&self) -> u64 {
        self.distrusted.load(Ordering::Relaxed)
    }

    /// A current view whose keys come from a walk over the whole log, and not from a snapshot. Takes as long as opening without
    /// a snapshot, once.
    pub(crate) fn scanned(&self) -> Result<Current<'_>> {
        loop {
            let view = self.current()?;
            if view.snapshot == 0 {
                return Ok(view);
            }
            drop(view);
            self.rescan()?;
        }
    }

    /// Replaces the keys of the view, if they come from a snapshot, by those that the log has.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Truncated`] and [`Error::Io`] if the log cannot be read up to the end of the view. The view
    /// is as it was then. Damage is an error until the file is opened again, without another look at the log.
    pub(crate) fn rescan(&self) -> Result<()> {
        // A forked child must not wait for a thread that it does not have.
        self.context.check_process()?;
        // One thread at a time. The others wait for its keys.
        let mut unreadable = lock(&self.rescanning);
        loop {
            let view = self.shown()?;
            if view.snapshot == 0 {
                return Ok(());
            }
            let epoch = view.epoch;
            drop(view);
            if let Some(Unreadable { error, .. }) = unreadable.as_ref().filter(|unreadable| unreadable.epoch == epoch) {
                return Err(error.clone());
            }
            match self.rescan_once(epoch) {
                // The log was cut meanwhile.
                Err(Error::Corrupt { .. } | Error::Io { .. }) if self.current()?.epoch != epoch => {}
                Err(error) if may_blame_snapshot(&error) || matches!(error, Error::Truncated { .. }) => {
                    *unreadable = Some(Unreadable { epoch, error: error.clone() });
                    return Err(error);
                }
                rescanned => return rescanned,
            }
        }
    }

    fn rescan_once(&self, epoch: u64) -> Result<()> {
        let reader = self.shown()?.reader.clone();
        event!(debug, "{}: reading the whole log", self.context.path.display());
        // Most of it without the right to change the view, so that other threads go on.
        let mut rescan = Rescan::begin(Arc::clone(&reader.log));
        rescan.walk_to(&reader)?;
        rescan.keys.index.shrink();
        drop(reader);
        let ingest = self.ingest();
        let view = self.shown()?;
        if view.epoch != epoch || view.snapshot == 0 {
            return Ok(());
        }
        let reader = view.reader.clone();
        drop(view);
        rescan.walk_to(&reader)?;
        drop(reader);
        let distrusted = self.distrusted();
        let exchange = |view: &mut View| {
            rescan.keys.index.keep_ordered(view.index().is_ordered());
            std::mem::swap(&mut view.keys, &mut rescan.keys);
            // The next root leads to no snapshot, so an opening reads everything.
            if view.snapshot == distrusted && view.tail.images.last_at <= distrusted {
                let bytes = view.tail.end - view.reader.log.start();
                view.tail.images.restart(bytes, view.reader.log.limits);
            }
            (view.reader.unread, view.snapshot, view.begin) = (0, 0, None);
            view.tail.last_event = Some(rescan.last_event);
            Ok(())
        };
        // The old keys are dropped last, without a lock.
        self.change(&ingest, exchange)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;
    use crate::Config;
    use crate::config::SnapshotPolicy;
    use crate::disk::sim::{Repeat, SimDisk, Verb, When};
    use crate::disk::{Access, Disk};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request, Until};
    use crate::format::{RECORD_HEADER_LEN, Root};
    use crate::limits::Limits;

    fn put(engine: &Engine, key: &str) {
        let mut request = Request::default();
        request.push(format!("\0{key}").as_bytes(), Action::Put(b"value"));
        engine.commit(request).unwrap();
    }

    fn open(disk: &SimDisk) -> Arc<Engine> {
        let config = Config::new().snapshots(SnapshotPolicy::AtClose);
        Arc::new(Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap())
    }

    /// At each read of the rescan, another thread of the same handle writes.
    #[test]
    fn a_rescan_beside_a_writer_misses_nothing() {
        for nth in 1..6 {
            let disk = SimDisk::new();
            disk.set_limits(Limits { least_cost: 1, least_part: 8, ..Limits::SMALL });
            let first = open(&disk.process());
            (0..2000).for_each(|n| put(&first, &format!("key {n}")));
            first.close().unwrap();
            let process = disk.process();
            let engine = open(&process);
            assert!(engine.reading.shown().unwrap().snapshot > 0, "it was opened through a snapshot");
            let (writer, written) = (Arc::clone(&engine), AtomicBool::new(false));
            process.before(When::nth(nth).of(Verb::ReadAt), Repeat::Once, move |_| {
                if !written.swap(true, Ordering::Relaxed) {
                    put(&writer, "meanwhile");
                }
            });
            engine.reading.rescan().unwrap();
            let view = engine.reading.current().unwrap();
            assert_eq!((view.snapshot, view.reader.unread, view.index().len()), (0, 0, 2001), "read {nth}");
            assert!(view.find(b"\0meanwhile").unwrap().is_some());
        }
    }

    /// A store with a snapshot of 2000 keys in many parts.
    fn filled() -> SimDisk {
        let disk = SimDisk::new();
        disk.set_limits(Limits { least_cost: 1, least_part: 8, ..Limits::SMALL });
        let first = open(&disk.process());
        (0..2000).for_each(|n| put(&first, &format!("key {n}")));
        first.close().unwrap();
        disk
    }

    fn find(engine: &Engine, key: &str) -> Result<Option<u64>> {
        engine.reading.answer(|view| view.find(format!("\0{key}").as_bytes()))
    }

    /// Another program writes to the file.
    fn overwrite(disk: &SimDisk, at: u64, bytes: &[u8]) {
        disk.open(Path::new("/store"), Access::ReadWrite).unwrap().write_at(at, bytes).unwrap();
    }

    fn snapshot_of(engine: &Engine) -> u64 {
        engine.reading.shown().unwrap().snapshot
    }

    /// What followed the last `SNAPSHOT` cost little, so each opening read the whole log until as much again was written.
    #[test]
    fn a_log_to_whose_snapshot_no_root_leads_gets_another() {
        let disk = filled();
        let engine = open(&disk.process());
        // As if the process before had been killed before it wrote the root.
        let log = Arc::clone(&engine.reading.shown().unwrap().reader.log);
        let root = Root::after(log.root().unwrap(), 0).with_snapshot(0);
        overwrite(&disk, root.offset(), &root.encode(log.seed));
        engine.close().unwrap();
        let engine = open(&disk.process());
        assert_eq!(snapshot_of(&engine), 0);
        put(&engine, "one more");
        engine.close().unwrap();
        assert!(snapshot_of(&open(&disk.process())) > 0);
    }

    #[test]
    fn the_handle_that_finds_a_snapshot_bad_writes_another() {
        let disk = filled();
        let engine = open(&disk.process());
        let (bad, log) = (snapshot_of(&engine), Arc::clone(&engine.reading.shown().unwrap().reader.log));
        let snapshot = log.snapshot(&log.root().unwrap().unwrap()).unwrap().unwrap();
        overwrite(&disk, snapshot.parts.iter().find(|part| part.count > 0).unwrap().offset, &[0xff]);
        (0..2000).for_each(|n| assert!(find(&engine, &format!("key {n}")).unwrap().is_some()));
        assert_eq!(snapshot_of(&engine), 0, "it has read the whole log");
        put(&engine, "one more");
        engine.close().unwrap();
        assert!(snapshot_of(&open(&disk.process())) > bad);
    }

    /// A record with a deadline needs its key's part of the image: which record it replaces must be known. A bad part would be an
    /// error of a call that has nothing to do with it.
    #[test]
    fn a_deadline_in_a_bad_part_of_a_snapshot_is_no_error() {
        for by_this_handle in [true, false] {
            let disk = filled();
            let (engine, other) = (open(&disk.process()), open(&disk.process()));
            let log = Arc::clone(&engine.reading.shown().unwrap().reader.log);
            let snapshot = log.snapshot(&log.root().unwrap().unwrap()).unwrap().unwrap();
            // The other handle has all of it in memory.
            other.reading.answer(|view| view.index().load_all(&view.reader)).unwrap();
            for part in snapshot.parts.iter().filter(|part| part.count > 0) {
                overwrite(&disk, part.offset, &[0xff]);
            }
            let until = Until::After(Duration::from_secs(1000));
            let put = |engine: &Engine, n: u64| {
                let mut request = Request::default();
                request.push(format!("\0key {n}").as_bytes(), Action::PutUntil(b"value", until));
                engine.commit(request).unwrap();
            };
            (0..20).for_each(|n| put(if by_this_handle { &engine } else { &other }, n));
            assert!(find(&engine, "key 7").unwrap().is_some() && find(&engine, "key 77").unwrap().is_some());
            let view = engine.reading.current().unwrap();
            assert_eq!((view.snapshot, view.keys.lifetimes.len(), view.index().len()), (0, 20, 2000));
        }
    }

    /// Each look-up of the damaged key read the whole log, and so did each write, with the file's lock held.
    #[test]
    fn a_damaged_log_is_read_once_by_a_handle() {
        let disk = filled();
        let engine = open(&disk.process());
        let at = find(&engine, "key 7").unwrap().unwrap();
        let key = at + RECORD_HEADER_LEN as u64 + 1;
        overwrite(&disk, key, b"K");
        let engine = open(&disk.process());
        for n in 0..3 {
            let before = disk.bytes_read();
            let found = find(&engine, "key 7");
            assert!(matches!(found, Err(Error::Corrupt { offset, .. }) if offset == at), "{found:?}");
            let read = disk.bytes_read() - before;
            assert!(n == 0 || read < 1000, "look-up {n} reads {read} bytes");
        }
        assert!(find(&engine, "key 8").unwrap().is_some());
        overwrite(&disk, key, b"k");
        engine.reopen().unwrap();
        assert_eq!(find(&engine, "key 7").unwrap(), Some(at));
    }

    /// Each thread that met a bad part read the whole log for itself, into an index of its own.
    #[test]
    fn two_threads_that_need_the_whole_log_read_it_once() {
        let disk = filled();
        let (alone, before) = (open(&disk.process()), disk.bytes_read());
        alone.reading.rescan().unwrap();
        let once = disk.bytes_read() - before;
        let process = disk.process();
        let engine = open(&process);
        let (other, threads) = (Arc::clone(&engine), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (spawned, before) = (Arc::clone(&threads), disk.bytes_read());
        process.before(When::next().of(Verb::ReadAt), Repeat::Once, move |disk| {
            let (other, calls) = (Arc::clone(&other), disk.calls_of(Verb::ReadAt));
            spawned.lock().unwrap().push(std::thread::spawn(move || other.reading.rescan()));
            // It must not come so far, so this can only give it the chance.
            for _ in 0..10_000 {
                if disk.calls_of(Verb::ReadAt) > calls + 10 {
                    break;
                }
                std::thread::yield_now();
            }
        });
        engine.reading.rescan().unwrap();
        threads.lock().unwrap().drain(..).for_each(|thread| thread.join().unwrap().unwrap());
        let read = disk.bytes_read() - before;
        assert!(read < once * 3 / 2, "{read} bytes, and {once} by one thread");
    }

    /// They take as much memory as the index of as many keys.
    #[test]
    fn notes_that_were_taken_in_are_given_up_at_the_next_write() {
        let disk = filled();
        let config = Config::new().snapshots(SnapshotPolicy::Never);
        let second = Engine::open(Arc::new(disk.process()), Path::new("/store"), &config).unwrap();
        (0..500).for_each(|n| put(&second, &format!("key {n}")));
        second.close().unwrap();
        let engine = open(&disk.process());
        let memory = || engine.reading.shown().unwrap().index().memory();
        engine.reading.answer(|view| view.index().load_all(&view.reader)).unwrap();
        let before = memory();
        put(&engine, "key 1");
        assert!(memory() + 8000 < before, "{} bytes, {before} before", memory());
        engine.maintenance.verify().unwrap();
    }
}
