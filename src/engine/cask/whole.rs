//! Opening and closing a [`Cask`], its buckets, and what concerns the whole store.

use std::path::Path;
use std::sync::Arc;

use super::{Cask, Handle};
#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::config::Config;
use crate::disk::{Disk, RealDisk};
use crate::engine::{Engine, Mapped, Stats};
use crate::format::prefix_of_bucket;
use crate::report::Report;

impl Cask {
    /// Opens the store at `path` with the default configuration, and creates it if the file is absent.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::open_with`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-open-{}", std::process::id()));
    /// use caskfile::Cask;
    ///
    /// let cask = Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Cask> {
        Cask::open_with(path, &Config::default())
    }

    /// Opens the store at `path`.
    ///
    /// Reads the last snapshot of the index and verifies the log after it, as far as
    /// [`SnapshotPolicy`](crate::SnapshotPolicy) says; without a snapshot, or with [`Config::check_at_open`], it reads and
    /// verifies the whole file. A torn tail, as a crash leaves it, is cut off (see [`Stats::torn_bytes`]). Damage to bytes that
    /// had been on stable storage is an error, and so is a file that has lost its end. Such a file is not changed. Damage before
    /// the snapshot is found when the record is read.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`] if the directory is missing, permission is denied, the path names a directory, a FIFO or the like,
    ///   or ends in a slash, or if the file is absent and [`Config::create`] is off.
    /// - [`Error::NotCaskfile`], [`Error::UnsupportedVersion`] or [`Error::UnsupportedRecord`] if this version cannot read
    ///   the file. It is not changed.
    /// - [`Error::Corrupt`] if what is read is damaged. The file is not changed; [`salvage`](crate::salvage) copies what can be read.
    /// - [`Error::Truncated`] if the file has lost its end, as a copy that broke off has. It is not changed;
    ///   [`salvage`](crate::salvage) copies what is left.
    /// - [`Error::LockTimeout`] if another writer held the lock for the whole connection timeout.
    /// - [`Error::BucketTooLong`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-open-with-{}", std::process::id()));
    /// use std::io::ErrorKind;
    ///
    /// use caskfile::{Cask, Config, Error};
    ///
    /// match Cask::open_with(&path, &Config::new().create(false)) {
    ///     Err(Error::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
    ///     other => panic!("{other:?}"),
    /// }
    /// ```
    pub fn open_with(path: impl AsRef<Path>, config: &Config) -> Result<Cask> {
        Cask::on(Arc::new(RealDisk), path.as_ref(), config)
    }

    /// Opens a store on another [`Disk`], such as a simulated one. See [`disk`](crate::disk) for an example.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::open_with`], and those of the disk.
    #[cfg(any(test, feature = "testing"))]
    pub fn open_on(disk: Arc<dyn Disk>, path: impl AsRef<Path>, config: &Config) -> Result<Cask> {
        Cask::on(disk, path.as_ref(), config)
    }

    fn on(disk: Arc<dyn Disk>, path: &Path, config: &Config) -> Result<Cask> {
        let bucket = prefix_of_bucket(config.get_bucket())?.into();
        let engine = Engine::open(disk, path, config)?;
        Ok(Cask { engine: Arc::new(Handle(engine)), bucket })
    }

    /// Returns the same open store, seen through another bucket. A bucket exists while it has a key.
    ///
    /// This costs a small allocation and no system call. [Closing](Cask::close) a bucket's handle closes the whole store, as closing
    /// a clone does. A program that needs a bucket no more drops its handle.
    ///
    /// # Errors
    ///
    /// - [`Error::BucketTooLong`] for a name of more than 255 bytes.
    /// - [`Error::Closed`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-bucket-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let log = cask.bucket("log")?;
    /// log.put("0001", "started")?;
    /// assert!(log.exists("0001")? && !cask.exists("0001")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn bucket(&self, name: impl AsRef<[u8]>) -> Result<Cask> {
        self.check_open()?;
        Ok(Cask { engine: Arc::clone(&self.engine), bucket: prefix_of_bucket(name.as_ref())?.into() })
    }

    /// Opens the file again for this handle and all its clones and buckets, so that writes work after [`Error::Poisoned`]
    /// or [`Error::Replaced`].
    ///
    /// Does what [opening](Cask::open_with) does: what opening reads is verified, and a torn tail is cut off. Before the first durable
    /// write returns, records without a proof that they are on stable storage are written again. Meanwhile reads go on,
    /// and writes of this handle wait. Afterwards, reads show whether the writes that returned [`Error::Poisoned`] are in
    /// the store.
    ///
    /// An absent file is not created. If another file has the path now, the handle, its clones and buckets show that file
    /// from here on, and pairs that were read before need not mean anything in it. Slices of [`Mapped`] do not change.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::open_with`]. Then reads go on, and writes are refused as before.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-reopen-{}", std::process::id()));
    /// use caskfile::{Cask, Error};
    ///
    /// /// A disk that was full or disconnected for a while poisons the handle.
    /// fn put_or_reopen(cask: &Cask, key: &str, value: &str) -> caskfile::Result<u64> {
    ///     match cask.put(key, value) {
    ///         Err(Error::Poisoned { .. }) => {
    ///             cask.reopen()?;
    ///             cask.put(key, value)
    ///         }
    ///         result => result,
    ///     }
    /// }
    ///
    /// let cask = Cask::open(&path)?;
    /// put_or_reopen(&cask, "key", "value")?;
    /// cask.reopen()?;
    /// assert_eq!(cask.get("key")?.value, b"value");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn reopen(&self) -> Result<()> {
        self.engine.reopen()
    }

    /// Returns figures about the whole store, and about what this handle has done. Costs one system call. The first call of a
    /// handle that was opened through a snapshot of the index reads the whole log, as do its first compaction and its first
    /// [`compact_to`](Cask::compact_to): see [`SnapshotPolicy`](crate::SnapshotPolicy).
    ///
    /// # Errors
    ///
    /// Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-stats-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("key", "old")?;
    /// cask.put("key", "new")?;
    /// let stats = cask.stats()?;
    /// assert_eq!(stats.keys, 1);
    /// assert!(stats.dead_bytes >= stats.live_bytes);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Stats> {
        self.engine.stats()
    }

    /// Verifies every record of the whole store, in all buckets, compares the file with the index in memory, and returns a
    /// [`Report`].
    ///
    /// Reads the whole file and changes nothing. Other threads and processes can write meanwhile; writers of this process
    /// wait during the comparison at the end. For a file that cannot be opened, use [`caskfile::verify`](crate::verify()).
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`] with the [`Report`] if bytes that had been on stable storage do not verify, or if the file has
    ///   lost its end since it was opened ([`Report::truncated`]).
    /// - Those of every read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-cask-verify-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// assert!(cask.verify()?.is_sound());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn verify(&self) -> Result<Report> {
        self.engine.maintenance.verify()
    }

    /// Returns a handle for reads that copy nothing.
    ///
    /// # Safety
    ///
    /// While a [`Slice`](crate::Slice) that was made through the returned value lives, nothing but this library may change
    /// or cut the store's file, or another file that held this store before a compaction: a slice is a reference to
    /// memory that shows the file.
    ///
    /// One change by this library can reach a slice: a recovery by another process that cuts off a record which was sound
    /// when the slice was made. Only damage to the file causes that. The slice shows zeros then.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-mapped-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// // SAFETY: only this library changes the file.
    /// let mapped = unsafe { cask.mapped() };
    /// let value = mapped.get("key")?;
    /// assert_eq!(&*value, b"value");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub unsafe fn mapped(&self) -> Mapped {
        Mapped::new(self.clone())
    }

    /// Closes the whole store: this handle, and all its clones and buckets. Later calls on them return [`Error::Closed`]; a
    /// second close returns `Ok`. Dropping the last handle closes the store too.
    ///
    /// Waits for writes under way, syncs what this handle has written, in every durability mode, states at the head of the
    /// file how far it is synced, and cuts the file to the log's end. A file that loses its end later is
    /// [`Error::Truncated`]. Closing leaves the statement and the cut if it does not get the lock within the connection
    /// timeout.
    ///
    /// If this handle has written, and twice as many bytes of the file are dead as the
    /// [`CompactionPolicy`](crate::CompactionPolicy) allows, closing compacts the store first, and takes as long as
    /// [`Cask::compact`]. So a file stays small if many processes write a little and close it. A smaller amount of dead bytes
    /// is left to the next handle, and a compaction in the background is stopped. A compaction that fails is no error of
    /// closing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Poisoned`] if a sync or a cut fails. The store is closed even then.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-close-{}", std::process::id()));
    /// use caskfile::{Cask, Error};
    ///
    /// let cask = Cask::open(&path)?;
    /// let clone = cask.clone();
    /// cask.close()?;
    /// assert!(matches!(clone.get("key"), Err(Error::Closed)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }

    pub(in crate::engine) fn check_open(&self) -> Result<()> {
        self.engine.context.check_open()
    }
}
