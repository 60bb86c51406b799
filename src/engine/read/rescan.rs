//! Rescanning: a handle that was opened through a snapshot reads the log from its start after all.
//!
//! It does so when a part of the image turns out to be damaged or wrong, and for calls that need what a snapshot does not say.
//! What it has answered before stays true: each part was verified when it was loaded. An error comes from the log only.

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
use crate::{Error, Result};

/// Keys that are read from a log's start.
struct Rescan {
    log: Arc<LogFile>,
    keys: KeySpace,
    /// Everything before this offset is replayed.
    end: u64,
    previous_seq: u64,
}

impl Rescan {
    fn begin(log: Arc<LogFile>) -> Rescan {
        Rescan { keys: KeySpace::new(&log.header), end: log.start(), previous_seq: 0, log }
    }

    /// Replays the log up to where a view ends.
    fn walk_to(&mut self, reader: &Reader) -> Result<()> {
        let reader = Reader { unread: 0, ..reader.clone() };
        let log = Arc::clone(&self.log);
        let stopped = Scanner::resume(&log, self.end, self.previous_seq)?.walk_to(reader.end, |run| {
            if let Some(last) = run.entries.last() {
                (self.end, self.previous_seq) = (last.end(), last.header.seq);
            }
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
        if snapshot == 0 || !matches!(error, Error::Corrupt { .. } | Error::Io { .. }) {
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
    /// is as it was then.
    pub(crate) fn rescan(&self) -> Result<()> {
        loop {
            let view = self.shown()?;
            if view.snapshot == 0 {
                return Ok(());
            }
            let epoch = view.epoch;
            drop(view);
            match self.rescan_once(epoch) {
                // The log was cut meanwhile.
                Err(Error::Corrupt { .. } | Error::Io { .. }) if self.current()?.epoch != epoch => {}
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
        let exchange = |view: &mut View| {
            rescan.keys.index.keep_ordered(view.index().is_ordered());
            std::mem::swap(&mut view.keys, &mut rescan.keys);
            (view.reader.unread, view.snapshot) = (0, 0);
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

    use super::*;
    use crate::Config;
    use crate::config::SnapshotPolicy;
    use crate::disk::sim::{Repeat, SimDisk, Verb, When};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};
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
}
