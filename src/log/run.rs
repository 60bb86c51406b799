//! Runs: validated records in the order of the log.

use std::io;
use std::ops::Range;

use crate::format::{Expiry, Kind, RecordHeader, SessionRecord};
use crate::limits::{Limits, Shared};
use crate::memory::{empty, make_room};

/// A validated record.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) header: RecordHeader,
    /// Everything before this offset was on stable storage when the record was written.
    pub(crate) proof: Option<u64>,
    key: Range<usize>,
}

impl Entry {
    /// Offset of the next record.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.header.padded_len()
    }
}

/// Where a unit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnitEnd {
    pub(crate) offset: u64,
    /// A walk accepts it as soon as it has its header: it does not read its body.
    pub(crate) is_loose: bool,
}

/// A walk passes a run on when it has this many records, or keys of many bytes. Replaying a run overlaps the cache misses of
/// its records.
pub(crate) const RUN_LEN: usize = Limits::REAL.run_len();

/// Records in the order of the log, in whole units. A unit is a single record, or all records of a batch: it counts as
/// a whole or not.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) entries: Vec<Entry>,
    /// The full keys, each followed by the beginning of the record's value that replay needs.
    keys: Vec<u8>,
}

impl Run {
    pub(crate) fn clear(&mut self) {
        empty(&mut self.entries);
        empty(&mut self.keys);
    }

    /// Makes room for more records and for this many bytes of keys. A batch can have more of them than there is memory.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`](std::io::ErrorKind::OutOfMemory).
    #[inline]
    pub(crate) fn make_room(&mut self, records: usize, keys: usize) -> io::Result<()> {
        make_room(&mut self.entries, records)?;
        make_room(&mut self.keys, keys)
    }

    /// Keeps only the first `count` records.
    pub(super) fn truncate(&mut self, count: usize) {
        if let Some(first) = self.entries.get(count) {
            self.keys.truncate(first.key.start);
            self.entries.truncate(count);
        }
    }

    #[inline]
    pub(super) fn is_long(&self, limits: Shared) -> bool {
        self.entries.len() >= limits.run_len() || self.keys.len() >= limits.run_keys()
    }

    /// Adds a record. `replayed` is the beginning of its value that replay needs: as long as its kind says.
    #[inline]
    pub(crate) fn push(&mut self, offset: u64, header: RecordHeader, proof: Option<u64>, key: &[u8], replayed: &[u8]) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.entries.push(Entry { offset, header, proof, key: start..self.keys.len() });
        if !replayed.is_empty() {
            self.keys.extend_from_slice(replayed);
        }
    }

    /// The end of the last record, if there is one.
    pub(crate) fn end(&self) -> Option<u64> {
        self.entries.last().map(Entry::end)
    }

    /// The ends of all units.
    pub(crate) fn ends(&self) -> impl Iterator<Item = UnitEnd> + '_ {
        let last = self.entries.iter().filter(|entry| !entry.header.flags.more);
        last.map(|entry| UnitEnd { offset: entry.end(), is_loose: entry.header.kind.is_loose() })
    }

    /// The full key of one of this run's records.
    pub(crate) fn key(&self, entry: &Entry) -> &[u8] {
        &self.keys[entry.key.clone()]
    }

    /// How long the pair of one of this run's records counts; `None` if its kind says nothing about that.
    #[inline]
    pub(crate) fn expiry(&self, entry: &Entry) -> Option<Expiry> {
        let kind = entry.header.kind;
        if kind.expiry_len() == 0 {
            return None;
        }
        self.keys[entry.key.end..].first_chunk().map(|bytes| Expiry::decode(kind, bytes))
    }

    /// What one of this run's records says about a session; `None` if its kind is another one.
    #[inline]
    pub(crate) fn session(&self, entry: &Entry) -> Option<SessionRecord> {
        if entry.header.kind != Kind::Session {
            return None;
        }
        self.keys[entry.key.end..].first_chunk().map(SessionRecord::decode)
    }
}
