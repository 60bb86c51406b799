//! [`Config`] and its enums: how a store is opened.

use std::fmt;
use std::time::Duration;

/// How a store is opened; a builder whose defaults are the safe ones.
///
/// Every setting is named by a method that sets it and read by the same name with `get_` in front.
///
/// ```
/// use std::time::Duration;
///
/// use caskfile::{Config, Durability};
///
/// let config = Config::new().connection_timeout(Duration::from_secs(2)).durability(Durability::Os);
/// assert_eq!(config.get_connection_timeout(), Some(Duration::from_secs(2)));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a Config does nothing until a store is opened with it"]
#[non_exhaustive]
pub struct Config {
    connection_timeout: Option<Duration>,
    bucket: Vec<u8>,
    durability: Durability,
    lock_mode: LockMode,
    read_only: bool,
    create: bool,
    verify_on_read: bool,
    read_mode: ReadMode,
    compaction: CompactionPolicy,
    file_mode: u32,
}

/// When an acknowledged write is safe, and from what.
///
/// | | what a write waits for | the process is killed | the power is cut |
/// | --- | --- | --- | --- |
/// | `Sync` | its own sync | nothing is lost | nothing is lost |
/// | `Interval(d)` | the operating system | nothing is lost | at most the last `d` of writes |
/// | `Os` | the operating system | nothing is lost | whatever was not synced yet |
///
/// In no case does a power cut leave half a write or half a batch, or hand an index out twice; and what survives is
/// always the log's beginning: no write is lost while a later one stays.
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
    /// Cost: one `fdatasync` for all the threads that are waiting at that moment, so many writers share one.
    #[default]
    Sync,

    /// A write returns once the operating system has it, and a background thread syncs: no acknowledged write stays
    /// without a sync for longer than this, except while the medium itself takes longer. Closing syncs what is left.
    ///
    /// Cost: one thread, and one sync an interval in which something was written. A background sync that fails stops
    /// all further writes ([`Error::Poisoned`](crate::Error::Poisoned)) until [`Cask::reopen`](crate::Cask::reopen), since
    /// what was acknowledged may be lost.
    Interval(Duration),

    /// A write returns once the operating system has it; when that reaches the medium is left to the operating system.
    ///
    /// Cost: no sync but one for each opening that writes, and one for each million writes, which keep an index from
    /// being handed out twice. So that the latter is short, the disk is told to begin with what was written every 16,384
    /// writes.
    Os,
}

/// When the lock on the file is held against other writers. Readers never lock.
///
/// Neither mode leaves a lock behind: the operating system drops it when the process ends, however it ends.
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
    /// Taken for each group of writes: processes take turns.
    ///
    /// Cost: taking the lock and giving it back, about as much as the write itself without its sync; threads that
    /// write at the same moment share it.
    #[default]
    PerWrite,

    /// Held from open to close: other processes can read, but neither write nor open for writing.
    ///
    /// Cost: none for each write. Opening waits for the lock, and fails with
    /// [`Error::LockTimeout`](crate::Error::LockTimeout).
    Exclusive,
}

/// How values are read from the file. What the caller gets is the same in both, and so is what it is checked against.
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
    /// Copied out of a memory map.
    ///
    /// Cost: no system call for a read, and address space for the file. A medium that fails under the map, or a foreign
    /// program that truncates the file, kills the process with `SIGBUS`.
    ///
    /// A handle that only reads does not map a file on an overlay file system, and reads as with [`ReadMode::Pread`]: a map
    /// that was made before the first write would go on showing the lower layer's file.
    #[default]
    Map,

    /// Read with `pread`: a failing medium is an [`Error::Io`](crate::Error::Io), not a signal.
    ///
    /// Cost: a system call for each read.
    Pread,
}

