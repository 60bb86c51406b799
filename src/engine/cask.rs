//! [`Cask`]: the handle that users hold.

use std::io::Write;
use std::ops::{ControlFlow, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use super::write::commit::Failure;
#[cfg(any(test, feature = "testing"))]
use super::write::commit::Outcome;
use super::write::request::{Action, Request, no_memory};
use super::{Backup, Batch, BucketScans, Compaction, Engine, IndexScan, Mapped, PairRef, Scan, Stats};
use crate::config::Config;
use crate::disk::{Disk, RealDisk};
use crate::events::event;
use crate::format::{FullKey, MAX_VALUE_LEN, prefix_of_bucket};
use crate::memory::copied;
use crate::progress::Progress;
use crate::report::Report;
use crate::store::{KvPair, Store};
use crate::{Error, Result};

/// An open store, seen through one of its buckets.
///
/// Cloning is cheap, and so is another [bucket](Cask::bucket): all of them share one open file, one index and one
/// queue of writers. A handle may be used from any number of threads. Other processes, and other handles of this
/// one, may have the same file open at the same time.
///
/// # Durability
///
/// When a call that writes returns is decided by [`Config::durability`]. By default, what it wrote is on stable
/// storage then. Threads that write at the same time share one write and one sync.
///
/// # Cost
///
/// A read makes no system call while nothing is appended, and takes no lock that is held during a sync; one that falls
/// into an append of this process waits for that to be written, and one that finds something new in the file reads it.
/// A write costs one `pwrite`, locking and unlocking the file in [`LockMode::PerWrite`](crate::LockMode::PerWrite), and
/// a sync in [`Durability::Sync`](crate::Durability::Sync). The first write after opening costs one sync more.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-cask-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let path = dir.join("store");
/// use caskfile::Cask;
///
/// let cask = Cask::open(&path)?;
/// cask.put("config/port", "8080")?;
/// let pair = cask.get("config/port")?;
/// cask.atomic_put("config/port", "9090", Some(&pair))?;
/// assert_eq!(cask.list("config/")?.len(), 1);
/// cask.close()?;
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Cask {
    pub(super) engine: Arc<Handle>,
    /// What all full keys of this bucket start with.
    pub(super) bucket: Arc<[u8]>,
}

/// Closes the store when the last handle is gone.
pub(super) struct Handle(Engine);

impl std::ops::Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to be notified. What was acknowledged is as durable as was promised without this.
        if let Err(error) = self.0.close() {
            event!(warn, "{}: closing: {error:#}", self.0.context.path.display());
        }
    }
}

