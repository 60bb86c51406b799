//! The writes of a [`Cask`].

use super::Cask;
use crate::engine::Batch;
use crate::engine::write::outcome::Failure;
#[cfg(any(test, feature = "testing"))]
use crate::engine::write::outcome::Outcome;
use crate::engine::write::request::{Action, Request, no_memory};
use crate::format::{FullKey, MAX_VALUE_LEN};
use crate::memory::copied;
use crate::store::KvPair;
use crate::{Error, Result};

impl Cask {
    /// Sets the value of a key, and replaces the old one if there is one.
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
    /// cask.put("colour", "blue")?;
    /// assert_eq!(cask.get("colour")?.value, b"blue");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let action = put(value.as_ref())?;
        self.commit_one(key.as_ref(), action, None).map(drop)
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

    /// Sets the value of a key if the key has not changed since `previous` was read, or, without `previous`, if the key is
    /// absent. Returns the new pair.
    ///
    /// Only `previous.last_index` is compared. A `last_index` is never used twice in the life of a store, so an old pair is
    /// refused after deletion and re-creation, after reopening, and in another process.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyExists`] without `previous`, if the key is in the store.
    /// - [`Error::KeyNotFound`] with `previous`, if the key is absent.
    /// - [`Error::KeyModified`] with `previous`, if the key was changed.
    /// - Those of [`Cask::put`].
    ///
    /// The first three are what a read would show at that moment. As with a read, a power cut may take back a change that is
    /// not on stable storage yet.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-atomic-put-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Error;
    ///
    /// let first = cask.atomic_put("leader", "anna", None)?;
    /// cask.atomic_put("leader", "ben", Some(&first))?;
    /// assert!(matches!(cask.atomic_put("leader", "carl", Some(&first)), Err(Error::KeyModified)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn atomic_put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        previous: Option<&KvPair>,
    ) -> Result<KvPair> {
        let (key, value) = (key.as_ref(), value.as_ref());
        put(value)?;
        // Before anything is written: afterwards a lack of memory could not be an error.
        let value = copied(value).map_err(|_| no_memory(&self.engine.context.path))?;
        self.swap(key, value, previous)
    }

    /// The same as [`Cask::atomic_put`], with a value that moves into the new pair.
    fn swap(&self, key: &[u8], value: Vec<u8>, previous: Option<&KvPair>) -> Result<KvPair> {
        let condition = previous.map_or(Action::ExpectAbsent, |pair| Action::ExpectSeq(pair.last_index));
        let last_index = self.commit_one(key, put(&value)?, Some(condition))?.unwrap_or_default();
        Ok(KvPair { key: key.to_vec(), value, last_index })
    }

    /// Removes a key if it has not changed since `previous` was read.
    ///
    /// # Errors
    ///
    /// - [`Error::PreviousNotSpecified`] without `previous`.
    /// - [`Error::KeyNotFound`] if the key is absent.
    /// - [`Error::KeyModified`] if the key was changed.
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-atomic-delete-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mine = cask.atomic_put("lease", "me", None)?;
    /// cask.atomic_delete("lease", Some(&mine))?;
    /// assert!(!cask.exists("lease")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn atomic_delete(&self, key: impl AsRef<[u8]>, previous: Option<&KvPair>) -> Result<()> {
        self.check_open()?;
        let key = FullKey::new(&self.bucket, key.as_ref())?;
        let previous = previous.ok_or(Error::PreviousNotSpecified)?;
        self.commit(&key, Action::Delete, Some(Action::ExpectSeq(previous.last_index))).map(drop)
    }

    /// Replaces the value of a key by the result of `f`, and tries again while other writers change the key. Returns the new
    /// pair.
    ///
    /// `f` gets `None` if the key is absent. It may be called several times.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::get`] and [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-update-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let count = |previous: Option<&caskfile::KvPair>| {
    ///     let old: u64 = previous.map_or(0, |pair| String::from_utf8_lossy(&pair.value).parse().unwrap());
    ///     (old + 1).to_string().into_bytes()
    /// };
    /// cask.update("visits", count)?;
    /// assert_eq!(cask.update("visits", count)?.value, b"2");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
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

    /// Applies a batch, all of it or nothing. Returns the `last_index` of its last record, or `None` if there was nothing to
    /// write: conditions only, or deletions of absent keys.
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
    /// let last_index = cask.write(Batch::new().put("a", "1").put("b", "2"))?;
    /// assert_eq!(last_index, Some(cask.get("b")?.last_index));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn write(&self, batch: &Batch) -> Result<Option<u64>> {
        self.check_open()?;
        let request = batch.to_request(&self.bucket, &self.engine.context.path, self.engine.context.limits)?;
        match self.engine.commit(request) {
            Ok(written) => Ok(written.last_index),
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
    pub fn write_together(&self, batches: &[Batch]) -> Result<Vec<Result<Option<u64>>>> {
        self.check_open()?;
        let requests = batches
            .iter()
            .map(|batch| batch.to_request(&self.bucket, &self.engine.context.path, self.engine.context.limits))
            .collect::<Result<Vec<_>>>()?;
        let outcomes = self.engine.writing.commit_together(&requests)?;
        let answer = |outcome: Outcome| outcome.map(|written| written.last_index).map_err(Failure::batch_error);
        Ok(outcomes.into_iter().map(answer).collect())
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
        let (engine, prefix) = (&*self.engine, prefix.as_ref());
        let deadline = engine.context.deadline();
        let deleted = engine.writing.solo(deadline, |turn| turn.delete_prefix(&self.bucket, prefix));
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
