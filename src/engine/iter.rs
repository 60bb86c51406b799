//! [`Scan`]: pairs in key order, of one moment.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow, RangeBounds};

use super::Engine;
use crate::Result;
use crate::format::FullKey;
use crate::index::{Keys, Positions, SortedIndex, prefix_successor};
use crate::log::read::Reader;
use crate::store::KvPair;

/// An iterator over the pairs of one moment, in key order, from both ends.
///
/// It owns a snapshot: later writes, deletes and compactions do not change what it returns, and it does not hold
/// anybody up. The snapshot costs nothing to make, and keeps the file generation it belongs to open and mapped until
/// it is dropped. Every pair is read when it is asked for, and its checksum verified.
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
    /// Taken from the front of `positions` already, and being fetched.
    ahead: VecDeque<u64>,
    bucket_len: usize,
    verify: bool,
    buffer: Vec<u8>,
}

/// A pair lent by [`Scan::next_ref`] or [`Cask::visit`](crate::Cask::visit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairRef<'a> {
    /// The key, without its bucket.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The index of the record that set the value.
    pub last_index: u64,
}

impl PairRef<'_> {
    /// An owned copy.
    pub fn to_pair(&self) -> KvPair {
        KvPair { key: self.key.to_vec(), value: self.value.to_vec(), last_index: self.last_index }
    }
}

/// Neighbours in the order of keys lie anywhere in the log. So that the processor need not wait for each, this many are
/// fetched while the ones before them are read.
const AHEAD: usize = 12;

impl Scan {
    fn new(reader: Reader, positions: Positions, bucket_len: usize, verify: bool) -> Scan {
        let ahead = VecDeque::with_capacity(AHEAD);
        Scan { reader, positions, ahead, bucket_len, verify, buffer: Vec::new() }
    }

    /// The next pair, lent until the next call.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record no longer verifies; the scan goes on behind it.
    pub fn next_ref(&mut self) -> Option<Result<PairRef<'_>>> {
        let position = self.next_position()?;
        Some(self.lend(position))
    }

    /// The next pair from the other end, lent until the next call.
    ///
    /// # Errors
    ///
    /// As [`Scan::next_ref`].
    pub fn next_back_ref(&mut self) -> Option<Result<PairRef<'_>>> {
        let position = self.positions.next_back().or_else(|| self.ahead.pop_back())?;
        Some(self.lend(position))
    }

    /// The next key alone, with its bucket.
    pub(crate) fn next_full_key(&mut self) -> Option<Result<&[u8]>> {
        let position = self.next_position()?;
        self.buffer.clear();
        let read = Keys::read(&self.reader, position, &mut self.buffer);
        Some(read.map(|()| &*self.buffer))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> usize {
        self.ahead.len() + self.positions.len()
    }

    fn next_position(&mut self) -> Option<u64> {
        let missing = AHEAD - self.ahead.len();
        self.ahead.extend(self.positions.by_ref().take(missing).inspect(|&position| self.reader.prefetch(position)));
        self.ahead.pop_front()
    }

    fn lend(&mut self, position: u64) -> Result<PairRef<'_>> {
        let record = self.reader.record(position, &mut self.buffer, self.verify)?;
        // A key too short for its bucket cannot pass verification; without that it is at least no reason to panic.
        let key = record.key.get(self.bucket_len..).unwrap_or_default();
        Ok(PairRef { key, value: record.value, last_index: record.header.index })
    }
}

impl Iterator for Scan {
    type Item = Result<KvPair>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_ref()?.map(|pair| pair.to_pair()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left(), Some(self.left()))
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.next_back_ref()?.map(|pair| pair.to_pair()))
    }
}

impl ExactSizeIterator for Scan {}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// All buckets of one moment, each with the scan of its pairs; see [`Cask::scan_buckets`](crate::Cask::scan_buckets).
///
/// It owns its snapshot as a [`Scan`] does.
pub struct BucketScans {
    reader: Reader,
    sorted: SortedIndex,
    /// Of the first key of the next bucket.
    rank: usize,
    verify: bool,
}