impl Cask {
    /// Opens the store at `path` with the default configuration, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Cask::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Cask> {
        Cask::open_with(path, &Config::default())
    }

    /// Opens the store at `path`.
    ///
    /// Reads the whole file once, to verify it and to build the index. A torn tail, as a crash leaves it, is cut off
    /// (see [`Stats::torn_bytes`]); damage to what had been on stable storage is an error, and the file stays as it
    /// is.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`]: the directory is missing, permission is denied, the path names a directory, a FIFO or the
    ///   like, or ends in a slash, or there is no file and [`Config::create`] is off;
    /// - [`Error::NotCaskfile`], [`Error::UnsupportedVersion`], [`Error::UnsupportedRecord`]: not a file that this
    ///   version can read; it is not touched;
    /// - [`Error::Corrupt`]: damaged; it is not touched, and [`salvage`](crate::salvage) copies what can be read;
    /// - [`Error::LockTimeout`]: another writer held the lock for the whole connection timeout;
    /// - [`Error::BucketTooLong`].
    pub fn open_with(path: impl AsRef<Path>, config: &Config) -> Result<Cask> {
        Cask::on(Arc::new(RealDisk), path.as_ref(), config)
    }

    /// Opens a store on another [`Disk`], such as a simulated one. See the example of [`disk`](crate::disk).
    ///
    /// # Errors
    ///
    /// Those of [`Cask::open_with`], and those of the disk.
    #[cfg(any(test, feature = "testing"))]
    pub fn open_on(disk: Arc<dyn Disk>, path: impl AsRef<Path>, config: &Config) -> Result<Cask> {
        Cask::on(disk, path.as_ref(), config)
    }

    fn on(disk: Arc<dyn Disk>, path: &Path, config: &Config) -> Result<Cask> {
        let bucket = prefix_of_bucket(config.get_bucket())?.into();
        let engine = Engine::open(disk, path, config)?;
        Ok(Cask { engine: Arc::new(Handle(engine)), bucket })
    }

    /// The same open store, seen through another bucket. A bucket comes into being with its first key and is gone
    /// with its last.
    ///
    /// # Errors
    ///
    /// [`Error::BucketTooLong`] for a name over 255 bytes, [`Error::Closed`].
    pub fn bucket(&self, name: impl AsRef<[u8]>) -> Result<Cask> {
        self.check_open()?;
        Ok(Cask { engine: Arc::clone(&self.engine), bucket: prefix_of_bucket(name.as_ref())?.into() })
    }

    /// The names of all buckets that have a key, sorted. The bucket of stores that use none has the empty name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and as for any read [`Error::Corrupt`] and [`Error::Io`].
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = self.scan_buckets()?.map(|bucket| Ok(bucket?.0)).collect::<Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// All buckets that have a key, each with the scan of its pairs, and all of one moment: a copy of the whole store
    /// can be made from it while others write. Shorter names come first, and those of one length in byte order.
    ///
    /// The first listing of a handle sorts all keys of the store; each bucket then costs one search, and what is read
    /// of it. How many keys a bucket has is [`len`](ExactSizeIterator::len) of its scan.
    ///
    /// # Errors
    ///
    /// As [`Cask::list`]; after an error the iteration ends.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-scan-buckets-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let cask = caskfile::Cask::open(dir.join("store"))?;
    /// cask.put("colour", "blue")?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// for bucket in cask.scan_buckets()? {
    ///     let (name, pairs) = bucket?;
    ///     println!("{:?} has {} keys", String::from_utf8_lossy(&name), pairs.len());
    /// }
    /// # cask.close()?;
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan_buckets(&self) -> Result<BucketScans> {
        self.engine.reading.scan_buckets()
    }

    /// All pairs of all buckets, as they were at one moment, in the order in which they were set: the fastest way to
    /// read everything, for a copy in another form.
    ///
    /// Needs no sorted index: eight bytes a key while it lives, and reads the file once, from its beginning to its end,
    /// in pieces of bounded size whatever [`Config::read_mode`] says. While the positions are gathered, some ten milliseconds
    /// for a million keys, no write becomes visible.
    ///
    /// # Errors
    ///
    /// As any read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-scan-by-index-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("zebra", "first")?;
    /// cask.bucket("log")?.put("ant", "second")?;
    /// let mut pairs = cask.scan_by_index()?;
    /// while let Some(next) = pairs.next_ref() {
    ///     let (bucket, pair) = next?;
    ///     println!("{} {}", bucket.escape_ascii(), pair.key.escape_ascii());
    /// }
    /// # assert_eq!(cask.scan_by_index()?.next().unwrap()?.1.key, b"zebra");
    /// # cask.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn scan_by_index(&self) -> Result<IndexScan> {
        self.engine.reading.scan_by_index()
    }

    /// The pair of a key.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyNotFound`] if the key is absent; see [`OptionalExt`](crate::OptionalExt) to have `None` instead;
    /// - [`Error::KeyLength`] for a key that cannot exist;
    /// - [`Error::Corrupt`] if the record no longer has its checksum;
    /// - [`Error::Closed`], [`Error::Io`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<KvPair> {
        let (key, mut value) = (key.as_ref(), Vec::new());
        let last_index = self.get_into(key, &mut value)?;
        Ok(KvPair { key: key.to_vec(), value, last_index })
    }

    /// Replaces the contents of `out` by the value of a key and returns its `last_index`: allocates nothing if `out`
    /// has room.
    ///
    /// # Errors
    ///
    /// As [`Cask::get`]. What `out` holds then is unspecified.
    pub fn get_into(&self, key: impl AsRef<[u8]>, out: &mut Vec<u8>) -> Result<u64> {
        // Before the view is taken: this is the caller's code, which may call this store.
        let key = key.as_ref();
        let verify = self.engine.context.config.get_verify_on_read();
        self.engine.reading.answer(|view| {
            let key = FullKey::new(&self.bucket, key)?;
            let position = view.find(&key)?.ok_or(Error::KeyNotFound)?;
            view.read(position, |reader, start| reader.value_into(start, &key, out, verify))
        })
    }

    /// Whether a key is there. Its value is not read.
    ///
    /// # Errors
    ///
    /// As [`Cask::get`], except that absence is no error.
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.engine.reading.answer(|view| Ok(view.find(&FullKey::new(&self.bucket, key)?)?.is_some()))
    }

    /// All pairs whose keys start with `prefix`, in key order, as they were at one moment; the empty prefix lists
    /// all, and a prefix that nothing starts with gives an empty list.
    ///
    /// The first listing of a handle sorts all keys of the store; later ones touch only what they return.
    ///
    /// # Errors
    ///
    /// As [`Cask::get`], except that absence is no error.
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<KvPair>> {
        self.engine.reading.list(&self.bucket, prefix.as_ref())
    }

    /// The pairs that [`Cask::list`] would return, one at a time, from both ends.
    ///
    /// # Errors
    ///
    /// As [`Cask::list`].
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Result<Scan> {
        self.engine.reading.scan(&self.bucket, prefix.as_ref())
    }

    /// The pairs whose keys lie in a range, in key order, from both ends: `cask.range("a".."c")`,
    /// `cask.range::<&str>(..)`. A range that ends before it begins is empty.
    ///
    /// # Errors
    ///
    /// As [`Cask::list`].
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Scan> {
        self.engine.reading.range(&self.bucket, &range)
    }

    /// Shows the pairs that [`Cask::list`] would return to a closure, without allocating for each, until it breaks.
    ///
    /// The closure may call this store: it sees a snapshot and holds no lock.
    ///
    /// # Errors
    ///
    /// As [`Cask::list`].
    pub fn visit<F>(&self, prefix: impl AsRef<[u8]>, f: F) -> Result<()>
    where
        F: FnMut(PairRef<'_>) -> ControlFlow<()>,
    {
        self.engine.reading.visit(&self.bucket, prefix.as_ref(), f)
    }

    /// Sets a key's value, whatever was there.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyLength`], [`Error::ValueTooLong`]: over the limit;
    /// - [`Error::LockTimeout`], [`Error::Replaced`], [`Error::ReadOnly`], [`Error::Forked`], [`Error::Closed`],
    ///   [`Error::Corrupt`], [`Error::Full`]: nothing was written;
    /// - [`Error::Io`]: the write failed, and what of it had reached the file was cut off again;
    /// - [`Error::Poisoned`]: whether it was written is unknown.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let action = put(value.as_ref())?;
        self.commit_one(key.as_ref(), action, None).map(drop)
    }

    /// Removes a key. Removing one that is absent is no error, and writes nothing.
    ///
    /// # Errors
    ///
    /// As [`Cask::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.commit_one(key.as_ref(), Action::Delete, None).map(drop)
    }

    /// Sets a key's value if nobody has changed the key since `previous` was read, or, without `previous`, if the
    /// key is not there. Returns the new pair.
    ///
    /// Only `previous.last_index` is compared. An index is never used twice in the life of a store, so a stale pair
    /// is refused after deletion and re-creation, after reopening, and in another process.
    ///
    /// # Errors
    ///
    /// [`Error::KeyExists`] if `previous` is `None` and the key is there; [`Error::KeyNotFound`] if the key is gone;
    /// [`Error::KeyModified`] if it was changed; else as [`Cask::put`]. The first three say what a read says at that moment:
    /// as with a read, a power cut may take back a change that is not on stable storage yet.
    pub fn atomic_put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        previous: Option<&KvPair>,
    ) -> Result<KvPair> {
        let (key, value) = (key.as_ref(), value.as_ref());
        put(value)?;
        // Before anything is written: afterwards it is too late to fail for want of memory.
        let value = copied(value).map_err(|_| no_memory(&self.engine.context.path))?;
        self.swap(key, value, previous)
    }

    /// As [`Cask::atomic_put`], with a value that the new pair can have.
    fn swap(&self, key: &[u8], value: Vec<u8>, previous: Option<&KvPair>) -> Result<KvPair> {
        let condition = previous.map_or(Action::ExpectAbsent, |pair| Action::ExpectSeq(pair.last_index));
        let last_index = self.commit_one(key, put(&value)?, Some(condition))?.unwrap_or_default();
        Ok(KvPair { key: key.to_vec(), value, last_index })
    }

    /// Removes a key if nobody has changed it since `previous` was read.
    ///
    /// # Errors
    ///
    /// [`Error::PreviousNotSpecified`] without `previous`; [`Error::KeyNotFound`] if the key is gone;
    /// [`Error::KeyModified`] if it was changed; else as [`Cask::put`].
    pub fn atomic_delete(&self, key: impl AsRef<[u8]>, previous: Option<&KvPair>) -> Result<()> {
        self.check_open()?;
        let key = FullKey::new(&self.bucket, key.as_ref())?;
        let previous = previous.ok_or(Error::PreviousNotSpecified)?;
        self.commit(&key, Action::Delete, Some(Action::ExpectSeq(previous.last_index))).map(drop)
    }

    /// Replaces a key's value by what `f` makes of it, and tries again as long as others change the key meanwhile.
    /// `f` is given `None` if the key is absent, and may be called several times. Returns the new pair.
    ///
    /// # Errors
    ///
    /// As [`Cask::put`] and [`Cask::get`].
    pub fn update<F>(&self, key: impl AsRef<[u8]>, mut f: F) -> Result<KvPair>
    where
        F: FnMut(Option<&KvPair>) -> Vec<u8>,
    {
        let key = key.as_ref();
        loop {
            let previous = match self.get(key) {
                Ok(pair) => Some(pair),
                Err(Error::KeyNotFound) => None,
                Err(error) => return Err(error),
            };
            match self.swap(key, f(previous.as_ref()), previous.as_ref()) {
                Err(Error::KeyModified | Error::KeyExists | Error::KeyNotFound) => {}
                result => return result,
            }
        }
    }

    /// Applies a batch: all of it, or nothing. Returns the index of its last record, or `None` if there was nothing
    /// to write (conditions only, or deletions of absent keys).
    ///
    /// Readers see all of its changes at once or none, and so does whoever opens the store after a crash.
    ///
    /// # Errors
    ///
    /// [`Error::BatchConflict`] if a condition does not hold, [`Error::BatchInvalid`] if a key, a value or a bucket's name is
    /// over the limit, both with the number of the first such operation; [`Error::BatchTooLarge`]; else as [`Cask::put`].
    pub fn write(&self, batch: &Batch) -> Result<Option<u64>> {
        self.check_open()?;
        let request = batch.to_request(&self.bucket, &self.engine.context.path)?;
        match self.engine.commit(request) {
            Ok(written) => Ok(written.last_index),
            Err(failure) => Err(failure.batch_error()),
        }
    }

    /// Writes batches in one group and in this order, as if each came from a thread of its own, and returns the answer to
    /// each: for tests that need the same group every time.
    ///
    /// # Errors
    ///
    /// As [`Cask::write`], if that is before the group begins.
    #[cfg(any(test, feature = "testing"))]
    pub fn write_together(&self, batches: &[Batch]) -> Result<Vec<Result<Option<u64>>>> {
        self.check_open()?;
        let requests = batches
            .iter()
            .map(|batch| batch.to_request(&self.bucket, &self.engine.context.path))
            .collect::<Result<Vec<_>>>()?;
        let outcomes = self.engine.writing.solo(self.engine.context.deadline(), |turn| Ok(turn.commit(&requests)))?;
        let answer = |outcome: Outcome| outcome.map(|written| written.last_index).map_err(Failure::batch_error);
        Ok(outcomes.into_iter().map(answer).collect())
    }

    /// Removes all keys that start with `prefix`, at one moment, and returns how many there were. The empty prefix
    /// empties the bucket.
    ///
    /// Up to [`MAX_BATCH_OPS`](crate::MAX_BATCH_OPS) keys are removed as one batch. More are removed in several, and
    /// a crash may leave some of those undone; no other writer comes between them.
    ///
    /// # Errors
    ///
    /// As [`Cask::put`] and [`Cask::list`]. If there are several batches, those before the error have removed their keys.
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        let (engine, prefix) = (&*self.engine, prefix.as_ref());
        let deadline = engine.context.deadline();
        let deleted = engine.writing.solo(deadline, |turn| turn.delete_prefix(&self.bucket, prefix));
        engine.maintenance.compact_if_due();
        deleted
    }

    /// Brings everything that is in the store now to stable storage, whoever wrote it and with whatever durability.
    ///
    /// # Errors
    ///
    /// As [`Cask::put`].
    pub fn sync(&self) -> Result<()> {
        let context = &*self.engine.context;
        self.engine.writing.solo(context.deadline(), |turn| {
            turn.rewrite_ahead(&context.deadline())?;
            turn.make_durable()
        })
    }

    /// Rewrites the live records to a new file, which then takes the place of the old one, and thereby gives back
    /// the space of values that were replaced or deleted. Indexes, owner, permissions, ACL and extended attributes are
    /// kept.
    ///
    /// Reads and writes go on meanwhile, in this process and in others; writers wait only while the last of what they
    /// wrote is carried over and the new file takes its place, some milliseconds. Other processes notice at their next
    /// call, which reads the new file as opening it does.
    ///
    /// The directory needs room for the live records, which is asked for first, and for what is written meanwhile; what a
    /// compressing file system would save does not count. Memory is needed for eight bytes a key, and for a second
    /// index.
    ///
    /// # Errors
    ///
    /// [`Error::CompactionRefused`] for a file with several hard links, one that is mounted by itself, one in a directory
    /// that takes no new file, or one whose owner, permissions or attributes cannot be
    /// given to the new file; [`Error::CompactionOvertaken`] if somebody else is at it already; [`Error::Corrupt`] if a
    /// live record does not verify; [`Error::Io`] if the disk is full; else as [`Cask::put`], where the connection
    /// timeout counts for the beginning and for the end. The store is then as it was, and nothing is left behind.
    pub fn compact(&self) -> Result<Compaction> {
        self.compact_with(|_| ControlFlow::Continue(()))
    }

    /// As [`Cask::compact`], and tells a closure how far it is, about once a megabyte. If that breaks, compaction is
    /// over, and everything is as it was.
    ///
    /// The closure may call this store: no lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::CompactionCancelled`] if the closure breaks; else as [`Cask::compact`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-compact-with-{}", std::process::id()));
    /// use std::ops::ControlFlow;
    ///
    /// # let cask = caskfile::Cask::open(&path)?;
    /// # for n in 0..100 { cask.put("key", format!("{n}"))?; }
    /// let compaction = cask.compact_with(|progress| {
    ///     eprint!("\r{} of {} bytes", progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(compaction.after < compaction.before);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn compact_with(&self, mut progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<Compaction> {
        self.engine.maintenance.compact(&mut progress)
    }

    /// Opens the file anew for this handle and all its clones and buckets, so that writes work again after
    /// [`Error::Poisoned`] or [`Error::Replaced`], without a restart and without closing.
    ///
    /// Everything is done that opening does: the whole file is read and verified, a torn tail is cut off, and before the
    /// first durable write returns, what nothing proves to be on stable storage is written once more. Reads go on
    /// meanwhile, writes of this handle wait. What became of writes whose error was [`Error::Poisoned`], reads tell
    /// afterwards.
    ///
    /// A file that is gone is not made anew. If another file has the path by now, all of this handle shows that one from
    /// here on: pairs that were read before need not mean anything in it. Slices of [`Mapped`] stay what they are.
    ///
    /// # Errors
    ///
    /// As [`Cask::open_with`], and [`Error::Closed`], [`Error::Forked`]. The handle then is as it was: reads go on, and
    /// writes are refused as before.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-reopen-{}", std::process::id()));
    /// use caskfile::{Cask, Error};
    ///
    /// /// A disk that was full or disconnected for a while poisons the handle.
    /// fn put_or_reopen(cask: &Cask, key: &str, value: &str) -> caskfile::Result<()> {
    ///     match cask.put(key, value) {
    ///         Err(Error::Poisoned { .. }) => {
    ///             cask.reopen()?;
    ///             cask.put(key, value)
    ///         }
    ///         result => result,
    ///     }
    /// }
    ///
    /// let cask = Cask::open(&path)?;
    /// put_or_reopen(&cask, "key", "value")?;
    /// cask.reopen()?;
    /// assert_eq!(cask.get("key")?.value, b"value");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn reopen(&self) -> Result<()> {
        self.engine.reopen()
    }

    /// Copies the store of this moment to a new file while reads and writes go on, also in other processes. Nobody waits
    /// for it: the log up to its present end stays as it is, whatever is written meanwhile.
    ///
    /// The copy is a store like any other, in which each batch is there as a whole or not at all. It has all of the log,
    /// values that were replaced and tombstones included; [`Cask::compact_to`] leaves those out. `to` appears complete and
    /// synced, or, after a crash, not at all; a file that stands there is never replaced. Owner and mode are those of the
    /// original. Where these cannot be kept, and if the original has an ACL, the copy is its maker's alone (0600). It has
    /// no other attributes.
    ///
    /// Indexes are kept, and the copy's next ones start far above: a store that is restored from a backup refuses a
    /// compare-and-swap with a pair that somebody had read from the original after the backup was made.
    ///
    /// # Cost
    ///
    /// Reads the log once and writes as much. No memory to speak of.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if `to` exists, with
    /// [`StorageFull`](std::io::ErrorKind::StorageFull) if the file system has no room for it, which is asked for first, and
    /// others; [`Error::Corrupt`] if the log is damaged: no backup is made of that; [`Error::Closed`]. Nothing is left behind.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-backup-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// use caskfile::Cask;
    ///
    /// let cask = Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// cask.backup(&copy)?;
    /// cask.put("key", "later")?;
    /// assert_eq!(Cask::open(&copy)?.get("key")?.value, b"value");
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<Backup> {
        self.backup_with(to, |_| ControlFlow::Continue(()))
    }

    /// As [`Cask::backup`], and tells a closure how much is written, about once a megabyte. If that breaks, the backup is
    /// over, and nothing is left behind.
    ///
    /// It is notified for the first time when nothing is made yet, and for the last time when only the name is missing. The
    /// closure may call this store: no lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::CopyCancelled`] if the closure breaks; else as [`Cask::backup`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-backup-with-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// use std::ops::ControlFlow;
    ///
    /// use caskfile::{Cask, Error};
    ///
    /// let cask = Cask::open(&path)?;
    /// let cancelled = cask.backup_with(&copy, |progress| match progress.done {
    ///     0 => ControlFlow::Continue(()),
    ///     _ => ControlFlow::Break(()),
    /// });
    /// assert!(matches!(cancelled, Err(Error::CopyCancelled { .. })));
    /// assert!(!copy.exists());
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup_with(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Backup> {
        self.engine.maintenance.backup(to.as_ref(), &mut progress)
    }

    /// As [`Cask::backup`], to anything that takes bytes in their order: a pipe, a compressor, a connection. What arrives
    /// is a store's file.
    ///
    /// If the stream breaks off, what has arrived is a store too, of an earlier moment: [`verify`](crate::verify) tells it
    /// from a complete one, which is sound. Bringing it to stable storage is the receiver's business.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if `to` fails; else as [`Cask::backup`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-backup-to-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut bytes = Vec::new();
    /// let backup = cask.backup_to(&mut bytes)?;
    /// assert_eq!(backup.bytes, bytes.len() as u64);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn backup_to(&self, to: &mut impl Write) -> Result<Backup> {
        self.engine.maintenance.backup_to(to)
    }

    /// As [`Cask::backup`], with nothing but the present value of each key: smaller, and slower to make.
    ///
    /// # Cost
    ///
    /// Memory of eight bytes a key; and while the keys are gathered, some ten milliseconds for a million, no write
    /// becomes visible.
    ///
    /// # Errors
    ///
    /// As [`Cask::backup`].
    pub fn compact_to(&self, to: impl AsRef<Path>) -> Result<Backup> {
        self.compact_to_with(to, |_| ControlFlow::Continue(()))
    }

    /// As [`Cask::compact_to`], and tells a closure how much is written, as [`Cask::backup_with`] does.
    ///
    /// # Errors
    ///
    /// [`Error::CopyCancelled`] if the closure breaks; else as [`Cask::backup`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-compact-to-with-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// # cask.put("key", "value")?;
    /// use std::ops::ControlFlow;
    /// use std::time::{Duration, Instant};
    ///
    /// let began = Instant::now();
    /// let backup = cask.compact_to_with(&copy, |_| match began.elapsed() < Duration::from_secs(60) {
    ///     true => ControlFlow::Continue(()),
    ///     false => ControlFlow::Break(()),
    /// })?;
    /// assert_eq!(backup.keys, 1);
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compact_to_with(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Backup> {
        self.engine.maintenance.compact_to(to.as_ref(), &mut progress)
    }

    /// Figures about the store and what this handle has done to it. Costs one system call.
    ///
    /// # Errors
    ///
    /// As any read.
    pub fn stats(&self) -> Result<Stats> {
        self.engine.stats()
    }

    /// Reads the whole file, verifies every record, and compares the result with the index in memory. Changes
    /// nothing, and works beside others that write; only for the comparison at the end do they wait.
    ///
    /// A file that cannot be opened is read by [`caskfile::verify`](crate::verify).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], with a [`Report`] of every damaged range, if something is lost that had been on stable
    /// storage; else as any read.
    pub fn verify(&self) -> Result<Report> {
        self.engine.maintenance.verify()
    }

    /// Zero-copy reads.
    ///
    /// # Safety
    ///
    /// As long as any [`Slice`](crate::Slice) made through the returned value lives, nothing but this library may
    /// change or cut the store's file, or any other file that held this store before a compaction: a slice is a
    /// reference into memory that shows the file.
    ///
    /// One change by this library can reach a slice: a recovery, by another process, that cuts off a record which was sound
    /// when the slice was made. Only damage to the file makes it do that. The slice shows zeros then.
    pub unsafe fn mapped(&self) -> Mapped {
        Mapped::new(self.clone())
    }

    /// Closes the store for this handle and all its clones and buckets; later calls on them give
    /// [`Error::Closed`]. Closing twice is no error. Dropping the last handle closes as well.
    ///
    /// Waits for writes that are under way, brings what this handle has written to stable storage in every
    /// durability mode, and cuts the file back to its log's end, unless the lock cannot be had within the
    /// connection timeout.
    ///
    /// If this handle has written and twice as many bytes of the file are dead as the
    /// [`CompactionPolicy`](crate::CompactionPolicy) asks for, closing compacts the store first, and so takes as long as
    /// [`Cask::compact`]. Then a file stays small also if every process writes a little and closes it. Less than that is
    /// left to the next handle, and a compaction in the background is stopped. One that fails is no error of closing.
    ///
    /// # Errors
    ///
    /// What went wrong while tidying up. The store is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }

    fn check_open(&self) -> Result<()> {
        self.engine.reading.shown().map(drop)
    }

    fn commit_one(&self, key: &[u8], action: Action<&[u8]>, condition: Option<Action<&[u8]>>) -> Result<Option<u64>> {
        self.check_open()?;
        self.commit(&FullKey::new(&self.bucket, key)?, action, condition)
    }

    fn commit(&self, full_key: &[u8], action: Action<&[u8]>, condition: Option<Action<&[u8]>>) -> Result<Option<u64>> {
        let value_len = if let Action::Put(value) = action { value.len() } else { 0 };
        let mut request = Request::with_capacity(2, 2 * full_key.len() + value_len, &self.engine.context.path)?;
        if let Some(condition) = condition {
            request.push(full_key, condition);
        }
        request.push(full_key, action);
        self.engine.commit(request).map(|written| written.last_index).map_err(Failure::error)
    }
}

/// A put, if the value is within the limit.
fn put(value: &[u8]) -> Result<Action<&[u8]>> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Error::ValueTooLong { len: value.len(), max: MAX_VALUE_LEN });
    }
    Ok(Action::Put(value))
}

impl std::fmt::Debug for Cask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cask")
            .field("path", &self.engine.context.path)
            .field("bucket", &String::from_utf8_lossy(&self.bucket[1..]))
            .finish_non_exhaustive()
    }
}

impl Store for Cask {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Cask::put(self, key, value)
    }

    fn get(&self, key: &[u8]) -> Result<KvPair> {
        Cask::get(self, key)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Cask::exists(self, key)
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
        Cask::list(self, prefix)
    }

    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
        Cask::atomic_put(self, key, value, previous)
    }

    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
        Cask::atomic_delete(self, key, previous)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Cask::delete(self, key)
    }

    fn close(&self) -> Result<()> {
        Cask::close(self)
    }
}
