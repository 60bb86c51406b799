//! `Display` of [`Error`].

use std::fmt;
use std::path::Path;

use super::{Error, Internal};

impl Error {
    /// Writes the line of `{}`, without the cause that [`source`](std::error::Error::source) returns.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::KeyNotFound => f.write_str("key not found"),
            Error::KeyExists => f.write_str("key exists already"),
            Error::KeyModified => f.write_str("key was modified since it was read"),
            Error::PreviousNotSpecified => f.write_str("atomic_delete needs the previous pair, and none was given"),
            Error::Closed => f.write_str("the store is closed"),
            Error::Stopped => f.write_str("the watch or the wait was stopped"),
            Error::SessionOver => f.write_str("the session is over"),
            Error::NotHeld => f.write_str("the lock is not held"),
            Error::AlreadyHeld => f.write_str("the lock is held already"),
            Error::TimedOut { waited } => write!(f, "the lock was held by others for {waited:?}"),
            Error::NoSessions { .. } => f.write_str("sessions need to know which machine and which boot this is"),
            Error::Indeterminate { call, .. } => {
                write!(f, "it is not known whether this {call} has happened, or may still happen; read what is there")
            }
            Error::BackendNotSupported { name, supported } => {
                write!(f, "backend {name:?} is not supported; supported backends: {supported}")
            }
            Error::BackendExists { name } => write!(f, "there is a backend {name:?} already"),
            Error::CallNotSupported { call } => write!(f, "this backend does not have the call {call}"),
            Error::KeyLength { len, max } => write!(f, "a key has 1 to {max} bytes in this bucket, this one has {len}"),
            Error::ValueTooLong { len, max } => write!(f, "a value has at most {max} bytes, this one has {len}"),
            Error::ZeroTtl => f.write_str("a time to live must be more than 0; leave it out for a pair that stays"),
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
            Error::Truncated { path, log_end: 0, stated, len } => {
                about(f, path, format_args!("truncated: it has {len} bytes, and had at least {stated}; {INCOMPLETE}"))
            }
            Error::Truncated { path, log_end, stated: 0, .. } => about(
                f,
                path,
                format_args!("truncated: it is a copy without its end; its log ends at {log_end}; {INCOMPLETE}"),
            ),
            Error::Truncated { path, log_end, stated, .. } => about(
                f,
                path,
                format_args!("truncated: its log ends at {log_end}, and had reached {stated} at least; {INCOMPLETE}"),
            ),
            // The report says what to do about the snapshot.
            Error::Damaged { path, report } if !report.lacks_records() && report.wrong_snapshot.is_some() => {
                about(f, path, format_args!("{report}"))
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
            Error::Compacted { path, position, oldest } => about(
                f,
                path,
                format_args!(
                    "the changes after {position} are not all there any more, only those after {oldest}; {AGAIN}"
                ),
            ),
            Error::Undone { path, position, last } => about(
                f,
                path,
                format_args!(
                    "the change {position} is not in the store, or was taken back; the last one before it is {last}; {AGAIN}"
                ),
            ),
            Error::Full { path, what } => about(f, path, format_args!("the log is full: {what}")),
            Error::Forked { path } => {
                about(f, path, format_args!("this handle belongs to the parent process; open the store in this one"))
            }
            Error::Io { operation, path, .. } => about(f, path, format_args!("cannot {operation}")),
        }
    }
}

const UNCHANGED: &str = "the file is unchanged, salvage copies what still verifies to a new file";

/// What to do about a watch that cannot go on.
const AGAIN: &str = "begin again with the state of now";

/// What to do about a file that has lost its end.
const INCOMPLETE: &str = "copy the whole file again from where it came from; the file is unchanged, salvage copies what is left to a new file";

fn about(f: &mut fmt::Formatter<'_>, path: &Path, what: fmt::Arguments<'_>) -> fmt::Result {
    write!(f, "{}: {what}", path.display())
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

fn named(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |process| format!(" (process {process})"))
}
