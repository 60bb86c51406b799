//! The log: the bytes of [`crate::format`] in the files of [`crate::disk`].
//!
//! [`roots`] reads and writes what a file says of its own length.
//! One scanner walks from record to record and reports ([`scan`]); it never changes a file. One decision table says
//! what follows from a damaged place ([`recover`]); a search looks for proof beyond that place ([`search`]). [`tail`]
//! holds what a writer must know of the records before its own, [`group`] builds what it writes, and [`append`] writes
//! and cuts. [`create`] makes files that no other process sees unfinished. [`lost_header`] reads a file whose own
//! header is lost.

pub(crate) mod append;
mod chunks;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod group;
pub(crate) mod install;
pub(crate) mod leftovers;
pub(crate) mod lost_header;
mod names;
pub(crate) mod owner;
pub(crate) mod path;
pub(crate) mod read;
pub(crate) mod recover;
pub(crate) mod rewrite;
pub(crate) mod roots;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod snapshot;
pub(crate) mod tail;
pub(crate) mod temp_file;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod units;
pub(crate) mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{DiskFile, FileIdentity, FileStat};
use crate::format::{Damage, FILE_HEADER_LEN, FileHeader, FileSeed, HeaderFault, MAX_SEQ, RECORD_HEADER_LEN, SeqBound};
use crate::limits::Shared;
use crate::{Error, Result};

/// The distance between the highest sequence number of a copy's source and the copy's `base_seq`. The source may go on
/// after the copy is made, or may have lost sequence numbers that a reader has seen. A number comes twice only after
/// sixty million openings of the source, or as many million writes. The distance is 1/65,536 of all sequence numbers.
pub(crate) const COPY_SEQS: u64 = 1 << 46;

/// The largest distance between a file's last sequence number and the `base_seq` of a successor.
const SUCCESSOR_SEQS: u64 = COPY_SEQS / 2;

/// What is read of a file first: its header, and the header of `ROOTS`.
const HEAD_LEN: usize = FILE_HEADER_LEN + RECORD_HEADER_LEN;

/// An open file with a valid header.
pub(crate) struct LogFile {
    pub(crate) file: Arc<dyn DiskFile>,
    /// The path at which the store was opened, for errors. After compaction it may name another file.
    pub(crate) path: Arc<Path>,
    pub(crate) header: FileHeader,
    pub(crate) seed: FileSeed,
    pub(crate) identity: FileIdentity,
    /// The number of names that the file had when it was opened.
    pub(crate) links: u64,
    pub(crate) limits: Shared,
}

impl LogFile {
    /// Reads and checks the file header. Changes nothing.
    pub(crate) fn open(file: Arc<dyn DiskFile>, path: &Arc<Path>) -> Result<LogFile> {
        let (log, roots) = LogFile::open_head(file, path)?;
        roots.map(|()| log)
    }

    /// Reads and checks the file header, and then the header of `ROOTS`, if the file has that. Without it, the log
    /// itself can still be read.
    pub(crate) fn open_head(file: Arc<dyn DiskFile>, path: &Arc<Path>) -> Result<(LogFile, Result<()>)> {
        let mut head = [0; HEAD_LEN];
        let got = file.read_up_to(0, &mut head).map_err(|e| Error::io("read the file header", path, e))?;
        let not_ours = |reason| Error::NotCaskfile { path: path.to_path_buf(), reason };
        if got == 0 {
            return Err(not_ours("it is empty"));
        }
        if got < FILE_HEADER_LEN {
            return Err(not_ours("it is shorter than a file header"));
        }
        let corrupt = |damage| Error::Corrupt { path: path.to_path_buf(), offset: 0, damage };
        let (bytes, after) = head.split_first_chunk().expect("the head begins with the file header");
        let header = FileHeader::decode(bytes).map_err(|fault| match fault {
            HeaderFault::Magic => not_ours("it does not start as one"),
            HeaderFault::Checksum { found, computed } => corrupt(Damage::FileHeader { found, computed }),
            HeaderFault::Version { major, minor } => {
                Error::UnsupportedVersion { path: path.to_path_buf(), major, minor }
            }
        })?;
        if header.base_seq > MAX_SEQ {
            return Err(corrupt(Damage::Sequence { found: header.base_seq, previous: 0 }));
        }
        let FileStat { identity, links, .. } = file.stat().map_err(|e| Error::io("stat", path, e))?;
        let limits = file.limits_kept();
        let log = LogFile { file, path: Arc::clone(path), seed: header.seed(), header, identity, links, limits };
        let roots = log.check_roots(after, got as u64);
        Ok((log, roots))
    }

