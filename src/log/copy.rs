//! Copying records into a new file.

use crate::Result;
use crate::format::{Ancillary, FileHeader, Flags, Kind, MAX_SEQ, RECORD_HEADER_LEN, RecordHeader};
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
    /// The highest sequence number of a copied record.
    highest_seq: u64,
    limits: Shared,
}

impl Copyist {
    /// For the file with this header, on the disk of the log that is copied.
    pub(crate) fn new(header: &FileHeader, from: &LogFile) -> Copyist {
        let group = Group::new(header.seed(), header.log_start());
        Copyist { group, record: Vec::new(), highest_seq: 0, limits: from.limits }
    }

    /// Adds a record. It is always verified, on the copy that is written, so that a copy never makes damage look sound.
    /// `SYNCED` is dropped, since it speaks of another file. `more`: the batch goes on.
    pub(crate) fn push(&mut self, reader: &Reader, position: u64, more: bool) -> Result<RecordHeader> {
        let record = reader.record(position, &mut self.record, true)?;
        let room = self.group.make_room(record.header.padded_len());
        room.map_err(|e| reader.log.io("get memory for a value", e))?;
        self.group.push_moved(Flags { synced: false, more }, &record.header, record.key, record.stored);
        self.highest_seq = self.highest_seq.max(record.header.seq);
        Ok(record.header)
    }

    /// As [`Copyist::push`], for a record that must still be the one in `entry`.
    pub(crate) fn push_again(&mut self, reader: &Reader, entry: &Entry, more: bool) -> Result<()> {
        let found = self.push(reader, entry.offset, more)?;
        if found == entry.header { Ok(()) } else { Err(reader.not_a_header(entry.offset, &found.encode())) }
    }

    /// Adds the mark that closes a file with this `base_seq`. It claims that everything before it is on stable storage.
    /// That is true when the file gets its name, since the file is synced before that.
    ///
    /// A record with the highest number that there is leaves none for the mark, and is above every `base_seq` itself.
    ///
    /// Returns the mark's offset.
    pub(crate) fn push_mark(&mut self, base_seq: u64) -> u64 {
        let (at, seq) = (self.group.end(), self.highest_seq.max(base_seq) + 1);
        if seq <= MAX_SEQ {
            let flags = Flags { synced: true, more: false };
            self.group.push(flags, Kind::Ancillary(Ancillary::Mark), seq, b"", b"");
        }
        at
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
    for &position in positions {
        copyist.push(reader, position, false)?;
        if copyist.has_a_piece() {
            copyist.write(next)?;
            copying.tell(copyist.end())?;
        }
    }
    let mark = copyist.push_mark(next.header.base_seq);
    copyist.write(next)?;
    next.write_root(mark)
}

const _: () = assert!(RECORD_HEADER_LEN % 8 == 0, "a mark is a header and needs no padding");
