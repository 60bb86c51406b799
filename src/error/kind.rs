//! [`ErrorKind`]: the classes of errors, and what an [`Error`] is as an [`io::Error`].

use std::io;

use super::Error;

/// A class of errors, for programs that need less than the [`Error`]: see [`Error::kind`].
///
/// ```
/// use caskfile::{Error, ErrorKind};
///
/// /// The status that a web service answers with.
/// fn status(error: &Error) -> u16 {
///     match error.kind() {
///         ErrorKind::NotFound => 404,
///         ErrorKind::Conflict => 412,
///         ErrorKind::InvalidInput => 400,
///         ErrorKind::Busy => 503,
///         _ => 500,
///     }
/// }
///
/// assert_eq!(status(&Error::KeyModified), 412);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key is absent: [`Error::KeyNotFound`]. From a conditional write this is a [conflict](Error::is_conflict) as well.
    NotFound,
    /// A condition does not hold: [`Error::KeyExists`], [`Error::KeyModified`], [`Error::BatchConflict`]. Nothing was written.
    Conflict,
    /// An argument is over a limit or not known: [`Error::KeyLength`], [`Error::ValueTooLong`], [`Error::ZeroTtl`], [`Error::BucketTooLong`],
    /// [`Error::BatchTooLarge`], [`Error::BatchInvalid`], [`Error::PreviousNotSpecified`], [`Error::BackendNotSupported`],
    /// [`Error::BackendExists`].
    /// Nothing was written.
    InvalidInput,
    /// Another writer, another compaction or the holder of a lock is in the way: [`Error::LockTimeout`],
    /// [`Error::CompactionOvertaken`], [`Error::TimedOut`]. Nothing was written.
    Busy,
    /// The caller does not have the session or the lock that the call is about: [`Error::SessionOver`], [`Error::NotHeld`],
    /// [`Error::AlreadyHeld`].
    Lock,
    /// The caller has cancelled the call: [`Error::CompactionCancelled`], [`Error::CopyCancelled`], [`Error::Stopped`].
    Cancelled,
    /// The handle, as it is, cannot do this: [`Error::Closed`], [`Error::Forked`], [`Error::ReadOnly`], [`Error::Replaced`],
    /// [`Error::Poisoned`]. The variant says what to do: open or [reopen](crate::Cask::reopen) the store.
    Handle,
    /// The file, as it is, cannot do this: [`Error::Full`], [`Error::CompactionRefused`]. Nothing was written.
    Refused,
    /// Stored bytes are damaged or missing: [`Error::Corrupt`], [`Error::Truncated`], [`Error::Damaged`]. The file was not
    /// changed.
    Corrupt,
    /// The file is not one that this version reads: [`Error::NotCaskfile`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedRecord`]. It was not changed. Or the backend does not have the call: [`Error::CallNotSupported`].
    Unsupported,
    /// A watch cannot go on from its position: [`Error::Compacted`], [`Error::Undone`]. Begin again with a
    /// [snapshot](crate::WatchFrom::Snapshot).
    Lost,
    /// The outcome of the call is not known: [`Error::Indeterminate`]. See [`Error::is_indeterminate`], which is true of
    /// [`Error::Poisoned`] as well.
    Indeterminate,
    /// The operating system refused something: [`Error::Io`], [`Error::NoSessions`].
    Io,
    /// An error of another backend, or a failure of this library: [`Error::Other`].
    Other,
}

