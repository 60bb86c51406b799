//! Watches: the puts and deletes of every process, as they come.
//!
//! The log is the feed: see [`feed`] for where a watch is in it. This module is what a program holds: it makes
//! watches, waits, and lends the events.
//!
//! Waiting is *arm, look, sleep*. The system reports a change that comes after the arming, and the look finds one that came
//! before. A report ends the arming, so a writer pays for one only while a watch sleeps. Now and then a watch looks without a
//! report, because nothing promises that each is delivered: a file in a layer below an overlay can be written, for example.

mod unit;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::os::fd::BorrowedFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Engine;
use super::cask::Cask;
use super::deadline::Deadline;
use super::read::by_index::IndexScan;
use super::read::feed::{self, Feed, Filter, Found, FoundUnit, Place};
use super::read::scan::Scan;
use super::read::watchers::Watcher;
use crate::disk::FileIdentity;
use crate::index::Times;
use crate::log::LogFile;
use crate::log::path;
use crate::log::path::Named;
use crate::{Error, Result};

pub use unit::{Change, ChangeRef, Unit};

/// Where a watch begins: see [`Cask::changes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchFrom {
    /// With the first write after the call.
    Now,
    /// After the write with this `last_index`: that of a pair, or a [position](Watch::position) of an earlier watch. A batch counts
    /// as one write. After a compaction, only the positions of writes since are good: a pair that was set before gives
    /// [`Error::Compacted`] if anything was written after it. [`Stats::last_index`](crate::Stats::last_index) is no position: it can be
    /// the number of a record of the store's own.
    After(u64),
    /// With a listing of all pairs as they are now, as the first unit, and then with what follows, without a gap. The listing lacks
    /// pairs that are over. If their deletes are not in the log yet, they follow.
    Snapshot,
}

/// Options of a watch: see [`Cask::changes_with`].
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-watch-options-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::{WatchFrom, WatchOptions};
///
/// let mut watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().all_buckets(true))?;
/// cask.bucket("log")?.put("0001", "started")?;
/// assert!(watch.try_next()?.is_some());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing until a watch is made with them"]
pub struct WatchOptions {
    durable: bool,
    lag: u64,
    all_buckets: bool,
}

/// How many bytes of an old file a watch may leave unread, by default.
const LAG: u64 = 256 << 20;

/// The pauses between two looks of a watch that the system reports no changes to.
const SHORTEST_POLL: Duration = Duration::from_millis(2);
const LONGEST_POLL: Duration = Duration::from_millis(20);

/// The pauses between two tries to remove keys that are over while the store is locked, or cannot be written. Also between two
/// tries that succeed: otherwise deadlines in a row would take a turn each.
const SHORTEST_SWEEP_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// How long a report may come after its change before it counts as missing. The kernel reports a write once the data are in the
/// file, and can preempt the writer in between.
const LATEST_REPORT: Duration = Duration::from_millis(50);

/// How long a watch rests after it was woken by a write that it does not want. Others may follow, and each would wake it again.
const REST: Duration = Duration::from_millis(1);

