//! [`Scan`]: the pairs of one moment in key order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{Bound, ControlFlow, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::feed::Found;
use super::rescan::{keys_of_whole_log, may_blame_snapshot};
use super::{Current, Reading};
use crate::Result;
use crate::format::{Expiry, FullKey, RECORD_HEADER_LEN};
use crate::index::{Entry, Hashed, Index, Keys, Positions, SortedIndex, Sought, prefix_successor};
use crate::log::read::{Reader, Start};
use crate::store::KvPair;
use crate::sync::AtomicU64;

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
    /// Positions from the front of `positions`, whose records are being fetched.
    ahead: VecDeque<u64>,
    bucket_len: usize,
    verify: bool,
    buffer: Vec<u8>,
    /// What is left, by keys, while the order is one of a snapshot.
    left: Option<Box<Left>>,
    /// What is not to be returned, if there is any.
    hidden: Option<Hidden>,
}

/// Records in the range of a scan that were over when it was made.
struct Hidden {
    positions: Arc<HashSet<u64>>,
    /// How many of them are still to come.
    left: usize,
}

/// By which look at the clocks keys are over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// By one of the scan's own.
    Now,
    /// By none: the scan returns what the log has, over or not.
    Never,
}

/// If more keys than this part of a range are over, it costs less to look at all positions in the range than to read their keys.
const FEW: usize = 8;

/// The bounds of a scan.
#[derive(Clone)]
struct Bounds {
    start: Limit,
    end: Limit,
}

/// The place before or after a key.
#[derive(Clone)]
enum Limit {
    Before(FullKey),
    After(FullKey),
    /// After the last key of all.
    End,
}

/// What a scan needs to go on without the order that it has begun with, if that turns out to be damaged or wrong: it then reads
/// the whole log, and goes on after the last pair that it has returned.
struct Left {
    bounds: Bounds,
    /// What `ahead` of a scan is, with the entries: they must lead to their records.
    ahead: VecDeque<Entry>,
    /// The positions of the last pairs that were returned, from both ends.
    front: Option<u64>,
    back: Option<u64>,
    /// The snapshot, and what the handle distrusts.
    snapshot: u64,
    distrusted: Arc<AtomicU64>,
    /// An error ends the scan, and the whole answer is looked for again.
    is_for_one_answer: bool,
}

/// Makes sure that an entry from a snapshot leads to a record with its key, as far as the entry shows that.
fn prove(entry: &Entry, reader: &Reader) -> Result<()> {
    let position = entry.position();
    if position >= reader.unread {
        return Ok(());
    }
    let (header, mut key) = (reader.known(position)?, [0; Entry::SHOWN]);
    let key = &mut key[..Entry::SHOWN.min(header.key_len.into())];
    reader.read(position + RECORD_HEADER_LEN as u64, key)?;
    if entry.is_of(key) { Ok(()) } else { Err(reader.not_its_position(position)) }
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
#[non_exhaustive]
pub struct PairRef<'a> {
    /// The key, without its bucket.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The sequence number of the write that set the value.
    pub last_index: u64,
    /// When the pair is over; `None` if it stays: see [`Cask::put_with`](crate::Cask::put_with).
    pub expires_at: Option<SystemTime>,
    /// 0 if it belongs to no session.
    pub(crate) session: u64,
}

/// Returns when a pair with this expiry expires.
pub(crate) fn expires_at(expiry: Option<Expiry>) -> Option<SystemTime> {
    expiry.map(|expiry| expiry.deadline).filter(|&deadline| deadline > 0).and_then(moment_of)
}

/// The session of a pair with this expiry; 0 if it has none.
#[inline]
pub(crate) fn session_of(expiry: Option<Expiry>) -> u64 {
    expiry.and_then(|expiry| expiry.owner).map_or(0, |owner| owner.session)
}

/// The moment of a deadline. `None` if it is too late for the system's clock.
pub(crate) fn moment_of(deadline: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(deadline))
}

impl PairRef<'_> {
    /// Returns the session to which the pair belongs, and with which it ends: see [`Cask::session`](crate::Cask::session). It is the
    /// [`session`](crate::SessionStatus::session) of [`Cask::sessions`](crate::Cask::sessions). `None` if it belongs to none.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-pair-session-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let session = cask.session(std::time::Duration::from_secs(20))?;
    /// session.put(&cask, "workers/7", "host-a")?;
    /// let mut scan = cask.scan("workers/")?;
    /// assert_eq!(scan.next_ref().unwrap()?.session(), Some(cask.sessions()?[0].session));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn session(&self) -> Option<u64> {
        Some(self.session).filter(|&session| session > 0)
    }

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

