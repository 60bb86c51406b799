//! [`verify`]: reads a whole file and reports every damaged range.

use std::path::Path;
use std::sync::Arc;

use super::source::Source;
use super::survey::{Scope, Survey};
use crate::disk::{Disk, RealDisk};
use crate::log::LogFile;
use crate::report::Report;
use crate::{Error, Result};

/// Returns a [`Report`] on a file: reads all of it, and verifies every record.
///
/// Works on a file that is too damaged to be opened, too. Changes nothing, takes no lock, and works while other processes
/// write to the file. A torn tail is no error, since the next writer cuts it off.
///
/// For a store that is open, [`Cask::verify`](crate::Cask::verify) also compares the index in memory with the file.
///
/// # Cost
///
/// One pass over the file, and memory for the index of its keys, 10 to 15 bytes a key.
///
/// # Errors
///
/// - [`Error::Damaged`] with the [`Report`] if bytes that had been on stable storage do not verify, if the disk cannot
///   read a part of the file, if the end of the file or of a copy is missing ([`Report::truncated`],
///   [`Report::cut_off`]), or if the snapshot of the index is not that of the log ([`Report::wrong_snapshot`]).
/// - [`Error::NotCaskfile`], or [`Error::Corrupt`] at offset 0, if neither the file header nor the records show the
///   file's identity.
/// - [`Error::UnsupportedVersion`] or [`Error::UnsupportedRecord`] for a file of a later version.
/// - [`Error::Io`].
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-verify-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// # cask.put("key", "value")?;
/// # cask.close()?;
/// use caskfile::Error;
///
/// assert_eq!(caskfile::verify(&path)?.keys, 1);
/// # let mut bytes = std::fs::read(&path).unwrap();
/// # let at = bytes.windows(5).position(|w| w == b"value").unwrap();
/// # bytes[at] = b'V';
/// # std::fs::write(&path, bytes).unwrap();
/// // After a bit of the value has changed:
/// match caskfile::verify(&path) {
///     Err(Error::Damaged { report, .. }) => assert_eq!(report.losses[0].keys[0].key, b"key"),
///     other => panic!("{other:?}"),
/// }
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
pub fn verify(path: impl AsRef<Path>) -> Result<Report> {
    verify_on(&RealDisk, path.as_ref())
}

/// Returns a [`Report`] on a file as [`verify`] does, on another [`Disk`], such as a simulated one.
///
/// # Errors
///
/// Those of [`verify`], and those of the disk.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-verify-on-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::disk::RealDisk;
///
/// assert_eq!(caskfile::verify_on(&RealDisk, &path)?.keys, 1);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub fn verify_on(disk: &dyn Disk, path: &Path) -> Result<Report> {
    let source = Source::open(disk, path)?;
    let mut survey = Survey::of(&source, Scope::File)?;
    survey.report.unreadable = source.unreadable();
    judged(&source.log, survey.report)
}

/// The report if the file is sound, else [`Error::Damaged`] with it.
pub(crate) fn judged(log: &LogFile, report: Report) -> Result<Report> {
    if report.is_sound() { Ok(report) } else { Err(damaged(log, report)) }
}

pub(crate) fn damaged(log: &LogFile, report: Report) -> Error {
    Error::Damaged { path: log.path.to_path_buf(), report: Arc::new(report) }
}
