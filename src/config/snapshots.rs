//! [`SnapshotPolicy`]: when the index is written to the file.

/// When a handle writes a snapshot of the index to the file. Opening a store reads the log from the last snapshot on, instead of
/// all of it.
///
/// A snapshot takes about 8 bytes a key, and 16 KiB. It takes 24 bytes a key more if it has the order of the keys, which spares the
/// first list that follows an opening from sorting them: a handle stores the order if it has listed keys, or if the snapshot before
/// had it.
///
/// A handle writes one only if it has written something else, and only if reading the log after the last snapshot has become
/// expensive: the log has grown by 256 KiB (a record that was synced by itself counts as 128 bytes more), and by the length of a
/// snapshot when the store is closed, or by four times that while it is open (such a record counts as 4 KiB more). When the store is
/// closed, it is enough if the handle has written as much since it was opened. So snapshots add at most a quarter to what is written,
/// where 4 KiB stand for each sync, and one snapshot for each close of a store before which as much was written.
///
/// Writing one takes two syncs, and short turns between those of other writers. A snapshot that cannot be written is no error of
/// a put or of a close: the store is as it was, and opening it takes longer. It is tried again after ten seconds at least, and
/// after as much was written once more, or the store was compacted.
///
/// None is written while more than 4,096 pairs and sessions have an end, by [`Cask::put_with`](crate::Cask::put_with) or
/// [`Cask::session`](crate::Cask::session), or while their records are longer than 1 MiB: each opening reads these.
///
/// A snapshot is believed only if its checksums hold, and a record is returned only if its own checksums hold as well. Otherwise
/// the whole log is read. Compaction always reads the whole log, so a wrong snapshot does not last.
///
/// ```
/// use caskfile::{Config, SnapshotPolicy};
///
/// let config = Config::new().snapshots(SnapshotPolicy::AtClose);
/// assert_eq!(config.get_snapshots(), SnapshotPolicy::AtClose);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SnapshotPolicy {
    /// In a background thread while the store is open, and when it is closed. With a
    /// [`connection_timeout`](crate::Config::connection_timeout) below one second, only when it is closed: calls would fail while
    /// the thread writes.
    #[default]
    Automatic,
    /// Only when the store is closed. A store that is never closed, since its processes are killed, is then read from its start.
    AtClose,
    /// Never. Snapshots that other handles have written are used.
    Never,
}
