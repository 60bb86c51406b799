//! [`Error`] and [`Result`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::format::{Damage, KeyFault};
use crate::report::Report;

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, one variant a cause.
///
/// The contract's own errors ([`KeyNotFound`](Error::KeyNotFound), [`KeyExists`](Error::KeyExists),
/// [`KeyModified`](Error::KeyModified), [`PreviousNotSpecified`](Error::PreviousNotSpecified),
/// [`Closed`](Error::Closed)) carry nothing, so that a miss allocates nothing. The others carry what is needed to
/// act: the file, the place in it, what was expected and what was found. Cloning is cheap: one failed sync is
/// reported to every caller that waited for it.
///
/// `{}` says what failed and where. Why it failed, if another error is the cause, is
/// [`source`](std::error::Error::source), and `{:#}` prints both: errors and their causes, separated by colons.
///
/// ```
/// use std::error::Error as _;
///
/// let error = caskfile::Cask::open("/no/such/directory/store").unwrap_err();
/// assert_eq!(error.to_string(), "/no/such/directory/store: cannot resolve");
/// assert!(format!("{error:#}").starts_with("/no/such/directory/store: cannot resolve: No such file"));
/// let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
/// assert_eq!(cause.unwrap().kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The key is not in the store.
    KeyNotFound,

    /// `atomic_put` was to create the key, and it is there already.
    KeyExists,

    /// The key was changed since the pair given as `previous` was read: read it again and decide anew.
    KeyModified,

    /// `atomic_delete` needs the pair that was read before.
    PreviousNotSpecified,

    /// This handle, or a clone of it, was closed.
    Closed,

    /// No backend has this name.
    BackendNotSupported {
        /// The name that was asked for.
        name: String,
        /// The names that would have worked, separated by commas.
        supported: &'static str,
    },

    /// Another writer held the file's lock for the whole connection timeout. Nothing was written. Try again, or
    /// raise [`Config::connection_timeout`](crate::Config::connection_timeout).
    LockTimeout {
        /// The store's file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// The id of the process that has the lock, where the system tells. It may be this process: another thread, or
        /// another handle. `None` if the process is in another PID namespace, has just given the lock up, or took it as a
        /// parent that has ended since. The lock may have passed on by the time when this is read.
        holder: Option<u32>,
    },

    /// Bytes that had been written correctly are damaged. The file was not changed. [`salvage`](crate::salvage)
    /// copies what can still be read to a new file.
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// Where the damaged record or header starts, in bytes from the start of the file.
        offset: u64,
        /// What does not hold there.
        damage: Damage,
    },

    /// Verification has found damage to bytes that had been written correctly, or bytes that the disk cannot read. The file was not changed.
    /// [`salvage`](crate::salvage) copies what can still be read to a new file.
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// Everything that is damaged, and what is not.
        report: Arc<Report>,
    },

    /// A sync, a write-back or a cut of this handle failed, so what is on stable storage is unknown. Reads go on; every
    /// write is refused until [`Cask::reopen`](crate::Cask::reopen) has succeeded, or the store is opened anew.
    ///
    /// What the application must assume of a write that got this error: nothing. It may be there or not; readers may
    /// have seen it, also in other processes, and it may be gone once the system has dropped what it could not write.
    /// After reopening, read what is there, and write again what has to be: a write that returns then has brought
    /// everything before it to stable storage. Writes that were acknowledged before, with
    /// [`Durability::Sync`](crate::Durability::Sync), are safe. With `Interval` and `Os`, those since the last
    /// successful sync are as unsure as the failed one.
    Poisoned {
        /// The store's file.
        path: PathBuf,
        /// What failed.
        operation: &'static str,
        /// The operating system's error.
        cause: Arc<io::Error>,
    },

    /// Somebody moved, removed or replaced the file under this handle. Nothing was written.
    /// [`Cask::reopen`](crate::Cask::reopen) goes on with the file that has the path now.
    ///
    /// Reads and openings return it too where the path leads to a file that has no name any more: a mount of that single
    /// file is left when another program compacts or replaces it. Mount the file again, or its directory in its place.
    Replaced {
        /// The path at which the store was opened.
        path: PathBuf,
    },

    /// A write on a handle that was opened with [`Config::read_only`](crate::Config::read_only).
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },

    /// The file is not a caskfile. It was not changed.
    NotCaskfile {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: &'static str,
    },

    /// The file was written by a newer major version of the format. It was not changed.
    UnsupportedVersion {
        /// The store's file.
        path: PathBuf,
        /// The file's major version.
        major: u16,
        /// The file's minor version.
        minor: u16,
    },

    /// A record that is whole has a kind or a flag that this version does not know and may not skip.
    UnsupportedRecord {
        /// The store's file.
        path: PathBuf,
        /// Where the record starts.
        offset: u64,
        /// Its kind.
        kind: u8,
        /// Its flags.
        flags: u8,
    },

    /// The key is empty or longer than the format allows in this bucket. Nothing was written.
    KeyLength {
        /// The key's length in bytes.
        len: usize,
        /// The longest key that this bucket takes, in bytes.
        max: usize,
    },

    /// The value is longer than the format allows. Nothing was written.
    ValueTooLong {
        /// The value's length in bytes.
        len: usize,
        /// The longest value, in bytes.
        max: usize,
    },

    /// The bucket's name is longer than the format allows.
    BucketTooLong {
        /// The name's length in bytes.
        len: usize,
        /// The longest name, in bytes.
        max: usize,
    },

    /// The batch is larger than one atomic write can be. Nothing was written.
    BatchTooLarge {
        /// What there are too many of: `"operations"` or `"bytes"`.
        what: &'static str,
        /// How many the batch has.
        len: u64,
        /// How many it may have.
        max: u64,
    },

    /// An operation of the batch has a key, a value or a bucket's name that the format does not allow. Nothing was written.
    BatchInvalid {
        /// Which operation, counted from 0 in the order in which they were added.
        op: usize,
        /// [`KeyLength`](Error::KeyLength), [`ValueTooLong`](Error::ValueTooLong) or
        /// [`BucketTooLong`](Error::BucketTooLong).
        cause: Box<Error>,
    },

    /// A condition of the batch does not hold. Nothing of the batch was written.
    BatchConflict {
        /// Which operation, counted from 0 in the order in which they were added.
        op: usize,
        /// [`KeyNotFound`](Error::KeyNotFound), [`KeyModified`](Error::KeyModified) or [`KeyExists`](Error::KeyExists).
        cause: Box<Error>,
    },

    /// The file cannot be compacted as it is. Nothing was changed.
    CompactionRefused {
        /// The store's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// Another compaction of the same store, in this process or another, was under way or was faster, or the log was
    /// recovered meanwhile. Nothing was changed by this one. Call again if it still seems worth while.
    CompactionOvertaken {
        /// The store's file.
        path: PathBuf,
    },

    /// The compaction was told to stop. Nothing was changed.
    CompactionCancelled {
        /// The store's file.
        path: PathBuf,
    },

    /// A backup or a salvage was told to stop. The new file was not made, and nothing is left of it.
    CopyCancelled {
        /// The file that was to be made.
        path: PathBuf,
    },

    /// The log has reached the largest size, or the largest index, that the format can express. Compaction makes room
    /// for more records.
    Full {
        /// The store's file.
        path: PathBuf,
        /// Which limit was reached.
        what: &'static str,
    },

    /// A call in a child process on a handle that its parent opened before the fork. Open the store in the child.
    ///
    /// That goes for reads as well: what another thread of the parent had locked at the moment of the fork stays locked in
    /// the child, and a read could wait for it for ever. What was read before the fork, scans under way included, can be
    /// used. So can [`Cask::close`](crate::Cask::close), which lets go of the child's copy and of nothing that is the
    /// parent's.
    Forked {
        /// The store's file.
        path: PathBuf,
    },

    /// The operating system refused something.
    Io {
        /// What was being done, for example `"open"` or `"append"`.
        operation: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// An error of a foreign implementation of [`Store`](crate::Store), or a failure of this library itself, which the text
    /// of `{}` describes.
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The one line of `{}`, without the cause that [`source`](std::error::Error::source) returns.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::KeyNotFound => f.write_str("key not found"),
            Error::KeyExists => f.write_str("key exists already"),
            Error::KeyModified => f.write_str("key was modified since it was read"),
            Error::PreviousNotSpecified => f.write_str("atomic_delete needs the previous pair, and none was given"),
            Error::Closed => f.write_str("the store is closed"),
            Error::BackendNotSupported { name, supported } => {
                write!(f, "backend {name:?} is not supported; supported backends: {supported}")
            }
            Error::KeyLength { len, max } => write!(f, "a key has 1 to {max} bytes in this bucket, this one has {len}"),
            Error::ValueTooLong { len, max } => write!(f, "a value has at most {max} bytes, this one has {len}"),
            Error::BucketTooLong { len, max } => {
                write!(f, "a bucket's name has at most {max} bytes, this one has {len}")
            }
            Error::BatchTooLarge { what, len, max } => {
                write!(f, "a batch has at most {max} {what}, this one has {len}")
            }
            Error::BatchInvalid { op, cause } | Error::BatchConflict { op, cause } => {
                write!(f, "operation {op} of the batch: {cause}")
            }
            Error::Other(error) => match error.downcast_ref::<Internal>() {
                Some(Internal(message)) => f.write_str(message),
                None => f.write_str("the backend failed"),
            },
            Error::LockTimeout { path, waited, holder } => {
                let by = named(*holder);
                about(f, path, format_args!("still locked by another writer{by} after {waited:?}; nothing was written"))
            }
            Error::Corrupt { path, offset, damage } => {
                about(f, path, format_args!("corrupt at offset {offset}: {damage}; {UNCHANGED}"))
            }
            Error::Damaged { path, report } => about(f, path, format_args!("{report}\n{UNCHANGED}")),
            Error::Poisoned { path, operation, .. } => {
                about(f, path, format_args!("reopen the store: writes are refused since a {operation} failed"))
            }
            Error::Replaced { path } => about(
                f,
                path,
                format_args!(
                    "the file was moved, removed or replaced by someone else; nothing was written, open it again"
                ),
            ),
            Error::ReadOnly { path } => about(f, path, format_args!("opened read-only")),
            Error::NotCaskfile { path, reason } => {
                about(f, path, format_args!("not a caskfile: {reason}; the file is unchanged"))
            }
            Error::UnsupportedVersion { path, major, minor } => {
                let known = crate::format::MAJOR_VERSION;
                let newer = format_args!("format version {major}.{minor} is newer than this library's {known}.x");
                about(f, path, format_args!("{newer}; open it with a newer caskfile"))
            }
            Error::UnsupportedRecord { path, offset, kind, flags } => {
                let record = format_args!("the record at offset {offset} has kind {kind:#04x} and flags {flags:#04x}");
                about(
                    f,
                    path,
                    format_args!("{record}, which this version does not know; open it with a newer caskfile"),
                )
            }
            Error::CompactionRefused { path, reason } => about(f, path, format_args!("not compacted: {reason}")),
            Error::CompactionOvertaken { path } => {
                about(f, path, format_args!("not compacted: another compaction or a recovery of it was under way"))
            }
            Error::CompactionCancelled { path } => {
                about(f, path, format_args!("compaction was cancelled; the store is as it was"))
            }
            Error::CopyCancelled { path } => about(f, path, format_args!("the copy was cancelled; nothing was made")),
            Error::Full { path, what } => about(f, path, format_args!("the log is full: {what}")),
            Error::Forked { path } => {
                about(f, path, format_args!("this handle belongs to the parent process; open the store in this one"))
            }
            Error::Io { operation, path, .. } => about(f, path, format_args!("cannot {operation}")),
        }
    }
}

