//! [`Scan`]: the pairs of one moment in key order.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow, RangeBounds};

use super::{Current, Reading};
use crate::Result;
use crate::format::FullKey;
use crate::index::{Entry, Hashed, Keys, Positions, SortedIndex, Sought, prefix_successor};
use crate::log::read::{Reader, Start};
use crate::store::KvPair;

/// An iterator over the pairs of one moment, in key order, from both ends: see [`Cask::scan`](crate::Cask::scan) and
/// [`Cask::range`](crate::Cask::range).
///
/// It owns a snapshot: later writes, deletions and compactions do not change what it returns, and no writer waits for it.
/// The snapshot costs nothing to make, and keeps its file open and mapped until it is dropped. Each pair is read, and its
/// checksum verified, when the iterator comes to it.
///
/// [`Scan::next_ref`] lends pairs without allocating for each.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-scan-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let cask = caskfile::Cask::open(dir.join("store"))?;
/// for name in ["ant", "bee", "cat"] {
///     cask.put(name, "")?;
/// }
/// let mut scan = cask.range("b"..)?;
/// cask.delete("cat")?;
/// assert_eq!(scan.next_back().unwrap()?.key, b"cat");
/// assert_eq!(scan.next().unwrap()?.key, b"bee");
/// assert!(scan.next().is_none());
/// # cask.close()?;
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scan {
    reader: Reader,
    positions: Positions,
    /// Positions from the front of `positions` that are being fetched.
    ahead: VecDeque<u64>,
    bucket_len: usize,
    verify: bool,
    buffer: Vec<u8>,
}

/// A pair that [`Scan::next_ref`] or [`Cask::visit`](crate::Cask::visit) lends.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-pair-ref-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// cask.put("colour", "blue")?;
/// let mut scan = cask.scan("")?;
/// let pair = scan.next_ref().unwrap()?;
/// assert_eq!((pair.key, pair.value), (&b"colour"[..], &b"blue"[..]));
/// assert_eq!(pair.to_pair(), cask.get("colour")?);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairRef<'a> {
    /// The key, without its bucket.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The sequence number of the write that set the value.
    pub last_index: u64,
}

impl PairRef<'_> {
    /// Returns an owned copy.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-to-pair-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// # cask.put("key", "value")?;
    /// let mut scan = cask.scan("")?;
    /// assert_eq!(scan.next_ref().unwrap()?.to_pair(), cask.get("key")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn to_pair(&self) -> KvPair {
        KvPair { key: self.key.to_vec(), value: self.value.to_vec(), last_index: self.last_index }
    }
}

impl Scan {
    fn new(reader: Reader, positions: Positions, bucket_len: usize, verify: bool) -> Scan {
        let ahead = VecDeque::with_capacity(reader.log.limits.scanned_ahead());
        Scan { reader, positions, ahead, bucket_len, verify, buffer: Vec::new() }
    }