    /// Makes sure that the file header has not changed. Called before the log is read from its start again.
    ///
    /// # Errors
    ///
    /// As [`LogFile::open`]; [`Error::Replaced`] if another store was written over this one.
    pub(crate) fn expect_same_header(&self) -> Result<()> {
        let now = LogFile::open(Arc::clone(&self.file), &self.path)?;
        if now.header == self.header { Ok(()) } else { Err(Error::Replaced { path: self.path.to_path_buf() }) }
    }

    /// Whether the log has certainly lost its end. `previous_seq` is the last record's sequence number, 0 if there is
    /// none. Compaction, backup and salvage close a new file with a mark above `base_seq`, and later records have
    /// higher numbers.
    pub(crate) fn lacks_closing_mark(&self, previous_seq: u64) -> bool {
        self.header.base_seq > 0 && self.header.base_seq >= previous_seq
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|e| self.io("ask for the length", e))
    }

    /// Reads up to `buffer.len()` bytes and returns the number of bytes read. It is less only where the file ends.
    pub(crate) fn read_up_to(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_up_to(offset, buffer).map_err(|e| self.io("read", e))
    }

    /// Fills the buffer. It is an error if the file ends before that: another process has shortened it.
    pub(crate) fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if self.read_up_to(offset, buffer)? < buffer.len() {
            return Err(self.io("read", io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// Whether this file can be a successor of a log whose last record is `MOVED` with the sequence number `moved`, or
    /// a successor of that successor.
    ///
    /// Compaction states the highest sequence number of the old file, or one reserved beside it. A new store states
    /// none. A backup and a salvaged copy begin [`COPY_SEQS`] above their source, which may have gone on since.
    pub(crate) fn may_succeed(&self, moved: u64) -> bool {
        (moved..moved + SUCCESSOR_SEQS).contains(&self.header.base_seq)
    }

    /// The bounds of the sequence number that follows `previous`.
    pub(crate) fn seq_bound(&self, previous: u64) -> SeqBound {
        SeqBound { previous, base: self.header.base_seq }
    }

    pub(crate) fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::io(operation, &self.path, source)
    }

    /// The log, or the file, ends before what its root states, or the closing mark of a copy is missing.
    pub(crate) fn truncated(&self, log_end: u64, stated: u64) -> Error {
        match self.len() {
            Ok(len) => Error::Truncated { path: self.path.to_path_buf(), log_end, stated, len },
            Err(error) => error,
        }
    }

    pub(crate) fn corrupt(&self, offset: u64, damage: Damage) -> Error {
        Error::Corrupt { path: self.path.to_path_buf(), offset, damage }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Draft, header};
    use super::*;

    #[test]
    fn another_header_is_another_store() {
        let log = Draft::new().finish();
        log.expect_same_header().unwrap();
        let other = FileHeader { file_id: [6; 16], ..header() };
        log.file.write_at(0, &other.encode()).unwrap();
        assert!(matches!(log.expect_same_header(), Err(Error::Replaced { .. })));
    }

    #[test]
    fn reading_beyond_the_files_end_is_an_error() {
        let draft = Draft::new();
        let (end, mut buffer) = (draft.end(), [1; 8]);
        let log = draft.finish();
        log.read_exact(end, &mut buffer).unwrap();
        let error = log.read_exact(end + 1, &mut buffer).unwrap_err();
        assert!(matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof));
    }
}
