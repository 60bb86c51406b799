//! [`Config`]: how a store is opened.

mod compaction;
mod modes;
mod snapshots;

use std::fmt;
use std::time::Duration;

pub use compaction::CompactionPolicy;
pub use modes::{Durability, LockMode, ReadMode};
pub use snapshots::SnapshotPolicy;

/// How a store is opened: a builder whose defaults are the safe ones.
///
/// Each setting has a method with its name that sets it. The method that returns it has `get_` before the name, as in
/// [`std::process::Command`], another builder.
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
    snapshots: SnapshotPolicy,
    check_at_open: bool,
    file_mode: u32,
}

impl Config {
    const DEFAULT_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
    /// Only the user has access, unless the program says otherwise.
    const DEFAULT_FILE_MODE: u32 = 0o600;
    /// The bits of `rwxrwxrwx`. Set-user-ID and the like mean nothing on a data file, and would only help an attacker.
    const PERMISSION_BITS: u32 = 0o777;

    /// Returns the defaults, as [`Config::default`] does.
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
            snapshots: SnapshotPolicy::default(),
            check_at_open: false,
            file_mode: Config::DEFAULT_FILE_MODE,
        }
    }

    /// Sets how long a write waits for the file's lock, the time in the queue included, before it fails with
    /// [`Error::LockTimeout`](crate::Error::LockTimeout); the default is 10 seconds.
    ///
    /// `None` waits for ever; zero tries for half a millisecond at most, which is long enough for a handle in a burst of unsynced
    /// writes to give the lock up. A write of another thread of the same handle is not waited for then. Reads take no lock and never wait. Each caller has its own time: a timeout of
    /// one fails no other.
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

    /// Sets the bucket: a namespace of its own in the same file; the default is the bucket with the empty name.
    ///
    /// The same key in two buckets is two keys. A bucket exists while it has a key. If the name is longer than the format
    /// allows, opening the store fails with [`Error::BucketTooLong`](crate::Error::BucketTooLong).
    ///
    /// Cost: every key on disk has a copy of the name.
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

    /// Sets what an acknowledged write survives; [`Durability::Sync`] is the default.
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

    /// Sets when the file is locked against other writers; [`LockMode::PerWrite`] is the default.
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

    /// Sets whether the store is opened for reading only; `false` is the default.
    ///
    /// A read-only handle takes no lock. It works while other processes write, and on a file without write permission. It
    /// changes no byte, creates nothing and repairs nothing, whatever else is set. Its writes fail with
    /// [`Error::ReadOnly`](crate::Error::ReadOnly).
    ///
    /// ```
    /// assert!(caskfile::Config::new().read_only(true).get_read_only());
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Config {
        self.read_only = read_only;
        self
    }

    /// Sets whether opening creates a store if the file is absent or empty; `true` is the default.
    ///
    /// With `false`, opening an absent file fails with [`Error::Io`](crate::Error::Io) of the kind
    /// [`NotFound`](std::io::ErrorKind::NotFound), so that a mistyped path is noticed.
    ///
    /// Cost: opening returns when the new file and its directory entry are on stable storage.
    ///
    /// ```
    /// assert!(!caskfile::Config::new().create(false).get_create());
    /// ```
    pub fn create(mut self, create: bool) -> Config {
        self.create = create;
        self
    }

    /// Sets whether each read checks the record's checksum on the copy that it returns; `true` is the default.
    ///
    /// With `false`, a read does not notice bytes that have changed on the medium since the store was opened.
    ///
    /// Cost of `true`: one pass of CRC-32 over key and value at each read.
    ///
    /// ```
    /// assert!(!caskfile::Config::new().verify_on_read(false).get_verify_on_read());
    /// ```
    pub fn verify_on_read(mut self, verify: bool) -> Config {
        self.verify_on_read = verify;
        self
    }

    /// Sets how values are read from the file; [`ReadMode::Map`] is the default.
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

    /// Sets when the store is compacted automatically; [`CompactionPolicy::default`] is the default: when half of the
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

    /// Sets when a snapshot of the index is written, so that opening need not read the whole file. Default:
    /// [`SnapshotPolicy::Automatic`].
    ///
    /// ```
    /// use caskfile::{Config, SnapshotPolicy};
    ///
    /// let config = Config::new().snapshots(SnapshotPolicy::Never);
    /// assert_eq!(config.get_snapshots(), SnapshotPolicy::Never);
    /// ```
    pub fn snapshots(mut self, policy: SnapshotPolicy) -> Config {
        self.snapshots = policy;
        self
    }

    /// Sets whether opening reads and checks the whole file, also where a snapshot of the index would do. Default: `false`.
    ///
    /// Without this, opening checks what was written after the last snapshot. Damage before that is found when the record is
    /// read, by [`Cask::verify`](crate::Cask::verify), or by a compaction. With it, opening takes 0.15 s for a million small
    /// keys.
    ///
    /// ```
    /// assert!(caskfile::Config::new().check_at_open(true).get_check_at_open());
    /// ```
    pub fn check_at_open(mut self, check: bool) -> Config {
        self.check_at_open = check;
        self
    }

    /// Sets the permission bits of a new file, whatever the process's umask is; `0o600` is the default.
    ///
    /// Bits above `0o777` are ignored. An existing file keeps its mode, also through compaction. In a directory with a
    /// default ACL, the bits of the group limit what that ACL allows, as for any new file.
    ///
    /// `0o660` in a directory with the setgid bit makes a store for a group. Only the file's owner and root can compact it:
    /// `docs/OPERATIONS.md` has a section about stores for several users.
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().file_mode(0o640).get_file_mode(), 0o640);
    /// assert_eq!(caskfile::Config::new().file_mode(0o4755).get_file_mode(), 0o755);
    /// ```
    pub fn file_mode(mut self, mode: u32) -> Config {
        self.file_mode = mode & Config::PERMISSION_BITS;
        self
    }

    /// Returns how long a write waits for the lock, `None` for ever: see [`connection_timeout`](Config::connection_timeout).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().connection_timeout(None).get_connection_timeout(), None);
    /// ```
    pub fn get_connection_timeout(&self) -> Option<Duration> {
        self.connection_timeout
    }

    /// Returns the bucket's name, empty for the default bucket: see [`bucket`](Config::bucket).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().bucket("sessions").get_bucket(), b"sessions");
    /// ```
    pub fn get_bucket(&self) -> &[u8] {
        &self.bucket
    }

    /// Returns what an acknowledged write survives: see [`durability`](Config::durability).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().get_durability(), caskfile::Durability::Sync);
    /// ```
    pub fn get_durability(&self) -> Durability {
        self.durability
    }

    /// Returns when the file is locked: see [`lock_mode`](Config::lock_mode).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().get_lock_mode(), caskfile::LockMode::PerWrite);
    /// ```
    pub fn get_lock_mode(&self) -> LockMode {
        self.lock_mode
    }

    /// Returns whether writes are refused: see [`read_only`](Config::read_only).
    ///
    /// ```
    /// assert!(!caskfile::Config::new().get_read_only());
    /// ```
    pub fn get_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns whether an absent file is created: see [`create`](Config::create). A read-only handle creates none even if
    /// this is `true`.
    ///
    /// ```
    /// assert!(caskfile::Config::new().get_create());
    /// ```
    pub fn get_create(&self) -> bool {
        self.create
    }

    /// Returns whether reads check the checksum: see [`verify_on_read`](Config::verify_on_read).
    ///
    /// ```
    /// assert!(caskfile::Config::new().get_verify_on_read());
    /// ```
    pub fn get_verify_on_read(&self) -> bool {
        self.verify_on_read
    }

    /// Returns how values are read: see [`read_mode`](Config::read_mode).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().get_read_mode(), caskfile::ReadMode::Map);
    /// ```
    pub fn get_read_mode(&self) -> ReadMode {
        self.read_mode
    }

    /// Returns when a snapshot of the index is written: see [`snapshots`](Config::snapshots).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().get_snapshots(), caskfile::SnapshotPolicy::Automatic);
    /// ```
    pub fn get_snapshots(&self) -> SnapshotPolicy {
        self.snapshots
    }

    /// Returns whether opening reads and checks the whole file: see [`check_at_open`](Config::check_at_open).
    ///
    /// ```
    /// assert!(!caskfile::Config::new().get_check_at_open());
    /// ```
    pub fn get_check_at_open(&self) -> bool {
        self.check_at_open
    }

    /// Returns when the store is compacted automatically: see [`compaction`](Config::compaction).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().get_compaction(), caskfile::CompactionPolicy::default());
    /// ```
    pub fn get_compaction(&self) -> CompactionPolicy {
        self.compaction
    }

    /// Returns the permission bits of a new file, none above `0o777`: see [`file_mode`](Config::file_mode).
    ///
    /// ```
    /// assert_eq!(caskfile::Config::new().get_file_mode(), 0o600);
    /// ```
    pub fn get_file_mode(&self) -> u32 {
        self.file_mode
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

/// Written by hand for two fields: a bucket is shown as text, and a file mode in octal.
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
            .field("snapshots", &self.snapshots)
            .field("check_at_open", &self.check_at_open)
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
             compaction: Automatic { dead_percent: 100, min_dead_bytes: 33554432 }, snapshots: Automatic, \
             check_at_open: false, file_mode: 0o600 }"
        );
    }

    #[test]
    fn each_setter_changes_one_setting() {
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
            .snapshots(SnapshotPolicy::AtClose)
            .check_at_open(true)
            .file_mode(0o640);
        assert_eq!(
            format!("{config:?}"),
            "Config { connection_timeout: None, bucket: b\"a\\xff\", durability: Interval(5ms), lock_mode: Exclusive, \
             read_only: true, create: false, verify_on_read: false, read_mode: Pread, \
             compaction: Manual, snapshots: AtClose, check_at_open: true, file_mode: 0o640 }"
        );
    }

    #[test]
    fn a_timeout_is_a_duration_or_an_option() {
        assert_eq!(
            Config::new().connection_timeout(Duration::from_secs(1)),
            Config::new().connection_timeout(Some(Duration::from_secs(1)))
        );
    }

    #[test]
    fn a_file_mode_has_permission_bits_only() {
        assert_eq!(Config::new().file_mode(u32::MAX).get_file_mode(), 0o777);
    }
}
