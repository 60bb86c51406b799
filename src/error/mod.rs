//! [`Error`], [`ErrorKind`] and [`Result`].

mod kind;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use kind::ErrorKind;

use crate::format::{Damage, KeyFault};
use crate::report::Report;

/// The result of every call that can fail.
///
/// ```
/// fn port(cask: &caskfile::Cask) -> caskfile::Result<Vec<u8>> {
///     Ok(cask.get("config/port")?.value)
/// }
/// ```
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which a call can fail: one variant for each cause.
///
/// The errors of the contract ([`KeyNotFound`](Error::KeyNotFound), [`KeyExists`](Error::KeyExists),
/// [`KeyModified`](Error::KeyModified), [`PreviousNotSpecified`](Error::PreviousNotSpecified),
/// [`Closed`](Error::Closed)) have no fields, so a miss allocates nothing. The others have what a program needs to react:
/// the file, the offset, what was expected and what was found. A clone is cheap: one failed sync is returned to every
/// caller that waited for it.
///
/// `{}` prints what failed and where. [`source`](std::error::Error::source) returns the error that caused it, if there is
/// one. `{:#}` prints the error and its causes, separated by colons.
///
/// [`kind`](Error::kind), [`is_conflict`](Error::is_conflict), [`is_retryable`](Error::is_retryable) and
/// [`is_indeterminate`](Error::is_indeterminate) are for programs that do not need the variant, and an error can be converted to an [`io::Error`].
///
/// No error contains a key or a value, so an error can be logged. A key may be a secret, such as the token of a session, and
/// of any length. A program whose keys are harmless adds the key where it makes the call.
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
///
/// # Errors of every call
///
/// Beside the errors that a call's documentation lists, every call on a handle can return
///
/// - [`Closed`](Error::Closed) after the handle was closed, and [`Forked`](Error::Forked) in a forked child;
/// - [`Io`](Error::Io), if the operating system refuses something;
/// - [`Corrupt`](Error::Corrupt), if bytes that it reads are damaged, [`Truncated`](Error::Truncated), if the file has
///   lost its end, and [`UnsupportedRecord`](Error::UnsupportedRecord), if a newer version has written to the file;
/// - [`Replaced`](Error::Replaced), if another program has replaced the file.
///
/// Every write can also return [`LockTimeout`](Error::LockTimeout), [`Poisoned`](Error::Poisoned),
/// [`ReadOnly`](Error::ReadOnly) and [`Full`](Error::Full).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The key is not in the store: from [`get`](crate::Cask::get) and [`get_into`](crate::Cask::get_into), and from
    /// conditional writes that expect a pair: [`put_if`](crate::Cask::put_if), [`delete_if`](crate::Cask::delete_if),
    /// [`atomic_put`](crate::Cask::atomic_put) with a previous pair, [`atomic_delete`](crate::Cask::atomic_delete).
    /// [`OptionalExt::optional`](crate::OptionalExt::optional) turns this into `None`.
    KeyNotFound,

    /// The call creates a key, and the key exists: from [`put_new`](crate::Cask::put_new), and from
    /// [`atomic_put`](crate::Cask::atomic_put) without a previous pair. Nothing was written. As the cause of a
    /// [`BatchConflict`](Error::BatchConflict) also from [`Batch::put_new`](crate::Batch::put_new) and
    /// [`Batch::expect_absent`](crate::Batch::expect_absent).
    KeyExists,

    /// The key was changed after the caller read it: it has another `last_index` than [`put_if`](crate::Cask::put_if) or
    /// [`delete_if`](crate::Cask::delete_if) was given, or the previous pair of [`atomic_put`](crate::Cask::atomic_put) or
    /// [`atomic_delete`](crate::Cask::atomic_delete) has. Nothing was written. Read the key again and decide again. As the cause
    /// of a [`BatchConflict`](Error::BatchConflict) also from the calls of a [`Batch`](crate::Batch) that take a `last_index`.
    KeyModified,

    /// [`atomic_delete`](crate::Cask::atomic_delete) was called without the previous pair.
    PreviousNotSpecified,

    /// This handle was closed, or a clone of it, or one of its buckets.
    Closed,

    /// No backend has this name.
    BackendNotSupported {
        /// The name that was asked for.
        name: String,
        /// The names of the backends, separated by commas: those of this library, and those that were
        /// [registered](crate::register_backend).
        supported: String,
    },

    /// A backend with this name is there already: from [`register_backend`](crate::register_backend). Nothing was changed.
    BackendExists {
        /// The name.
        name: String,
    },

    /// The backend does not have this call: see [`Store`](crate::Store). Nothing was written.
    CallNotSupported {
        /// The name of the method.
        call: &'static str,
    },

    /// Another writer held the file's lock for the whole connection timeout. Nothing was written. Try again, or raise
    /// [`Config::connection_timeout`](crate::Config::connection_timeout).
    LockTimeout {
        /// The store's file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// The id of the process that has the lock, where the system shows it. It may be this process, by another thread or
        /// another handle. `None` if the process is in another PID namespace, has just released the lock, or has ended and
        /// left the lock to a child. Another process may have the lock by now.
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

    /// The file has lost its end: it is shorter than it was when it was synced, or its log ends before that, or the end
    /// of a copy is missing. The file was not changed. Take the whole file from where it came from;
    /// [`salvage`](crate::salvage) copies what is left of it to a new file.
    Truncated {
        /// The store's file.
        path: PathBuf,
        /// Where the log ends in what is left, in bytes from the start of the file; 0 if the file's length alone shows
        /// that its end is missing.
        log_end: u64,
        /// How far the file or its log reached at least, in bytes; 0 for a copy without its closing mark, which does not
        /// show how much is missing.
        stated: u64,
        /// The file's length in bytes.
        len: u64,
    },

    /// Verification has found damage to bytes that had been written correctly, or bytes that the disk cannot read, or a snapshot
    /// of the index that is wrong ([`Report::wrong_snapshot`]). The file was not changed. [`salvage`](crate::salvage) copies
    /// what can still be read to a new file.
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is damaged, and what is not.
        report: Arc<Report>,
    },

    /// A sync, a write-back or a cut of this handle failed, so what is on stable storage is unknown. Reads go on. Every
    /// write is refused, until [`Cask::reopen`](crate::Cask::reopen) succeeds or the store is opened again.
    ///
    /// A write that returned this error may be in the store or not. Readers may have seen it, in other processes too, and it
    /// may be lost when the system drops what it could not write. After reopening, read what is there, and write again
    /// what is needed: when such a write returns, everything before it is on stable storage too. Earlier writes that were
    /// acknowledged with [`Durability::Sync`](crate::Durability::Sync) are safe. With `Interval` and `Os`, those since the
    /// last successful sync are as uncertain as the failed one.
    Poisoned {
        /// The store's file.
        path: PathBuf,
        /// What failed.
        operation: &'static str,
        /// The operating system's error.
        cause: Arc<io::Error>,
    },

    /// Another program moved, removed or replaced the file of this handle. Nothing was written.
    /// [`Cask::reopen`](crate::Cask::reopen) goes on with the file that has the path now.
    ///
    /// Reading and opening return it too, if the path leads to a file without a name: a mount of a single file goes on
    /// showing the old file after another program has compacted or replaced it. Mount the file again, or mount its directory
    /// instead.
    Replaced {
        /// The path at which the store was opened.
        path: PathBuf,
    },

    /// The handle is read-only: it was opened with [`Config::read_only`](crate::Config::read_only).
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

    /// A whole record has a kind or a flag that this version does not know and must not skip.
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
        /// The length of the longest key in this bucket, in bytes.
        max: usize,
    },

    /// The value is longer than the format allows. Nothing was written.
    ValueTooLong {
        /// The value's length in bytes.
        len: usize,
        /// The longest value, in bytes.
        max: usize,
    },

    /// A put asks for a pair that lives for no time: [`PutOptions::ttl`](crate::PutOptions::ttl) of zero. Nothing was written.
    ZeroTtl,

    /// The bucket's name is longer than the format allows.
    BucketTooLong {
        /// The name's length in bytes.
        len: usize,
        /// The longest name, in bytes.
        max: usize,
    },

    /// The batch is larger than one atomic write can be. Nothing was written.
    BatchTooLarge {
        /// Which limit the batch exceeds: `"operations"` or `"bytes"`.
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
        /// [`KeyLength`](Error::KeyLength), [`ValueTooLong`](Error::ValueTooLong), [`ZeroTtl`](Error::ZeroTtl),
        /// [`BucketTooLong`](Error::BucketTooLong), or [`NotHeld`](Error::NotHeld) for a lock of another backend.
        cause: Box<Error>,
    },

    /// A condition of the batch does not hold: [`Cask::write`](crate::Cask::write) returns it. Nothing of the batch was written.
    BatchConflict {
        /// Which operation, counted from 0 in the order in which they were added. Each call on a [`Batch`](crate::Batch) that adds
        /// something adds one.
        op: usize,
        /// [`KeyNotFound`](Error::KeyNotFound), [`KeyModified`](Error::KeyModified), [`KeyExists`](Error::KeyExists) or
        /// [`NotHeld`](Error::NotHeld).
        cause: Box<Error>,
    },

    /// The file cannot be compacted in its present state. Nothing was changed.
    CompactionRefused {
        /// The store's file.
        path: PathBuf,
        /// Why it cannot be compacted.
        reason: String,
    },

    /// Another compaction of the same store, in this process or another, was under way or was faster; or the log was
    /// recovered meanwhile. This compaction has changed nothing. Call again if the store is still due.
    CompactionOvertaken {
        /// The store's file.
        path: PathBuf,
    },

    /// The compaction was cancelled by its progress closure, or because the store was closed. Nothing was changed.
    CompactionCancelled {
        /// The store's file.
        path: PathBuf,
    },

    /// A backup or a salvage was cancelled by its progress closure. The new file was not made, and nothing is left of it.
    CopyCancelled {
        /// The file that was to be made.
        path: PathBuf,
    },

    /// The log has reached the largest size, or the highest sequence number, of the format. Compaction makes room for more
    /// records.
    Full {
        /// The store's file.
        path: PathBuf,
        /// Which limit was reached.
        what: &'static str,
    },

    /// A watch cannot go on: the events after its position are no longer all in the store, because a compaction has left out
    /// those that were overwritten. Read the state of now with [`WatchFrom::Snapshot`](crate::WatchFrom::Snapshot), and go on from
    /// there.
    Compacted {
        /// The store's file.
        path: PathBuf,
        /// The position that the watch was to go on from.
        position: u64,
        /// The lowest position from which a watch can begin.
        oldest: u64,
    },

    /// A watch cannot go on: the event at its position is not in the store. The write was never durable, and a power cut or a
    /// failed disk has taken it back, or the position is not that of an event. A restored backup gives
    /// [`Compacted`](Error::Compacted). After a restore with `cp` or a snapshot of the file system, positions of before mean nothing,
    /// and may be served: begin with a snapshot then. What
    /// the caller has learned since may be wrong: read the state of now with [`WatchFrom::Snapshot`](crate::WatchFrom::Snapshot).
    Undone {
        /// The store's file.
        path: PathBuf,
        /// The position of the event that is missing.
        position: u64,
        /// The position of the last event before it that is there.
        last: u64,
    },

    /// The watch, the feed or the wait for a lock was stopped by its [`Stopper`](crate::Stopper).
    Stopped,

    /// The session is over: it was not renewed in time, or another process has found its owner gone. Its keys are hidden or removed.
    /// A pair that this call was to write is not in the store, or is hidden for good.
    SessionOver,

    /// The lock is not held: it was lost, released or taken over. Nothing was written. As the cause of a
    /// [`BatchConflict`](Error::BatchConflict) from [`Batch::expect_held`](crate::Batch::expect_held).
    NotHeld,

    /// The lock is held already, through this [`Lock`](crate::Lock) or [`CaskLock`](crate::CaskLock).
    AlreadyHeld,

    /// The lock was held by others for the whole time that the caller wanted to wait.
    TimedOut {
        /// How long the call waited.
        waited: Duration,
    },

    /// The system has no sessions to offer: it does not say which machine and which boot this is, or the process and its children
    /// have different time namespaces, so that one clock would mean two times.
    NoSessions {
        /// What the system said.
        cause: Arc<io::Error>,
    },

    /// The outcome of a call is not known: from backends that ask a server. What the call was to do may have happened, may still happen
    /// some time later, or never. Nothing was repeated, since that could do it twice. Read what is there before deciding again. A
    /// conditional write can be repeated: if the first one has happened, the condition does not hold any more, so a refusal does not say
    /// by whom the pair was changed.
    Indeterminate {
        /// The name of the method.
        call: &'static str,
        /// What is known, such as that the connection was lost.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// The call is made in a child process, on a handle that its parent opened before the fork. Open the store in the
    /// child.
    ///
    /// Reads are refused too: a lock that another thread of the parent held at the fork stays locked in the child, so a read
    /// could wait for ever. What was read before the fork can be used, scans under way included. So can
    /// [`Cask::close`](crate::Cask::close), which closes the child's copy of the handle and does not affect the parent.
    Forked {
        /// The store's file.
        path: PathBuf,
    },

    /// The operating system refused something.
    Io {
        /// The operation that failed, for example `"open"` or `"append"`.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// An error of another implementation of [`Store`](crate::Store): see [`Error::other`]. Or a failure of this library,
    /// which `{}` describes.
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl From<KeyFault> for Error {
    fn from(fault: KeyFault) -> Error {
        match fault {
            KeyFault::BucketTooLong { len, max } => Error::BucketTooLong { len, max },
            KeyFault::KeyLength { len, max } => Error::KeyLength { len, max },
        }
    }
}

// Written by hand: the derived `source` returns the `Arc`, which cannot be downcast to `io::Error`.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(&**source),
            Error::Poisoned { cause, .. } | Error::NoSessions { cause } => Some(&**cause),
            Error::Indeterminate { cause, .. } => Some(&**cause),
            Error::Other(error) if error.is::<Internal>() => None,
            Error::Other(error) => Some(&**error),
            _ => None,
        }
    }
}