impl Error {
    /// Returns the class of the error.
    ///
    /// ```
    /// use caskfile::{Error, ErrorKind};
    ///
    /// assert_eq!(Error::KeyExists.kind(), ErrorKind::Conflict);
    /// assert_eq!(Error::KeyLength { len: 0, max: 65_534 }.kind(), ErrorKind::InvalidInput);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::KeyNotFound => ErrorKind::NotFound,
            Error::KeyExists | Error::KeyModified | Error::BatchConflict { .. } => ErrorKind::Conflict,
            Error::KeyLength { .. }
            | Error::ValueTooLong { .. }
            | Error::ZeroTtl
            | Error::BucketTooLong { .. }
            | Error::BatchTooLarge { .. }
            | Error::BatchInvalid { .. }
            | Error::PreviousNotSpecified
            | Error::BackendNotSupported { .. }
            | Error::BackendExists { .. } => ErrorKind::InvalidInput,
            Error::LockTimeout { .. } | Error::CompactionOvertaken { .. } | Error::TimedOut { .. } => ErrorKind::Busy,
            Error::SessionOver | Error::NotHeld | Error::AlreadyHeld => ErrorKind::Lock,
            Error::CompactionCancelled { .. } | Error::CopyCancelled { .. } | Error::Stopped => ErrorKind::Cancelled,
            Error::Closed
            | Error::Forked { .. }
            | Error::ReadOnly { .. }
            | Error::Replaced { .. }
            | Error::Poisoned { .. } => ErrorKind::Handle,
            Error::Full { .. } | Error::CompactionRefused { .. } => ErrorKind::Refused,
            Error::Corrupt { .. } | Error::Truncated { .. } | Error::Damaged { .. } => ErrorKind::Corrupt,
            Error::NotCaskfile { .. }
            | Error::UnsupportedVersion { .. }
            | Error::UnsupportedRecord { .. }
            | Error::CallNotSupported { .. } => ErrorKind::Unsupported,
            Error::Compacted { .. } | Error::Undone { .. } => ErrorKind::Lost,
            Error::Indeterminate { .. } => ErrorKind::Indeterminate,
            Error::Io { .. } | Error::NoSessions { .. } => ErrorKind::Io,
            Error::Other(_) => ErrorKind::Other,
        }
    }

    /// Returns whether a conditional write was refused because the store is not as the caller expected. Nothing was written:
    /// read again and decide again.
    ///
    /// True of [`Error::KeyNotFound`] too, whose [`kind`](Error::kind) is [`ErrorKind::NotFound`]: from a conditional write it
    /// says that the key was deleted meanwhile, so the caller decides again as after any other change. From a read it says only
    /// that the key is absent. To tell "absent" from "changed", match on the variant, or ask for the kind first.
    ///
    /// The others are [`Error::KeyModified`], [`Error::KeyExists`] and [`Error::BatchConflict`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-is-conflict-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let seen = cask.put("job", "waiting")?;
    /// cask.delete("job")?; // by another worker, say
    /// match cask.put_if("job", "mine", seen) {
    ///     Ok(_) => unreachable!(),
    ///     Err(error) if error.is_conflict() => println!("another worker has it"),
    ///     Err(error) => return Err(error),
    /// }
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_conflict(&self) -> bool {
        matches!(self.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
    }

    /// Returns whether the same call may succeed later, although no person and no other call has changed anything: what was in
    /// the way passes by itself. Nothing was written.
    ///
    /// True of [`Error::LockTimeout`], [`Error::CompactionOvertaken`], [`Error::TimedOut`], and of [`Error::Io`] of the kinds `Interrupted`,
    /// `WouldBlock`, `TimedOut` and `ResourceBusy`. Not of a full disk, which needs somebody to make room, nor of
    /// [`Error::Poisoned`], which needs [`Cask::reopen`](crate::Cask::reopen), nor of a [conflict](Error::is_conflict), which
    /// needs a new decision.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-is-retryable-{}", std::process::id()));
    /// use std::time::Duration;
    ///
    /// use caskfile::{Cask, Config, LockMode};
    ///
    /// let owner = Cask::open_with(&path, &Config::new().lock_mode(LockMode::Exclusive))?;
    /// let error = Cask::open_with(&path, &Config::new().connection_timeout(Duration::ZERO)).unwrap_err();
    /// assert!(error.is_retryable());
    /// # drop(owner);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::ResourceBusy
            ),
            error => error.kind() == ErrorKind::Busy,
        }
    }

    /// Returns whether the outcome of the call is not known: what it was to do may have happened, or may still happen. True of
    /// [`Error::Indeterminate`] and [`Error::Poisoned`], which both say what to do. (A handle that is poisoned refuses later calls with
    /// the same error, although they write nothing.) After every other error of a call that makes one change or one batch, nothing was
    /// written, unless the error says so. Calls that delete very many keys do it piece by piece, and say what an error leaves.
    ///
    /// ```
    /// use std::io::{Error as IoError, ErrorKind};
    ///
    /// use caskfile::Error;
    ///
    /// assert!(Error::indeterminate("put", IoError::from(ErrorKind::ConnectionReset)).is_indeterminate());
    /// assert!(!Error::KeyModified.is_indeterminate());
    /// ```
    pub fn is_indeterminate(&self) -> bool {
        matches!(self, Error::Indeterminate { .. } | Error::Poisoned { .. })
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Error::Io { source, .. } => source.kind(),
            Error::Poisoned { cause, .. } => cause.kind(),
            Error::KeyExists | Error::BackendExists { .. } => io::ErrorKind::AlreadyExists,
            Error::ReadOnly { .. } => io::ErrorKind::PermissionDenied,
            Error::LockTimeout { .. } | Error::TimedOut { .. } => io::ErrorKind::TimedOut,
            Error::NoSessions { cause } => cause.kind(),
            Error::CompactionOvertaken { .. } => io::ErrorKind::ResourceBusy,
            Error::Full { .. } => io::ErrorKind::FileTooLarge,
            Error::BackendNotSupported { .. }
            | Error::CallNotSupported { .. }
            | Error::UnsupportedVersion { .. }
            | Error::UnsupportedRecord { .. } => io::ErrorKind::Unsupported,
            Error::Other(inner) | Error::Indeterminate { cause: inner, .. } => {
                inner.downcast_ref::<io::Error>().map_or(io::ErrorKind::Other, io::Error::kind)
            }
            error => match error.kind() {
                ErrorKind::NotFound => io::ErrorKind::NotFound,
                ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
                ErrorKind::Corrupt | ErrorKind::Unsupported => io::ErrorKind::InvalidData,
                // `Interrupted` would say "try again" to the standard library.
                _ => io::ErrorKind::Other,
            },
        }
    }
}

