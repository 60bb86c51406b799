//! The reads of a [`Cask`].

use std::ops::{ControlFlow, RangeBounds};
use std::time::{Duration, SystemTime};

use super::Cask;
use crate::engine::read::scan::moment_of;
use crate::engine::{BucketScans, IndexScan, Keys, PairRef, Scan};
use crate::format::FullKey;
use crate::store::KvPair;
use crate::{Error, Result};

impl Cask {
    /// Returns the pair of a key.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyNotFound`] if the key is absent. [`OptionalExt`](crate::OptionalExt) turns this into `None`.
    /// - [`Error::KeyLength`] if the format allows no such key.
    /// - [`Error::Corrupt`] if the record's checksum no longer holds.
    /// - Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-get-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Error;
    ///
    /// cask.put("colour", "blue")?;
    /// assert_eq!(cask.get("colour")?.value, b"blue");
    /// assert!(matches!(cask.get("shape"), Err(Error::KeyNotFound)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<KvPair> {
        let (key, mut value) = (key.as_ref(), Vec::new());
        let last_index = self.get_into(key, &mut value)?;
        Ok(KvPair { key: key.to_vec(), value, last_index })
    }

    /// Replaces the contents of `out` by the value of a key, and returns its `last_index`. Allocates nothing if `out` has
    /// room.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::get`]. The contents of `out` are unspecified then.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-get-into-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// let mut value = Vec::with_capacity(16);
    /// let last_index = cask.get_into("colour", &mut value)?;
    /// assert_eq!((value, last_index), (b"blue".to_vec(), cask.get("colour")?.last_index));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn get_into(&self, key: impl AsRef<[u8]>, out: &mut Vec<u8>) -> Result<u64> {
        // Before the view is taken: `as_ref` is the caller's code, which may call this store.
        let key = key.as_ref();
        let (verify, context) = (self.engine.context.config.get_verify_on_read(), &*self.engine.context);
        self.engine.reading.answer(|view| {
            let key = FullKey::new(&self.bucket, key)?;
            let position = view.find_to_read(&key, context)?.ok_or(Error::KeyNotFound)?;
            view.read(position, |reader, start| reader.value_into(start, &key, out, verify))
        })
    }

    /// Returns whether a key is in the bucket. Its value is not read.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyLength`] if the format allows no such key.
    /// - Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-exists-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "")?;
    /// assert!(cask.exists("colour")? && !cask.exists("shape")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let (key, context) = (key.as_ref(), &*self.engine.context);
        self.engine.reading.answer(|view| Ok(view.find_shown(&FullKey::new(&self.bucket, key)?, context)?.is_some()))
    }

    /// Returns when the pair of a key is over; `None` if it stays until it is replaced or deleted. [`Cask::put_with`] sets it.
    ///
    /// Cost: that of [`Cask::exists`]. A [scan](Cask::scan) returns it with each pair, as [`PairRef::expires_at`].
    ///
    /// # Errors
    ///
    /// - [`Error::KeyNotFound`] if the key is absent, or over already.
    /// - Those of [`Cask::exists`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-expires-at-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::{Duration, SystemTime};
    ///
    /// use caskfile::PutOptions;
    ///
    /// cask.put_with("token", "e6c1", &PutOptions::new().ttl(Duration::from_secs(60)))?;
    /// assert!(cask.expires_at("token")?.unwrap() > SystemTime::now());
    /// cask.put("token", "for ever")?;
    /// assert_eq!(cask.expires_at("token")?, None);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>> {
        let (deadline, _) = self.deadline(key.as_ref())?;
        Ok(deadline.and_then(moment_of))
    }

    /// Returns how long the pair of a key lives from now on; `None` if it stays until it is replaced or deleted.
    ///
    /// Cost: that of [`Cask::exists`].
    ///
    /// # Errors
    ///
    /// Those of [`Cask::expires_at`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-time-to-live-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::Duration;
    ///
    /// use caskfile::PutOptions;
    ///
    /// cask.put_with("token", "e6c1", &PutOptions::new().ttl(Duration::from_secs(60)))?;
    /// assert!(cask.time_to_live("token")?.unwrap() <= Duration::from_secs(61));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn time_to_live(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        let (deadline, now) = self.deadline(key.as_ref())?;
        Ok(deadline.map(|deadline| Duration::from_millis(deadline).saturating_sub(now)))
    }

    /// The deadline of a key that is not over, if it has one, and the time of the look.
    fn deadline(&self, key: &[u8]) -> Result<(Option<u64>, Duration)> {
        self.engine.reading.answer(|view| {
            let position = view.find(&FullKey::new(&self.bucket, key)?)?.ok_or(Error::KeyNotFound)?;
            let lifetimes = &view.keys.lifetimes;
            let (deadline, owner) = (lifetimes.expiring.deadline(position), lifetimes.sessions.owner(position));
            if deadline.is_none() && owner.is_none() {
                return Ok((None, Duration::ZERO));
            }
            let (now, times) = self.engine.context.look();
            if lifetimes.is_over(position, || times) { Err(Error::KeyNotFound) } else { Ok((deadline, now)) }
        })
    }

    /// Returns how many keys the bucket has. [`Stats::keys`](crate::Stats::keys) counts those of all buckets.
    ///
    /// Cost: one look-up in memory, however many keys there are. Nothing is sorted or listed. A handle that was opened through a
    /// snapshot of the index does not know the number yet. If the handle has listed, or if the snapshot has the order of the keys,
    /// a call costs what [`Cask::scan`] does, without reading pairs. Otherwise the first call reads the whole log once. How many keys start with a prefix is [`len`](ExactSizeIterator::len) of a [`Cask::scan`], which needs the sorted
    /// index.
    ///
    /// # Errors
    ///
    /// Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-len-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// assert_eq!((cask.len()?, cask.stats()?.keys), (1, 2));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn len(&self) -> Result<u64> {
        self.engine.reading.count(&self.bucket)
    }

    /// Returns whether the bucket has no key.
    ///
    /// Cost: that of [`Cask::len`].
    ///
    /// # Errors
    ///
    /// Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-is-empty-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// assert!(cask.is_empty()?);
    /// cask.put("colour", "")?;
    /// assert!(!cask.is_empty()?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Returns all pairs of the bucket whose keys start with `prefix`, in key order, as they were at one moment. The empty
    /// prefix lists all; if no key starts with the prefix, the list is empty.
    ///
    /// The first listing of a handle sorts all keys of the store; later ones read only what they return.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if the checksum of a record no longer holds.
    /// - Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-list-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// for key in ["fruit/pear", "fruit/apple", "tool/saw"] {
    ///     cask.put(key, "")?;
    /// }
    /// let keys: Vec<_> = cask.list("fruit/")?.into_iter().map(|pair| pair.key).collect();
    /// assert_eq!(keys, [b"fruit/apple".to_vec(), b"fruit/pear".to_vec()]);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<KvPair>> {
        self.engine.reading.list(&self.bucket, prefix.as_ref())
    }

    /// Returns an iterator over the pairs that [`Cask::list`] would return, from both ends.
    ///
    /// # Errors
    ///
    /// Those of every read. An item is [`Error::Corrupt`] if the checksum of its record no longer holds.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-cask-scan-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("log/1", "started")?;
    /// cask.put("log/2", "stopped")?;
    /// let newest = cask.scan("log/")?.next_back().unwrap()?;
    /// assert_eq!(newest.value, b"stopped");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Result<Scan> {
        self.engine.reading.scan(&self.bucket, prefix.as_ref())
    }

    /// Returns an iterator over the keys of the pairs that [`Cask::list`] would return, from both ends. The empty prefix gives
    /// all keys of the bucket. [`Scan::into_keys`] does the same for a range.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::scan`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-keys-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("fruit/pear", "3")?;
    /// cask.put("fruit/apple", "5")?;
    /// let keys = cask.keys("fruit/")?.collect::<caskfile::Result<Vec<_>>>()?;
    /// assert_eq!(keys, [b"fruit/apple".to_vec(), b"fruit/pear".to_vec()]);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn keys(&self, prefix: impl AsRef<[u8]>) -> Result<Keys> {
        self.scan(prefix).map(Scan::into_keys)
    }

    /// Returns an iterator over the pairs of the bucket whose keys are in a range, in key order, from both ends. A range that
    /// ends before it begins is empty.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::scan`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-range-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// for key in ["ant", "bee", "cat"] {
    ///     cask.put(key, "")?;
    /// }
    /// assert_eq!(cask.range("a".."c")?.count(), 2);
    /// assert_eq!(cask.range::<&str>(..)?.count(), 3);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    ///
    /// Pages of the keys with a prefix: each begins after the last key of the one before. A pair of bounds needs the type of the
    /// keys. A bound need not be a key of the store, nor a valid one: it may be empty.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-range-pages-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::ops::Bound::{Excluded, Included};
    ///
    /// for key in ["user/anna", "user/ben", "user/carl", "visit/1"] {
    ///     cask.put(key, "")?;
    /// }
    /// // The prefix ends in `/`, and `0` is the byte after it.
    /// let end = Excluded("user0");
    /// let page = |from| cask.range::<&str>((from, end))?.take(2).map(|pair| Ok(pair?.key)).collect();
    /// let first: caskfile::Result<Vec<_>> = page(Included("user/"));
    /// assert_eq!(first?, [&b"user/anna"[..], b"user/ben"]);
    /// let second: caskfile::Result<Vec<_>> = page(Excluded("user/ben"));
    /// assert_eq!(second?, [b"user/carl"]);
    /// assert_eq!(cask.range("".."user/ben")?.count(), 1);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Scan> {
        self.engine.reading.range(&self.bucket, &range)
    }

    /// Calls a closure with each pair that [`Cask::list`] would return, until it breaks. Allocates nothing for a pair.
    ///
    /// The closure may call this store: it sees a snapshot, and no lock is held.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::list`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-visit-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::ops::ControlFlow;
    ///
    /// cask.put("ant", "3")?;
    /// cask.put("bee", "4")?;
    /// let mut bytes = 0;
    /// cask.visit("", |pair| {
    ///     bytes += pair.value.len();
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(bytes, 2);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn visit<F>(&self, prefix: impl AsRef<[u8]>, f: F) -> Result<()>
    where
        F: FnMut(PairRef<'_>) -> ControlFlow<()>,
    {
        self.engine.reading.visit(&self.bucket, prefix.as_ref(), f)
    }

    /// Returns the names of all buckets of the store that have a key, sorted. The default bucket has the empty name.
    ///
    /// # Errors
    ///
    /// Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-buckets-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// assert_eq!(cask.buckets()?, [b"".to_vec(), b"log".to_vec()]);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = self.scan_buckets()?.map(|bucket| Ok(bucket?.0)).collect::<Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// Returns an iterator over all buckets of the store that have a key, each with the scan of its pairs. All are of one
    /// moment, so a copy of the whole store can be made while others write. Shorter names come first, and names of one
    /// length are in byte order.
    ///
    /// The first listing of a handle sorts all keys of the store. Each bucket then costs one search, and reading its pairs.
    /// The number of keys in a bucket is [`len`](ExactSizeIterator::len) of its scan.
    ///
    /// # Errors
    ///
    /// Those of every read. After an item that is an error, the iteration ends.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-scan-buckets-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// for bucket in cask.scan_buckets()? {
    ///     let (name, pairs) = bucket?;
    ///     println!("{:?} has {} keys", String::from_utf8_lossy(&name), pairs.len());
    /// }
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn scan_buckets(&self) -> Result<BucketScans> {
        self.engine.reading.scan_buckets()
    }

    /// Returns an iterator over all pairs of the whole store, in all buckets, as they were at one moment, in the order of
    /// their `last_index`. This is the fastest way to read everything.
    ///
    /// # Cost
    ///
    /// Needs no sorted index, and eight bytes of memory a key while the iterator lives. Reads the file once from its
    /// beginning to its end, in pieces of bounded size, with any [`Config::read_mode`](crate::Config::read_mode). While the
    /// positions are collected, about ten milliseconds for a million keys, no write becomes visible.
    ///
    /// # Errors
    ///
    /// Those of every read.
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
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn scan_by_index(&self) -> Result<IndexScan> {
        self.engine.reading.scan_by_index()
    }
}