const UNCHANGED: &str = "the file is unchanged, salvage copies what still verifies to a new file";

fn about(f: &mut fmt::Formatter<'_>, path: &Path, what: fmt::Arguments<'_>) -> fmt::Result {
    write!(f, "{}: {what}", path.display())
}

impl From<KeyFault> for Error {
    fn from(fault: KeyFault) -> Error {
        match fault {
            KeyFault::BucketTooLong { len, max } => Error::BucketTooLong { len, max },
            KeyFault::KeyLength { len, max } => Error::KeyLength { len, max },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)?;
        if f.alternate() {
            let mut cause = std::error::Error::source(self);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

// Written by hand: the derived `source` returns the `Arc`, which cannot be downcast to `io::Error`.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(&**source),
            Error::Poisoned { cause, .. } => Some(&**cause),
            Error::Other(error) if error.is::<Internal>() => None,
            Error::Other(error) => Some(&**error),
            _ => None,
        }
    }
}

/// A failure of this library itself, which has no other error as its cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Internal(String);

fn named(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |process| format!(" (process {process})"))
}

impl Error {
    /// Wraps an error of a foreign implementation of [`Store`](crate::Store).
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Other(Arc::new(error))
    }

    pub(crate) fn internal(message: impl Into<String>) -> Error {
        Error::other(Internal(message.into()))
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_cause_of_an_error_is_its_source_and_stands_in_its_text_once_at_most() {
        let cause = || io::Error::from_raw_os_error(libc::EIO);
        let text = cause().to_string();
        let poisoned = Error::Poisoned { path: "store".into(), operation: "sync", cause: Arc::new(cause()) };
        for error in [Error::io("open", Path::new("store"), cause()), poisoned, Error::other(cause())] {
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.and_then(io::Error::raw_os_error), Some(libc::EIO), "{error:?}");
            assert!(!error.to_string().contains(&text), "{error}");
            assert_eq!(format!("{error:#}"), format!("{error}: {text}"));
            // An error inside of another one, as when a handle is poisoned since the log cannot be read.
            let outer = Error::io("look", Path::new("store"), io::Error::other(error.clone()));
            assert_eq!(format!("{outer:#}"), format!("store: cannot look: {error}: {text}"));
        }
    }

    #[test]
    fn a_failure_of_the_library_says_what_has_failed_and_blames_no_backend() {
        let error = Error::internal("the index is wrong");
        assert_eq!([error.to_string(), format!("{error:#}")], ["the index is wrong", "the index is wrong"]);
        assert!(error.source().is_none());
    }

    #[test]
    fn an_error_can_be_sent_and_shared() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<Error>();
    }
}
