//! [`Error`] and [`Result`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Report;

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, one variant a cause.
///
/// The contract's own errors ([`KeyNotFound`](Error::KeyNotFound), [`KeyExists`](Error::KeyExists),
/// [`KeyModified`](Error::KeyModified), [`PreviousNotSpecified`](Error::PreviousNotSpecified),
/// [`Closed`](Error::Closed)) carry nothing, so that a miss allocates nothing. The others carry what is needed to
/// act: the file, the place in it, what was expected and what was found. Cloning is cheap: one failed sync is
/// reported to every caller that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key is not in the store.
    #[error("key not found")]
    KeyNotFound,

    /// `atomic_put` was to create the key, and it is there already.
    #[error("key exists already")]
    KeyExists,

    /// The key was changed since the pair given as `previous` was read: read it again and decide anew.
    #[error("key was modified since it was read")]
    KeyModified,

    /// `atomic_delete` needs the pair that was read before.
    #[error("atomic_delete needs the previous pair, and none was given")]
    PreviousNotSpecified,

    /// This handle, or a clone of it, was closed.
    #[error("the store is closed")]
    Closed,

    /// No backend has this name.
    #[error("backend {name:?} is not supported; supported backends: {supported}")]
    BackendNotSupported {
        /// The name that was asked for.
        name: String,
        /// The names that would have worked, separated by commas.
        supported: &'static str,
    },

    /// Another writer held the file's lock for the whole connection timeout. Nothing was written. Try again, or
    /// raise [`Config::connection_timeout`](crate::Config::connection_timeout).
    #[error("{}: still locked by another writer after {waited:?}; nothing was written", path.display())]
    LockTimeout {
        /// The store's file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
    },

    /// Bytes that had been written correctly are damaged. The file was not changed. [`salvage`](crate::salvage)
    /// copies what can still be read to a new file.
    #[error("{}: corrupt at offset {offset}: {damage}; the file is unchanged, salvage copies what still verifies to a new file", path.display())]
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
    #[error("{}: {report}\nthe file is unchanged, salvage copies what still verifies to a new file", path.display())]
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
    #[error("{}: writes are refused since a {operation} failed ({cause}); reopen the store", path.display())]
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
    #[error("{}: the file was moved, removed or replaced by someone else; nothing was written, open it again", path.display())]
    Replaced {
        /// The path at which the store was opened.
        path: PathBuf,
    },

    /// A write on a handle that was opened with [`Config::read_only`](crate::Config::read_only).
    #[error("{}: opened read-only", path.display())]
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },

    /// The file is not a caskfile. It was not changed.
    #[error("{}: not a caskfile: {reason}; the file is unchanged", path.display())]
    NotCaskfile {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: &'static str,
    },

    /// The file was written by a newer major version of the format. It was not changed.
    #[error("{}: format version {major}.{minor} is newer than this library's {}.x; open it with a newer caskfile", path.display(), crate::format::MAJOR_VERSION)]
    UnsupportedVersion {
        /// The store's file.
        path: PathBuf,
        /// The file's major version.
        major: u16,
        /// The file's minor version.
        minor: u16,
    },

    /// A record that is whole has a kind or a flag that this version does not know and may not skip.
    #[error("{}: the record at offset {offset} has kind {kind:#04x} and flags {flags:#04x}, which this version does not know; open it with a newer caskfile", path.display())]
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
    #[error("a key has 1 to {max} bytes in this bucket, this one has {len}")]
    KeyLength {
        /// The key's length in bytes.
        len: usize,
        /// The longest key that this bucket takes, in bytes.
        max: usize,
    },

    /// The value is longer than the format allows. Nothing was written.
    #[error("a value has at most {max} bytes, this one has {len}")]
    ValueTooLong {
        /// The value's length in bytes.
        len: usize,
        /// The longest value, in bytes.
        max: usize,
    },

    /// The bucket's name is longer than the format allows.
    #[error("a bucket's name has at most {max} bytes, this one has {len}")]
    BucketTooLong {
        /// The name's length in bytes.
        len: usize,
        /// The longest name, in bytes.
        max: usize,
    },

    /// The batch is larger than one atomic write can be. Nothing was written.
    #[error("a batch has at most {max} {what}, this one has {len}")]
    BatchTooLarge {
        /// What there are too many of: `"operations"` or `"bytes"`.
        what: &'static str,
        /// How many the batch has.
        len: u64,
        /// How many it may have.
        max: u64,
    },

    /// An operation of the batch has a key, a value or a bucket's name that the format does not allow. Nothing was written.
    #[error("operation {op} of the batch: {cause}")]
    BatchInvalid {
        /// Which operation, counted from 0 in the order in which they were added.
        op: usize,
        /// [`KeyLength`](Error::KeyLength), [`ValueTooLong`](Error::ValueTooLong) or
        /// [`BucketTooLong`](Error::BucketTooLong).
        cause: Box<Error>,
    },

    /// A condition of the batch does not hold. Nothing of the batch was written.
    #[error("operation {op} of the batch: {cause}")]
    BatchConflict {
        /// Which operation, counted from 0 in the order in which they were added.
        op: usize,
        /// [`KeyNotFound`](Error::KeyNotFound), [`KeyModified`](Error::KeyModified) or [`KeyExists`](Error::KeyExists).
        cause: Box<Error>,
    },

    /// The file cannot be compacted as it is. Nothing was changed.
    #[error("{}: not compacted: {reason}", path.display())]
    CompactionRefused {
        /// The store's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// Another compaction of the same store, in this process or another, was under way or was faster, or the log was
    /// recovered meanwhile. Nothing was changed by this one. Call again if it still seems worth while.
    #[error("{}: not compacted: another compaction or a recovery of it was under way", path.display())]
    CompactionOvertaken {
        /// The store's file.
        path: PathBuf,
    },

    /// The compaction was told to stop. Nothing was changed.
    #[error("{}: compaction was cancelled; the store is as it was", path.display())]
    CompactionCancelled {
        /// The store's file.
        path: PathBuf,
    },

    /// A backup or a salvage was told to stop. The new file was not made, and nothing is left of it.
    #[error("{}: the copy was cancelled; nothing was made", path.display())]
    CopyCancelled {
        /// The file that was to be made.
        path: PathBuf,
    },

    /// The log has reached the largest size, or the largest index, that the format can express. Compaction makes room
    /// for more records.
    #[error("{}: the log is full: {what}", path.display())]
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
    #[error("{}: this handle belongs to the parent process; open the store in this one", path.display())]
    Forked {
        /// The store's file.
        path: PathBuf,
    },

    /// The operating system refused something.
    #[error("{}: {operation}: {source}", path.display())]
    Io {
        /// What was being done, for example `"open"` or `"append"`.
        operation: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// An error of a foreign implementation of [`Store`](crate::Store).
    #[error(transparent)]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

/// What does not hold where a file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file header's checksum does not match its bytes.
    #[error("the file header's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    FileHeader {
        /// The checksum as stored.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The file does not start as a caskfile does.
    #[error("the file does not start as a caskfile does")]
    Magic,
    /// The record header's checksum does not match its bytes and place.
    #[error("the record header's checksum is {found:#010x}, its bytes and place give {computed:#010x}")]
    Header {
        /// The checksum as stored.
        found: u32,
        /// The checksum of file identity, offset and header.
        computed: u32,
    },
    /// The record's lengths are beyond the format's limits.
    #[error("the record's lengths (key {key_len}, value {value_len}) are beyond the format's limits")]
    Lengths {
        /// Length of the full key in bytes.
        key_len: u16,
        /// Length of the value in bytes.
        value_len: u32,
    },
    /// The record would reach beyond the end of the file.
    #[error("the record would end at {end}, beyond the file's {file_len} bytes")]
    BeyondFile {
        /// Where the record would end.
        end: u64,
        /// The file's length in bytes.
        file_len: u64,
    },
    /// The record's index does not follow the one before it.
    #[error("the record's index {found} does not follow {previous}")]
    Index {
        /// The index as stored.
        found: u64,
        /// The index of the record before.
        previous: u64,
    },
    /// The body's checksum does not match.
    #[error("the body's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Body {
        /// The checksum as stored.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The key of a record does not have the form of a bucket and a key, or a record has a body that its kind does
    /// not have.
    #[error("the body does not have the form that its kind demands")]
    Form,
    /// There is an end mark, or a hole, where records follow.
    #[error("zeros stand where a record should, and records follow")]
    Zeros,
    /// A batch ends before its last record.
    #[error("a batch of records breaks off, and records follow")]
    BrokenBatch,
}

impl Damage {
    /// The kind of damage in one word, for programs: `"file_header"`, `"magic"`, `"header"`, `"lengths"`,
    /// `"beyond_file"`, `"index"`, `"body"`, `"form"`, `"zeros"` or `"broken_batch"`.
    pub fn name(&self) -> &'static str {
        match self {
            Damage::FileHeader { .. } => "file_header",
            Damage::Magic => "magic",
            Damage::Header { .. } => "header",
            Damage::Lengths { .. } => "lengths",
            Damage::BeyondFile { .. } => "beyond_file",
            Damage::Index { .. } => "index",
            Damage::Body { .. } => "body",
            Damage::Form => "form",
            Damage::Zeros => "zeros",
            Damage::BrokenBatch => "broken_batch",
        }
    }
}

impl Error {
    /// Wraps an error of a foreign implementation of [`Store`](crate::Store).
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Other(Arc::new(error))
    }

    pub(crate) fn io(operation: &'static str, path: &std::path::Path, source: io::Error) -> Error {
        Error::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }
}