    /// Returns the next pair, lent until the next call; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record no longer verifies. The scan goes on after it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-next-ref-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("ant", "3")?;
    /// cask.put("bee", "4")?;
    /// let (mut scan, mut bytes) = (cask.scan("")?, 0);
    /// while let Some(pair) = scan.next_ref() {
    ///     bytes += pair?.value.len();
    /// }
    /// assert_eq!(bytes, 2);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn next_ref(&mut self) -> Option<Result<PairRef<'_>>> {
        let position = self.next_position()?;
        Some(self.lend(position))
    }

    /// Returns the next pair from the other end, lent until the next call; `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::next_ref`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-next-back-ref-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("ant", "3")?;
    /// cask.put("bee", "4")?;
    /// assert_eq!(cask.scan("")?.next_back_ref().unwrap()?.key, b"bee");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn next_back_ref(&mut self) -> Option<Result<PairRef<'_>>> {
        let position = self.next_position_back()?;
        Some(self.lend(position))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> usize {
        self.ahead.len() + self.positions.len()
    }

    pub(crate) fn next_position(&mut self) -> Option<u64> {
        let missing = self.reader.log.limits.scanned_ahead() - self.ahead.len();
        self.ahead.extend(self.positions.by_ref().take(missing).inspect(|&position| self.reader.prefetch(position)));
        self.ahead.pop_front()
    }

    pub(super) fn next_position_back(&mut self) -> Option<u64> {
        self.positions.next_back().or_else(|| self.ahead.pop_back())
    }

    #[inline(always)]
    fn lend(&mut self, position: u64) -> Result<PairRef<'_>> {
        let start = self.reader.start(position)?;
        self.lend_from(&start)
    }

    // Inlined: a call and a copy of the header for each pair would make a listing slower by a third.
    #[inline(always)]
    fn lend_from(&mut self, start: &Start) -> Result<PairRef<'_>> {
        let record = self.reader.record_from(start, &mut self.buffer, self.verify)?;
        // A key that is too short for its bucket does not verify. Without verification it must not panic.
        let key = record.key.get(self.bucket_len..).unwrap_or_default();
        Ok(PairRef { key, value: record.value, last_index: record.header.seq })
    }

    /// An owned pair. A long value is read directly into it, so that it is in memory once.
    fn pair(&mut self, position: u64) -> Result<KvPair> {
        let start = self.reader.start(position)?;
        if !start.is_long(&self.reader.log) {
            return self.lend_from(&start).map(|pair| pair.to_pair());
        }
        let (mut key, mut value) = (Vec::new(), Vec::new());
        self.reader.key_into(position, &start.header, &mut key)?;
        let last_index = self.reader.value_into(&start, &key, &mut value, self.verify)?;
        key.drain(..self.bucket_len.min(key.len()));
        Ok(KvPair { key, value, last_index })
    }

    /// An owned key. The value of a long record is read in pieces, and only to be verified.
    pub(super) fn key(&mut self, position: u64) -> Result<Vec<u8>> {
        let start = self.reader.start(position)?;
        if !start.is_long(&self.reader.log) {
            return self.lend_from(&start).map(|pair| pair.key.to_vec());
        }
        let mut key = Vec::new();
        match self.verify {
            true => self.reader.read_verified(position, &mut key)?,
            false => self.reader.key_into(position, &start.header, &mut key)?,
        }
        key.drain(..self.bucket_len.min(key.len()));
        Ok(key)
    }
}

impl Iterator for Scan {
    type Item = Result<KvPair>;

    fn next(&mut self) -> Option<Self::Item> {
        let position = self.next_position()?;
        Some(self.pair(position))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left(), Some(self.left()))
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        let position = self.next_position_back()?;
        Some(self.pair(position))
    }
}

impl ExactSizeIterator for Scan {}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// An iterator over the buckets of one moment, each with the scan of its pairs: see
/// [`Cask::scan_buckets`](crate::Cask::scan_buckets).
///
/// It owns a snapshot as a [`Scan`] does.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-bucket-scans-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// cask.bucket("log")?.put("0001", "started")?;
/// let (name, mut pairs) = cask.scan_buckets()?.next().unwrap()?;
/// assert_eq!((&name[..], pairs.next().unwrap()?.value), (&b"log"[..], b"started".to_vec()));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct BucketScans {
    reader: Reader,
    sorted: SortedIndex,
    /// The rank of the first key of the next bucket.
    rank: usize,
    verify: bool,
}

impl Iterator for BucketScans {
    type Item = Result<(Vec<u8>, Scan)>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = *self.sorted.entry(self.rank)?;
        let next = self.bucket_of(&first);
        if next.is_err() {
            // The start of the next bucket is unknown.
            self.rank = self.sorted.len();
        }
        Some(next)
    }
}

impl BucketScans {
    fn bucket_of(&mut self, first: &Entry) -> Result<(Vec<u8>, Scan)> {
        let held = first.first_bytes();
        let bucket_len = 1 + usize::from(held[0]);
        // Most names are in the index. A longer one is in the log, and is verified, since the search for the next bucket
        // uses it.
        let mut key = held.to_vec();
        if bucket_len > key.len() {
            key.clear();
            self.reader.read_verified(first.position(), &mut key)?;
        }
        let bucket = &key[..bucket_len];
        let end = end_of_prefix(&self.sorted, bucket, &self.reader, None)?;
        debug_assert!(end > self.rank, "the first key of a bucket is before the end of the bucket");
        let positions = self.sorted.range(self.rank..end);
        self.rank = end;
        Ok((bucket[1..].to_vec(), Scan::new(self.reader.clone(), positions, bucket_len, self.verify)))
    }
}

