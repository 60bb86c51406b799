//! Reading single records that were validated before: from the map if there is one, otherwise with plain reads.

use std::io;
use std::sync::Arc;

use super::LogFile;
use crate::disk::Map;
use crate::format::{Damage, EXPIRY_LEN, Expiry, RECORD_HEADER_LEN, RecordHeader};
use crate::memory::make_room;
use crate::{Error, Result};

/// A file and its map, if there is one.
///
/// Offsets come from the index or the tail, so they lie before the log's end. The end mark after that is part of the
/// file, and so is every byte that is touched here.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) log: Arc<LogFile>,
    pub(crate) map: Option<Arc<Map>>,
    /// The log's end when this was made. No record reaches beyond it.
    pub(crate) end: u64,
    /// This handle has not read the log before this offset: it has the positions from a snapshot.
    pub(crate) unread: u64,
}

/// The start of a record. The lengths in the header stay inside the log. Nothing else in it is reliable before the
/// record's checksum is verified.
pub(crate) struct Start {
    position: u64,
    pub(crate) bytes: [u8; RECORD_HEADER_LEN],
    pub(crate) header: RecordHeader,
}

impl Start {
    /// Whether reading the record takes so long that other threads should not wait for it.
    #[inline]
    pub(crate) fn is_long(&self, log: &LogFile) -> bool {
        self.header.record_len() > log.limits.long_record()
    }
}

/// A record that was copied out of the file.
pub(crate) struct Record<'a> {
    pub(crate) header: RecordHeader,
    /// The full key.
    pub(crate) key: &'a [u8],
    /// The value as the record holds it, with the expiry in front of it if there is one.
    pub(crate) stored: &'a [u8],
}

impl<'a> Record<'a> {
    /// The value that users see.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        self.header.split_value(self.stored).1
    }

    /// How long the pair counts; `None` for ever.
    #[inline]
    pub(crate) fn expiry(&self) -> Option<Expiry> {
        self.header.split_value(self.stored).0
    }
}

const CACHE_LINE: usize = 64;
/// A record up to this length is copied whole at almost no cost.
const SHORT_RECORD: usize = 192;

