//! Reading: the current view, catching up with other processes, and scans.
//!
//! [`Reading`] owns the view and the two locks around it. Look-ups use [`Reading::answer`]; writers and maintenance use the
//! view as it is ([`Reading::shown`]) and change it under [`Reading::ingest`].

pub(crate) mod by_index;
mod catch_up;
pub(crate) mod feed;
pub(crate) mod keys;
mod partial_tail;
mod rescan;
pub(crate) mod scan;
pub(crate) mod sharded;
pub(crate) mod view;
pub(crate) mod watchers;

use std::ops::Deref;
use std::sync::Arc;

use super::context::Context;
use super::deadline::Deadline;
use crate::index::SortedIndex;
use crate::log::create;
use crate::log::read::{Reader, Start};
use crate::sync::{AtomicU64, Mutex, MutexGuard, lock};
use crate::{Error, Result};
use rescan::Unreadable;
use sharded::{ReadGuard, ShardedLock};
use view::View;
use watchers::{LeftAt, Watchers};

/// The reading side of an open store.
pub(crate) struct Reading {
    pub(crate) context: Arc<Context>,
    /// Locked while the log's end is read and the view is changed.
    ingest: Mutex<()>,
    /// Changed only with `ingest` locked, except by opening and closing. `None` before the file is opened and after the store is
    /// closed.
    view: ShardedLock<Option<View>>,
    /// The offset of a snapshot that turned out to be damaged or wrong; 0 if there is none. Scans share it.
    distrusted: Arc<AtomicU64>,
    /// Locked while the whole log is read for the keys that a snapshot lacks. Locked before `ingest`.
    rescanning: Mutex<Option<Unreadable>>,
    pub(crate) watchers: Watchers,
}

// A panic cannot leave half a change: the log only grows, and a reader only reads it. The file and the map are trait objects, so
// the compiler cannot see this.
impl std::panic::UnwindSafe for Reader {}
impl std::panic::RefUnwindSafe for Reader {}

/// A view that was current when it was asked for. It does not change while this guard lives.
pub(crate) struct Current<'e>(ReadGuard<'e, Option<View>>);

impl Deref for Current<'_> {
    type Target = View;

    #[inline]
    fn deref(&self) -> &View {
        self.0.as_ref().expect("made from a view that is there, and the guard keeps it")
    }
}

/// The right to change the view. With it, one thread at a time reads the file's end, and no record is replayed twice. Never
/// held during a sync, except that of a cut.
pub(crate) struct Ingest<'e>(#[allow(dead_code, reason = "held for its lock")] MutexGuard<'e, ()>);

impl Current<'_> {
    /// The sorted index of a view that has one.
    pub(crate) fn sorted(&self) -> &SortedIndex {
        self.index().sorted().expect("`Reading::sorted` has made this view")
    }

    /// Reads the record at a position. A long record is read without the view's lock, so that changes of the view do not wait
    /// for it: the log only grows, so the record stays where it is, and the reader keeps the file.
    #[inline]
    pub(crate) fn read<T>(self, position: u64, read: impl FnOnce(&Reader, &Start) -> Result<T>) -> Result<T> {
        let start = self.reader.start(position)?;
        if !start.is_long(&self.reader.log) {
            return read(&self.reader, &start);
        }
        let reader = self.reader.clone();
        drop(self);
        read(&reader, &start)
    }
}

impl Reading {
    pub(crate) fn new(context: Arc<Context>) -> Reading {
        Reading {
            context,
            ingest: Mutex::default(),
            view: ShardedLock::new(None),
            distrusted: Arc::new(AtomicU64::new(0)),
            rescanning: Mutex::default(),
            watchers: Watchers::default(),
        }
    }

    /// Opens the file, creates it first if the configuration says so, and reads its log.
    pub(crate) fn open(&self, deadline: &Deadline) -> Result<()> {
        let Context { disk, path, .. } = &*self.context;
        let log = create::open(&**disk, path, self.context.opening(), || self.context.wait_a_moment(deadline))?;
        let view = self.read_log(Arc::new(log), 1)?;
        *self.view.write() = Some(view);
        Ok(())
    }

    pub(crate) fn close(&self) {
        *self.view.write() = None;
    }

    /// Closes, unless the view is locked. For a forked child: the thread that locked it does not exist there, so the lock
    /// stays.
    pub(crate) fn try_close(&self) {
        if let Some(mut view) = self.view.try_write() {
            *view = None;
        }
    }

