//! Compaction and copies of a [`Cask`]: they act on the whole store.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use super::Cask;
#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::engine::{Backup, Compaction};
use crate::progress::Progress;

impl Cask {
    /// Compacts the whole store: copies the live records of all buckets to a new file, which takes the place of the old one,
    /// and so frees the space of replaced and deleted records.
    ///
    /// Every pair keeps its `last_index`, and the file its owner, permissions, ACL and extended attributes. A file that an
    /// early build made gets the record `ROOTS`, with which a loss of its end is noticed ([`Error::Truncated`]).
    ///
    /// Reads and writes go on meanwhile, in this process and in others. Writers wait for some milliseconds at the end, while
    /// the last new records are copied and the new file takes the path. Other processes notice it at their next call, and
    /// read the new file as at opening.
    ///
    /// # Cost
    ///
    /// The directory needs room for the live records, which is checked first, and for what is written meanwhile. Savings of
    /// a file system that compresses do not count. Memory: eight bytes a key, and a second index.
    ///
    /// # Errors
    ///
    /// With each of these, the store is as it was, and no file is left:
    ///
    /// - [`Error::CompactionRefused`] for a file with several hard links, a file that is a mount point, a file in a
    ///   directory that takes no new file, or a file whose owner, permissions or attributes cannot be copied.
    /// - [`Error::CompactionOvertaken`] if another compaction is under way.
    /// - [`Error::Corrupt`] if a live record does not verify.
    /// - [`Error::Io`] of the kind [`StorageFull`](std::io::ErrorKind::StorageFull) if there is not enough room.
    /// - Those of every write. The connection timeout counts at the beginning and again at the end.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-compact-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// for n in 0..100 {
    ///     cask.put("key", format!("{n}"))?;
    /// }
    /// let compaction = cask.compact()?;
    /// assert!(compaction.after < compaction.before);
    /// assert_eq!((compaction.keys, cask.get("key")?.value), (1, b"99".to_vec()));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn compact(&self) -> Result<Compaction> {
        self.compact_with(|_| ControlFlow::Continue(()))
    }

    /// Compacts the whole store as [`Cask::compact`] does, and calls `progress` about once a megabyte. If that breaks, the
    /// compaction is cancelled, and the store is as it was.
    ///
    /// The closure may call this store: no lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::compact`], and [`Error::CompactionCancelled`] if `progress` breaks.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-compact-with-{}", std::process::id()));
    /// use std::ops::ControlFlow;
    ///
    /// # let cask = caskfile::Cask::open(&path)?;
    /// # for n in 0..100 { cask.put("key", format!("{n}"))?; }
    /// let compaction = cask.compact_with(|progress| {
    ///     eprint!("\r{} of {} bytes", progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(compaction.after < compaction.before);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn compact_with(&self, mut progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<Compaction> {
        self.engine.maintenance.compact(&mut progress)
    }

    /// Copies the whole store, as it is at this moment, to a new file. Reads and writes go on and do not wait, in this process
    /// and in others: the log up to its present end does not change.
    ///
    /// The copy is a store in which each batch is complete or absent. It has all records of the log, with replaced values and
    /// tombstones, but no [snapshot of the index](crate::SnapshotPolicy): the first opening reads the whole copy.
    /// [`Cask::compact_to`] leaves out replaced values and tombstones. `to` appears complete and synced at the end, and never after a
    /// crash before that. An existing file is not replaced. The copy has the owner and the mode of the original. If it
    /// cannot have these, or if the original has an ACL, only its maker has access (0600). It has no other attributes.
    ///
    /// Pairs keep their `last_index`, and the copy assigns much higher ones from then on. So a store that is restored from a
    /// backup refuses a compare-and-swap with a pair that was read from the original after the backup.
    ///
    /// # Cost
    ///
    /// Reads the log once and writes as much, with a small buffer.
    ///
    /// # Errors
    ///
    /// With each of these, no file is left:
    ///
    /// - [`Error::Io`] of the kind [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if `to` exists.
    /// - [`Error::Io`] of the kind [`StorageFull`](std::io::ErrorKind::StorageFull) if the file system has no room for the
    ///   copy. This is checked first.
    /// - [`Error::Corrupt`] if the log is damaged, and [`Error::Truncated`] if it has lost its end: such a store is not
    ///   backed up.
    /// - Those of every read.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-backup-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// use caskfile::Cask;
    ///
    /// let cask = Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// cask.backup(&copy)?;
    /// cask.put("key", "later")?;
    /// assert_eq!(Cask::open(&copy)?.get("key")?.value, b"value");
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<Backup> {
        self.backup_with(to, |_| ControlFlow::Continue(()))
    }

    /// Copies the whole store as [`Cask::backup`] does, and calls `progress` about once a megabyte. If that breaks, the
    /// backup is cancelled, and no file is left.
    ///
    /// The first call comes before anything is made, the last one when only the file's name is missing. The closure may call
    /// this store: no lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::backup`], and [`Error::CopyCancelled`] if `progress` breaks.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-backup-with-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// use std::ops::ControlFlow;
    ///
    /// use caskfile::{Cask, Error};
    ///
    /// let cask = Cask::open(&path)?;
    /// let cancelled = cask.backup_with(&copy, |progress| match progress.done {
    ///     0 => ControlFlow::Continue(()),
    ///     _ => ControlFlow::Break(()),
    /// });
    /// assert!(matches!(cancelled, Err(Error::CopyCancelled { .. })));
    /// assert!(!copy.exists());
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup_with(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Backup> {
        self.engine.maintenance.backup(to.as_ref(), &mut progress)
    }

    /// Writes a copy of the whole store, as [`Cask::backup`] makes it, to a stream: a pipe, a compressor, a connection. The
    /// stream gets the bytes of a store's file, in their order, without snapshots of the index.
    ///
    /// If the stream breaks off, the part that has arrived lacks the mark that closes a copy. Opening it is
    /// [`Error::Truncated`], and [`salvage`](crate::salvage()) copies what is there. The receiver must sync what it stores.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`] if `to` fails.
    /// - Those of [`Cask::backup`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-backup-to-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut bytes = Vec::new();
    /// let backup = cask.backup_to(&mut bytes)?; // or a `File`, a `TcpStream`, a compressor
    /// assert_eq!(backup.bytes, bytes.len() as u64);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn backup_to(&self, mut to: impl Write) -> Result<Backup> {
        self.engine.maintenance.backup_to(&mut to)
    }

    /// Copies the present value of every key of the whole store to a new file: a smaller copy than that of [`Cask::backup`],
    /// which takes longer.
    ///
    /// # Cost
    ///
    /// Memory of eight bytes a key. While the keys are collected, about ten milliseconds for a million, no write becomes
    /// visible.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::backup`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-compact-to-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// use caskfile::Cask;
    ///
    /// let cask = Cask::open(&path)?;
    /// cask.put("key", "old")?;
    /// cask.put("key", "new")?;
    /// cask.compact_to(&copy)?;
    /// assert_eq!(Cask::open(&copy)?.get("key")?, cask.get("key")?);
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compact_to(&self, to: impl AsRef<Path>) -> Result<Backup> {
        self.compact_to_with(to, |_| ControlFlow::Continue(()))
    }

    /// Copies the present values of the whole store as [`Cask::compact_to`] does, and calls `progress` as
    /// [`Cask::backup_with`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::backup`], and [`Error::CopyCancelled`] if `progress` breaks.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("caskfile-compact-to-with-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir)?;
    /// # let (path, copy) = (dir.join("store"), dir.join("copy"));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// # cask.put("key", "value")?;
    /// use std::ops::ControlFlow;
    /// use std::time::{Duration, Instant};
    ///
    /// let began = Instant::now();
    /// let backup = cask.compact_to_with(&copy, |_| match began.elapsed() < Duration::from_secs(60) {
    ///     true => ControlFlow::Continue(()),
    ///     false => ControlFlow::Break(()),
    /// })?;
    /// assert_eq!(backup.keys, 1);
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compact_to_with(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Backup> {
        self.engine.maintenance.compact_to(to.as_ref(), &mut progress)
    }
}
