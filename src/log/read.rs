//! Reading single records that were validated before: from the map where the disk has one, else with plain reads.

use std::io;
use std::sync::Arc;

use super::LogFile;
use crate::disk::Map;
use crate::format::{Damage, RECORD_HEADER_LEN, RecordHeader};
use crate::memory::make_room;
use crate::{Error, Result};

/// One file and, if there is one, its map.
///
/// Offsets handed to it come from the index or the tail, so they lie before the log's end; the end mark behind that
/// is part of the file, and with it every byte that is touched here.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) log: Arc<LogFile>,
    pub(crate) map: Option<Arc<Map>>,
    /// The log's end when this was made: no record reaches beyond it.
    pub(crate) end: u64,
}

/// Where a record starts, and what stands there: lengths that do not lead out of the log, and nothing else that may be
/// relied on before the record's checksum was looked at.
pub(crate) struct Start {
    position: u64,
    pub(crate) bytes: [u8; RECORD_HEADER_LEN],
    pub(crate) header: RecordHeader,
}

impl Start {
    /// Whether it takes so long to read the record that others must not be kept waiting for it.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        self.header.record_len() > LONG_RECORD
    }
}

/// A record that was copied out of the file.
pub(crate) struct Record<'a> {
    pub(crate) header: RecordHeader,
    /// The full key.
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