    /// Answers from a view that is current when this is called. Another process may cut the log meanwhile. What was cut reads as
    /// damaged, so the answer is then looked for again, in what the log holds now. A view of a snapshot may be wrong, so the
    /// answer is then looked for in the whole log.
    #[inline]
    pub(crate) fn answer<T>(&self, mut answer: impl FnMut(Current<'_>) -> Result<T>) -> Result<T> {
        loop {
            let view = self.current()?;
            let (epoch, snapshot) = (view.epoch, view.snapshot);
            match answer(view) {
                Err(Error::Corrupt { .. } | Error::Io { .. }) if self.current()?.epoch != epoch => {}
                Err(error) if self.gave_up_snapshot(snapshot, &error)? => {}
                answered => return answered,
            }
        }
    }

    /// As [`Reading::answer`]. If the answer is `None`, a snapshot does not say what it needs, and the whole log is read first.
    pub(crate) fn answer_after_rescan<T>(&self, mut answer: impl FnMut(Current<'_>) -> Result<Option<T>>) -> Result<T> {
        loop {
            if let Some(answered) = self.answer(&mut answer)? {
                return Ok(answered);
            }
            self.rescan()?;
        }
    }

    /// The view, with everything that was appended before this call.
    #[inline]
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
    /// [`Error::Closed`], and [`Error::Forked`] in a forked child.
    #[inline]
    pub(crate) fn shown(&self) -> Result<Current<'_>> {
        self.context.check_process()?;
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

    /// Exchanges the view with another one. The caller drops the old one without a lock: to unmap a large file and to free its
    /// index takes long.
    pub(crate) fn swap(&self, _: &Ingest<'_>, other: &mut View) -> Result<()> {
        // A store that was closed stays closed.
        let next = Arc::clone(&other.reader.log);
        self.view.write().as_mut().map(|view| std::mem::swap(view, other)).ok_or(Error::Closed)?;
        let left_at = LeftAt { offset: other.tail.end, previous_seq: other.tail.previous_seq };
        self.watchers.leave(&other.reader.log, left_at, &next);
        Ok(())
    }

    /// Replaces the view.
    pub(crate) fn replace(&self, ingest: &Ingest<'_>, mut view: View) -> Result<()> {
        self.swap(ingest, &mut view)
    }

    /// The view with its sorted index. The first call builds the index; later changes of the view keep it up to date.
    pub(crate) fn sorted<'e>(&'e self, view: Current<'e>) -> Result<Current<'e>> {
        let mut view = view;
        if view.snapshot > 0 && view.snapshot == self.distrusted() {
            // A scan has met what is bad.
            drop(view);
            view = self.scanned()?;
        }
        while view.index().sorted().is_none() {
            drop(view);
            // No view is held when this returns: the next line may wait for the right to change it.
            self.add_sorted()?;
            view = self.current()?;
        }
        Ok(view)
    }

    /// Builds the sorted index of the view, unless another thread has done so.
    fn add_sorted(&self) -> Result<()> {
        let ingest = self.ingest();
        let shown = self.shown()?;
        if shown.index().sorted().is_some() {
            return Ok(());
        }
        // Other threads may read meanwhile. None may change the index that is being sorted.
        let built = shown.index().build_sorted(&shown.reader, || Ok(()))?;
        drop(shown);
        let installed = self.change(&ingest, |view| Ok(view.keys.index.install_sorted(built)))?;
        debug_assert!(installed, "the index does not change while `ingest` is held");
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::disk::sim::{SimDisk, Verb};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};
    use crate::patience::with_a_deadline;
    use crate::{Config, ReadMode};

    fn put(engine: &Engine, key: &[u8]) {
        let mut request = Request::default();
        request.push(key, Action::Put(b"value"));
        engine.commit(request).unwrap();
    }

    /// It held the view while it waited for the right to change it: with a writer, or alone as here, for ever.
    #[test]
    fn a_listing_whose_sorted_index_another_thread_has_built_meanwhile_does_not_lock_itself_out() {
        let Some(()) =
            with_a_deadline(a_listing_whose_sorted_index_another_thread_has_built_meanwhile_does_not_lock_itself_out)
        else {
            return;
        };
        let disk = SimDisk::new();
        let config = Config::new().read_mode(ReadMode::Pread);
        let open = |disk| Arc::new(Engine::open(Arc::new(disk), Path::new("/store"), &config).unwrap());
        let (engine, other) = (open(disk.process()), open(disk.process()));
        put(&engine, b"\0first");
        put(&other, b"\0second");
        drop(engine.reading.current().unwrap());

        let ingest = engine.reading.ingest();
        let (done, listed) = mpsc::channel();
        let (lister, before) = (Arc::clone(&engine), disk.calls_of(Verb::ReadAt));
        thread::spawn(move || done.send(lister.reading.scan(b"\0", b"").unwrap().len()));
        // With these two reads it finds its view current. It holds the view until it has seen that there is no sorted index.
        while disk.calls_of(Verb::ReadAt) < before + 2 {
            thread::yield_now();
        }
        let shown = engine.reading.shown().unwrap();
        let built = shown.index().build_sorted(&shown.reader, || Ok(())).unwrap();
        drop(shown);
        assert!(engine.reading.change(&ingest, |view| Ok(view.keys.index.install_sorted(built))).unwrap());
        put(&other, b"\0third");
        drop(ingest);
        assert_eq!(listed.recv_timeout(Duration::from_secs(20)), Ok(3));
    }
}
