//! [`CompactionPolicy`]: when a store is compacted automatically.

/// When a store is compacted automatically. A compaction copies the live records to a new file, which takes the place of
/// the old one.
///
/// # When it runs
///
/// A write that finds the store due starts a thread, which compacts while readers and writers go on, and then ends. Closing
/// the store stops the thread and waits for it. Of several processes or handles, one compacts. A file with several hard
/// links is left alone. A compaction that fails, for lack of space for example, is tried again after ten seconds, then after
/// twice as long each time, up to an hour; one that is refused, after an hour. [`Stats`](crate::Stats) counts both
/// those that succeeded and those that failed.
///
/// # Throttling
///
/// Writers that are faster than the compaction are delayed, so that the log grows by less than a tenth, and half a MiB,
/// until it ends. A call then takes up to 5 ms longer, and as much again for each 64 KiB that it writes. This holds the
/// limit for one or two threads on a disk that copies 200 MB a second, but not for many threads or on a slow disk.
///
/// The delay applies to writes through this handle, its clones and its buckets; synced writes are delayed only for large
/// values. It applies only while an automatic compaction runs, not during one that a program has called. Other handles and
/// other processes are not delayed.
///
/// # The size of the file
///
/// A handle starts a compaction only after it has written as many bytes itself as are to be dead. So short-lived processes
/// do not start copies that end with them. With twice as many dead bytes the log is overdue: then every handle that writes
/// compacts it, and closing the handle waits for that, as long as one compaction takes. So a handle that has written leaves
/// at its close a file of at most the live bytes and twice the dead bytes that the policy allows, unless the compaction
/// fails or others write meanwhile. With the defaults that is three times the live bytes, or the live bytes and 64 MiB.
///
/// Automatic compaction is on by default: else a log whose keys are written again and again would grow without end, and
/// [`Store`](crate::Store) has no call that compacts.
///
/// ```
/// use caskfile::{CompactionPolicy, Config};
///
/// let often = CompactionPolicy::Automatic { dead_percent: 25, min_dead_bytes: 1 << 20 };
/// assert_eq!(Config::new().compaction(often).get_compaction(), often);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompactionPolicy {
    /// Only when [`Cask::compact`](crate::Cask::compact) is called.
    Manual,

    /// As soon as the dead bytes, which compaction would leave out, are at least `dead_percent` hundredths of the live bytes
    /// and at least `min_dead_bytes`. [`Stats`](crate::Stats) has the dead and live bytes.
    ///
    /// Cost: the live bytes are read and written once, and need room beside the old file. With 100 percent, compactions
    /// rewrite at most one byte for each byte that was written. The log then has at most 2.2 times the live bytes, or about
    /// 1.1 times the sum of live bytes and `min_dead_bytes` if that is more. Both hold as far as throttling does.
    Automatic {
        /// In hundredths of the live bytes.
        dead_percent: u32,
        /// In bytes.
        min_dead_bytes: u64,
    },
}

/// When half of the file is dead, and 32 MiB or more.
impl Default for CompactionPolicy {
    fn default() -> CompactionPolicy {
        CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 32 << 20 }
    }
}