impl Iterator for BucketScans {
    type Item = Result<(Vec<u8>, Scan)>;

    fn next(&mut self) -> Option<Self::Item> {
        let position = self.sorted.range(self.rank..self.rank + 1).next()?;
        let next = self.bucket_at(position);
        if next.is_err() {
            // Where the next bucket begins is not known.
            self.rank = self.sorted.len();
        }
        next.transpose()
    }
}

impl BucketScans {
    fn bucket_at(&mut self, position: u64) -> Result<Option<(Vec<u8>, Scan)>> {
        let mut key = Vec::new();
        Keys::read(&self.reader, position, &mut key)?;
        let Some((name, _)) = crate::format::split_full_key(&key) else { return Ok(None) };
        let bucket = &key[..1 + name.len()];
        let end = end_of_prefix(&self.sorted, bucket, &self.reader)?;
        let positions = self.sorted.range(self.rank..end);
        self.rank = end;
        Ok(Some((name.to_vec(), Scan::new(self.reader.clone(), positions, bucket.len(), self.verify))))
    }
}

impl std::fmt::Debug for BucketScans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketScans").field("keys_left", &(self.sorted.len() - self.rank)).finish_non_exhaustive()
    }
}

impl Engine {
    /// All pairs of a bucket whose key starts with `prefix`.
    pub(crate) fn scan(&self, bucket: &[u8], prefix: &[u8]) -> Result<Scan> {
        let (reader, sorted) = self.snapshot()?;
        let prefix = FullKey::prefix(bucket, prefix);
        let start = sorted.lower_rank(&prefix, |at| reader.compare(at, &prefix))?;
        let end = end_of_prefix(&sorted, &prefix, &reader)?;
        Ok(self.over(reader, sorted.range(start..end), bucket))
    }

    /// All pairs of a bucket whose keys lie in a range. A range that ends before it begins is empty.
    pub(crate) fn range<K: AsRef<[u8]>>(&self, bucket: &[u8], range: &impl RangeBounds<K>) -> Result<Scan> {
        let (reader, sorted) = self.snapshot()?;
        let lower = |key: &[u8]| sorted.lower_rank(key, |at| reader.compare(at, key));
        let upper = |key: &[u8]| sorted.upper_rank(key, |at| reader.compare(at, key));
        let start = match range.start_bound() {
            Bound::Included(key) => lower(&FullKey::prefix(bucket, key.as_ref()))?,
            Bound::Excluded(key) => upper(&FullKey::prefix(bucket, key.as_ref()))?,
            Bound::Unbounded => lower(bucket)?,
        };
        let end = match range.end_bound() {
            Bound::Included(key) => upper(&FullKey::prefix(bucket, key.as_ref()))?,
            Bound::Excluded(key) => lower(&FullKey::prefix(bucket, key.as_ref()))?,
            Bound::Unbounded => end_of_prefix(&sorted, bucket, &reader)?,
        };
        Ok(self.over(reader, sorted.range(start..end), bucket))
    }

    fn over(&self, reader: Reader, positions: Positions, bucket: &[u8]) -> Scan {
        Scan::new(reader, positions, bucket.len(), self.config.get_verify_on_read())
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

    /// All buckets that have a key. Costs one search for each, however many keys they have.
    pub(crate) fn scan_buckets(&self) -> Result<BucketScans> {
        let (reader, sorted) = self.snapshot()?;
        Ok(BucketScans { reader, sorted, rank: 0, verify: self.config.get_verify_on_read() })
    }
}

/// The rank behind the last key that starts with `prefix`.
fn end_of_prefix(sorted: &SortedIndex, prefix: &[u8], reader: &Reader) -> Result<usize> {
    match prefix_successor(prefix) {
        Some(next) => sorted.lower_rank(&next, |at| reader.compare(at, &next)),
        None => Ok(sorted.len()),
    }
}