impl Limit {
    /// The number of keys before this limit.
    fn rank(&self, sorted: &SortedIndex, reader: &Reader, hashed: Option<Hashed<'_>>) -> Result<usize> {
        let sought = |key| Sought { key, keys: reader, known: None, hashed };
        match self {
            Limit::Before(key) => sorted.lower_rank(&sought(key)),
            Limit::After(key) => sorted.upper_rank(&sought(key)),
            Limit::End => Ok(sorted.len()),
        }
    }

    /// The limit after the last key that starts with `prefix`.
    fn after_prefix(prefix: &[u8]) -> Limit {
        prefix_successor(prefix).map_or(Limit::End, |next| Limit::Before(FullKey::Heap(next)))
    }
}

impl Bounds {
    /// All keys that start with `prefix`.
    fn of_prefix(prefix: FullKey) -> Bounds {
        Bounds { end: Limit::after_prefix(&prefix), start: Limit::Before(prefix) }
    }

    /// Whether a key is between the bounds.
    fn contains(&self, full_key: &[u8]) -> bool {
        let is_before = |limit: &Limit| match limit {
            Limit::Before(key) => full_key < &key[..],
            Limit::After(key) => full_key <= &key[..],
            Limit::End => true,
        };
        !is_before(&self.start) && is_before(&self.end)
    }

    fn ranks(&self, sorted: &SortedIndex, reader: &Reader, hashed: Option<Hashed<'_>>) -> Result<Range<usize>> {
        Ok(self.start.rank(sorted, reader, hashed)?..self.end.rank(sorted, reader, hashed)?)
    }
}

/// Which end of a scan.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Front,
    Back,
}

impl Scan {
    fn new(
        reader: Reader,
        positions: Positions,
        bucket_len: usize,
        verify: bool,
        left: Option<Box<Left>>,
        hidden: Option<Hidden>,
    ) -> Scan {
        let ahead = VecDeque::with_capacity(reader.log.limits.scanned_ahead());
        Scan { reader, positions, ahead, bucket_len, verify, buffer: Vec::new(), left, hidden }
    }