/// The puts and deletes of a store as they come, from every process: see [`Cask::changes`].
///
/// A watch keeps the store open, as a clone of the handle does. [`Cask::close`] ends it with [`Error::Closed`], and a
/// [`Stopper`] with [`Error::Stopped`], also while another thread waits in it.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-watch-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::{Change, WatchFrom};
///
/// let mut watch = cask.changes("config/", WatchFrom::Now)?;
/// let last_index = cask.put("config/port", "8080")?;
/// cask.put("unrelated", "")?;
/// cask.delete("config/port")?;
///
/// let changes = watch.next_timeout(None)?.unwrap().into_changes()?;
/// assert_eq!(changes[0].key(), b"config/port");
/// assert_eq!(watch.position(), last_index);
/// let changes = watch.next_timeout(None)?.unwrap().into_changes()?;
/// assert!(matches!(changes[0], Change::Delete { .. }));
/// assert!(watch.try_next()?.is_none());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct Watch {
    cask: Cask,
    watcher: Arc<Watcher>,
    feed: Feed,
    filter: Filter,
    options: WatchOptions,
    prefix: Vec<u8>,
    /// What the next unit has.
    next: Option<Next>,
    /// The listing has failed, so the next unit is another one.
    lists_again: bool,
    /// What a durable watch knows to be on stable storage: everything before this offset, in this reading of this file.
    stable: Option<((Option<FileIdentity>, u64), u64)>,
    /// The caller waits for the descriptor.
    has_descriptor: bool,
    /// The file whose changes are reported.
    armed: Option<FileIdentity>,
    /// When the descriptor began to wait for a report.
    waits_since: Option<Instant>,
    /// The last pause of a watch that no changes are reported to.
    pause: Duration,
    /// When to try again to remove keys that are over, and the pause until then, after a try that has failed.
    sweeps_again: Option<(Instant, Duration)>,
    /// When this watch last removed keys, if no more than those were over.
    swept: Option<Instant>,
}

// No call of a watch runs code of the program, so a panic leaves no half a change in it. It has trait objects, so the compiler
// cannot see this.
impl UnwindSafe for Watch {}
impl RefUnwindSafe for Watch {}

/// What the next unit has.
enum Next {
    Listing(Listing),
    Changes(FoundUnit),
}

/// Whether a call may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Never,
    May,
}

enum Listing {
    Bucket(Scan),
    All(IndexScan),
}

/// Ends a watch from another thread: see [`Watch::stopper`]. Clones stop the same watch.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-stopper-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::{Error, WatchFrom};
///
/// let mut watch = cask.changes("", WatchFrom::Now)?;
/// let stopper = watch.stopper();
/// std::thread::spawn(move || stopper.stop());
/// assert!(matches!(watch.next_timeout(None), Err(Error::Stopped)));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct Stopper {
    stop: Arc<dyn Fn() + Send + Sync + UnwindSafe + RefUnwindSafe>,
}

impl Default for WatchOptions {
    fn default() -> WatchOptions {
        WatchOptions { durable: false, lag: LAG, all_buckets: false }
    }
}

impl WatchOptions {
    /// Returns the defaults, as [`WatchOptions::default`] does.
    ///
    /// ```
    /// assert_eq!(caskfile::WatchOptions::new(), caskfile::WatchOptions::default());
    /// ```
    pub fn new() -> WatchOptions {
        WatchOptions::default()
    }

    /// Delivers only what is on stable storage. The default is `false`: a write is delivered when a read would see it, and a
    /// power cut can take it back if it was not synced.
    ///
    /// The positions of its units outlast a power cut too. [`Watch::position`] can be that of a later write, of other keys, which was
    /// not synced: if it is lost, a watch [after](WatchFrom::After) it is refused with [`Error::Undone`].
    ///
    /// The watch syncs the store by itself before it delivers what is not known to be synced, once for all that has gathered. So
    /// its calls can wait for the file's lock, as [`Cask::sync`] does.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-watch-durable-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{WatchFrom, WatchOptions};
    ///
    /// let watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().durable(true))?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn durable(mut self, durable: bool) -> WatchOptions {
        self.durable = durable;
        self
    }

    /// Sets how many bytes of an old file may be left to read when a compaction has put a new file in its place. The default is
    /// 256 MiB. A watch that has more left, or that is two files back, gets [`Error::Compacted`] if it has missed anything. Without
    /// this, a watch that is never read would keep every old file on the disk.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-watch-lag-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{WatchFrom, WatchOptions};
    ///
    /// // For a program that would rather begin again than have old files keep more than a megabyte.
    /// let watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().lag(1 << 20))?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn lag(mut self, bytes: u64) -> WatchOptions {
        self.lag = bytes;
        self
    }

    /// Watches the keys of all buckets. [`Unit::next_with_bucket`] says which bucket a change belongs to. The first unit of
    /// [`WatchFrom::Snapshot`] has the pairs in the order of their `last_index` then.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-watch-all-buckets-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{WatchFrom, WatchOptions};
    ///
    /// let mut watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().all_buckets(true))?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// assert!(watch.try_next()?.is_some());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn all_buckets(mut self, all_buckets: bool) -> WatchOptions {
        self.all_buckets = all_buckets;
        self
    }
}