impl Reader {
    /// Copies bytes out of the file.
    #[inline]
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.map {
            Some(map) if offset + out.len() as u64 <= map.len() => {
                map.read(offset, out);
                Ok(())
            }
            _ => self.log.read_exact(offset, out),
        }
    }

    /// The eight bytes at an offset that is a multiple of 8.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> Result<u64> {
        match &self.map {
            Some(map) if offset + 8 <= map.len() => Ok(map.word(offset)),
            _ => {
                let mut bytes = [0; 8];
                self.log.read_exact(offset, &mut bytes)?;
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    /// Has the processor fetch the record at a position while the caller does something else: as many bytes as a short
    /// record has.
    #[inline]
    pub(crate) fn prefetch(&self, position: u64) {
        if let Some(map) = &self.map {
            for line in 0..SHORT_RECORD / CACHE_LINE {
                map.prefetch(position + (line * CACHE_LINE) as u64);
            }
        }
    }

    /// The start of the record at a position from the index.
    #[inline(always)]
    pub(crate) fn start(&self, position: u64) -> Result<Start> {
        let mut bytes = [0; RECORD_HEADER_LEN];
        self.read(position, &mut bytes)?;
        // Not through `decode`: with its result in between, the compiler puts the start together byte by byte, and each pair of a
        // listing takes a tenth longer.
        match RecordHeader::decode(&bytes) {
            Some(header) if self.fits(position, &header) => Ok(Start { position, bytes, header }),
            _ => Err(self.not_a_header(position, &bytes)),
        }
    }

    /// The header of the record at a position from the index, verified.
    pub(crate) fn header(&self, position: u64) -> Result<RecordHeader> {
        let Start { bytes, header, .. } = self.start(position)?;
        if self.log.seed.header_crc(position, &bytes) != header.header_crc {
            return Err(self.not_a_header(position, &bytes));
        }
        Ok(header)
    }

    /// The header of the record at a position from the index. It is verified where no walk has seen that a record of a key
    /// stands there.
    #[inline]
    pub(crate) fn known(&self, position: u64) -> Result<RecordHeader> {
        if position < self.unread {
            // What the caller reads next would otherwise be fetched only after the checksum: the processor does not look
            // that far ahead.
            self.prefetch(position);
        }
        let Start { bytes, header, .. } = self.start(position)?;
        let is_put = || self.log.seed.header_crc(position, &bytes) == header.header_crc && header.kind.is_put();
        if position >= self.unread || is_put() { Ok(header) } else { Err(self.not_a_header(position, &bytes)) }
    }

    /// Decodes the header at a position from the index.
    #[inline(always)]
    pub(crate) fn decode(&self, position: u64, bytes: &[u8; RECORD_HEADER_LEN]) -> Result<RecordHeader> {
        let header = RecordHeader::decode(bytes).filter(|header| self.fits(position, header));
        header.ok_or_else(|| self.not_a_header(position, bytes))
    }

    /// Whether the lengths of a record at a position from the index stay inside the log, and hold what its kind demands.
    ///
    /// The header was true when it was replayed, but another program may have changed the file. Lengths that lead out of the log
    /// must neither be allocated nor followed into the map.
    #[inline(always)]
    fn fits(&self, position: u64, header: &RecordHeader) -> bool {
        position + header.record_len() <= self.end && header.has_room_for_expiry()
    }

    /// The error for bytes that are no header, or not the one that was there.
    #[cold]
    pub(crate) fn not_a_header(&self, position: u64, bytes: &[u8; RECORD_HEADER_LEN]) -> Error {
        let found = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let computed = self.log.seed.header_crc(position, bytes);
        self.log.corrupt(position, Damage::Header { found, computed })
    }

    /// Copies the record at `position` into `buffer`, which grows if it is too short, and verifies the copy: another
    /// process may change the file at any time.
    #[inline]
    pub(crate) fn record<'a>(&self, position: u64, buffer: &'a mut Vec<u8>, verify: bool) -> Result<Record<'a>> {
        self.record_from(&self.start(position)?, buffer, verify)
    }

    /// As [`Reader::record`], from the record's start on.
    #[inline(always)]
    pub(crate) fn record_from<'a>(&self, start: &Start, buffer: &'a mut Vec<u8>, verify: bool) -> Result<Record<'a>> {
        let header = start.header;
        let len = header.record_len() as usize;
        if buffer.len() < len {
            self.grow(buffer, len)?;
        }
        let record = &mut buffer[..len];
        self.copy(start, record, verify)?;
        let (key, stored) = record[RECORD_HEADER_LEN..].split_at(header.key_len.into());
        Ok(Record { header, key, stored })
    }

    /// Copies the part of a record that the checksum covers into its place in `record`, and verifies it there. In one
    /// piece, because each update of a checksum has a fixed cost.
    #[inline(always)]
    fn copy(&self, start: &Start, record: &mut [u8], verify: bool) -> Result<()> {
        let covered = &mut record[RecordHeader::AT_MEANING..];
        self.read(start.position + RecordHeader::AT_MEANING as u64, covered)?;
        if verify {
            self.expect_body(start.position, &start.header, crc32fast::hash(covered))?;
            if !covered.starts_with(&start.bytes[RecordHeader::AT_MEANING..]) {
                return Err(self.not_a_header(start.position, &start.bytes));
            }
        }
        Ok(())
    }

    /// Makes a buffer at least `len` bytes long that is too short. Its contents are dropped, and freed first.
    ///
    /// Another process chooses the length, so running out of memory is an error and does not abort.
    fn grow(&self, buffer: &mut Vec<u8>, len: usize) -> Result<()> {
        if buffer.capacity() < len {
            *buffer = Vec::new();
            let no_memory = |_| self.log.io("get memory for a value", io::ErrorKind::OutOfMemory.into());
            buffer.try_reserve_exact(len).map_err(no_memory)?;
        }
        buffer.resize(len, 0);
        Ok(())
    }

    /// Appends the full key of the record at `position` to `out`.
    pub(crate) fn key_into(&self, position: u64, header: &RecordHeader, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let len = usize::from(header.key_len);
        // Keys with the same beginning are sorted together, so there may be many.
        make_room(out, len).map_err(|e| self.log.io("get memory for keys", e))?;
        out.resize(start + len, 0);
        self.read(position + RECORD_HEADER_LEN as u64, &mut out[start..])
    }

    /// Copies the value of a record, as users see it, into `out`, verifies the copy, and returns the record's sequence number.
    ///
    /// `key` is the full key by which the record was found. A record with another key does not verify.
    #[inline]
    pub(crate) fn value_into(&self, start: &Start, key: &[u8], out: &mut Vec<u8>, verify: bool) -> Result<u64> {
        let header = &start.header;
        let (len, key_len) = (header.record_len() as usize, usize::from(header.key_len));
        out.clear();
        if len > SHORT_RECORD {
            if header.kind.expiry_len() > 0 {
                return self.long_with_expiry(start, key, out, verify);
            }
            self.grow(out, header.value_len as usize)?;
            self.read(start.position + (RECORD_HEADER_LEN + key_len) as u64, out)?;
            if verify {
                self.verify_value(start.position, header, key, out)?;
            }
            return Ok(header.seq);
        }
        let mut record = [0; SHORT_RECORD];
        let record = &mut record[..len];
        self.copy(start, record, verify)?;
        let (stored_key, stored) = record[RECORD_HEADER_LEN..].split_at(key_len);
        if verify && stored_key != key {
            self.verify_value(start.position, header, key, stored)?;
        }
        out.extend_from_slice(header.split_value(stored).1);
        Ok(header.seq)
    }

    /// The same for a long record with an expiry. The value is read directly into its place, without the expiry.
    #[cold]
    fn long_with_expiry(&self, start: &Start, key: &[u8], out: &mut Vec<u8>, verify: bool) -> Result<u64> {
        let header = &start.header;
        let (at, mut expiry) = (start.position + RECORD_HEADER_LEN as u64 + u64::from(header.key_len), [0; EXPIRY_LEN]);
        self.grow(out, header.user_len())?;
        self.read(at, &mut expiry)?;
        self.read(at + EXPIRY_LEN as u64, out)?;
        if verify {
            let mut hasher = header.body_hasher();
            [key, &expiry[..], &out[..]].iter().for_each(|bytes| hasher.update(bytes));
            self.expect_body(start.position, header, hasher.finalize())?;
        }
        Ok(header.seq)
    }

    /// Verifies a record's checksum over copies of its key and its value, as the record holds it.
    pub(crate) fn verify_value(&self, position: u64, header: &RecordHeader, key: &[u8], value: &[u8]) -> Result<()> {
        self.expect_body(position, header, header.computed_body_crc(key, value))
    }

    #[inline]
    pub(crate) fn expect_body(&self, position: u64, header: &RecordHeader, computed: u32) -> Result<()> {
        let found = header.body_crc;
        if computed == found { Ok(()) } else { Err(self.log.corrupt(position, Damage::Body { found, computed })) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Draft, PLAIN, open_on};
    use super::*;
    use crate::disk::MappedBytes;
    use crate::disk::sim::{SimDisk, Verb};
    use crate::format::{Kind, Owner};

    /// Reads a record in every way and returns the number of calls.
    fn read_all(disk: &SimDisk, reader: &Reader, position: u64, key: &[u8]) -> u64 {
        let calls = disk.calls_of(Verb::ReadAt);
        let header = reader.header(position).unwrap();
        assert_eq!(reader.word(position).unwrap(), header.fingerprint());
        let (mut found, mut value) = (b"before".to_vec(), Vec::new());
        reader.key_into(position, &header, &mut found).unwrap();
        assert_eq!(found, [b"before", key].concat());
        let start = reader.start(position).unwrap();
        assert_eq!(reader.value_into(&start, key, &mut value, true).unwrap(), header.seq);
        assert_eq!(value, b"value");
        // Longer than the record: old contents must not show.
        let mut buffer = vec![b'x'; 200];
        let record = reader.record(position, &mut buffer, true).unwrap();
        assert_eq!((record.header, record.key, record.value()), (header, key, &b"value"[..]));
        disk.calls_of(Verb::ReadAt) - calls
    }

    #[test]
    fn only_bytes_outside_the_map_cost_calls() {
        let mut draft = Draft::new();
        let (first, second) = (draft.put(PLAIN, "a"), draft.put(PLAIN, "b"));
        let (end, disk) = (draft.end(), SimDisk::new());
        let log = Arc::new(open_on(&disk, draft.bytes));
        for (mapped, calls) in [(None, [true, true]), (Some(second), [false, true]), (Some(end), [false, false])] {
            let map = mapped.map(|len| Arc::new(log.file.map(len).unwrap().unwrap()));
            assert_eq!(map.as_ref().map(|map| map.len()), mapped);
            let reader = Reader { log: Arc::clone(&log), map, end, unread: 0 };
            assert_eq!(read_all(&disk, &reader, first, b"\0a") > 0, calls[0], "{mapped:?}");
            assert_eq!(read_all(&disk, &reader, second, b"\0b") > 0, calls[1], "{mapped:?}");
        }
    }

    /// A file whose header changes between the first look and the copy of the record.
    struct Changing {
        bytes: Vec<u8>,
        first: (u64, [u8; RECORD_HEADER_LEN]),
    }

    impl MappedBytes for Changing {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read(&self, offset: u64, out: &mut [u8]) {
            if (offset, out.len()) == (self.first.0, RECORD_HEADER_LEN) {
                out.copy_from_slice(&self.first.1);
            } else {
                out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
            }
        }
    }

    #[test]
    fn a_header_that_changes_before_the_copy_is_damage() {
        let mut draft = Draft::new();
        let position = draft.put(PLAIN, "a");
        let (end, bytes, disk) = (draft.end(), draft.bytes.clone(), SimDisk::new());
        let log = Arc::new(open_on(&disk, draft.bytes));
        let header = Reader { log: Arc::clone(&log), map: None, end, unread: 0 }.header(position).unwrap();
        let over = |first: RecordHeader| {
            let map = Changing { bytes: bytes.clone(), first: (position, first.encode()) };
            Reader { log: Arc::clone(&log), map: Some(Arc::new(Map::from_bytes(Box::new(map)))), end, unread: 0 }
        };
        let mut buffer = Vec::new();
        assert_eq!(over(header).record(position, &mut buffer, true).unwrap().header, header);
        let other = RecordHeader { seq: header.seq + 1, ..header };
        let error = over(other).record(position, &mut buffer, true).err();
        assert!(matches!(error, Some(Error::Corrupt { offset, damage: Damage::Header { found, computed }, .. })
                if offset == position && found != computed));
    }

    #[test]
    fn a_record_with_another_key_is_damage() {
        for value in [0, 100, 163, 164, 1000] {
            let mut draft = Draft::new();
            let position = draft.push(PLAIN, Kind::Put, b"\0one", &vec![7; value]);
            let (end, disk) = (draft.end(), SimDisk::new());
            let reader = Reader { log: Arc::new(open_on(&disk, draft.bytes)), map: None, end, unread: 0 };
            let mut out = Vec::new();
            let start = reader.start(position).unwrap();
            reader.value_into(&start, b"\0one", &mut out, true).unwrap();
            assert_eq!(out, vec![7; value]);
            let error = reader.value_into(&start, b"\0two", &mut out, true).unwrap_err();
            assert!(matches!(error, Error::Corrupt { damage: Damage::Body { .. }, .. }), "{value}: {error}");
        }
    }

    #[test]
    fn the_users_part_of_a_value_is_read_without_its_expiry() {
        const LENS: [usize; 7] = [0, 1, 100, 138, 139, 140, 1000];
        let owned = Expiry { deadline: 77, owner: Some(Owner { session: 1, acquired: 2 }) };
        for (expiry, len) in [Expiry::at(77), owned].into_iter().flat_map(|expiry| LENS.map(|len| (expiry, len))) {
            let (mut draft, value) = (Draft::new(), vec![7; len]);
            let position = draft.push(PLAIN, expiry.kind(), b"\0one", &[&expiry.encode()[..], &value].concat());
            let (end, disk) = (draft.end(), SimDisk::new());
            let log = Arc::new(open_on(&disk, draft.bytes));
            for map in [None, log.file.map(end).unwrap().map(Arc::new)] {
                let reader = Reader { log: Arc::clone(&log), map, end, unread: 0 };
                let (start, mut out, mut buffer) = (reader.start(position).unwrap(), b"before".to_vec(), Vec::new());
                let seq = reader.value_into(&start, b"\0one", &mut out, true).unwrap();
                assert_eq!((seq, &out), (start.header.seq, &value), "{len}");
                let record = reader.record(position, &mut buffer, true).unwrap();
                assert_eq!((record.value(), record.expiry()), (&value[..], Some(expiry)), "{len}");
                let error = reader.value_into(&start, b"\0two", &mut out, true).unwrap_err();
                assert!(matches!(error, Error::Corrupt { damage: Damage::Body { .. }, .. }), "{len}: {error}");
            }
            // The checksum covers the expiry.
            log.file.write_at(position + RECORD_HEADER_LEN as u64 + 4, &[78]).unwrap();
            let reader = Reader { log: Arc::clone(&log), map: None, end, unread: 0 };
            let start = reader.start(position).unwrap();
            let error = reader.value_into(&start, b"\0one", &mut Vec::new(), true).unwrap_err();
            assert!(matches!(error, Error::Corrupt { damage: Damage::Body { .. }, .. }), "{len}: {error}");
        }
    }

    #[test]
    fn a_changed_length_that_leaves_no_room_for_the_expiry_is_damage() {
        let mut draft = Draft::new();
        let position = draft.push(PLAIN, Kind::PutWith, b"\0one", &[7; 24]);
        let (end, disk) = (draft.end(), SimDisk::new());
        let reader = Reader { log: Arc::new(open_on(&disk, draft.bytes)), map: None, end, unread: 0 };
        let header = reader.header(position).unwrap();
        let changed = RecordHeader { value_len: 23, ..header };
        reader.log.file.write_at(position, &changed.encode()).unwrap();
        let error = reader.start(position).err().unwrap();
        assert!(matches!(error, Error::Corrupt { damage: Damage::Header { .. }, .. }), "{error}");
    }

    #[test]
    fn a_changed_length_beyond_the_log_is_damage() {
        let mut draft = Draft::new();
        let position = draft.put(PLAIN, "a");
        let (end, disk) = (draft.end(), SimDisk::new());
        let reader = Reader { log: Arc::new(open_on(&disk, draft.bytes)), map: None, end, unread: 0 };
        let header = reader.header(position).unwrap();
        let changed = RecordHeader { value_len: header.value_len + 8, ..header };
        reader.log.file.write_at(position, &changed.encode()).unwrap();
        let error = reader.header(position).unwrap_err();
        assert!(matches!(error, Error::Corrupt { offset, damage: Damage::Header { .. }, .. } if offset == position));
    }
}