const CACHE_LINE: usize = 64;
/// So long a record is copied as a whole at no price to speak of.
const SHORT_RECORD: usize = 192;
/// A longer record takes more than some microseconds to copy and to check.
const LONG_RECORD: u64 = 64 << 10;

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

    /// Has the processor fetch the record at a position, as much of it as a short one has, while the caller does something
    /// else.
    #[inline]
    pub(crate) fn prefetch(&self, position: u64) {
        if let Some(map) = &self.map {
            (0..SHORT_RECORD).step_by(CACHE_LINE).for_each(|line| map.prefetch(position + line as u64));
        }
    }

    /// What stands where a record starts that the index holds.
    #[inline(always)]
    pub(crate) fn start(&self, position: u64) -> Result<Start> {
        let mut bytes = [0; RECORD_HEADER_LEN];
        self.read(position, &mut bytes)?;
        Ok(Start { position, header: self.decode(position, &bytes)?, bytes })
    }

    /// The header of the record at a position that the index holds, verified.
    pub(crate) fn header(&self, position: u64) -> Result<RecordHeader> {
        let Start { bytes, header, .. } = self.start(position)?;
        if self.log.seed.header_crc(position, &bytes) != header.header_crc {
            return Err(self.not_a_header(position, &bytes));
        }
        Ok(header)
    }

    /// The header at a position that the index holds, given its bytes.
    #[inline(always)]
    pub(crate) fn decode(&self, position: u64, bytes: &[u8; RECORD_HEADER_LEN]) -> Result<RecordHeader> {
        // It was a true header when it was taken in, but somebody may have changed it in the file since: lengths that lead
        // out of the log must neither be allocated nor followed into the map.
        let header = RecordHeader::decode(bytes).filter(|header| position + header.record_len() <= self.end);
        header.ok_or_else(|| self.not_a_header(position, bytes))
    }

    /// The error of bytes that are no header in this place, or not the one that was there.
    #[cold]
    pub(crate) fn not_a_header(&self, position: u64, bytes: &[u8; RECORD_HEADER_LEN]) -> Error {
        let found = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let computed = self.log.seed.header_crc(position, bytes);
        self.log.corrupt(position, Damage::Header { found, computed })
    }

    /// Copies the record at `position` into `buffer`, which grows where it must, and checks the record's checksum on the
    /// copy, so that nothing another process does to the file can change what was checked.
    #[inline]
    pub(crate) fn record<'a>(&self, position: u64, buffer: &'a mut Vec<u8>, verify: bool) -> Result<Record<'a>> {
        self.record_from(&self.start(position)?, buffer, verify)
    }

    /// The same, from its start on.
    #[inline(always)]
    pub(crate) fn record_from<'a>(&self, start: &Start, buffer: &'a mut Vec<u8>, verify: bool) -> Result<Record<'a>> {
        let header = start.header;
        let len = header.record_len() as usize;
        if buffer.len() < len {
            self.grow(buffer, len)?;
        }
        let record = &mut buffer[..len];
        self.copy(start, record, verify)?;
        let (key, value) = record[RECORD_HEADER_LEN..].split_at(header.key_len.into());
        Ok(Record { header, key, value })
    }

    /// Copies what the checksum covers of a record into its place in `record`, and checks it there: in one piece, since an
    /// update of a checksum has a price of its own.
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

    /// Makes a buffer `len` bytes long, for which it is too short. What it held is not kept, and is given back first.
    ///
    /// It can be as large as another process wants it to be: a limit on memory must not end this one.
    fn grow(&self, buffer: &mut Vec<u8>, len: usize) -> Result<()> {
        if buffer.capacity() < len {
            *buffer = Vec::new();
            let no_memory = |_| self.log.io("get memory for a value", io::ErrorKind::OutOfMemory.into());
            buffer.try_reserve_exact(len).map_err(no_memory)?;
        }
        buffer.resize(len, 0);
        Ok(())
    }

    /// Copies the full key of the record at `position`, whose header is `header`, behind what `out` holds.
    pub(crate) fn key_into(&self, position: u64, header: &RecordHeader, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let len = usize::from(header.key_len);
        // All keys that begin alike are sorted at a time.
        make_room(out, len).map_err(|e| self.log.io("get memory for keys", e))?;
        out.resize(start + len, 0);
        self.read(position + RECORD_HEADER_LEN as u64, &mut out[start..])
    }

    /// Copies the value of a record into `out`, checks the record's checksum on the copy, so that nothing another process
    /// does to the file can change what was checked, and returns the record's index.
    ///
    /// `key` is the full key that the record was found by: what has another one by now does not verify.
    #[inline]
    pub(crate) fn value_into(&self, start: &Start, key: &[u8], out: &mut Vec<u8>, verify: bool) -> Result<u64> {
        let header = &start.header;
        let (len, key_len) = (header.record_len() as usize, usize::from(header.key_len));
        out.clear();
        if len > SHORT_RECORD {
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
        let (stored, value) = record[RECORD_HEADER_LEN..].split_at(key_len);
        if verify && stored != key {
            self.verify_value(start.position, header, key, value)?;
        }
        out.extend_from_slice(value);
        Ok(header.seq)
    }

    /// Checks the checksum of a record over a copy of its key and its value.
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
    use crate::format::Kind;

    /// Reads all there is to be read of a record, in every way, and returns how many calls that took.
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
        // Longer than the record: what was there before must not show.
        let mut buffer = vec![b'x'; 200];
        let record = reader.record(position, &mut buffer, true).unwrap();
        assert_eq!((record.header, record.key, record.value), (header, key, &b"value"[..]));
        disk.calls_of(Verb::ReadAt) - calls
    }

    #[test]
    fn what_the_map_covers_costs_no_call_and_what_it_does_not_is_read_all_the_same() {
        let mut draft = Draft::new();
        let (first, second) = (draft.put(PLAIN, "a"), draft.put(PLAIN, "b"));
        let (end, disk) = (draft.end(), SimDisk::new());
        let log = Arc::new(open_on(&disk, draft.bytes));
        for (mapped, calls) in [(None, [true, true]), (Some(second), [false, true]), (Some(end), [false, false])] {
            let map = mapped.map(|len| Arc::new(log.file.map(len).unwrap().unwrap()));
            assert_eq!(map.as_ref().map(|map| map.len()), mapped);
            let reader = Reader { log: Arc::clone(&log), map, end };
            assert_eq!(read_all(&disk, &reader, first, b"\0a") > 0, calls[0], "{mapped:?}");
            assert_eq!(read_all(&disk, &reader, second, b"\0b") > 0, calls[1], "{mapped:?}");
        }
    }

    /// A file whose header is changed between the first look at it and the copy of the whole record.
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
    fn a_header_that_is_another_when_its_record_is_copied_is_damage_though_the_copy_has_its_checksum() {
        let mut draft = Draft::new();
        let position = draft.put(PLAIN, "a");
        let (end, bytes, disk) = (draft.end(), draft.bytes.clone(), SimDisk::new());
        let log = Arc::new(open_on(&disk, draft.bytes));
        let header = Reader { log: Arc::clone(&log), map: None, end }.header(position).unwrap();
        let over = |first: RecordHeader| {
            let map = Changing { bytes: bytes.clone(), first: (position, first.encode()) };
            Reader { log: Arc::clone(&log), map: Some(Arc::new(Map::from_bytes(Box::new(map)))), end }
        };
        let mut buffer = Vec::new();
        assert_eq!(over(header).record(position, &mut buffer, true).unwrap().header, header);
        let other = RecordHeader { seq: header.seq + 1, ..header };
        let error = over(other).record(position, &mut buffer, true).err();
        assert!(matches!(error, Some(Error::Corrupt { offset, damage: Damage::Header { found, computed }, .. })
                if offset == position && found != computed));
    }

    #[test]
    fn a_record_of_another_key_than_it_was_found_by_is_damage_whatever_its_length() {
        for value in [0, 100, 163, 164, 1000] {
            let mut draft = Draft::new();
            let position = draft.push(PLAIN, Kind::Put, b"\0one", &vec![7; value]);
            let (end, disk) = (draft.end(), SimDisk::new());
            let reader = Reader { log: Arc::new(open_on(&disk, draft.bytes)), map: None, end };
            let mut out = Vec::new();
            let start = reader.start(position).unwrap();
            reader.value_into(&start, b"\0one", &mut out, true).unwrap();
            assert_eq!(out, vec![7; value]);
            let error = reader.value_into(&start, b"\0two", &mut out, true).unwrap_err();
            assert!(matches!(error, Error::Corrupt { damage: Damage::Body { .. }, .. }), "{value}: {error}");
        }
    }

    #[test]
    fn a_length_that_was_changed_and_leads_out_of_the_log_is_damage() {
        let mut draft = Draft::new();
        let position = draft.put(PLAIN, "a");
        let (end, disk) = (draft.end(), SimDisk::new());
        let reader = Reader { log: Arc::new(open_on(&disk, draft.bytes)), map: None, end };
        let header = reader.header(position).unwrap();
        let changed = RecordHeader { value_len: header.value_len + 8, ..header };
        reader.log.file.write_at(position, &changed.encode()).unwrap();
        let error = reader.header(position).unwrap_err();
        assert!(matches!(error, Error::Corrupt { offset, damage: Damage::Header { .. }, .. } if offset == position));
    }
}