/// A failure of this library itself, without another error as its cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Internal(String);

impl Error {
    /// Wraps an error of another implementation of [`Store`](crate::Store).
    ///
    /// ```
    /// use std::error::Error as _;
    ///
    /// use caskfile::Error;
    ///
    /// let error = Error::other(std::io::Error::other("the server is gone"));
    /// assert_eq!(format!("{error:#}"), "the backend failed: the server is gone");
    /// assert!(error.source().is_some_and(|source| source.is::<std::io::Error>()));
    /// ```
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Other(Arc::new(error))
    }

    /// Returns the error of a call whose outcome is not known, for another implementation of [`Store`](crate::Store): see
    /// [`Error::Indeterminate`].
    ///
    /// ```
    /// use caskfile::Error;
    ///
    /// let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    /// let error = Error::indeterminate("put", lost);
    /// assert!(error.is_indeterminate() && !error.is_retryable());
    /// assert!(error.to_string().starts_with("it is not known whether this put has happened"));
    /// ```
    pub fn indeterminate(call: &'static str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Indeterminate { call, cause: Arc::new(cause) }
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
    fn the_cause_is_the_source_and_is_printed_once() {
        let cause = || io::Error::from_raw_os_error(libc::EIO);
        let text = cause().to_string();
        let poisoned = Error::Poisoned { path: "store".into(), operation: "sync", cause: Arc::new(cause()) };
        for error in [
            Error::io("open", Path::new("store"), cause()),
            poisoned,
            Error::other(cause()),
            Error::NoSessions { cause: Arc::new(cause()) },
            Error::indeterminate("put", cause()),
        ] {
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.and_then(io::Error::raw_os_error), Some(libc::EIO), "{error:?}");
            assert!(!error.to_string().contains(&text), "{error}");
            assert_eq!(format!("{error:#}"), format!("{error}: {text}"));
            // An error inside another one, as when a handle is poisoned because the log cannot be read.
            let outer = Error::io("look", Path::new("store"), io::Error::other(error.clone()));
            assert_eq!(format!("{outer:#}"), format!("store: cannot look: {error}: {text}"));
        }
    }

    #[test]
    fn a_failure_of_the_library_names_no_backend() {
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
