//! [`BoltError`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::error::ErrorKind;

/// Every way in which reading or importing a BoltDB file can fail.
///
/// `{}` prints what failed and where, and no key, no value and no name of a bucket.
///
/// ```
/// use caskfile::boltdb::{BoltError, BoltFile};
///
/// let error = BoltFile::open("Cargo.toml").unwrap_err();
/// assert!(matches!(error, BoltError::NotBolt { .. }));
/// assert!(error.to_string().starts_with("Cargo.toml: not a BoltDB file"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BoltError {
    /// The operating system refused something.
    Io {
        /// The operation that failed, for example `"open"`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// Another process had the file open for writing, for the whole time that this call may wait.
    Locked {
        /// The file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
    },

    /// The file is not one that this version reads: neither of its meta pages is that of a BoltDB file.
    NotBolt {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },

    /// The file has lost its end.
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// How many bytes its pages take, as its meta page says.
        stated: u64,
    },

    /// The file is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The number of the damaged page.
        page: u64,
        /// Where the damage is, in bytes from the start of the file.
        offset: u64,
        /// What does not hold there.
        reason: String,
    },

    /// The file is whole, and has something that caskfile does not take.
    Refused {
        /// The file.
        path: PathBuf,
        /// The number of the page that has it.
        page: u64,
        /// Where it is, in bytes from the start of the file.
        offset: u64,
        /// What it is.
        reason: String,
    },

    /// The store that the pairs go to has failed.
    Store {
        /// How many pairs are in the store by now. Importing them again does no harm.
        written: u64,
        /// Its error.
        cause: Error,
    },

    /// The import was cancelled by its progress closure.
    Cancelled {
        /// The file.
        path: PathBuf,
        /// How many pairs are in the store by now. Importing them again does no harm.
        written: u64,
    },
}

impl BoltError {
    /// Returns the class of the error: that of the store's own error, if the store has failed. Unlike with an [`Error`], some pairs may
    /// have been written before, if an import has failed.
    ///
    /// ```
    /// use caskfile::ErrorKind;
    /// use caskfile::boltdb::BoltFile;
    ///
    /// assert_eq!(BoltFile::open("Cargo.toml").unwrap_err().kind(), ErrorKind::Unsupported);
    /// assert_eq!(BoltFile::open("no/such/file").unwrap_err().kind(), ErrorKind::Io);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            BoltError::Io { .. } => ErrorKind::Io,
            BoltError::Locked { .. } => ErrorKind::Busy,
            BoltError::NotBolt { .. } => ErrorKind::Unsupported,
            BoltError::Cut { .. } | BoltError::Damaged { .. } => ErrorKind::Corrupt,
            BoltError::Refused { .. } => ErrorKind::InvalidInput,
            BoltError::Store { cause, .. } => cause.kind(),
            BoltError::Cancelled { .. } => ErrorKind::Cancelled,
        }
    }

    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> BoltError {
        BoltError::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }
}

impl fmt::Display for BoltError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoltError::Io { operation, path, .. } => write!(f, "{}: cannot {operation}", path.display()),
            BoltError::Locked { path, waited } => {
                write!(f, "{}: still open for writing in another process after {waited:?}", path.display())
            }
            BoltError::NotBolt { path, reason } => write!(f, "{}: not a BoltDB file: {reason}", path.display()),
            BoltError::Cut { path, len, stated } => {
                write!(f, "{}: its end is missing: it has {len} bytes, and its pages take {stated}", path.display())
            }
            BoltError::Damaged { path, page, offset, reason } => {
                write!(f, "{}: damaged at offset {offset}, in page {page}: {reason}", path.display())
            }
            BoltError::Refused { path, page, offset, reason } => {
                write!(f, "{}: cannot be imported: at offset {offset}, in page {page}: {reason}", path.display())
            }
            BoltError::Store { written, cause } => write!(f, "{cause}; {written} pairs were imported before"),
            BoltError::Cancelled { path, written } => {
                write!(f, "{}: the import was cancelled after {written} pairs", path.display())
            }
        }?;
        let mut cause = std::error::Error::source(self).filter(|_| f.alternate());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for BoltError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BoltError::Io { source, .. } => Some(&**source),
            // Its own line is in that of this error.
            BoltError::Store { cause, .. } => std::error::Error::source(cause),
            _ => None,
        }
    }
}