    /// Returns the next pair, lent until the next call; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record no longer verifies. The scan goes on after it. If the order of the keys
    /// came from a snapshot that turns out to be bad, the scan reads the whole log and goes on; an error of that ends it.
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
        let next = self.next_position(Side::Front)?;
        Some(next.and_then(|position| self.lend(position)))
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
        let next = self.next_position(Side::Back)?;
        Some(next.and_then(|position| self.lend(position)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> usize {
        let hidden = self.hidden.as_ref().map_or(0, |hidden| hidden.left);
        let all = self.ahead.len() + self.left.as_ref().map_or(0, |left| left.ahead.len()) + self.positions.len();
        all.saturating_sub(hidden)
    }

    /// The position of the next record that is not hidden.
    // Inlined: without it, each pair of a listing takes a sixth longer.
    #[inline(always)]
    pub(super) fn next_position(&mut self, side: Side) -> Option<Result<u64>> {
        if self.hidden.is_none() { self.next_of_all(side) } else { self.next_shown(side) }
    }

    #[cold]
    fn next_shown(&mut self, side: Side) -> Option<Result<u64>> {
        loop {
            let next = self.next_of_all(side)?;
            match (&next, &mut self.hidden) {
                (Ok(position), Some(hidden)) if hidden.positions.contains(position) => hidden.left -= 1,
                _ => return Some(next),
            }
        }
    }

    /// The position of the next record.
    #[inline(always)]
    fn next_of_all(&mut self, side: Side) -> Option<Result<u64>> {
        if self.left.is_some() {
            return self.next_proven(side);
        }
        let position = match side {
            Side::Back => self.positions.next_back().or_else(|| self.ahead.pop_back()),
            Side::Front => {
                let missing = self.reader.log.limits.scanned_ahead() - self.ahead.len();
                let next = self.positions.by_ref().take(missing);
                self.ahead.extend(next.inspect(|&position| self.reader.prefetch(position)));
                self.ahead.pop_front()
            }
        };
        position.map(Ok)
    }

    /// The next entry of an order from a snapshot.
    fn next_stored(&mut self, side: Side) -> Result<Option<Entry>> {
        let Scan { positions, reader, left: Some(left), .. } = self else { return Ok(None) };
        let ahead = &mut left.ahead;
        if let Side::Back = side {
            return Ok(positions.next_entry_back(reader)?.or_else(|| ahead.pop_back()));
        }
        while ahead.len() < reader.log.limits.scanned_ahead() {
            match positions.next_entry(reader) {
                Ok(Some(entry)) => {
                    reader.prefetch(entry.position());
                    ahead.push_back(entry);
                }
                // The entries before it come first.
                Err(error) if ahead.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(ahead.pop_front())
    }

    /// As [`Scan::next_position`], with an order from a snapshot. If it turns out to be damaged or wrong, the scan goes on over
    /// the whole log.
    #[inline(never)]
    fn next_proven(&mut self, side: Side) -> Option<Result<u64>> {
        let next = match self.next_stored(side) {
            Ok(None) => return None,
            Ok(Some(entry)) => prove(&entry, &self.reader).map(|()| entry.position()),
            Err(error) => Err(error),
        };
        let left = self.left.as_mut()?;
        match next {
            Ok(position) => {
                match side {
                    Side::Front => left.front = Some(position),
                    Side::Back => left.back = Some(position),
                }
                return Some(Ok(position));
            }
            Err(error) if left.is_for_one_answer || !may_blame_snapshot(&error) => {
                self.end();
                return Some(Err(error));
            }
            Err(_) => {}
        }
        match self.read_whole_log() {
            Ok(()) => self.next_of_all(side),
            Err(error) => {
                // There is no order to go on with.
                self.end();
                Some(Err(error))
            }
        }
    }

    fn end(&mut self) {
        (self.left, self.positions) = (None, SortedIndex::default().range(0..0));
    }

    /// Exchanges the order by one that a walk over the whole log gives.
    fn read_whole_log(&mut self) -> Result<()> {
        let Some(mut left) = self.left.take() else { return Ok(()) };
        left.distrusted.store(left.snapshot, Ordering::Relaxed);
        let (index, sorted) = keys_of_whole_log(&self.reader)?;
        self.reader.unread = 0;
        let key_at = |position| {
            let mut key = Vec::new();
            index.key_at(position, &self.reader, &mut key).map(|()| key)
        };
        if let Some(position) = left.front {
            left.bounds.start = Limit::After(FullKey::Heap(key_at(position)?));
        }
        if let Some(position) = left.back {
            left.bounds.end = Limit::Before(FullKey::Heap(key_at(position)?));
        }
        self.positions = sorted.range(left.bounds.ranks(&sorted, &self.reader, Some(index.hashed()))?);
        Ok(())
    }

    /// Appends the next key to `out`, proven: a damaged key would look like another one.
    pub(crate) fn next_key(&mut self, index: &Index, out: &mut Vec<u8>) -> Option<Result<()>> {
        let next = self.next_position(Side::Front)?;
        Some(next.and_then(|position| index.key_at(position, &self.reader, out)))
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
        let expiry = record.expiry();
        let (expires_at, session) = (expires_at(expiry), session_of(expiry));
        Ok(PairRef { key, value: record.value(), last_index: record.header.seq, expires_at, session })
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
        let next = self.next_position(Side::Front)?;
        Some(next.and_then(|position| self.pair(position)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left(), Some(self.left()))
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        let next = self.next_position(Side::Back)?;
        Some(next.and_then(|position| self.pair(position)))
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
    /// What is left, while the order is one of a snapshot.
    left: Option<Box<Left>>,
    /// What is not to be returned, and how much of it is in each bucket; empty if there is none.
    hidden: Arc<HashSet<u64>>,
    hidden_in: HashMap<Arc<[u8]>, u64>,
}

impl Iterator for BucketScans {
    type Item = Result<(Vec<u8>, Scan)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next = self.next_bucket();
        if matches!(next, Some(Err(_))) && self.left.is_some() {
            next = match self.read_whole_log() {
                Ok(()) => self.next_bucket(),
                Err(error) => Some(Err(error)),
            };
        }
        if matches!(next, Some(Err(_))) {
            // The start of the next bucket is unknown.
            self.rank = self.sorted.len();
        }
        next
    }
}

impl BucketScans {
    fn next_bucket(&mut self) -> Option<Result<(Vec<u8>, Scan)>> {
        loop {
            let bucket = match self.sorted.entry(self.rank, &self.reader) {
                Ok(first) => {
                    let first = *first?;
                    self.bucket_of(&first)
                }
                Err(error) => Err(error),
            };
            // A bucket of which all keys are hidden is not there.
            if !bucket.as_ref().is_ok_and(|(_, scan)| scan.is_empty()) {
                return Some(bucket);
            }
        }
    }

    fn bucket_of(&mut self, first: &Entry) -> Result<(Vec<u8>, Scan)> {
        let held = first.first_bytes();
        let bucket_len = 1 + usize::from(held[0]);
        // Most names are in the index. A longer one is in the log, and is verified, since the search for the next bucket
        // uses it.
        if self.left.is_some() {
            prove(first, &self.reader)?;
        }
        let mut key = held.to_vec();
        if bucket_len > key.len() {
            key.clear();
            self.reader.read_verified(first.position(), &mut key)?;
        }
        let bucket = key.get(..bucket_len).ok_or_else(|| self.reader.not_its_position(first.position()))?;
        let bounds = Bounds::of_prefix(FullKey::prefix(bucket, b""));
        let end = bounds.end.rank(&self.sorted, &self.reader, None)?;
        if end <= self.rank {
            // The first key of a bucket is before its end, unless the order of a snapshot is wrong.
            return Err(self.reader.not_its_position(first.position()));
        }
        let positions = self.sorted.range(self.rank..end);
        self.rank = end;
        let left = self.left.as_mut().map(|left| {
            left.bounds.start = bounds.end.clone();
            Box::new(Left { bounds, ahead: VecDeque::new(), distrusted: Arc::clone(&left.distrusted), ..**left })
        });
        let hidden = self
            .hidden_in
            .get(&bucket[1..])
            .map(|&left| Hidden { positions: Arc::clone(&self.hidden), left: left as usize });
        Ok((bucket[1..].to_vec(), Scan::new(self.reader.clone(), positions, bucket_len, self.verify, left, hidden)))
    }

    /// Exchanges the order by one that a walk over the whole log gives.
    fn read_whole_log(&mut self) -> Result<()> {
        let Some(left) = self.left.take() else { return Ok(()) };
        left.distrusted.store(left.snapshot, Ordering::Relaxed);
        let (index, sorted) = keys_of_whole_log(&self.reader)?;
        self.reader.unread = 0;
        self.rank = left.bounds.start.rank(&sorted, &self.reader, Some(index.hashed()))?;
        self.sorted = sorted;
        Ok(())
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
        self.scan_at(bucket, prefix, Moment::Now)
    }

    /// As [`Reading::scan`], without those that are over by a look at the clock.
    pub(crate) fn scan_at(&self, bucket: &[u8], prefix: &[u8], moment: Moment) -> Result<Scan> {
        let bounds = Bounds::of_prefix(FullKey::prefix(bucket, prefix));
        self.answer(|view| self.scan_of(view, bucket, &bounds, moment))
    }

    /// All pairs of a bucket whose key starts with `prefix`, and the end of the log that gives them.
    pub(crate) fn scan_and_end(&self, bucket: &[u8], prefix: &[u8]) -> Result<(Scan, Found)> {
        let bounds = Bounds::of_prefix(FullKey::prefix(bucket, prefix));
        self.answer_after_rescan(|view| {
            // One view for both: with two, a write between them would be in neither, or in both.
            let view = self.sorted(view)?;
            let Some(end) = Found::end_of(&view) else { return Ok(None) };
            Ok(Some((self.scan_of_sorted(&view, bucket, &bounds, Moment::Now)?, end)))
        })
    }

    /// All pairs of a bucket whose key starts with `prefix`, in one list.
    pub(crate) fn list(&self, bucket: &[u8], prefix: &[u8]) -> Result<Vec<KvPair>> {
        let bounds = Bounds::of_prefix(FullKey::prefix(bucket, prefix));
        self.answer(|view| {
            let mut scan = self.scan_of(view, bucket, &bounds, Moment::Now)?;
            if let Some(left) = &mut scan.left {
                left.is_for_one_answer = true;
            }
            scan.collect()
        })
    }

    fn scan_of(&self, view: Current<'_>, bucket: &[u8], bounds: &Bounds, moment: Moment) -> Result<Scan> {
        self.scan_of_sorted(&self.sorted(view)?, bucket, bounds, moment)
    }

    fn scan_of_sorted(&self, view: &Current<'_>, bucket: &[u8], bounds: &Bounds, moment: Moment) -> Result<Scan> {
        let sorted = view.sorted();
        let ranks = bounds.ranks(sorted, &view.reader, Some(view.index().hashed()))?;
        let hidden = self.hidden(view, bucket, bounds, &ranks, moment)?;
        let (positions, left) = (sorted.range(ranks), self.left(view, bounds));
        let verify = self.context.config.get_verify_on_read();
        Ok(Scan::new(view.reader.clone(), positions, bucket.len(), verify, left, hidden))
    }

    /// The keys of a bucket that are over, and lie between bounds, which have these ranks. Without such keys in the bucket this is
    /// a look-up.
    fn hidden(
        &self,
        view: &Current<'_>,
        bucket: &[u8],
        bounds: &Bounds,
        ranks: &Range<usize>,
        moment: Moment,
    ) -> Result<Option<Hidden>> {
        let (lifetimes, bucket) = (&view.keys.lifetimes, &bucket[1..]);
        if lifetimes.is_empty() || ranks.is_empty() {
            return Ok(None);
        }
        let times = match moment {
            Moment::Now => self.context.times(),
            Moment::Never => return Ok(None),
        };
        let over = lifetimes.hidden_in(bucket, times) as usize;
        let (mut positions, is_stored) = (HashSet::new(), view.sorted().is_stored());
        if over == 0 {
            return Ok(None);
        }
        let mut by_their_keys = || -> Result<()> {
            let mut key = Vec::new();
            for position in lifetimes.over_in(bucket, times) {
                key.clear();
                view.index().key_at(position, &view.reader, &mut key)?;
                if bounds.contains(&key) {
                    positions.insert(position);
                }
            }
            Ok(())
        };
        let by_keys = if is_stored || over < ranks.len() / FEW { Some(by_their_keys()) } else { None };
        match by_keys {
            Some(Ok(())) => {}
            Some(Err(error)) if is_stored => return Err(error),
            // Also if one of their keys cannot be read: a hidden pair is no reason for an error.
            Some(Err(_)) | None => {
                positions.extend(view.sorted().range(ranks.clone()).filter(|&at| lifetimes.is_over(at, || times)));
            }
        }
        let left = positions.len();
        Ok((left > 0).then(|| Hidden { positions: Arc::new(positions), left }))
    }

    /// What a scan has to go on with, if its order is one of a snapshot.
    fn left(&self, view: &Current<'_>, bounds: &Bounds) -> Option<Box<Left>> {
        if !view.sorted().is_stored() {
            return None;
        }
        Some(Box::new(Left {
            bounds: bounds.clone(),
            ahead: VecDeque::new(),
            front: None,
            back: None,
            snapshot: view.snapshot,
            distrusted: Arc::clone(&self.distrusted),
            is_for_one_answer: false,
        }))
    }

    /// All pairs of a bucket whose keys lie in a range. A range that ends before it begins is empty.
    pub(crate) fn range<K: AsRef<[u8]>>(&self, bucket: &[u8], range: &impl RangeBounds<K>) -> Result<Scan> {
        self.range_at(bucket, range, Moment::Now)
    }

    /// As [`Reading::range`], without those that are over by a look at the clock.
    pub(crate) fn range_at<K: AsRef<[u8]>>(
        &self,
        bucket: &[u8],
        range: &impl RangeBounds<K>,
        moment: Moment,
    ) -> Result<Scan> {
        // Before the view is taken: `as_ref` is the caller's code, which may call this store.
        let full_key = |key: &K| FullKey::prefix(bucket, key.as_ref());
        let start = match range.start_bound().map(full_key) {
            Bound::Included(key) => Limit::Before(key),
            Bound::Excluded(key) => Limit::After(key),
            Bound::Unbounded => Limit::Before(FullKey::prefix(bucket, b"")),
        };
        let end = match range.end_bound().map(full_key) {
            Bound::Included(key) => Limit::After(key),
            Bound::Excluded(key) => Limit::Before(key),
            Bound::Unbounded => Limit::after_prefix(bucket),
        };
        let bounds = Bounds { start, end };
        self.answer(|view| self.scan_of(view, bucket, &bounds, moment))
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
            let left = self.left(&view, &Bounds { start: Limit::Before(FullKey::prefix(b"", b"")), end: Limit::End });
            let verify = self.context.config.get_verify_on_read();
            let (mut hidden, mut hidden_in) = (HashSet::new(), HashMap::new());
            if !view.keys.lifetimes.is_empty() {
                let times = self.context.times();
                hidden.extend(view.keys.lifetimes.over(times));
                hidden_in = view.keys.lifetimes.hidden_by_bucket(times);
            }
            Ok(BucketScans { reader, sorted, rank: 0, verify, left, hidden: Arc::new(hidden), hidden_in })
        })
    }
}
