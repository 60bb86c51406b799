//! Copying records into a new file.

use crate::Result;
use crate::format::{Ancillary, FILE_HEADER_LEN, FileHeader, Flags, Kind, RECORD_HEADER_LEN, RecordHeader};
use crate::limits::Shared;
use crate::log::LogFile;
use crate::log::group::Group;
use crate::log::read::Reader;
use crate::log::run::Entry;
use crate::log::temp_file::TempFile;
use crate::progress::Copying;

/// Collects copies of records and writes them piece by piece.
pub(crate) struct Copyist {
    group: Group,
    record: Vec<u8>,
    limits: Shared,
}

impl Copyist {
    /// For the file with this header, on the disk of the log that is copied.
    pub(crate) fn new(header: &FileHeader, from: &LogFile) -> Copyist {
        let group = Group::new(header.seed(), FILE_HEADER_LEN as u64);
        Copyist { group, record: Vec::new(), limits: from.limits }
    }

    /// Adds a record. It is always verified, on the copy that is written, so that a copy never makes damage look sound.
    /// `SYNCED` is dropped, since it speaks of another file. `more`: the batch goes on.
    pub(crate) fn push(&mut self, reader: &Reader, position: u64, more: bool) -> Result<RecordHeader> {
        let record = reader.record(position, &mut self.record, true)?;
        let room = self.group.make_room(record.header.padded_len());
        room.map_err(|e| reader.log.io("get memory for a value", e))?;
        self.group.push_moved(Flags { synced: false, more }, &record.header, record.key, record.value);
        Ok(record.header)
    }

    /// As [`Copyist::push`], for a record that must still be the one in `entry`.
    pub(crate) fn push_again(&mut self, reader: &Reader, entry: &Entry, more: bool) -> Result<()> {
        let found = self.push(reader, entry.offset, more)?;
        if found == entry.header { Ok(()) } else { Err(reader.not_a_header(entry.offset, &found.encode())) }
    }

    /// Adds the mark that closes the file. It claims that everything before it is on stable storage. That is true when
    /// the file gets its name, since the file is synced before that.
    pub(crate) fn push_mark(&mut self, seq: u64) {
        let flags = Flags { synced: true, more: false };
        self.group.push(flags, Kind::Ancillary(Ancillary::Mark), seq, b"", b"");
    }

    /// Offset of the next record.
    pub(crate) fn end(&self) -> u64 {
        self.group.end()
    }

    pub(crate) fn has_a_piece(&self) -> bool {
        self.group.len() >= self.limits.copied_at_once()
    }

    /// Writes the collected records and an end mark, which the next piece overwrites.
    ///
    /// Starts write-back of a whole piece, so that the disk works while the next piece is prepared. Waits for the piece
    /// before, so that the disk never has more than two to write: on a journaling file system, a sync of the store
    /// waits for them. A shorter rest is left to the sync that follows.
    pub(crate) fn write(&mut self, next: &TempFile<'_>) -> Result<()> {
        let (start, end, is_a_piece) = (self.group.start(), self.group.end(), self.has_a_piece());
        next.write(start, self.group.finish())?;
        if is_a_piece {
            next.write_back(start..end)?;
        }
        self.group.reset(next.header.seed(), end);
        Ok(())
    }

    /// Passes the collected records on, for a file that is written from front to back, without an end mark.
    pub(crate) fn stream(&mut self, write: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        write(self.group.bytes())?;
        self.group.advance();
        Ok(())
    }

    /// As [`Copyist::stream`], for the last time: with the end mark.
    pub(crate) fn finish(mut self, write: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        write(self.group.finish())
    }
}

/// Fills a new file with records in the order of their sequence numbers, and closes it with a mark.
pub(crate) fn write_live(
    next: &TempFile<'_>,
    reader: &Reader,
    positions: &[u64],
    copying: &mut Copying<'_, '_>,
) -> Result<()> {
    let mut copyist = Copyist::new(&next.header, &reader.log);
    let mut highest_seq = next.header.base_seq;
    for &position in positions {
        highest_seq = highest_seq.max(copyist.push(reader, position, false)?.seq);
        if copyist.has_a_piece() {
            copyist.write(next)?;
            copying.tell(copyist.end())?;
        }
    }
    copyist.push_mark(highest_seq + 1);
    copyist.write(next)
}

const _: () = assert!(RECORD_HEADER_LEN % 8 == 0, "a mark is a header and needs no padding");
