//! How writes become durable, how the file is locked, and how values are read.

use std::time::Duration;

/// What an acknowledged write survives.
///
/// | | a write waits for | the process is killed | the power is cut |
/// | --- | --- | --- | --- |
/// | `Sync` | its own sync | nothing is lost | nothing is lost |
/// | `Interval(d)` | the operating system | nothing is lost | at most the last `d` of writes is lost |
/// | `Os` | the operating system | nothing is lost | all that was not synced yet is lost |
///
/// In every mode, a power cut leaves no part of a write or batch, and no `last_index` is assigned twice. What survives is
/// always the beginning of the log: no write is lost while a later one stays.
///
/// ```
/// use std::time::Duration;
///
/// use caskfile::{Config, Durability};
///
/// assert_eq!(Config::new().get_durability(), Durability::Sync);
/// let config = Config::new().durability(Durability::Interval(Duration::from_millis(100)));
/// assert_eq!(config.get_durability(), Durability::Interval(Duration::from_millis(100)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// A write returns once it is on stable storage.
    ///
    /// Cost: one `fdatasync`, which all threads that wait at that moment share.
    #[default]
    Sync,

    /// A write returns once the operating system has it, and a background thread syncs: every acknowledged write is synced
    /// within this time, unless the medium itself takes longer. Closing syncs the rest.
    ///
    /// Cost: one thread, and one sync for each interval with a write. If a background sync fails, acknowledged writes may be
    /// lost. So all further writes fail with [`Error::Poisoned`](crate::Error::Poisoned), until
    /// [`Cask::reopen`](crate::Cask::reopen).
    Interval(Duration),

    /// A write returns once the operating system has it, and the operating system decides when it reaches the medium.
    ///
    /// Cost: one sync for each opening that writes, and one for each million writes. They make sure that no `last_index` is
    /// assigned twice. To keep the second one short, write-back is started every 16,384 writes.
    ///
    /// Closing syncs in every mode. So this spares little in a program that opens the store, writes once and closes it.
    Os,
}

/// When the lock on the file is held against other writers. Readers take no lock.
///
/// In both modes the operating system releases the lock when the process ends, however it ends.
///
/// ```
/// use caskfile::{Config, LockMode};
///
/// assert_eq!(Config::new().get_lock_mode(), LockMode::PerWrite);
/// assert_eq!(Config::new().lock_mode(LockMode::Exclusive).get_lock_mode(), LockMode::Exclusive);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LockMode {
    /// For each group of writes: processes take turns.
    ///
    /// Cost: taking and releasing the lock costs about as much as the write itself without its sync. Threads that write at
    /// the same moment share it.
    #[default]
    PerWrite,

    /// From open to close: other processes can read, but neither write nor open for writing.
    ///
    /// Cost: nothing for a write. Opening waits for the lock, and may fail with
    /// [`Error::LockTimeout`](crate::Error::LockTimeout).
    Exclusive,
}

/// How values are read from the file. Both ways return the same values, checked in the same way.
///
/// ```
/// use caskfile::{Config, ReadMode};
///
/// assert_eq!(Config::new().get_read_mode(), ReadMode::Map);
/// assert_eq!(Config::new().read_mode(ReadMode::Pread).get_read_mode(), ReadMode::Pread);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ReadMode {
    /// Copied from a memory map.
    ///
    /// Cost: no system call for a read, and address space for the file. If the medium fails under the map, or another
    /// program truncates the file, the process is killed by `SIGBUS`.
    ///
    /// On an overlay file system, a handle that only reads does not map the file, and reads as with [`ReadMode::Pread`]: a
    /// map from before the first write would go on showing the file of the lower layer.
    #[default]
    Map,

    /// Read with `pread`: a failing medium gives [`Error::Io`](crate::Error::Io), not a signal.
    ///
    /// Cost: a system call for each read.
    Pread,
}
