//! A group: the records that one write appends.

use std::io;

use super::run::Run;
use crate::format::{
    Ancillary, END_MARK_LEN, Expiry, FileSeed, Flags, Kind, RECORD_HEADER_LEN, RecordHeader, SessionRecord, padded,
};
use crate::memory::{empty, make_room};

/// Records on their way to the file, laid out as they will lie there.
#[derive(Debug)]
pub(crate) struct Group {
    seed: FileSeed,
    start: u64,
    bytes: Vec<u8>,
    /// The same records in the form in which they are replayed after the write.
    pub(crate) run: Run,
}

impl Group {
    pub(crate) fn new(seed: FileSeed, start: u64) -> Group {
        Group { seed, start, bytes: Vec::new(), run: Run::default() }
    }

    /// Empties the group and prepares it for this file and offset.
    pub(crate) fn reset(&mut self, seed: FileSeed, start: u64) {
        empty(&mut self.bytes);
        self.run.clear();
        (self.seed, self.start) = (seed, start);
    }

    /// Makes room for `bytes` bytes of records and the end mark.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`](std::io::ErrorKind::OutOfMemory).
    pub(crate) fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let more = usize::try_from(bytes + END_MARK_LEN).map_err(|_| io::ErrorKind::OutOfMemory)?;
        make_room(&mut self.bytes, more)
    }

    /// Begins the group with the log's trailing mark, in the mark's own place. The mark may have been lost from the
    /// page cache; this write brings it back.
    pub(crate) fn rewrite(&mut self, mark: &RecordHeader) {
        debug_assert!(self.bytes.is_empty());
        self.bytes.extend_from_slice(&mark.encode());
    }

    /// Adds a record of a kind without an expiry.
    pub(crate) fn push(&mut self, flags: Flags, kind: Kind, seq: u64, key: &[u8], value: &[u8]) {
        let offset = self.end();
        let header = RecordHeader::new(self.seed, offset, flags, kind, seq, key, value);
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.pad();
        let proof = flags.synced.then_some(offset);
        let replayed = value.get(..kind.replayed_len()).unwrap_or_default();
        self.run.push(offset, header, proof, key, replayed);
    }

    /// Adds a put of a pair that counts as long as `expiry` says.
    pub(crate) fn push_expiring(&mut self, flags: Flags, seq: u64, key: &[u8], expiry: Expiry, value: &[u8]) {
        let (offset, stored) = (self.end(), expiry.encode());
        let header = RecordHeader::with_expiry(self.seed, offset, flags, seq, key, &expiry, value);
        [&header.encode()[..], key, &stored, value].into_iter().for_each(|bytes| self.bytes.extend_from_slice(bytes));
        self.pad();
        self.run.push(offset, header, flags.synced.then_some(offset), key, &stored);
    }

    /// Adds a session's record.
    pub(crate) fn push_session(&mut self, flags: Flags, seq: u64, record: &SessionRecord) {
        debug_assert!(record.fits(seq));
        self.push(flags, Kind::Session, seq, b"", &record.encode());
    }

    /// Adds a statement that everything before `synced` is on stable storage.
    pub(crate) fn push_synced_to(&mut self, seq: u64, synced: u64) {
        self.push(Flags::NONE, Kind::Ancillary(Ancillary::SyncedTo), seq, b"", &synced.to_le_bytes());
        if let Some(entry) = self.run.entries.last_mut() {
            entry.proof = Some(synced);
        }
    }

    /// Adds a record that was read elsewhere. Its body checksum is kept.
    pub(crate) fn push_moved(&mut self, flags: Flags, header: &RecordHeader, key: &[u8], value: &[u8]) {
        let header = header.moved_to(self.seed, self.end(), flags);
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        let len = padded(self.bytes.len() as u64) as usize;
        self.bytes.resize(len, 0);
    }

    /// Offset of the first byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Offset of the next record.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The length of all records in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The records, without an end mark.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the group and moves its start to its end.
    pub(crate) fn advance(&mut self) {
        self.reset(self.seed, self.end());
    }

    /// The bytes to be written, the end mark included.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.finish_run().0
    }

    /// The same, and the records in them.
    pub(crate) fn finish_run(&mut self) -> (&[u8], &Run) {
        let len = self.bytes.len() + END_MARK_LEN as usize;
        self.bytes.resize(len, 0);
        (&self.bytes, &self.run)
    }
}

/// The length of a record in the log.
pub(crate) fn record_len(key_len: usize, value_len: usize) -> u64 {
    padded((RECORD_HEADER_LEN + key_len + value_len) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_len_predicts_a_records_length() {
        for (key, value) in [(&b"\0k"[..], &b""[..]), (b"\0seven.", b"value"), (b"\0long key", &[7; 1000]), (b"", b"")]
        {
            let mut group = Group::new(FileSeed::new(&[5; 16]), 64);
            group.push(Flags::NONE, Kind::Put, 1, key, value);
            assert_eq!(group.end() - 64, record_len(key.len(), value.len()));
            assert_eq!(group.finish().len() as u64, record_len(key.len(), value.len()) + END_MARK_LEN);
        }
    }
}