/// Wraps the error. [`io::Error::kind`] is that of the operating system's error, if there is one. Otherwise it is the
/// nearest one: `NotFound` for [`Error::KeyNotFound`], `AlreadyExists` for [`Error::KeyExists`], `TimedOut` for
/// [`Error::LockTimeout`], `InvalidInput` for an argument over a limit, `InvalidData` for damage, `Other` for the rest.
///
/// [`io::Error::get_ref`] and `downcast_ref` return the [`Error`] again.
///
/// ```
/// use std::io;
///
/// fn load() -> io::Result<Vec<u8>> {
///     Ok(caskfile::Cask::open("/no/such/directory/store")?.get("state")?.value)
/// }
///
/// let error = load().unwrap_err();
/// assert_eq!(error.kind(), io::ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "/no/such/directory/store: cannot resolve");
/// assert!(error.get_ref().is_some_and(|inner| inner.is::<caskfile::Error>()));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.io_kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::format::Damage;

    /// Every variant, its class, and its kind as an I/O error.
    fn all() -> Vec<(Error, ErrorKind, io::ErrorKind)> {
        use ErrorKind as K;
        use io::ErrorKind as I;
        let path = || PathBuf::from("store");
        let eio = || Arc::new(io::Error::from_raw_os_error(libc::ENOSPC));
        vec![
            (Error::KeyNotFound, K::NotFound, I::NotFound),
            (Error::KeyExists, K::Conflict, I::AlreadyExists),
            (Error::KeyModified, K::Conflict, I::Other),
            (Error::BatchConflict { op: 0, cause: Box::new(Error::KeyNotFound) }, K::Conflict, I::Other),
            (Error::PreviousNotSpecified, K::InvalidInput, I::InvalidInput),
            (Error::BackendNotSupported { name: "x".into(), supported: "y".into() }, K::InvalidInput, I::Unsupported),
            (Error::BackendExists { name: "x".into() }, K::InvalidInput, I::AlreadyExists),
            (Error::CallNotSupported { call: "watch" }, K::Unsupported, I::Unsupported),
            (Error::KeyLength { len: 0, max: 1 }, K::InvalidInput, I::InvalidInput),
            (Error::ValueTooLong { len: 2, max: 1 }, K::InvalidInput, I::InvalidInput),
            (Error::ZeroTtl, K::InvalidInput, I::InvalidInput),
            (Error::BucketTooLong { len: 2, max: 1 }, K::InvalidInput, I::InvalidInput),
            (Error::BatchTooLarge { what: "bytes", len: 2, max: 1 }, K::InvalidInput, I::InvalidInput),
            (Error::BatchInvalid { op: 0, cause: Box::new(Error::KeyExists) }, K::InvalidInput, I::InvalidInput),
            (Error::LockTimeout { path: path(), waited: Duration::ZERO, holder: None }, K::Busy, I::TimedOut),
            (Error::CompactionOvertaken { path: path() }, K::Busy, I::ResourceBusy),
            (Error::CompactionCancelled { path: path() }, K::Cancelled, I::Other),
            (Error::CopyCancelled { path: path() }, K::Cancelled, I::Other),
            (Error::Compacted { path: path(), position: 1, oldest: 2 }, K::Lost, I::Other),
            (Error::Undone { path: path(), position: 2, last: 1 }, K::Lost, I::Other),
            (Error::Stopped, K::Cancelled, I::Other),
            (Error::SessionOver, K::Lock, I::Other),
            (Error::NotHeld, K::Lock, I::Other),
            (Error::AlreadyHeld, K::Lock, I::Other),
            (Error::TimedOut { waited: Duration::ZERO }, K::Busy, I::TimedOut),
            (Error::NoSessions { cause: eio() }, K::Io, I::StorageFull),
            (Error::indeterminate("put", io::Error::from(I::ConnectionReset)), K::Indeterminate, I::ConnectionReset),
            (Error::indeterminate("put", Error::Closed), K::Indeterminate, I::Other),
            (Error::Closed, K::Handle, I::Other),
            (Error::Forked { path: path() }, K::Handle, I::Other),
            (Error::ReadOnly { path: path() }, K::Handle, I::PermissionDenied),
            (Error::Replaced { path: path() }, K::Handle, I::Other),
            (Error::Poisoned { path: path(), operation: "sync", cause: eio() }, K::Handle, I::StorageFull),
            (Error::Full { path: path(), what: "it is" }, K::Refused, I::FileTooLarge),
            (Error::CompactionRefused { path: path(), reason: "it is".into() }, K::Refused, I::Other),
            (Error::Corrupt { path: path(), offset: 0, damage: Damage::Zeros }, K::Corrupt, I::InvalidData),
            (Error::Truncated { path: path(), log_end: 0, stated: 0, len: 0 }, K::Corrupt, I::InvalidData),
            (Error::Damaged { path: path(), report: Arc::default() }, K::Corrupt, I::InvalidData),
            (Error::NotCaskfile { path: path(), reason: "text" }, K::Unsupported, I::InvalidData),
            (Error::UnsupportedVersion { path: path(), major: 2, minor: 0 }, K::Unsupported, I::Unsupported),
            (Error::UnsupportedRecord { path: path(), offset: 0, kind: 9, flags: 0 }, K::Unsupported, I::Unsupported),
            (Error::Io { operation: "append", path: path(), source: eio() }, K::Io, I::StorageFull),
            (Error::internal("wrong"), K::Other, I::Other),
            (Error::other(io::Error::from(I::BrokenPipe)), K::Other, I::BrokenPipe),
        ]
    }

    #[test]
    fn every_error_has_its_class_and_keeps_its_kind_as_an_io_error() {
        for (error, kind, io_kind) in all() {
            assert_eq!(error.kind(), kind, "{error:?}");
            let wrapped = io::Error::from(error.clone());
            assert_eq!(wrapped.kind(), io_kind, "{error:?}");
            assert_eq!([wrapped.to_string(), format!("{wrapped:#}")], [error.to_string(), format!("{error:#}")]);
            let inner = wrapped.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            assert_eq!(format!("{inner:?}"), format!("{:?}", Some(&error)));
        }
    }

    #[test]
    fn a_conflict_asks_for_a_new_decision_and_a_retry_for_patience() {
        for (error, ..) in all() {
            let conflict = matches!(
                error,
                Error::KeyNotFound | Error::KeyExists | Error::KeyModified | Error::BatchConflict { .. }
            );
            let passes =
                matches!(error, Error::LockTimeout { .. } | Error::CompactionOvertaken { .. } | Error::TimedOut { .. });
            assert_eq!((error.is_conflict(), error.is_retryable()), (conflict, passes), "{error:?}");
            let unknown = matches!(error, Error::Poisoned { .. } | Error::Indeterminate { .. });
            assert_eq!(error.is_indeterminate(), unknown, "{error:?}");
        }
        for (code, passes) in [(libc::EINTR, true), (libc::EBUSY, true), (libc::ENOSPC, false), (libc::EIO, false)] {
            let error = Error::io("open", "store".as_ref(), io::Error::from_raw_os_error(code));
            assert_eq!(error.is_retryable(), passes, "{error:#}");
        }
    }
}
