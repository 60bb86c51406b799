//! The writes of a [`Cask`] that depend on the present state of one key.

use super::Cask;
use super::writes::put;
use crate::engine::write::request::{Action, Condition, no_memory};
use crate::format::FullKey;
use crate::memory::copied;
use crate::store::{KvPair, PutOptions};
use crate::{Error, Result};

impl Cask {
    /// Sets the value of a key that is not in the store, and returns the `last_index` of the new pair.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyExists`] if the key is in the store. Nothing was written.
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-put-new-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Error;
    ///
    /// cask.put_new("leader", "anna")?;
    /// assert!(matches!(cask.put_new("leader", "ben"), Err(Error::KeyExists)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn put_new(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.put_under(key.as_ref(), value.as_ref(), Condition::Absent)
    }

    /// Sets the value of a key if the key has this `last_index`, and returns the new one.
    ///
    /// A `last_index` is never assigned twice in the life of a store, so an old one is refused after deletion and re-creation,
    /// after reopening, and in another process. A program can keep the number, send it to a client (as an ETag) and get it
    /// back later.
    ///
    /// The new pair has no deadline, also if the old one had one: [`Cask::atomic_put_with`] sets another.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyModified`] if the key has another `last_index`, and [`Error::KeyNotFound`] if it is absent. Nothing was
    ///   written. [`Error::is_conflict`] is true of both. As with a read, a power cut may take back a change that is not on
    ///   stable storage yet.
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-put-if-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Error;
    ///
    /// let first = cask.put("leader", "anna")?;
    /// let second = cask.put_if("leader", "ben", first)?;
    /// assert!(second > first);
    /// assert!(matches!(cask.put_if("leader", "carl", first), Err(Error::KeyModified)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn put_if(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, last_index: u64) -> Result<u64> {
        self.put_under(key.as_ref(), value.as_ref(), Condition::Seq(last_index))
    }

    /// Removes a key if it has this `last_index`.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::put_if`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-delete-if-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mine = cask.put_new("lease", "me")?;
    /// cask.delete_if("lease", mine)?;
    /// assert!(!cask.exists("lease")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn delete_if(&self, key: impl AsRef<[u8]>, last_index: u64) -> Result<()> {
        self.commit_one(key.as_ref(), Action::Delete, Some(Condition::Seq(last_index))).map(drop)
    }

    /// Sets the value of a key if the key has not changed since `previous` was read, or, without `previous`, if the key is
    /// absent. Returns the new pair.
    ///
    /// This is the contract's call, [`Store::atomic_put`](crate::Store::atomic_put). [`Cask::put_if`] and [`Cask::put_new`] do
    /// the same with the index alone, and copy no value. Only `previous.last_index` is compared.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyExists`] without `previous`, if the key is in the store.
    /// - [`Error::KeyNotFound`] with `previous`, if the key is absent.
    /// - [`Error::KeyModified`] with `previous`, if the key was changed.
    /// - Those of [`Cask::put`].
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

    /// Sets the value of a key as [`Cask::atomic_put`] does, with the options of [`Cask::put_with`]: for a lease that only one
    /// of several callers gets, or that its holder alone prolongs. In a batch, [`Batch::expect_absent`](crate::Batch::expect_absent)
    /// and its like before [`Batch::put_with`](crate::Batch::put_with) do the same.
    ///
    /// A pair that is over counts as absent, also the one that the caller has read before.
    ///
    /// # Leases
    ///
    /// - Count the time from before the call. It waits for the lock and for the sync, and may return a lease that is over already.
    /// - Pass `last_index` on as a fencing token: with each request to what the lease protects, which refuses a lower number than it
    ///   has seen. A holder that was stopped does not notice in time that its lease is over.
    /// - A clock that is set can give the lease to two: set forward, it ends the lease too soon.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::atomic_put`] and [`Cask::put_with`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-atomic-put-with-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::Duration;
    ///
    /// use caskfile::{Error, PutOptions};
    ///
    /// let for_a_minute = PutOptions::new().ttl(Duration::from_secs(60));
    /// let mine = cask.atomic_put_with("lease", "anna", None, &for_a_minute)?;
    /// assert!(matches!(cask.atomic_put_with("lease", "ben", None, &for_a_minute), Err(Error::KeyExists)));
    /// // For another minute from now on, unless it is over already.
    /// cask.atomic_put_with("lease", "anna", Some(&mine), &for_a_minute)?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn atomic_put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        previous: Option<&KvPair>,
        options: &PutOptions,
    ) -> Result<KvPair> {
        let condition = previous.map_or(Condition::Absent, |pair| Condition::Seq(pair.last_index));
        self.put_pair(key.as_ref(), value.as_ref(), Some(condition), options)
    }

    /// The same as [`Cask::atomic_put`], with a value that moves into the new pair.
    pub(super) fn swap(&self, key: &[u8], value: Vec<u8>, previous: Option<&KvPair>) -> Result<KvPair> {
        let condition = previous.map_or(Condition::Absent, |pair| Condition::Seq(pair.last_index));
        let last_index = self.put_under(key, &value, condition)?;
        Ok(KvPair { key: key.to_vec(), value, last_index })
    }

    /// Removes a key if it has not changed since `previous` was read.
    ///
    /// This is the contract's call, [`Store::atomic_delete`](crate::Store::atomic_delete). [`Cask::delete_if`] does the same
    /// with the index alone.
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
        self.commit(&key, Action::Delete, Some(Condition::Seq(previous.last_index))).map(drop)
    }

    fn put_under(&self, key: &[u8], value: &[u8], condition: Condition) -> Result<u64> {
        let last_index = self.commit_one(key, put(value)?, Some(condition))?;
        Ok(last_index.expect("a put that succeeds writes a record"))
    }
}