impl Cask {
    /// Returns a watch of the keys in this bucket that start with `prefix`. It delivers their puts and deletes, by every process,
    /// in the order of the log, each once and none left out.
    ///
    /// Changes come in [units](Unit): a write by itself, or all changes of a batch that concern these keys. A program that keeps
    /// what it has learned also keeps [`Unit::position`], and goes on from there with [`WatchFrom::After`], in another process or
    /// after a restart.
    ///
    /// The end of a pair that [expires](Cask::put_with) is a delete, once the log has one. A watch of a handle that can write wakes at
    /// the deadline and logs it, unless another process has the file's lock; so its handle becomes a writer. A handle's first write
    /// syncs, so [`Watch::try_next`] logs it only if the handle has written before, or the watch is durable. A watch of a
    /// read-only handle waits until a writer does.
    ///
    /// # Cost
    ///
    /// Nothing is buffered: the watch reads the log. [`WatchFrom::After`] reads the headers of the log up to that place, about a
    /// tenth of a second for a million records, unless a snapshot of the index ends before it. [`WatchFrom::Snapshot`] sorts the keys, as the first listing of a handle does. A sleeping watch
    /// costs the next writer about a microsecond, and then nothing until it sleeps again. A watch that logs ends of pairs does so in
    /// turns that are at least 10 ms apart, unless more are over than one turn removes.
    ///
    /// # Errors
    ///
    /// - [`Error::Compacted`] if changes after that position are no longer all in the store.
    /// - [`Error::Undone`] if there is no such position.
    /// - Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-changes-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::collections::BTreeMap;
    ///
    /// use caskfile::{Change, WatchFrom};
    ///
    /// cask.put("config/host", "localhost")?;
    /// let mut watch = cask.changes("config/", WatchFrom::Snapshot)?;
    /// cask.put("config/port", "8080")?;
    /// cask.delete("config/host")?;
    ///
    /// let mut state = BTreeMap::new();
    /// while let Some(unit) = watch.try_next()? {
    ///     for change in unit.into_changes()? {
    ///         match change {
    ///             Change::Put(pair) => state.insert(pair.key, pair.value),
    ///             Change::Delete { key, .. } => state.remove(&key),
    ///         };
    ///     }
    /// }
    /// assert_eq!(state, BTreeMap::from([(b"config/port".to_vec(), b"8080".to_vec())]));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn changes(&self, prefix: impl AsRef<[u8]>, from: WatchFrom) -> Result<Watch> {
        self.changes_with(prefix, from, &WatchOptions::default())
    }

    /// Returns a watch as [`Cask::changes`] does, with options.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::changes`]; [`Error::ReadOnly`] for a [durable](WatchOptions::durable) watch of a read-only handle.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-changes-with-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open_with(&path, &caskfile::Config::new().durability(caskfile::Durability::Os))?;
    /// use caskfile::{WatchFrom, WatchOptions};
    ///
    /// let mut watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().durable(true))?;
    /// cask.put("key", "value")?;
    /// // Syncs the put, which was not synced.
    /// assert!(watch.try_next()?.is_some());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn changes_with(&self, prefix: impl AsRef<[u8]>, from: WatchFrom, options: &WatchOptions) -> Result<Watch> {
        let prefix = prefix.as_ref();
        let Engine { reading, context, .. } = &**self.engine;
        self.check_open()?;
        if options.durable && context.config.get_read_only() {
            return Err(Error::ReadOnly { path: context.path.to_path_buf() });
        }
        let filter = match options.all_buckets {
            true => Filter::AnyBucket(prefix.to_vec()),
            false => Filter::in_bucket(&self.bucket, prefix),
        };
        let (next, found) = match from {
            WatchFrom::Now => (None, feed::find_end(reading)?),
            WatchFrom::After(index) => (None, feed::find(reading, index)?),
            WatchFrom::Snapshot => {
                let (listing, found) = self.listing(prefix, options)?;
                (Some(Next::Listing(listing)), found)
            }
        };
        let watcher = Arc::new(Watcher::new(context.disk.sleeper(), options.lag));
        reading.watchers.add(&watcher);
        let watch = Watch {
            cask: self.clone(),
            feed: Feed::new(Arc::clone(&watcher), found),
            watcher,
            filter,
            options: options.clone(),
            prefix: prefix.to_vec(),
            next,
            lists_again: false,
            stable: None,
            has_descriptor: false,
            armed: None,
            waits_since: None,
            pause: Duration::ZERO,
            sweeps_again: None,
            swept: None,
        };
        // Closing may have woken all others before this one was added.
        self.check_open()?;
        Ok(watch)
    }

    /// The pairs of now, and the place in the log after them.
    fn listing(&self, prefix: &[u8], options: &WatchOptions) -> Result<(Listing, Found)> {
        let reading = &self.engine.reading;
        if options.all_buckets {
            let (scan, found) = reading.scan_by_index_and(Found::end_of)?;
            return Ok((Listing::All(scan), found));
        }
        let (scan, found) = reading.scan_and_end(&self.bucket, prefix)?;
        Ok((Listing::Bucket(scan), found))
    }
}

