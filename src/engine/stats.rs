//! [`Stats`].

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Engine;
use crate::Result;

/// Figures about a store, and about what one handle has done: the result of [`Cask::stats`](crate::Cask::stats).
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-stats-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// cask.put("key", "value")?;
/// let stats = cask.stats()?;
/// assert_eq!((stats.keys, stats.buckets, stats.failed_compactions), (1, 1, 0));
/// assert_eq!(stats.last_index, cask.get("key")?.last_index);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many keys there are, in all buckets.
    pub keys: u64,
    /// How many buckets have a key.
    pub buckets: u64,
    /// How many of the keys have a deadline, from [`Cask::put_with`](crate::Cask::put_with).
    pub expiring: u64,
    /// How many more keys are over: hidden, and not yet removed from the log. They still take up [`Stats::live_bytes`]. The next
    /// writes remove them.
    pub hidden: u64,
    /// How many records the log has, tombstones and ancillary records included.
    pub records: u64,
    /// The file's length in bytes, with the zeros by which a writer has extended it.
    pub file_len: u64,
    /// Where the log ends, in bytes from the start of the file.
    pub log_end: u64,
    /// Bytes of the records with the present values of keys.
    pub live_bytes: u64,
    /// Bytes of the records that compaction would leave out, without the last snapshot of the index.
    pub dead_bytes: u64,
    /// The highest sequence number in the file, whether a pair still has it as its `last_index` or not: deletions and the store's
    /// own records have numbers too. If it is the same as before, nothing was written in between.
    pub last_index: u64,
    /// A record or the head of the file proves that everything before this offset is on stable storage.
    pub proven: u64,
    /// Whether the file says at its head how much of the log has been on stable storage. A file of an early build does not,
    /// so a lost end may go unseen; [`Cask::compact`](crate::Cask::compact) makes a file that does.
    pub has_roots: bool,
    /// Bytes of memory of the index.
    pub index_bytes: u64,
    /// Bytes of torn tails that this handle has cut off, at opening or later.
    pub torn_bytes: u64,
    /// How many writes this handle has made to the log: groups of the records of one or more calls.
    pub groups: u64,
    /// How many syncs of the file this handle has made.
    pub syncs: u64,
    /// How many compactions this handle has made.
    pub compactions: u64,
    /// How many [automatic](crate::CompactionPolicy) compactions of this handle failed or were refused. No call returns their
    /// errors: call [`Cask::compact`](crate::Cask::compact) to see why, or turn on the feature `log`. Compactions that were
    /// stopped, or found another one under way, do not count.
    pub failed_compactions: u64,
    /// How many snapshots of the index this handle has written: see [`SnapshotPolicy`](crate::SnapshotPolicy).
    pub snapshots: u64,
    /// How many [watches](crate::Cask::changes) of this handle there are.
    pub watches: u64,
    /// How many of them the system reports no changes to. Such a watch looks at the file every 2 to 20 milliseconds while it
    /// waits. The usual reason is that the user has no inotify instance left.
    pub polling_watches: u64,
    /// How many changes the watches of this handle have found although none was reported to them. They then came up to a quarter
    /// of a second late.
    pub unreported_changes: u64,
    /// How often this handle waited for the lock because another writer held it, with and without success.
    pub lock_waits: u64,
    /// How long it waited in all these cases together, without the time that threads of one handle wait for each other.
    pub lock_waited: Duration,
    /// How long opening took, or the last [`Cask::reopen`](crate::Cask::reopen): reading the log, or what follows its snapshot of
    /// the index, and cutting off a torn tail.
    pub opening: Duration,
    /// How long this handle has been open.
    pub open_for: Duration,
}

impl Engine {
    pub(crate) fn stats(&self) -> Result<Stats> {
        // A snapshot does not say how many buckets there are.
        let view = self.reading.scanned()?;
        let log_len = view.tail.end - view.reader.log.start();
        let counts = view.keys.counts(|| self.context.times());
        let (watches, polling_watches) = self.reading.watchers.count();
        Ok(Stats {
            keys: counts.keys,
            buckets: counts.buckets.unwrap_or_default(),
            expiring: counts.expiring,
            hidden: counts.hidden,
            records: view.tail.records,
            file_len: view.reader.log.len()?,
            log_end: view.tail.end,
            live_bytes: view.keys.live_bytes(),
            dead_bytes: log_len.saturating_sub(view.keys.live_bytes() + view.tail.images.last),
            last_index: view.tail.highest_seq,
            proven: view.tail.proven,
            has_roots: view.reader.log.header.has_roots,
            index_bytes: view.keys.memory() as u64,
            torn_bytes: self.context.counters.torn_bytes.load(Relaxed),
            groups: self.context.counters.groups.load(Relaxed),
            syncs: self.writing.syncs.syncs.load(Relaxed),
            compactions: self.context.counters.compactions.load(Relaxed),
            failed_compactions: self.context.counters.failed_compactions.load(Relaxed),
            snapshots: self.context.counters.snapshots.load(Relaxed),
            watches,
            polling_watches,
            unreported_changes: self.reading.watchers.unreported.load(Relaxed),
            lock_waits: self.context.counters.lock_waits.load(Relaxed),
            lock_waited: Duration::from_nanos(self.context.counters.lock_waited.load(Relaxed)),
            opening: Duration::from_nanos(self.context.counters.opening.load(Relaxed)),
            open_for: self.context.clock.since(self.opened),
        })
    }
}
