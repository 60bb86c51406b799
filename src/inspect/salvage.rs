//! [`salvage`]: copies what can still be read of a damaged file to a new one.

use std::ops::ControlFlow;
use std::path::Path;

use super::source::Source;
use super::survey::{Scope, Survey};
use crate::disk::{Disk, RealDisk};
use crate::events::event;
use crate::log::copy::write_live;
use crate::log::install::{above_all_seqs, install};
use crate::progress::{Copying, Progress, Watch};
use crate::report::Report;
use crate::{Error, Result};

/// Copies every pair that can still be read and verified from a damaged store to a new one, and returns a [`Report`].
///
/// The source is opened read-only, without a lock, and never changed. The new file appears at the end, complete and
/// synced. The report names every lost range of the file, the keys in it that can still be read, and the batches.
///
/// - Of each key, the newest value that verifies is kept. So a key whose newest record is lost goes back to an older
///   value, and a key whose tombstone is lost comes back.
/// - The newest record that verifies of each session is kept. So a session whose end is lost is over only at its deadline, or
///   after one time to live.
/// - Of a batch that damage cuts in two, the parts that verify are kept.
/// - A batch at the file's end that nothing proves to have been whole is left out.
///   [`Report::unfinished_records`] is the number of its whole records, and [`salvage_unfinished`] copies them. If the
///   file is a copy whose end is missing, the batch had been whole, and the rest of it is kept.
/// - Of a file that has lost its end ([`Error::Truncated`]), everything that is left is copied. [`Report::truncated`] and
///   [`Report::cut_off`] say that the end is missing.
/// - Whole records after a torn tail, which opening would cut off, are copied.
/// - Bytes that the disk cannot read (`EIO`) are lost, and [`Report::unreadable`] names them. Another run, perhaps on a
///   copy of the disk, may get more.
/// - The file header may be lost, if two records are whole: they show the file's identity.
///
/// Pairs keep their `last_index`. The new file assigns only higher ones, higher than those of the lost records too. So a
/// compare-and-swap with a pair that was read before the damage is refused, as it should be.
///
/// # Cost
///
/// The source is read once, and its live records once more; those are written. Memory for the index of the keys, 10 to 15
/// bytes a key, and for the report.
///
/// # Errors
///
/// - [`Error::Io`] of the kind [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if `to` exists: no file is replaced.
/// - [`Error::Io`] of the kind [`StorageFull`](std::io::ErrorKind::StorageFull) if the file system has no room for the
///   new file. This is checked first.
/// - [`Error::NotCaskfile`], or [`Error::Corrupt`] at offset 0, if neither the file header nor the records show the
///   file's identity.
/// - [`Error::UnsupportedVersion`] or [`Error::UnsupportedRecord`] for a file of a later version.
/// - [`Error::Io`] otherwise.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-salvage-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let (damaged, rescued) = (dir.join("damaged"), dir.join("rescued"));
/// # let cask = caskfile::Cask::open(&damaged)?;
/// # cask.put("first", "1")?;
/// # cask.put("second", "2")?;
/// # cask.close()?;
/// # let mut bytes = std::fs::read(&damaged)?;
/// # let at = bytes.windows(6).position(|w| w == b"first1").unwrap();
/// # bytes[at + 5] = b'7';
/// # std::fs::write(&damaged, bytes)?;
/// use caskfile::{Cask, Error};
///
/// assert!(matches!(Cask::open(&damaged), Err(Error::Corrupt { .. })));
/// let report = caskfile::salvage(&damaged, &rescued)?;
/// assert_eq!((report.keys, report.losses.len()), (1, 1));
/// assert_eq!(report.losses[0].keys[0].key, b"first");
/// assert_eq!(Cask::open(&rescued)?.get("second")?.value, b"2");
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Report> {
    salvage_with(from, to, |_| ControlFlow::Continue(()))
}

/// Copies what can still be read to a new store as [`salvage`] does, and calls `progress` about once a megabyte. If that
/// breaks, the copy is cancelled and removed.
///
/// The first call comes after the source was read and before anything is made. The copy, and with it the progress,
/// starts again if another process has recovered the source meanwhile, or if the disk fails to read what it had read
/// before.
///
/// # Errors
///
/// Those of [`salvage`], and [`Error::CopyCancelled`] if `progress` breaks.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-salvage-with-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let (damaged, rescued) = (dir.join("damaged"), dir.join("rescued"));
/// # caskfile::Cask::open(&damaged)?.put("key", "value")?;
/// use std::ops::ControlFlow;
///
/// let report = caskfile::salvage_with(&damaged, &rescued, |progress| {
///     eprint!("\r{} of {} bytes", progress.done, progress.total);
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(report.keys, 1);
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn salvage_with(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    salvage_watched(&RealDisk, from.as_ref(), to.as_ref(), Scope::Salvaged, &mut progress)
}

