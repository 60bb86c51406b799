//! Writing a new file with records that lie in another one.

use crate::Result;
use crate::format::{Ancillary, FILE_HEADER_LEN, FileHeader, Flags, Kind, RECORD_HEADER_LEN, RecordHeader};
use crate::log::group::Group;
use crate::log::read::Reader;
use crate::log::run::Entry;
use crate::log::temp_file::TempFile;
use crate::progress::Copying;

/// Records are written to the new file in pieces of about this many bytes.
const PIECE: usize = 1 << 20;

/// Takes records over, one behind the other, and writes them piece by piece.
pub(crate) struct Copyist {
    group: Group,
    record: Vec<u8>,
}

impl Copyist {
    /// For the file that has this header.
    pub(crate) fn new(header: &FileHeader) -> Copyist {
        let group = Group::new(header.seed(), FILE_HEADER_LEN as u64);
        Copyist { group, record: Vec::new() }
    }

    /// Adds a record, verified on the copy that is written, whatever the handle's setting for reads is: a copy must
    /// not make damage look sound. `SYNCED` is not taken over: it speaks of another file. `more`: the batch goes on.
    pub(crate) fn push(&mut self, reader: &Reader, position: u64, more: bool) -> Result<RecordHeader> {
        let record = reader.record(position, &mut self.record, true)?;
        let room = self.group.make_room(record.header.padded_len());
        room.map_err(|e| reader.log.io("get memory for a value", e))?;
        self.group.push_moved(Flags { synced: false, more }, &record.header, record.key, record.value);
        Ok(record.header)
    }

    /// The same for a record that was looked at before, if it still is the same.
    pub(crate) fn push_again(&mut self, reader: &Reader, entry: &Entry, more: bool) -> Result<()> {
        let found = self.push(reader, entry.offset, more)?;
        if found == entry.header { Ok(()) } else { Err(reader.not_a_header(entry.offset, &found.encode())) }
    }

    /// Adds the mark that closes the file: it says that all before it is on stable storage, which is true as soon as
    /// anybody can see the file, since it is synced before it gets its name.
    pub(crate) fn push_mark(&mut self, index: u64) {
        let flags = Flags { synced: true, more: false };
        self.group.push(flags, Kind::Ancillary(Ancillary::Mark), index, b"", b"");
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> u64 {
        self.group.end()
    }

    pub(crate) fn has_a_piece(&self) -> bool {
        self.group.len() >= PIECE
    }

    /// Writes what was added, and an end mark behind it, which the next piece overwrites.
    ///
    /// The disk works on one piece while the next one is put together, and never has more than two to do: on a journaling
    /// file system, a sync of the store waits for what others have written to other files just before. What is less than
    /// a piece is left to the sync that follows it.
    pub(crate) fn write(&mut self, next: &TempFile<'_>) -> Result<()> {
        let (start, end, is_a_piece) = (self.group.start(), self.group.end(), self.has_a_piece());
        next.write(start, self.group.finish())?;
        if is_a_piece {
            next.write_back(start..end)?;
        }
        self.group.reset(next.header.seed(), end);
        Ok(())
    }

    /// Hands out what was added, for a file that is written from front to back: no end mark stands behind it.
    pub(crate) fn stream(&mut self, write: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        write(self.group.bytes())?;
        self.group.go_on();
        Ok(())
    }

    /// As [`Copyist::stream`], for the last time: the end mark is behind it.
    pub(crate) fn finish(mut self, write: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        write(self.group.finish())
    }
}

/// Fills a new file with records in the order of their indexes, and closes it with a mark.
pub(crate) fn write_live(
    next: &TempFile<'_>,
    reader: &Reader,
    positions: &[u64],
    copying: &mut Copying<'_, '_>,
) -> Result<()> {
    let mut copyist = Copyist::new(&next.header);
    let mut last_index = next.header.base_seq;
    for &position in positions {
        last_index = last_index.max(copyist.push(reader, position, false)?.seq);
        if copyist.has_a_piece() {
            copyist.write(next)?;
            copying.tell(copyist.end())?;
        }
    }
    copyist.push_mark(last_index + 1);
    copyist.write(next)
}

const _: () = assert!(RECORD_HEADER_LEN % 8 == 0, "a mark is a header and needs no padding");