impl std::fmt::Debug for BucketScans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketScans").field("keys_left", &(self.sorted.len() - self.rank)).finish_non_exhaustive()
    }
}

impl Reading {
    /// All pairs of a bucket whose key starts with `prefix`.
    pub(crate) fn scan(&self, bucket: &[u8], prefix: &[u8]) -> Result<Scan> {
        let prefix = FullKey::prefix(bucket, prefix);
        self.answer(|view| self.scan_of(view, bucket, &prefix))
    }

    /// All pairs of a bucket whose key starts with `prefix`, in one list.
    pub(crate) fn list(&self, bucket: &[u8], prefix: &[u8]) -> Result<Vec<KvPair>> {
        let prefix = FullKey::prefix(bucket, prefix);
        self.answer(|view| self.scan_of(view, bucket, &prefix)?.collect())
    }

    fn scan_of(&self, view: Current<'_>, bucket: &[u8], prefix: &[u8]) -> Result<Scan> {
        let view = self.sorted(view)?;
        let sorted = view.sorted();
        let start = sorted.lower_rank(&view.index().sought(prefix, &view.reader))?;
        let end = end_of_prefix(sorted, prefix, &view.reader, Some(view.index().hashed()))?;
        Ok(self.over(view.reader.clone(), sorted.range(start..end), bucket))
    }

    /// All pairs of a bucket whose keys lie in a range. A range that ends before it begins is empty.
    pub(crate) fn range<K: AsRef<[u8]>>(&self, bucket: &[u8], range: &impl RangeBounds<K>) -> Result<Scan> {
        // Before the view is taken: `as_ref` is the caller's code, which may call this store.
        let full_key = |key: &K| FullKey::prefix(bucket, key.as_ref());
        let (start, end) = (range.start_bound().map(full_key), range.end_bound().map(full_key));
        self.answer(|view| {
            let view = self.sorted(view)?;
            let sorted = view.sorted();
            let lower = |key: &[u8]| sorted.lower_rank(&view.index().sought(key, &view.reader));
            let upper = |key: &[u8]| sorted.upper_rank(&view.index().sought(key, &view.reader));
            let start = match &start {
                Bound::Included(key) => lower(key)?,
                Bound::Excluded(key) => upper(key)?,
                Bound::Unbounded => lower(bucket)?,
            };
            let end = match &end {
                Bound::Included(key) => upper(key)?,
                Bound::Excluded(key) => lower(key)?,
                Bound::Unbounded => end_of_prefix(sorted, bucket, &view.reader, Some(view.index().hashed()))?,
            };
            Ok(self.over(view.reader.clone(), sorted.range(start..end), bucket))
        })
    }

    fn over(&self, reader: Reader, positions: Positions, bucket: &[u8]) -> Scan {
        Scan::new(reader, positions, bucket.len(), self.context.config.get_verify_on_read())
    }

    pub(crate) fn visit<F>(&self, bucket: &[u8], prefix: &[u8], mut visit: F) -> Result<()>
    where
        F: FnMut(PairRef<'_>) -> ControlFlow<()>,
    {
        let mut scan = self.scan(bucket, prefix)?;
        while let Some(pair) = scan.next_ref() {
            if visit(pair?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// All buckets that have a key. Costs one search a bucket, however many keys it has.
    pub(crate) fn scan_buckets(&self) -> Result<BucketScans> {
        self.answer(|view| {
            let view = self.sorted(view)?;
            let (reader, sorted) = (view.reader.clone(), view.sorted().snapshot());
            Ok(BucketScans { reader, sorted, rank: 0, verify: self.context.config.get_verify_on_read() })
        })
    }
}

/// The rank after the last key that starts with `prefix`.
fn end_of_prefix(sorted: &SortedIndex, prefix: &[u8], reader: &Reader, hashed: Option<Hashed<'_>>) -> Result<usize> {
    match prefix_successor(prefix) {
        Some(next) => sorted.lower_rank(&Sought { key: &next, keys: reader, known: None, hashed }),
        None => Ok(sorted.len()),
    }
}