/// Copies what can still be read to a new store as [`salvage_with`] does, and also the whole records of a batch that has
/// no end, each as if it stood alone.
///
/// A file that was cut after what its head states ([`Report::synced_to`]), or a copy of it that ran out of space there, may
/// end inside a batch. A crash during a write leaves the same bytes, and then the batch was never acknowledged. The file
/// does not show which it was, so look at what comes back.
///
/// # Errors
///
/// Those of [`salvage_with`].
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-salvage-unfinished-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let (cut, rescued) = (dir.join("cut"), dir.join("rescued"));
/// # let cask = caskfile::Cask::open(dir.join("original"))?;
/// # cask.write(caskfile::Batch::new().put("first", "1").put("second", "2"))?;
/// # // Not closed, which would state that the batch is on stable storage.
/// # let mut bytes = std::fs::read(dir.join("original"))?;
/// # bytes.truncate(bytes.windows(7).position(|w| w == b"second2").unwrap());
/// # std::fs::write(&cut, bytes)?;
/// use std::ops::ControlFlow;
///
/// let report = caskfile::salvage(&cut, dir.join("without"))?;
/// assert_eq!((report.keys, report.unfinished_records()), (0, 1));
/// let report = caskfile::salvage_unfinished(&cut, &rescued, |_| ControlFlow::Continue(()))?;
/// assert_eq!(report.keys, 1);
/// assert_eq!(caskfile::Cask::open(&rescued)?.get("first")?.value, b"1");
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn salvage_unfinished(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    salvage_watched(&RealDisk, from.as_ref(), to.as_ref(), Scope::Unfinished, &mut progress)
}

/// Copies what can still be read to a new store as [`salvage`] does, on another [`Disk`], such as a simulated one.
///
/// # Errors
///
/// Those of [`salvage`], and those of the disk.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-salvage-on-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let (damaged, rescued) = (dir.join("damaged"), dir.join("rescued"));
/// # caskfile::Cask::open(&damaged)?.put("key", "value")?;
/// use caskfile::disk::RealDisk;
///
/// assert!(caskfile::salvage_on(&RealDisk, &damaged, &rescued)?.is_sound());
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(any(test, feature = "testing"))]
pub fn salvage_on(disk: &dyn Disk, from: &Path, to: &Path) -> Result<Report> {
    salvage_watched(disk, from, to, Scope::Salvaged, &mut |_| ControlFlow::Continue(()))
}

fn salvage_watched(disk: &dyn Disk, from: &Path, to: &Path, scope: Scope, watch: &mut Watch<'_>) -> Result<Report> {
    // Before the source is read, so that an error in the name comes at once.
    let to = disk.resolve(to).map_err(|e| Error::io("resolve", to, e))?;
    let source = Source::open(disk, from)?;
    loop {
        let unreadable = source.unreadable();
        let mut survey = Survey::of(&source, scope)?;
        match write_to(disk, &survey, &to, watch) {
            // Another process has recovered the source and cut off records that were copied here; or the disk has failed to
            // read what it had read before.
            Err(Error::Corrupt { .. }) if !survey.is_still_there()? || source.unreadable() != unreadable => {}
            Err(error) => return Err(error),
            Ok(()) => {
                survey.report.unreadable = source.unreadable();
                let (from, report) = (survey.reader.log.path.display(), &survey.report);
                let (keys, lost) = (report.keys, report.losses.len());
                event!(info, "{from}: {keys} keys were salvaged to {}, {lost} ranges are lost", to.display());
                return Ok(survey.report);
            }
        }
    }
}

fn write_to(disk: &dyn Disk, survey: &Survey, to: &Path, watch: &mut Watch<'_>) -> Result<()> {
    let mut positions: Vec<u64> =
        survey.keys.index.positions().chain(survey.keys.lifetimes.sessions.positions()).collect();
    positions.sort_unstable();
    let base_seq = above_all_seqs(survey.last_seq.max(survey.base_seq), survey.reader.log.limits);
    let copying = Copying::new(to, survey.keys.live_bytes(), watch);
    install(disk, copying, &survey.reader.log, base_seq, |next, copying| {
        write_live(next, &survey.reader, &positions, copying)
    })
}
