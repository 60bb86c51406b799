//! [`salvage`]: what can still be read of a damaged file, copied to a new one.

use std::ops::ControlFlow;
use std::path::Path;

use super::survey::{Scope, Source, Survey};
use crate::disk::{Disk, RealDisk};
use crate::events::event;
use crate::log::copy::write_live;
use crate::log::install::{above_all_seqs, install};
use crate::progress::{Copying, Progress, Watch};
use crate::report::Report;
use crate::{Error, Result};

/// Copies every pair that can still be read and verified from a damaged store to a new one. The source is opened
/// read-only, without a lock, and never changed; the new file appears, complete and synced, only at the end.
///
/// Of each key the newest value that verifies is kept. So a key whose newest record is lost comes back with an older
/// value, and one whose tombstone is lost comes back from the dead; of a batch that the damage cuts in two, the parts
/// that verify are kept. A batch at the file's end that nothing proves to have been whole is left out, as it never
/// happened; [`Report::unfinished_records`] says how many whole records it has, and [`salvage_unfinished`] copies them. If
/// the file is a copy whose end is missing, the batch had been whole, and what is left of it is kept. The [`Report`] names
/// every lost range of the file, the keys in it that can still be read and what became of them, and the batches.
///
/// What the disk fails to read (`EIO`) is lost like what is damaged, and named in the report too: the rest is kept. If
/// [`Report::unreadable`] names anything, another run, on a copy of the disk perhaps, may get more.
///
/// The file header may be lost as well: the records tell which file they belong to, if two of them are whole. Whole
/// records behind a torn tail, which opening would cut off, are copied too.
///
/// Indexes are kept, and the new file's next one is above all of them, those of the lost records included. So a
/// compare-and-swap with a pair that was read before the damage is refused as it should be.
///
/// # Cost
///
/// Reads the source once and the live records once more, and writes those. Memory for the index of its keys, 10 to 15
/// bytes a key, and for the report.
///
/// # Errors
///
/// [`Error::Io`] with [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if `to` exists, which is never replaced, or with
/// [`StorageFull`](std::io::ErrorKind::StorageFull) if the file system has no room for it, which is asked for first;
/// [`Error::NotCaskfile`] or [`Error::Corrupt`] at offset 0 if neither the file header nor the records tell which file
/// this is; [`Error::UnsupportedVersion`] and [`Error::UnsupportedRecord`] for a file of a later version, and I/O
/// errors.
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

/// As [`salvage`], and tells a closure how much of the new file is written, about once a megabyte. If that breaks, it is
/// over, and nothing is left behind.
///
/// It is told for the first time when the source was read and nothing is made yet; and from the beginning once more if
/// somebody has recovered the source meanwhile, or the disk has failed to read what it had read before.
///
/// # Errors
///
/// [`Error::CopyCancelled`] if the closure breaks; else as [`salvage`].
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
    salvage_watched(&RealDisk, from.as_ref(), to.as_ref(), Scope::File, &mut progress)
}

/// As [`salvage_with`], and copies the whole records of a batch that has no end, each as if it stood alone.
///
/// A file that somebody has cut, or a copy of it that ran out of space, may end inside a batch. A crash in the middle of
/// a batch looks the same, and then the batch was never acknowledged: the caller has to know which it was, or to look at
/// what comes back.
///
/// # Errors
///
/// As [`salvage_with`].
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-salvage-unfinished-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let (cut, rescued) = (dir.join("cut"), dir.join("rescued"));
/// # let cask = caskfile::Cask::open(&cut)?;
/// # cask.write(caskfile::Batch::new().put("first", "1").put("second", "2"))?;
/// # cask.close()?;
/// # let mut bytes = std::fs::read(&cut)?;
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

/// As [`salvage`], on a disk of your own making: how this crate's tests cut power and fail calls.
///
/// # Errors
///
/// As [`salvage`], and whatever the disk returns.
pub fn salvage_on(disk: &dyn Disk, from: &Path, to: &Path) -> Result<Report> {
    salvage_watched(disk, from, to, Scope::File, &mut |_| ControlFlow::Continue(()))
}

fn salvage_watched(disk: &dyn Disk, from: &Path, to: &Path, scope: Scope, watch: &mut Watch<'_>) -> Result<Report> {
    // Before the source is read: a name that cannot be is told at once.
    let to = disk.resolve(to).map_err(|e| Error::io("resolve", to, e))?;
    let source = Source::open(disk, from)?;
    loop {
        let unreadable = source.unreadable();
        let mut survey = Survey::of(&source, scope)?;
        match write_to(disk, &survey, &to, watch) {
            // Somebody has recovered the source since, and cut something off that was copied here; or the disk has failed
            // to read what it had read before.
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
    let mut positions: Vec<u64> = survey.index.positions().collect();
    positions.sort_unstable();
    let base_seq = above_all_seqs(survey.last_index.max(survey.base_seq));
    let copying = Copying::new(to, survey.live_bytes, watch);
    install(disk, copying, &survey.reader.log, base_seq, |next, copying| {
        write_live(next, &survey.reader, &positions, copying)
    })
}