impl Watch {
    /// Returns the next unit, if there is one. Waits for no other process, and for no sync, but may read much: all
    /// of a new file after a compaction, for example. A [durable](WatchOptions::durable) watch may wait for the file's lock and a sync.
    ///
    /// The watch has passed the unit then, unless [`Unit::next_ref`] returns an error: after one, the same unit comes again.
    ///
    /// # Errors
    ///
    /// - [`Error::Compacted`] and [`Error::Undone`] if the watch cannot go on: begin again with [`WatchFrom::Snapshot`].
    /// - [`Error::Stopped`] after [`Stopper::stop`].
    /// - [`Error::Poisoned`] and those of every write from a durable watch.
    /// - Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-try-next-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// assert!(watch.try_next()?.is_none());
    /// cask.put("key", "value")?;
    /// assert!(watch.try_next()?.is_some());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn try_next(&mut self) -> Result<Option<Unit<'_>>> {
        let (before, waited) = (self.feed.place(), self.waits_since.take().map(|since| (since, self.log())));
        let mut is_there = self.look(Waits::Never)?;
        if let Some((since, _log)) = waited {
            self.count_unreported(since, before);
        }
        if !is_there && self.has_descriptor {
            if std::mem::take(&mut self.feed.passed) > 0 {
                self.watcher.sleeper.forget();
                self.watcher.sleeper.set_timer(REST);
            } else {
                let most = self.arm();
                is_there = self.look(Waits::Never)?;
                let most = self.until_deadline(most);
                let may_sleep = is_there || self.may_sleep()?;
                // Before the timer is set: otherwise the wait would seem shorter than the time that ended it.
                self.waits_since = may_sleep.then(|| self.cask.engine.context.clock.now());
                self.watcher.sleeper.set_timer(if may_sleep { most } else { Duration::ZERO });
            }
        }
        if is_there {
            self.pause = Duration::ZERO;
        }
        Ok(Unit::of(self))
    }

    /// Waits for the next unit and returns it. `Ok(None)` if there was none for the whole time. With `None` as the time it
    /// waits for ever.
    ///
    /// # Errors
    ///
    /// Those of [`Watch::try_next`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-next-timeout-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::Duration;
    ///
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// assert!(watch.next_timeout(Some(Duration::from_millis(1)))?.is_none());
    /// let writer = std::thread::spawn(move || cask.put("key", "value"));
    /// assert!(watch.next_timeout(None)?.is_some());
    /// # writer.join().unwrap()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<Unit<'_>>> {
        let deadline = Deadline::after(&self.cask.engine.context.clock, timeout);
        while !self.look(Waits::May)? {
            if deadline.is_over() {
                return Ok(None);
            }
            let within = |most: Duration| deadline.left().map_or(most, |left| left.min(most));
            if std::mem::take(&mut self.feed.passed) > 0 {
                self.watcher.sleeper.rest(within(REST));
                continue;
            }
            let most = self.arm();
            if self.look(Waits::May)? {
                break;
            }
            if self.may_sleep()? {
                self.sleep(within(self.until_deadline(most)))?;
            }
        }
        self.pause = Duration::ZERO;
        Ok(Unit::of(self))
    }

    /// Returns the position: the `last_index` of the last put or delete, of any key, that the watch has passed. A new watch begins
    /// after it with [`WatchFrom::After`]. Keep it only once the last unit was applied, and with [`WatchFrom::Snapshot`] once the
    /// listing was.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-position-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::WatchFrom;
    ///
    /// let first = cask.put("key", "1")?;
    /// let watch = cask.changes("", WatchFrom::Now)?;
    /// assert_eq!(watch.position(), first);
    /// cask.put("key", "2")?;
    /// let mut later = cask.changes("", WatchFrom::After(watch.position()))?;
    /// assert!(later.try_next()?.is_some());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn position(&self) -> u64 {
        match &self.next {
            Some(Next::Changes(found)) => found.before.position(),
            _ => self.feed.position(),
        }
    }

    /// Returns what ends this watch from another thread.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-watch-stopper-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// watch.stopper().stop();
    /// assert!(matches!(watch.try_next(), Err(caskfile::Error::Stopped)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn stopper(&self) -> Stopper {
        let watcher = Arc::clone(&self.watcher);
        Stopper::new(move || watcher.stop())
    }

    /// Returns a descriptor for `poll`, `epoll` and what is built on them. It becomes readable when [`Watch::try_next`] may have
    /// something to return: a unit, or an error after closing and stopping. It may be readable without a reason.
    ///
    /// Call `try_next` until it returns `None` before waiting, the first time too: that is what makes the descriptor wait for the
    /// next change. Level-triggered and edge-triggered waiting both work. The descriptor belongs to the watch, and each watch has
    /// one of its own. Reading from it is not allowed. An event loop that owns what it waits for takes
    /// [`try_clone_to_owned`](BorrowedFd::try_clone_to_owned) of it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system has no descriptors left, or, with
    /// [`io::ErrorKind::Unsupported`](std::io::ErrorKind::Unsupported), on other systems than Linux. A later call tries again.
    /// [`Error::Forked`] in a forked child.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-descriptor-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::os::fd::AsRawFd;
    ///
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// let descriptor = watch.descriptor()?.as_raw_fd();
    /// // Give it to an event loop. When it says that the descriptor is readable, and once before that:
    /// while let Some(unit) = watch.try_next()? {
    ///     println!("{} changes", unit.into_changes()?.len());
    /// }
    /// # let _ = descriptor;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        self.has_descriptor = true;
        let context = &self.cask.engine.context;
        context.check_process()?;
        let descriptor = self.watcher.sleeper.descriptor();
        descriptor.map_err(|e| Error::io("make a descriptor for a watch", &context.path, e))
    }

    /// Whether there is a unit to be delivered.
    fn look(&mut self, waits: Waits) -> Result<bool> {
        if self.watcher.is_stopped.load(Relaxed) {
            return Err(Error::Stopped);
        }
        let engine = &*self.cask.engine;
        engine.context.check_open()?;
        if self.lists_again {
            let (listing, found) = self.cask.listing(&self.prefix, &self.options)?;
            self.feed.go_to(found);
            (self.next, self.lists_again) = (Some(Next::Listing(listing)), false);
        }
        if self.next.is_none() {
            self.next = self.feed.next(&engine.reading, &self.filter)?.map(Next::Changes);
            if self.next.is_none() && self.sweep(waits)? {
                self.next = self.feed.next(&self.cask.engine.reading, &self.filter)?.map(Next::Changes);
            }
        }
        if self.next.is_some() && self.options.durable {
            self.make_stable()?;
        }
        Ok(self.next.is_some())
    }

    /// Removes keys that are over from the log, if the handle can write: otherwise a pair would be over, and no watch would report
    /// that before something else is written. Returns whether this has changed the log.
    ///
    /// Another process may be writing, and then does it. So this waits for no lock, and a failure is no error of the watch.
    fn sweep(&mut self, waits: Waits) -> Result<bool> {
        let engine = &*self.cask.engine;
        let context = &engine.context;
        if context.config.get_read_only() {
            return Ok(false);
        }
        let view = engine.reading.shown()?;
        let times = if view.keys.lifetimes.can_be_over() { context.times() } else { Times::default() };
        if !view.keys.lifetimes.has_over(times) {
            self.sweeps_again = None;
            return Ok(false);
        }
        drop(view);
        if !self.until_sweep().is_zero() {
            return Ok(false);
        }
        // Without a change, another process has removed them, or they cannot be read, or the call would wait.
        let may_wait = waits == Waits::May || self.options.durable;
        if matches!(engine.writing.sweep(Duration::ZERO, may_wait), Ok(true)) {
            self.sweeps_again = None;
            let has_more = engine.reading.shown()?.keys.lifetimes.has_over(times);
            self.swept = (!has_more).then(|| context.clock.now());
            engine.maintenance.begin_if_due();
            return Ok(true);
        }
        let pause = self.sweeps_again.map_or(SHORTEST_SWEEP_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_SWEEP_PAUSE));
        self.sweeps_again = Some((context.clock.now() + pause, pause));
        Ok(false)
    }

    /// How long a sleep may be at most, so that it ends at the next deadline, if this watch removes what is over then.
    fn until_deadline(&self, most: Duration) -> Duration {
        let engine = &*self.cask.engine;
        let context = &engine.context;
        let Ok(view) = engine.reading.shown() else { return most };
        if !view.keys.lifetimes.can_be_over() || context.config.get_read_only() {
            return most;
        }
        let times = context.times();
        if view.keys.lifetimes.has_over(times) {
            return most.min(self.until_sweep());
        }
        let next = view.keys.lifetimes.until_next(times);
        next.map_or(most, |left| most.min(left.max(self.until_sweep())))
    }

    /// How long this watch removes no keys that are over.
    fn until_sweep(&self) -> Duration {
        let now = || self.cask.engine.context.clock.now();
        let again = self.sweeps_again.map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(now()));
        let rest = |swept| SHORTEST_SWEEP_PAUSE.saturating_sub(self.cask.engine.context.clock.since(swept));
        again.max(self.swept.map_or(Duration::ZERO, rest))
    }

    /// Makes sure that everything up to the end of the next unit is on stable storage.
    fn make_stable(&mut self) -> Result<()> {
        let engine = &*self.cask.engine;
        let file = self.watcher.log().map(|log| log.identity);
        let offset = self.feed.place().offset();
        let here = (file, self.feed.epoch());
        if self.stable.is_some_and(|(known, upto)| known == here && offset <= upto) {
            return Ok(());
        }
        // The sync covers everything that the view has now, so the next calls need none.
        let view = engine.reading.current()?;
        let is_shown = (Some(view.reader.log.identity), view.epoch) == here;
        // The rest of an old file is in the new one, as far as it is not replaced.
        let upto = if is_shown { view.tail.end } else { u64::MAX };
        drop(view);
        self.cask.sync()?;
        self.stable = Some((here, upto));
        Ok(())
    }

    /// The log that the handle shows.
    fn log(&self) -> Option<Arc<LogFile>> {
        self.cask.engine.reading.shown().ok().map(|view| Arc::clone(&view.reader.log))
    }

    /// Asks the system to report the next change of the file, and returns how long a sleep may be.
    fn arm(&mut self) -> Duration {
        let engine = &*self.cask.engine;
        let log = self.log();
        self.armed = log.as_ref().map(|log| log.identity);
        let is_reported = log.is_some_and(|log| self.watcher.sleeper.arm(&*log.file));
        self.watcher.polls.store(!is_reported, Relaxed);
        if is_reported {
            return Duration::from_millis(engine.context.limits.backstop());
        }
        self.pause = (self.pause * 2).clamp(SHORTEST_POLL, LONGEST_POLL);
        self.pause
    }

    /// Whether the file has its place still, so that there is something to wait for. `false` if it has changed after all, also if
    /// the handle follows another file than the one that is armed.
    fn may_sleep(&mut self) -> Result<bool> {
        let engine = Arc::clone(&self.cask.engine);
        let shown = || engine.reading.shown().map(|view| (view.reader.log.identity, view.epoch, view.tail.moved));
        let (identity, epoch, moved) = shown()?;
        if self.armed != Some(identity) {
            return Ok(false);
        }
        match path::named(&*engine.context.disk, &engine.context.path, identity)? {
            Named::This => Ok(true),
            Named::Another if moved => Ok(false),
            // Perhaps a compaction has begun and ended since the last look.
            Named::Another if self.look(Waits::Never)? || shown()? != (identity, epoch, moved) => Ok(false),
            Named::Another | Named::Nothing | Named::Orphan => Err(engine.context.replaced()),
        }
    }

    fn sleep(&mut self, most: Duration) -> Result<()> {
        let (began, before, _log) = (self.cask.engine.context.clock.now(), self.feed.place(), self.log());
        if !self.watcher.sleeper.sleep(most) {
            self.look(Waits::May)?;
            self.count_unreported(began, before);
        }
        Ok(())
    }

    /// Counts a change that only the longest sleep has brought to light, although the system should have reported it.
    ///
    /// The caller keeps the log open that was armed. Its end, once the handle has gone on, would be reported too.
    /// This waits for a report that may be on its way, so the change is delivered that much later.
    fn count_unreported(&self, since: Instant, before: Place) {
        let (context, sleeper) = (&self.cask.engine.context, &self.watcher.sleeper);
        let backstop = Duration::from_millis(context.limits.backstop());
        let is_late = context.clock.since(since) >= backstop && !self.watcher.polls.load(Relaxed);
        if is_late && self.feed.place() != before && !sleeper.sleep(LATEST_REPORT) {
            self.cask.engine.reading.watchers.unreported.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let engine = &*self.cask.engine;
        // In a forked child, another thread of the parent may have locked the list.
        if engine.context.is_this_process() {
            engine.reading.watchers.remove(&self.watcher);
        }
    }
}

impl Stopper {
    /// A stopper that does this.
    pub(super) fn new(stop: impl Fn() + Send + Sync + UnwindSafe + RefUnwindSafe + 'static) -> Stopper {
        Stopper { stop: Arc::new(stop) }
    }

    /// Ends the watch, or the waits for the lock. Its calls return [`Error::Stopped`] from now on, also one that waits now. In a forked child, this does
    /// nothing to the watch of the parent.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-stop-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// watch.stopper().stop();
    /// assert!(matches!(watch.next_timeout(None), Err(caskfile::Error::Stopped)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn stop(&self) {
        (self.stop)();
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopper").finish_non_exhaustive()
    }
}
