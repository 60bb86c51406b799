//! Verification of a file: all of it is read, and every damaged range is reported.

use std::path::Path;
use std::sync::Arc;

use super::survey::{Scope, Source, Survey};
use crate::disk::{Disk, RealDisk};
use crate::log::LogFile;
use crate::report::Report;
use crate::{Error, Result};

/// Reads a whole file, verifies every record, and reports what [`salvage`](crate::salvage) would find and miss: also of
/// a file that is too damaged to be opened. Changes nothing, takes no lock, and works beside others that write to the
/// file.
///
/// A file that can be opened is better asked with [`Cask::verify`](crate::Cask::verify), which compares the index in
/// memory as well.
///
/// Costs one pass over the file, and memory for the index of its keys.
///
/// # Errors
///
/// [`Error::Damaged`] with the [`Report`] if something is lost that had been on stable storage, or cannot be read from
/// the disk, or if the end of a copy is missing ([`Report::cut_off`]). A torn tail is not an error: the next writer cuts it
/// off. Else as [`salvage`](crate::salvage).
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
/// // Somebody else writes to the file.
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

/// As [`verify`], on a disk of your own making: how this crate's tests cut power and fail calls.
///
/// # Errors
///
/// As [`verify`], and whatever the disk returns.
pub fn verify_on(disk: &dyn Disk, path: &Path) -> Result<Report> {
    let source = Source::open(disk, path)?;
    let mut survey = Survey::of(&source, Scope::File)?;
    survey.report.unreadable = source.unreadable();
    judged(&source.log, survey.report)
}

/// The report, if it is no error.
pub(crate) fn judged(log: &LogFile, report: Report) -> Result<Report> {
    if report.is_sound() { Ok(report) } else { Err(damaged(log, report)) }
}

pub(crate) fn damaged(log: &LogFile, report: Report) -> Error {
    Error::Damaged { path: log.path.to_path_buf(), report: Arc::new(report) }
}
