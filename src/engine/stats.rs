//! [`Stats`].

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Engine;
use crate::Result;
use crate::format::FILE_HEADER_LEN;

/// What a store is made of, and what this handle has done to it; see [`Cask::stats`](crate::Cask::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in all buckets.
    pub keys: u64,
    /// Buckets that have a key.
    pub buckets: u64,
    /// Records in the log, tombstones and ancillary ones included.
    pub records: u64,
    /// The file's length in bytes, what it is extended by ahead of the log included.
    pub file_len: u64,
    /// Where the log ends, in bytes from the start of the file.
    pub log_end: u64,
    /// Bytes of records that set the present value of a key.
    pub live_bytes: u64,
    /// Bytes of records that compaction would leave out.
    pub dead_bytes: u64,
    /// The highest index in the file.
    pub last_index: u64,
    /// Everything before this offset is proven, by a record in the file, to be on stable storage.
    pub proven: u64,
    /// Bytes of memory that the index has allocated.
    pub index_bytes: u64,
    /// Bytes of torn tails that this handle has cut off, at opening or later.
    pub torn_bytes: u64,
    /// Writes to the log by this handle: groups of the records of one or more calls.
    pub groups: u64,
    /// Syncs of the file by this handle.
    pub syncs: u64,
    /// Compactions by this handle.
    pub compactions: u64,
    /// Compactions that this handle began [by itself](crate::CompactionPolicy) and that failed or were refused. No call
    /// returns their errors: call [`Cask::compact`](crate::Cask::compact) to see why, or turn on the feature `log`. Those that
    /// were stopped, or found another one under way, are not counted.
    pub failed_compactions: u64,
    /// How often this handle had to wait for the lock because another writer held it, or waited in vain.
    pub lock_waits: u64,
    /// How long it has waited for the lock in all these cases together. Waits of threads of one handle for each other
    /// are not among them.
    pub lock_waited: Duration,
    /// How long opening took: reading the whole file, and mending its end. After [`Cask::reopen`](crate::Cask::reopen),
    /// how long that took.
    pub opening: Duration,
    /// How long this handle has been open.
    pub open_for: Duration,
}

impl Engine {
    pub(crate) fn stats(&self) -> Result<Stats> {
        let view = self.reading.current()?;
        let log_len = view.tail.end - FILE_HEADER_LEN as u64;
        Ok(Stats {
            keys: view.index().len() as u64,
            buckets: view.keys.buckets.count(view.index().len() as u64),
            records: view.tail.records,
            file_len: view.reader.log.len()?,
            log_end: view.tail.end,
            live_bytes: view.keys.live_bytes,
            dead_bytes: log_len - view.keys.live_bytes,
            last_index: view.tail.highest_seq,
            proven: view.tail.proven,
            index_bytes: view.index().memory() as u64,
            torn_bytes: self.context.counters.torn_bytes.load(Relaxed),
            groups: self.context.counters.groups.load(Relaxed),
            syncs: self.writing.syncs.syncs.load(Relaxed),
            compactions: self.context.counters.compactions.load(Relaxed),
            failed_compactions: self.context.counters.failed_compactions.load(Relaxed),
            lock_waits: self.context.counters.lock_waits.load(Relaxed),
            lock_waited: Duration::from_nanos(self.context.counters.lock_waited.load(Relaxed)),
            opening: Duration::from_nanos(self.context.counters.opening.load(Relaxed)),
            open_for: self.opened.elapsed(),
        })
    }
}
