//! The log: where the bytes of [`crate::format`] meet the files of [`crate::disk`].
//!
//! One scanner walks from record to record and reports ([`scan`]); it never changes a file. One decision table says
//! what follows from a damaged place ([`recover`]), with the help of a search for proof beyond it ([`search`]).
//! [`tail`] keeps what a writer has to know of the records before its own, [`group`] builds what it writes, and
//! [`append`] writes and cuts. [`create`] makes files that are never seen unfinished. [`lost_header`] reads a file of
//! which nobody knows any more which it is.

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
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod tail;
pub(crate) mod temp_file;
#[cfg(test)]
pub(crate) mod testing;
mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{DiskFile, FileIdentity, FileStat};
use crate::format::{Damage, FILE_HEADER_LEN, FileHeader, FileSeed, HeaderFault, MAX_SEQ, SeqBound};
use crate::{Error, Result};

/// How far the indexes of a copy start above those of its source: the source may go on after the copy was made, or may
/// have lost indexes that somebody has seen. More than sixty million openings, or as many million writes, would have to
/// come in between before an index came twice. It takes one of 65,536 parts of all indexes.
pub(crate) const COPY_SEQS: u64 = 1 << 46;

/// The most indexes that may lie between a file and a successor made from it by compactions.
const SUCCESSOR_SEQS: u64 = COPY_SEQS / 2;

/// One open file whose header was read and found good.
pub(crate) struct LogFile {
    pub(crate) file: Arc<dyn DiskFile>,
    /// The path at which the store was opened, for errors; after compaction it may name another file.
    pub(crate) path: Arc<Path>,
    pub(crate) header: FileHeader,
    pub(crate) seed: FileSeed,
    pub(crate) identity: FileIdentity,
    /// How many names the file had when it was opened.
    pub(crate) links: u64,
}

impl LogFile {
    /// Reads and checks the file header. Changes nothing.
    pub(crate) fn open(file: Arc<dyn DiskFile>, path: &Arc<Path>) -> Result<LogFile> {
        let mut bytes = [0; FILE_HEADER_LEN];
        let got = file.read_up_to(0, &mut bytes).map_err(|e| Error::io("read the file header", path, e))?;
        let not_ours = |reason| Error::NotCaskfile { path: path.to_path_buf(), reason };
        if got == 0 {
            return Err(not_ours("it is empty"));
        }
        if got < FILE_HEADER_LEN {
            return Err(not_ours("it is shorter than a file header"));
        }
        let corrupt = |damage| Error::Corrupt { path: path.to_path_buf(), offset: 0, damage };
        let header = FileHeader::decode(&bytes).map_err(|fault| match fault {
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
        Ok(LogFile { file, path: Arc::clone(path), seed: header.seed(), header, identity, links })
    }

    /// Makes sure that the file header is what it was, before the log behind it is read anew.
    ///
    /// # Errors
    ///
    /// As [`LogFile::open`]; [`Error::Replaced`] if somebody has written another store over this one.
    pub(crate) fn expect_same_header(&self) -> Result<()> {
        let now = LogFile::open(Arc::clone(&self.file), &self.path)?;
        if now.header == self.header { Ok(()) } else { Err(Error::Replaced { path: self.path.to_path_buf() }) }
    }

    /// Whether a log whose last record has this index, 0 if there is none, has lost its end for certain: compaction, backup
    /// and salvage close what they make with a mark above `base_seq`, and what is written later has higher indexes.
    pub(crate) fn lacks_closing_mark(&self, last_index: u64) -> bool {
        self.header.base_seq > last_index
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|e| self.io("ask for the length", e))
    }

    /// Reads as many bytes as the file has, at most the buffer's length, and returns how many.
    pub(crate) fn read_up_to(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_up_to(offset, buffer).map_err(|e| self.io("read", e))
    }

    /// Fills the buffer; a file that ends before it is full was cut behind our back.
    pub(crate) fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if self.read_up_to(offset, buffer)? < buffer.len() {
            return Err(self.io("read", io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// Whether this may be the file that compaction made of a log whose last record says that it has moved and has the
    /// index `moved`, or one that was made of that file later.
    ///
    /// Compaction states the highest index of the old file, or one that it has reserved beside it. A new store states
    /// none; a backup and a salvaged copy begin [`COPY_SEQS`] above their original, which may have gone on since.
    pub(crate) fn may_succeed(&self, moved: u64) -> bool {
        (moved..moved + SUCCESSOR_SEQS).contains(&self.header.base_seq)
    }

    /// The bound of the index of a record that follows one with this index.
    pub(crate) fn seq_bound(&self, previous: u64) -> SeqBound {
        SeqBound { previous, base: self.header.base_seq }
    }

    pub(crate) fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::io(operation, &self.path, source)
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
    fn a_file_that_has_got_another_header_is_another_store() {
        let log = Draft::new().finish();
        log.expect_same_header().unwrap();
        let other = FileHeader { file_id: [6; 16], ..header() };
        log.file.write_at(0, &other.encode()).unwrap();
        assert!(matches!(log.expect_same_header(), Err(Error::Replaced { .. })));
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error_and_no_zeros() {
        let draft = Draft::new();
        let (end, mut buffer) = (draft.end(), [1; 8]);
        let log = draft.finish();
        log.read_exact(end, &mut buffer).unwrap();
        let error = log.read_exact(end + 1, &mut buffer).unwrap_err();
        assert!(matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof));
    }
}
