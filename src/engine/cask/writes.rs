//! The writes of a [`Cask`].

use std::ops::{Bound, RangeBounds};

use super::Cask;
use crate::engine::read::Reading;
use crate::engine::read::scan::Moment;
use crate::engine::write::outcome::Failure;
#[cfg(any(test, feature = "testing"))]
use crate::engine::write::outcome::Outcome;
use crate::engine::write::request::{Action, Condition, Request, no_memory};
use crate::engine::{Applied, Batch, Scan};
use crate::format::{FullKey, MAX_VALUE_LEN};
use crate::memory::copied;
use crate::store::{KvPair, PutOptions};
use crate::{Error, Result};

impl Cask {
    /// Sets the value of a key, and replaces the old one if there is one. Returns the `last_index` of the new pair.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyLength`] or [`Error::ValueTooLong`] if the key or the value is over a limit. Nothing was written.
    /// - [`Error::Io`] if the write failed. What had reached the file was cut off again.
    /// - [`Error::Poisoned`]: it is unknown whether the pair was written.
    /// - Those of every write. Nothing was written.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-put-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "red")?;
    /// let last_index = cask.put("colour", "blue")?;
    /// assert_eq!(cask.get("colour")?, caskfile::KvPair::new("colour", "blue", last_index));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        let action = put(value.as_ref())?;
        let last_index = self.commit_one(key.as_ref(), action, None)?;
        Ok(last_index.expect("a put that succeeds writes a record"))
    }

    /// Sets the value of a key as [`Cask::put`] does, with options: how long the pair lives. Returns the new pair.
    ///
    /// At its deadline the pair is over. From then on every call treats the key as absent: reads, lists, counts and conditions. No
    /// call waits for that and no thread does it: the deadline is in the file, and each handle compares it with the wall clock. The
    /// next put of the key sets a pair of its own, with a deadline only if it asks for one.
    ///
    /// # The clock
    ///
    /// The wall clock of the machine decides, since a deadline must outlast a reboot. The time to live begins in the writer's turn,
    /// under the file's lock, before the write. If the process is stopped in between, the call may return after the deadline. If the
    /// clock is set forward, pairs are over sooner. If it is set back, a pair that was hidden may show again, until its delete is in the
    /// log.
    ///
    /// # What is left
    ///
    /// A pair that is over takes up space until the log has a delete of its key. A write or condition that names the key puts that delete
    /// in front, as a write of its own, so [watches](Cask::changes) see the end of each pair once, as a delete. Each turn of puts,
    /// deletes and batches also removes up to 256 other such keys, or 64 KiB of deletes; so does a watch of a handle that can write,
    /// which wakes for that at the deadline. A read-only handle removes nothing. [`Stats::hidden`](crate::Stats::hidden) says how many
    /// are left.
    ///
    /// # Cost
    ///
    /// 24 bytes in the file and 70 to 100 in memory more than a pair without a deadline. Only reads of such a key look at the clock.
    /// Once a file has had such a pair, no [snapshot](crate::SnapshotPolicy) of the index is written until a compaction finds none, so
    /// that opening reads all that was written since the last one.
    ///
    /// # Errors
    ///
    /// - [`Error::ZeroTtl`] if the time to live is zero.
    /// - [`Error::ValueTooLong`] if a value with a deadline has more than [`MAX_EXPIRING_VALUE_LEN`](crate::MAX_EXPIRING_VALUE_LEN) bytes.
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-put-with-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::{Duration, SystemTime};
    ///
    /// use caskfile::PutOptions;
    ///
    /// cask.put_with("token", "e6c1", &PutOptions::new().ttl(Duration::from_secs(3600)))?;
    /// assert_eq!(cask.get("token")?.value, b"e6c1");
    /// let a_second_ago = SystemTime::now() - Duration::from_secs(1);
    /// cask.put_with("token", "e6c1", &PutOptions::new().expires_at(a_second_ago))?;
    /// assert!(!cask.exists("token")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put_with(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, options: &PutOptions) -> Result<KvPair> {
        self.put_pair(key.as_ref(), value.as_ref(), None, options)
    }

    /// Removes a key. Returns `Ok` if it is absent, and writes nothing then.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-delete-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// cask.delete("colour")?;
    /// assert!(!cask.exists("colour")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.commit_one(key.as_ref(), Action::Delete, None).map(drop)
    }

    /// Applies a batch, all of it or nothing. Returns what it has written: the index of each operation, and how many keys it
    /// removed.
    ///
    /// Readers see all of its changes at once or none, and so does a process that opens the store after a crash.
    ///
    /// # Errors
    ///
    /// - [`Error::BatchConflict`] if a condition does not hold, with the number of the first one.
    /// - [`Error::BatchInvalid`] if a key, a value or a bucket's name is over a limit, with the number of the first such
    ///   operation.
    /// - [`Error::BatchTooLarge`].
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-write-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let applied = cask.write(Batch::new().put("a", "1").put("b", "2"))?;
    /// assert_eq!(applied.last_index_of(0), Some(cask.get("a")?.last_index));
    /// assert_eq!(applied.last_index(), Some(cask.get("b")?.last_index));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn write(&self, batch: &Batch) -> Result<Applied> {
        self.check_open()?;
        let request = batch.to_request(&self.bucket, &self.engine.context.path, self.engine.context.limits)?;
        match self.engine.commit(request) {
            Ok(written) => Ok(Applied::new(batch, written)),
            Err(failure) => Err(failure.batch_error()),
        }
    }

    /// Writes batches in one group, or in as few as their sizes allow, in this order, as if each came from another thread.
    /// Returns the result of each. For tests that need the same group every time.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::write`], if the error comes before the group begins.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-write-together-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let (mut one, mut two) = (Batch::new(), Batch::new());
    /// one.put("a", "1");
    /// two.expect_absent("a").put("a", "2");
    /// let results = cask.write_together(&[one, two])?;
    /// assert!(results[0].is_ok() && results[1].is_err());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    #[cfg(any(test, feature = "testing"))]
    pub fn write_together(&self, batches: &[Batch]) -> Result<Vec<Result<Applied>>> {
        self.check_open()?;
        let requests = batches
            .iter()
            .map(|batch| batch.to_request(&self.bucket, &self.engine.context.path, self.engine.context.limits))
            .collect::<Result<Vec<_>>>()?;
        let outcomes = self.engine.writing.commit_together(&requests)?;
        let answer = |(batch, outcome): (&Batch, Outcome)| match outcome {
            Ok(written) => Ok(Applied::new(batch, written)),
            Err(failure) => Err(failure.batch_error()),
        };
        Ok(batches.iter().zip(outcomes).map(answer).collect())
    }

    /// Writes a snapshot of the index, whether one is due or not. Returns `false` if none was written, since another handle writes
    /// one, for example. For tests: [`SnapshotPolicy`](crate::SnapshotPolicy) says when a handle does so by itself.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-write-snapshot-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// assert!(cask.write_snapshot()?);
    /// assert_eq!(cask.stats()?.snapshots, 1);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    #[cfg(any(test, feature = "testing"))]
    pub fn write_snapshot(&self) -> Result<bool> {
        self.engine.maintenance.write_snapshot_now()
    }

    /// Removes all keys of the bucket that start with `prefix`, at one moment, and returns how many there were. The empty
    /// prefix empties the bucket.
    ///
    /// Up to [`MAX_BATCH_OPS`](crate::MAX_BATCH_OPS) keys are removed in one batch. More keys are removed in several
    /// batches. No other writer comes between these, but after a crash some may be missing.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::list`] and [`Cask::put`]. Of several batches, those before the error have removed their keys.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-delete-prefix-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// for key in ["log/1", "log/2", "other"] {
    ///     cask.put(key, "")?;
    /// }
    /// assert_eq!(cask.delete_prefix("log/")?, 2);
    /// assert!(cask.exists("other")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        let prefix = prefix.as_ref();
        self.delete_scanned(|reading, moment| reading.scan_at(&self.bucket, prefix, moment))
    }

    /// Removes all keys of the bucket that are in a range, as [`Cask::delete_prefix`] does, and returns how many there were. A
    /// range that ends before it begins is empty.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::delete_prefix`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-delete-range-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// for day in ["2026-01-30", "2026-01-31", "2026-02-01"] {
    ///     cask.put(day, "")?;
    /// }
    /// assert_eq!(cask.delete_range(.."2026-02")?, 2);
    /// assert_eq!(cask.len()?, 1);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        // Before the turn: `as_ref` is the caller's code, which may call this store.
        let owned = |key: &K| key.as_ref().to_vec();
        let range: (Bound<Vec<u8>>, Bound<Vec<u8>>) = (range.start_bound().map(owned), range.end_bound().map(owned));
        self.delete_scanned(|reading, moment| reading.range_at::<Vec<u8>>(&self.bucket, &range, moment))
    }

    fn delete_scanned(&self, scan: impl FnOnce(&Reading, Moment) -> Result<Scan>) -> Result<u64> {
        let engine = &*self.engine;
        let deleted = engine.writing.solo(engine.context.deadline(), |turn| turn.delete_scanned(scan));
        engine.maintenance.begin_if_due();
        deleted
    }

    /// Syncs the whole store: when it returns, everything in the store is on stable storage, from every writer and with
    /// every durability.
    ///
    /// # Errors
    ///
    /// Those of every write.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-sync-{}", std::process::id()));
    /// use caskfile::{Cask, Config, Durability};
    ///
    /// let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os))?;
    /// cask.put("a", "1")?;
    /// cask.put("b", "2")?;
    /// cask.sync()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        let context = &*self.engine.context;
        self.engine.writing.solo(context.deadline(), |turn| {
            turn.rewrite_ahead(&context.deadline())?;
            turn.make_durable()
        })
    }

    /// Puts a pair under a condition, and returns it.
    pub(super) fn put_pair(
        &self,
        key: &[u8],
        value: &[u8],
        condition: Option<Condition>,
        options: &PutOptions,
    ) -> Result<KvPair> {
        let until = options.until(value.len())?;
        // Before anything is written: afterwards a lack of memory could not be an error.
        let copy = copied(value).map_err(|_| no_memory(&self.engine.context.path))?;
        let last_index = self.commit_one(key, Action::put(value, until), condition)?;
        let last_index = last_index.expect("a put that succeeds writes a record");
        Ok(KvPair { key: key.to_vec(), value: copy, last_index })
    }

    /// Commits one operation. Returns the index of the record, if there is one.
    pub(super) fn commit_one(
        &self,
        key: &[u8],
        action: Action<&[u8]>,
        condition: Option<Condition>,
    ) -> Result<Option<u64>> {
        self.check_open()?;
        self.commit(&FullKey::new(&self.bucket, key)?, action, condition)
    }

    pub(in crate::engine) fn commit(
        &self,
        full_key: &[u8],
        action: Action<&[u8]>,
        condition: Option<Condition>,
    ) -> Result<Option<u64>> {
        let request = Request::of(full_key, condition, action);
        self.engine.commit(request).map(|written| written.last_index).map_err(Failure::error)
    }
}

/// A put, if the value is within the limit.
pub(super) fn put(value: &[u8]) -> Result<Action<&[u8]>> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Error::ValueTooLong { len: value.len(), max: MAX_VALUE_LEN });
    }
    Ok(Action::Put(value))
}