/// When a store is compacted without being asked: the live records are rewritten to a new file, which takes the place of
/// the old one.
///
/// A write that finds the store due starts a thread, which compacts beside readers and writers and ends; closing the
/// store stops it and waits until it has let the file go. Of several processes, or handles, one does it. A file with
/// several hard links is left alone. A compaction that fails, for want of space say, is tried again after ten seconds,
/// then after twice as long, up to an hour; one that is refused, after an hour. [`Stats`](crate::Stats) counts those that
/// succeeded and those that failed.
///
/// Writers that outrun it are held back: the log is to grow by less than a tenth, and half a MiB, until it is done. A call
/// takes up to 5 ms longer then, and as much again for each 64 KiB that it writes; so it is kept by one or two threads on a
/// disk that copies 200 MB a second, and not by many threads, or on a slow disk. That concerns who writes through this
/// handle, its clones and its buckets, and who syncs only with large values; nobody waits while no compaction is running,
/// and nobody for one that was asked for. Other handles and other processes are not held back.
///
/// A handle begins a copy only if it has written as many bytes itself as are to be dead, so that short-lived processes do
/// not begin copies that their end throws away. With twice as many dead bytes the log is overdue: then each handle that
/// writes compacts it, and closing the handle waits for that. So a handle that has written and is closed leaves a file of
/// at most the live bytes and twice the dead bytes that the policy asks for, unless the compaction fails, or others write
/// meanwhile. By default that is three times the live bytes, or those and 64 MiB. Closing takes as long as one compaction
/// then.
///
/// It is on by default, since a log of which the same keys are written again and again would otherwise grow without
/// end, and users of [`Store`](crate::Store) have no call that compacts.
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

    /// As soon as the dead bytes, those that compaction would leave out, are both `dead_percent` hundredths of the live
    /// bytes or more, and `min_dead_bytes` or more. See [`Stats`](crate::Stats) for what they are now.
    ///
    /// Cost: reading and writing the live bytes once, and room for them beside the old file. With 100 percent, each byte
    /// is rewritten at most once for each byte that was written, and the log is to have at most 2.2 times the live bytes,
    /// or about 1.1 times those and `min_dead_bytes` together: see above for whom that binds.
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

impl Config {
    const DEFAULT_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
    /// What is stored is the user's: others get access when the user says so.
    const DEFAULT_FILE_MODE: u32 = 0o600;
    /// The bits of `rwxrwxrwx`. Set-user-ID and its like mean nothing on a data file and are an attacker's gain.
    const PERMISSION_BITS: u32 = 0o777;

