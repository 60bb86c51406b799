//! [`IndexScan`]: the pairs of one moment in the order in which they were set.

use std::sync::Arc;

use super::Reading;
use super::scan::{PairRef, expires_at, session_of};
use super::view::View;
use crate::Result;
use crate::format::Damage;
use crate::format::{RECORD_HEADER_LEN, split_full_key};
use crate::log::read::Reader;
use crate::log::window::Window;
use crate::memory::copied;
use crate::store::KvPair;

/// An iterator over all pairs of all buckets of one moment, in the order of their `last_index`, which is the order in the
/// file: see [`Cask::scan_by_index`](crate::Cask::scan_by_index).
///
/// It owns a snapshot as a [`Scan`](crate::Scan) does. [`IndexScan::next_ref`] lends pairs without allocating for each.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-index-scan-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// cask.put("zebra", "first")?;
/// cask.put("ant", "second")?;
/// let values: Vec<_> = cask.scan_by_index()?.map(|item| item.map(|(_, pair)| pair.value)).collect::<Result<_, _>>()?;
/// assert_eq!(values, [b"first".to_vec(), b"second".to_vec()]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct IndexScan {
    reader: Reader,
    positions: std::vec::IntoIter<u64>,
    window: Window,
    verify: bool,
}

impl IndexScan {
    /// Returns the name of the bucket and the next pair, lent until the next call; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record no longer verifies. The scan goes on after it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-index-next-ref-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// let mut scan = cask.scan_by_index()?;
    /// let (bucket, pair) = scan.next_ref().unwrap()?;
    /// assert_eq!((bucket, pair.key), (&b"log"[..], &b"0001"[..]));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn next_ref(&mut self) -> Option<Result<(&[u8], PairRef<'_>)>> {
        let position = self.positions.next()?;
        Some(self.lend(position))
    }

    /// As [`IndexScan::next_ref`], for the next pair whose key starts with `prefix`.
    pub(crate) fn next_with_prefix(&mut self, prefix: &[u8]) -> Option<Result<(&[u8], PairRef<'_>)>> {
        let position = loop {
            let position = self.positions.next()?;
            // Read once more below, since what is lent here cannot leave the loop. A read that fails here may succeed there, and the
            // pair may be another one.
            let is_wanted = match self.lend(position) {
                Ok((_, pair)) => pair.key.starts_with(prefix),
                Err(error) => return Some(Err(error)),
            };
            if is_wanted {
                break position;
            }
        };
        Some(self.lend(position))
    }

    fn lend(&mut self, position: u64) -> Result<(&[u8], PairRef<'_>)> {
        let IndexScan { reader, window, verify, .. } = self;
        let log = &reader.log;
        let short = |end: u64| match log.len() {
            Ok(file_len) => log.corrupt(position, Damage::BeyondFile { end, file_len }),
            Err(error) => error,
        };
        let header = match window.get(log, position, RECORD_HEADER_LEN)?.first_chunk() {
            Some(bytes) => reader.decode(position, bytes)?,
            None => return Err(short(position + RECORD_HEADER_LEN as u64)),
        };
        let len = header.record_len() as usize;
        let record = window.get(log, position, len)?;
        if record.len() < len {
            return Err(short(position + len as u64));
        }
        let (full_key, stored) = record[RECORD_HEADER_LEN..].split_at(header.key_len.into());
        if *verify {
            reader.verify_value(position, &header, full_key, stored)?;
        }
        let (expiry, value) = header.split_value(stored);
        // A key without a bucket does not verify. Without verification it must not panic.
        let (bucket, key) = split_full_key(full_key).unwrap_or_default();
        let (expires_at, session) = (expires_at(expiry), session_of(expiry));
        Ok((bucket, PairRef { key, value, last_index: header.seq, expires_at, session }))
    }
}

impl Iterator for IndexScan {
    type Item = Result<(Vec<u8>, KvPair)>;

    fn next(&mut self) -> Option<Self::Item> {
        let position = self.positions.next()?;
        let log = Arc::clone(&self.reader.log);
        Some(self.lend(position).and_then(|(bucket, pair)| {
            let value = copied(pair.value).map_err(|e| log.io("get memory for a value", e))?;
            Ok((bucket.to_vec(), KvPair { key: pair.key.to_vec(), value, last_index: pair.last_index }))
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.positions.size_hint()
    }
}

impl ExactSizeIterator for IndexScan {}

impl std::fmt::Debug for IndexScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexScan").field("left", &self.positions.len()).finish_non_exhaustive()
    }
}

impl Reading {
    pub(crate) fn scan_by_index(&self) -> Result<IndexScan> {
        self.scan_by_index_and(|_| Some(())).map(|(scan, ())| scan)
    }

    /// As [`Reading::scan_by_index`], with something else from the same view. If that is `None`, the whole log is read first.
    pub(crate) fn scan_by_index_and<T>(&self, mut other: impl FnMut(&View) -> Option<T>) -> Result<(IndexScan, T)> {
        let (reader, mut positions, other) = self.answer_after_rescan(|view| {
            let Some(other) = other(&view) else { return Ok(None) };
            view.index().load_all(&view.reader)?;
            // A vector that grows would take, and keep, up to twice as much.
            let mut positions = Vec::with_capacity(view.index().len());
            let (all, lifetimes) = (view.index().positions(), &view.keys.lifetimes);
            if lifetimes.is_empty() {
                positions.extend(all);
            } else {
                let times = self.context.times();
                positions.extend(all.filter(|&position| !lifetimes.is_over(position, || times)));
            }
            Ok(Some((view.reader.clone(), positions, other)))
        })?;
        positions.sort_unstable();
        let verify = self.context.config.get_verify_on_read();
        let window = Window::new(&reader.log);
        Ok((IndexScan { window, reader, positions: positions.into_iter(), verify }, other))
    }
}