    /// The defaults, the same as [`Config::default`].
    ///
    /// Cost: none.
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new(), caskfile::Config::default());
    /// ```
    pub fn new() -> Config {
        Config {
            connection_timeout: Some(Config::DEFAULT_CONNECTION_TIMEOUT),
            bucket: Vec::new(),
            durability: Durability::default(),
            lock_mode: LockMode::default(),
            read_only: false,
            create: true,
            verify_on_read: true,
            read_mode: ReadMode::default(),
            compaction: CompactionPolicy::default(),
            file_mode: Config::DEFAULT_FILE_MODE,
        }
    }

    /// Sets how long a call waits for the file's lock, its place in the queue included, before it gives up with
    /// [`Error::LockTimeout`](crate::Error::LockTimeout); 10 seconds when absent.
    ///
    /// `None` waits for ever; zero tries once. Reads take no lock and never wait. One caller's timeout does not fail
    /// another that has time left.
    ///
    /// Cost: none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use caskfile::Config;
    ///
    /// assert_eq!(Config::new().get_connection_timeout(), Some(Duration::from_secs(10)));
    /// assert_eq!(Config::new().connection_timeout(Duration::ZERO).get_connection_timeout(), Some(Duration::ZERO));
    /// assert_eq!(Config::new().connection_timeout(None).get_connection_timeout(), None);
    /// ```
    pub fn connection_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.connection_timeout = timeout.into();
        self
    }

    /// Sets the bucket, a namespace of its own in the same file; the default bucket, whose name is empty, when absent.
    ///
    /// The same key in two buckets is two keys. A bucket exists as soon as it holds a key. A name that is longer than
    /// the format allows is [`Error::BucketTooLong`](crate::Error::BucketTooLong) when the store is opened.
    ///
    /// Cost: a copy of the name, here and in every key on disk.
    ///
    /// ```
    /// use caskfile::Config;
    ///
    /// assert_eq!(Config::new().get_bucket(), b"");
    /// assert_eq!(Config::new().bucket("sessions").get_bucket(), b"sessions");
    /// ```
    pub fn bucket(mut self, name: impl AsRef<[u8]>) -> Config {
        self.bucket = name.as_ref().to_vec();
        self
    }

    /// Sets what an acknowledged write survives; [`Durability::Sync`] when absent.
    ///
    /// Cost: see [`Durability`].
    ///
    /// ```
    /// use caskfile::{Config, Durability};
    ///
    /// assert_eq!(Config::new().durability(Durability::Os).get_durability(), Durability::Os);
    /// ```
    pub fn durability(mut self, durability: Durability) -> Config {
        self.durability = durability;
        self
    }

    /// Sets when the file is locked against other writers; [`LockMode::PerWrite`] when absent.
    ///
    /// Cost: see [`LockMode`].
    ///
    /// ```
    /// use caskfile::{Config, LockMode};
    ///
    /// assert_eq!(Config::new().lock_mode(LockMode::Exclusive).get_lock_mode(), LockMode::Exclusive);
    /// ```
    pub fn lock_mode(mut self, mode: LockMode) -> Config {
        self.lock_mode = mode;
        self
    }

    /// Sets whether the store is opened for reading only; `false` when absent.
    ///
    /// A read-only handle takes no lock, works beside any writer and on a file that it may not write, and changes not
    /// one byte: it creates nothing and repairs nothing, whatever else is set, and each of its writes is
    /// [`Error::ReadOnly`](crate::Error::ReadOnly).
    ///
    /// Cost: none.
    ///
    /// ```
    /// assert!(caskfile::Config::new().read_only(true).get_read_only());
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Config {
        self.read_only = read_only;
        self
    }

    /// Sets whether a file that is absent, or has no bytes, is made into an empty store; `true` when absent.
    ///
    /// With `false`, opening an absent file is an [`Error::Io`](crate::Error::Io) of the kind
    /// [`NotFound`](std::io::ErrorKind::NotFound), so that a mistyped path does not go unnoticed.
    ///
    /// Cost: a creation waits until the file and its directory entry are on stable storage.
    ///
    /// ```
    /// assert!(!caskfile::Config::new().create(false).get_create());
    /// ```
    pub fn create(mut self, create: bool) -> Config {
        self.create = create;
        self
    }

    /// Sets whether each read checks the record's checksum on the copy that it returns; `true` when absent.
    ///
    /// With `false`, bytes that a medium changed after they were validated at opening go to the caller unnoticed.
    ///
    /// Cost: `true` is one pass of CRC-32 over key and value at each read.
    ///
    /// ```
    /// assert!(!caskfile::Config::new().verify_on_read(false).get_verify_on_read());
    /// ```
    pub fn verify_on_read(mut self, verify: bool) -> Config {
        self.verify_on_read = verify;
        self
    }

    /// Sets how values are read from the file; [`ReadMode::Map`] when absent.
    ///
    /// Cost: see [`ReadMode`].
    ///
    /// ```
    /// use caskfile::{Config, ReadMode};
    ///
    /// assert_eq!(Config::new().read_mode(ReadMode::Pread).get_read_mode(), ReadMode::Pread);
    /// ```
    pub fn read_mode(mut self, mode: ReadMode) -> Config {
        self.read_mode = mode;
        self
    }

    /// Sets when the store is compacted without being asked; [`CompactionPolicy::default`] when absent: when half of the
    /// file is dead, and 32 MiB or more.
    ///
    /// Cost: see [`CompactionPolicy`].
    ///
    /// ```
    /// use caskfile::{CompactionPolicy, Config};
    ///
    /// let config = Config::new().compaction(CompactionPolicy::Manual);
    /// assert_eq!(config.get_compaction(), CompactionPolicy::Manual);
    /// ```
    pub fn compaction(mut self, policy: CompactionPolicy) -> Config {
        self.compaction = policy;
        self
    }

    /// Sets the permission bits with which a new file is created, whatever the process's umask; `0o600` when absent.
    ///
    /// Bits beyond `0o777` are ignored. A file that is there keeps its mode, through compaction, too. In a directory with a
    /// default ACL the bits of the group limit what that ACL allows, as for any new file.
    ///
    /// Cost: none.
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().file_mode(0o640).get_file_mode(), 0o640);
    /// assert_eq!(caskfile::Config::new().file_mode(0o4755).get_file_mode(), 0o755);
    /// ```
    pub fn file_mode(mut self, mode: u32) -> Config {
        self.file_mode = mode & Config::PERMISSION_BITS;
        self
    }

    /// How long a call waits for the lock, `None` for ever: see [`connection_timeout`](Config::connection_timeout).
    pub fn get_connection_timeout(&self) -> Option<Duration> {
        self.connection_timeout
    }

    /// The bucket's name, empty for the default bucket: see [`bucket`](Config::bucket).
    pub fn get_bucket(&self) -> &[u8] {
        &self.bucket
    }

    /// What an acknowledged write survives: see [`durability`](Config::durability).
    pub fn get_durability(&self) -> Durability {
        self.durability
    }

    /// When the file is locked: see [`lock_mode`](Config::lock_mode).
    pub fn get_lock_mode(&self) -> LockMode {
        self.lock_mode
    }

    /// Whether writes are refused: see [`read_only`](Config::read_only).
    pub fn get_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether an absent file is created: see [`create`](Config::create). A read-only handle creates none even if this
    /// is `true`.
    pub fn get_create(&self) -> bool {
        self.create
    }

    /// Whether reads check the checksum: see [`verify_on_read`](Config::verify_on_read).
    pub fn get_verify_on_read(&self) -> bool {
        self.verify_on_read
    }

    /// How values are read: see [`read_mode`](Config::read_mode).
    pub fn get_read_mode(&self) -> ReadMode {
        self.read_mode
    }

    /// When the store is compacted without being asked: see [`compaction`](Config::compaction).
    pub fn get_compaction(&self) -> CompactionPolicy {
        self.compaction
    }

    /// The permission bits of a new file, nothing beyond `0o777`: see [`file_mode`](Config::file_mode).
    pub fn get_file_mode(&self) -> u32 {
        self.file_mode
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

/// By hand for the sake of two fields: a bucket is mostly text, and nobody reads a file mode in decimal.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("connection_timeout", &self.connection_timeout)
            .field("bucket", &format_args!("b\"{}\"", self.bucket.escape_ascii()))
            .field("durability", &self.durability)
            .field("lock_mode", &self.lock_mode)
            .field("read_only", &self.read_only)
            .field("create", &self.create)
            .field("verify_on_read", &self.verify_on_read)
            .field("read_mode", &self.read_mode)
            .field("compaction", &self.compaction)
            .field("file_mode", &format_args!("{:#o}", self.file_mode))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_safe_ones() {
        assert_eq!(
            format!("{:?}", Config::default()),
            "Config { connection_timeout: Some(10s), bucket: b\"\", durability: Sync, lock_mode: PerWrite, \
             read_only: false, create: true, verify_on_read: true, read_mode: Map, \
             compaction: Automatic { dead_percent: 100, min_dead_bytes: 33554432 }, file_mode: 0o600 }"
        );
    }

    #[test]
    fn each_setter_changes_its_own_setting_and_no_other() {
        let config = Config::new()
            .connection_timeout(None)
            .bucket(b"a\xff")
            .durability(Durability::Interval(Duration::from_millis(5)))
            .lock_mode(LockMode::Exclusive)
            .read_only(true)
            .create(false)
            .verify_on_read(false)
            .read_mode(ReadMode::Pread)
            .compaction(CompactionPolicy::Manual)
            .file_mode(0o640);
        assert_eq!(
            format!("{config:?}"),
            "Config { connection_timeout: None, bucket: b\"a\\xff\", durability: Interval(5ms), lock_mode: Exclusive, \
             read_only: true, create: false, verify_on_read: false, read_mode: Pread, \
             compaction: Manual, file_mode: 0o640 }"
        );
    }

    #[test]
    fn a_timeout_is_given_plain_or_as_an_option() {
        assert_eq!(
            Config::new().connection_timeout(Duration::from_secs(1)),
            Config::new().connection_timeout(Some(Duration::from_secs(1)))
        );
    }

    #[test]
    fn bits_of_the_file_mode_that_grant_more_than_access_are_dropped() {
        assert_eq!(Config::new().file_mode(u32::MAX).get_file_mode(), 0o777);
    }
}
