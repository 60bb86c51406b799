//! Index snapshots: an image of the index in the log, so that opening need not read the log before it.
//!
//! An image is the hash index at one moment: the moment when the log ended at *covered_to*. It is divided into parts by the
//! first bits of the keys' hashes. The parts lie in records of the kind `IMAGE`. A record of the kind `SNAPSHOT` says where they
//! are, and the root leads to that record. Each part has a checksum of its own, so that it can be read alone.
//!
//! A snapshot is believed only if every rule holds. If one does not, the log is read from its start: a snapshot can never be the
//! reason for an error.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};
use siphasher::sip::SipHasher13;

use super::checksum::FileSeed;
use super::kind::{Ancillary, Flags, KIND_IMAGE, KIND_SNAPSHOT, Kind};
use super::order::{StoredBytes, StoredOrder};
use super::record::{RECORD_HEADER_LEN, RecordHeader};
use super::{ALIGNMENT, FileHeader};

/// The kinds of both records.
pub(crate) const IMAGE: Kind = Kind::Ancillary(Ancillary::Loose(KIND_IMAGE));
pub(crate) const SNAPSHOT: Kind = Kind::Ancillary(Ancillary::Loose(KIND_SNAPSHOT));

/// The first bits of a hash choose one of the index's sub-tables.
pub(crate) const TABLE_BITS: u32 = 12;

/// The next bits of a hash are the tag of the key's word.
pub(crate) const TAG_BITS: u32 = 24;

/// The version of a snapshot of a log without deadlines and sessions.
const VERSION: u32 = 1;

/// The version of a snapshot of a log that has, or had, records of the kinds put-with, put-owned and session. A build that does
/// not know these kinds knows this version neither. So it reads the log, and refuses the kinds by name.
const VERSION_WITH_LIFETIMES: u32 = 2;

/// SipHash-1-3 with the file's `file_id` as its key.
const HASH: u32 = 1;

/// What is hashed to see whether reader and writer use the same hash.
const CHECKED: &[u8] = b"caskfile";

pub(super) const AT_VERSION: Range<usize> = 0..4;
pub(super) const AT_HASH: Range<usize> = AT_VERSION.end..AT_VERSION.end + 4;
pub(super) const AT_CHECK: Range<usize> = AT_HASH.end..AT_HASH.end + 8;
pub(super) const AT_COVERED_TO: Range<usize> = AT_CHECK.end..AT_CHECK.end + 8;
pub(super) const AT_COVERED_SEQ: Range<usize> = AT_COVERED_TO.end..AT_COVERED_TO.end + 8;
pub(super) const AT_RECORDS: Range<usize> = AT_COVERED_SEQ.end..AT_COVERED_SEQ.end + 8;
pub(super) const AT_KEYS: Range<usize> = AT_RECORDS.end..AT_RECORDS.end + 8;
pub(super) const AT_LIVE_BYTES: Range<usize> = AT_KEYS.end..AT_KEYS.end + 8;
pub(super) const AT_PART_BITS: Range<usize> = AT_LIVE_BYTES.end..AT_LIVE_BYTES.end + 4;
pub(super) const AT_LEAVES: Range<usize> = AT_PART_BITS.end..AT_PART_BITS.end + 4;
pub(super) const AT_DIRECTORY: Range<usize> = AT_LEAVES.end..AT_LEAVES.end + 8;
pub(super) const AT_DIRECTORY_CRC: Range<usize> = AT_DIRECTORY.end..AT_DIRECTORY.end + 4;
pub(super) const AT_SINCE_EVENT: Range<usize> = AT_DIRECTORY_CRC.end..AT_DIRECTORY_CRC.end + 4;

/// The entries of the parts start here.
pub(crate) const SNAPSHOT_HEAD_LEN: usize = AT_SINCE_EVENT.end;

pub(super) const AT_PART_OFFSET: Range<usize> = 0..8;
pub(super) const AT_PART_COUNT: Range<usize> = AT_PART_OFFSET.end..AT_PART_OFFSET.end + 4;
pub(super) const AT_PART_CRC: Range<usize> = AT_PART_COUNT.end..AT_PART_COUNT.end + 4;

/// The length of a part's entry.
pub(crate) const PART_ENTRY_LEN: usize = AT_PART_CRC.end;

/// The most records with a lifetime that a snapshot leads to. Opening reads them all.
pub(crate) const MOST_LIFETIMES: usize = 4096;

/// The most bytes that these records have.
pub(crate) const MOST_LIFETIME_BYTES: u64 = 1 << 20;

/// The `count` in the entry of a record with a lifetime.
const ONE: u32 = 1;

const COUNT_LEN: usize = size_of::<u32>();
const WORD_LEN: usize = size_of::<u64>();

/// Hashes the full keys of one file. All handles of the file get the same hashes, since images hold parts of them.
///
/// The key of the hash is the file's secret identity, so without it no keys can be prepared that fall into one sub-table.
/// A user that can read the file can prepare them; look-ups become slow then, never wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(SipHasher13);

impl KeyHasher {
    pub(crate) fn new(header: &FileHeader) -> KeyHasher {
        KeyHasher(SipHasher13::new_with_key(&header.file_id))
    }

    /// The hash of a full key.
    #[inline]
    pub(crate) fn hash(&self, full_key: &[u8]) -> u64 {
        self.0.hash(full_key)
    }
}

#[cfg(test)]
impl KeyHasher {
    pub(crate) fn of_tests() -> KeyHasher {
        KeyHasher(SipHasher13::new_with_key(&[7; 16]))
    }
}

/// What the log before an offset comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    /// The image holds what the log's records before this offset come to. A unit ends here.
    pub(crate) end: u64,
    /// The sequence number of the record before that; 0 if there is none.
    pub(crate) previous_seq: u64,
    /// The sequence number of the last put or delete before that, or the file's floor. `None` if that is not stated.
    pub(crate) last_event: Option<u64>,
    /// The number of records before `end`.
    pub(crate) records: u64,
    pub(crate) keys: u64,
    /// Bytes of the records that set the present values of keys.
    pub(crate) live_bytes: u64,
}

impl Covered {
    /// The distance from the last event to the last record, plus one; 0 if it is not known, or does not fit.
    fn since_event(&self) -> u32 {
        let distance = self.last_event.and_then(|last| self.previous_seq.checked_sub(last));
        distance.and_then(|distance| u32::try_from(distance + 1).ok()).unwrap_or(0)
    }

    fn with_event(self, since_event: u32) -> Covered {
        let distance = since_event.checked_sub(1).map(u64::from);
        let last_event = distance.and_then(|distance| self.previous_seq.checked_sub(distance));
        Covered { last_event, ..self }
    }
}

/// Where a part lies in the file. A part without keys has no bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) offset: u64,
    /// The number of keys.
    pub(crate) count: u32,
    pub(crate) crc: u32,
}

impl StoredPart {
    /// The part with these bytes at an offset of the file.
    pub(crate) fn new(seed: FileSeed, offset: u64, count: u32, bytes: &[u8]) -> StoredPart {
        if count == 0 { StoredPart::default() } else { StoredPart { offset, count, crc: seed.crc_at(offset, bytes) } }
    }

    pub(crate) fn len(&self, part_bits: u32) -> usize {
        part_len(self.count, part_bits)
    }

    pub(crate) fn bytes(&self, part_bits: u32) -> StoredBytes {
        StoredBytes { offset: self.offset, len: self.len(part_bits), crc: self.crc }
    }
}

/// The length of a part with `count` keys: a count for each sub-table, then a word for each key. Without keys it has no bytes.
pub(crate) fn part_len(count: u32, part_bits: u32) -> usize {
    if count == 0 { 0 } else { tables_in_part(part_bits) * COUNT_LEN + count as usize * WORD_LEN }
}

/// The number of sub-tables in a part, if there are 2^`part_bits` parts.
pub(crate) fn tables_in_part(part_bits: u32) -> usize {
    1 << (TABLE_BITS - part_bits)
}

/// The number of the first bits of a hash that name a part, so that the parts of an index with this many keys have `least_part`
/// bytes or more, on average.
pub(crate) fn part_bits_for(keys: u64, least_part: u64) -> u32 {
    let parts = keys.saturating_mul(WORD_LEN as u64) / least_part;
    parts.checked_ilog2().unwrap_or(0).min(TABLE_BITS)
}

/// The length of the image of an index with this many keys, and of its snapshot.
pub(crate) fn image_len(keys: u64, part_bits: u32) -> u64 {
    keys * WORD_LEN as u64 + ((COUNT_LEN << TABLE_BITS) + Snapshot::value_len(part_bits, 0)) as u64
}

/// Appends a part to `out`: the words of its sub-tables, which the caller has sorted.
pub(crate) fn encode_part<'t>(tables: impl Iterator<Item = &'t [u64]> + Clone, out: &mut Vec<u8>) {
    for table in tables.clone() {
        out.extend_from_slice(&(table.len() as u32).to_le_bytes());
    }
    for word in tables.flatten() {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// The words of each sub-table of a part whose checksum was verified. `None` if the counts do not add up, if words do not
/// ascend, or if a position lies outside of `covered`.
pub(crate) fn decode_part(bytes: &[u8], part_bits: u32, covered: &Range<u64>) -> Option<Vec<Vec<u64>>> {
    let (counts, words) = bytes.split_at_checked(tables_in_part(part_bits) * COUNT_LEN)?;
    let mut words = words.chunks_exact(WORD_LEN).map(LittleEndian::read_u64);
    let mut tables = Vec::with_capacity(tables_in_part(part_bits));
    for count in counts.chunks_exact(COUNT_LEN).map(LittleEndian::read_u32) {
        if count as usize > words.len() {
            return None;
        }
        let table: Vec<u64> = words.by_ref().take(count as usize).collect();
        let fits = |&word: &u64| covered.contains(&((word & (u64::MAX >> TAG_BITS)) * ALIGNMENT));
        if !table.is_sorted_by(|a, b| a < b) || !table.iter().all(fits) {
            return None;
        }
        tables.push(table);
    }
    (words.len() == 0).then_some(tables)
}

/// Where a record with a lifetime stands: a pair with a deadline or an owner, or the last record of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredLifetime {
    pub(crate) offset: u64,
    /// The checksum of the record's header. So the entry is about this record, and not about another one in its place.
    pub(crate) header_crc: u32,
}

/// A decoded `SNAPSHOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) covered: Covered,
    /// The number of parts is 2^`part_bits`.
    pub(crate) part_bits: u32,
    pub(crate) parts: Vec<StoredPart>,
    /// The order of the keys, if it is stored.
    pub(crate) order: Option<StoredOrder>,
    /// The records with a lifetime, in the order of the log: those that set the present values of keys, and the last one of each
    /// session without END. `None` in a log that has had no such record.
    pub(crate) lifetimes: Option<Vec<StoredLifetime>>,
}

impl Snapshot {
    /// The most entries that a value has.
    pub(crate) const MOST_ENTRIES: usize = (1 << TABLE_BITS) + MOST_LIFETIMES;

    /// The length of the longest value.
    pub(crate) const MOST_BYTES: usize = SNAPSHOT_HEAD_LEN + PART_ENTRY_LEN * Snapshot::MOST_ENTRIES;

    /// Whether the value of a `SNAPSHOT` says that it is of a later version, or uses a hash of one.
    pub(crate) fn is_of_later_version(value: &[u8]) -> bool {
        value.len() >= SNAPSHOT_HEAD_LEN
            && (!is_known(LittleEndian::read_u32(&value[AT_VERSION]))
                || LittleEndian::read_u32(&value[AT_HASH]) != HASH)
    }

    /// The length of the record's value.
    pub(crate) fn value_len(part_bits: u32, lifetimes: usize) -> usize {
        SNAPSHOT_HEAD_LEN + PART_ENTRY_LEN * ((1 << part_bits) + lifetimes)
    }

    /// The record's value.
    pub(crate) fn encode(&self, hasher: &KeyHasher) -> Vec<u8> {
        let mut bytes = vec![0; SNAPSHOT_HEAD_LEN];
        let version = if self.lifetimes.is_some() { VERSION_WITH_LIFETIMES } else { VERSION };
        LittleEndian::write_u32(&mut bytes[AT_VERSION], version);
        LittleEndian::write_u32(&mut bytes[AT_HASH], HASH);
        LittleEndian::write_u64(&mut bytes[AT_CHECK], hasher.hash(CHECKED));
        LittleEndian::write_u64(&mut bytes[AT_COVERED_TO], self.covered.end);
        LittleEndian::write_u64(&mut bytes[AT_COVERED_SEQ], self.covered.previous_seq);
        LittleEndian::write_u64(&mut bytes[AT_RECORDS], self.covered.records);
        LittleEndian::write_u64(&mut bytes[AT_KEYS], self.covered.keys);
        LittleEndian::write_u64(&mut bytes[AT_LIVE_BYTES], self.covered.live_bytes);
        LittleEndian::write_u32(&mut bytes[AT_PART_BITS], self.part_bits);
        let order = self.order.unwrap_or_default();
        LittleEndian::write_u32(&mut bytes[AT_LEAVES], order.leaves);
        LittleEndian::write_u64(&mut bytes[AT_DIRECTORY], order.directory);
        LittleEndian::write_u32(&mut bytes[AT_DIRECTORY_CRC], order.crc);
        LittleEndian::write_u32(&mut bytes[AT_SINCE_EVENT], self.covered.since_event());
        let parts = self.parts.iter().map(|part| (part.offset, part.count, part.crc));
        let lifetimes = self.lifetimes.iter().flatten().map(|lifetime| (lifetime.offset, ONE, lifetime.header_crc));
        for (offset, count, crc) in parts.chain(lifetimes) {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// The snapshot in the value of a `SNAPSHOT` at `at`, in a log that starts at `log_start`. The record's checksum was verified.
    /// `None` if this version cannot use it, or if it contradicts itself.
    pub(crate) fn decode(value: &[u8], hasher: &KeyHasher, log_start: u64, at: u64) -> Option<Snapshot> {
        let head = value.get(..SNAPSHOT_HEAD_LEN)?;
        let version = LittleEndian::read_u32(&head[AT_VERSION]);
        let known = is_known(version)
            && LittleEndian::read_u32(&head[AT_HASH]) == HASH
            && LittleEndian::read_u64(&head[AT_CHECK]) == hasher.hash(CHECKED);
        let part_bits = LittleEndian::read_u32(&head[AT_PART_BITS]);
        if !known || part_bits > TABLE_BITS {
            return None;
        }
        let (parts, lifetimes) = value[SNAPSHOT_HEAD_LEN..].split_at_checked(PART_ENTRY_LEN << part_bits)?;
        let fits = lifetimes.len() % PART_ENTRY_LEN == 0 && lifetimes.len() / PART_ENTRY_LEN <= MOST_LIFETIMES;
        if !fits || version == VERSION && !lifetimes.is_empty() {
            return None;
        }
        let covered = Covered {
            end: LittleEndian::read_u64(&head[AT_COVERED_TO]),
            previous_seq: LittleEndian::read_u64(&head[AT_COVERED_SEQ]),
            last_event: None,
            records: LittleEndian::read_u64(&head[AT_RECORDS]),
            keys: LittleEndian::read_u64(&head[AT_KEYS]),
            live_bytes: LittleEndian::read_u64(&head[AT_LIVE_BYTES]),
        }
        .with_event(LittleEndian::read_u32(&head[AT_SINCE_EVENT]));
        let entries = |bytes: &[u8]| -> Vec<StoredPart> {
            let entry = |entry: &[u8]| StoredPart {
                offset: LittleEndian::read_u64(&entry[AT_PART_OFFSET]),
                count: LittleEndian::read_u32(&entry[AT_PART_COUNT]),
                crc: LittleEndian::read_u32(&entry[AT_PART_CRC]),
            };
            bytes.chunks_exact(PART_ENTRY_LEN).map(entry).collect()
        };
        let (parts, lifetimes) = (entries(parts), entries(lifetimes));
        if lifetimes.iter().any(|lifetime| lifetime.count != ONE) {
            return None;
        }
        let lifetimes =
            lifetimes.iter().map(|lifetime| StoredLifetime { offset: lifetime.offset, header_crc: lifetime.crc });
        let lifetimes = (version == VERSION_WITH_LIFETIMES).then(|| lifetimes.collect());
        let order = StoredOrder {
            leaves: LittleEndian::read_u32(&head[AT_LEAVES]),
            directory: LittleEndian::read_u64(&head[AT_DIRECTORY]),
            crc: LittleEndian::read_u32(&head[AT_DIRECTORY_CRC]),
        };
        let order = (order.leaves > 0).then_some(order);
        let snapshot = Snapshot { covered, part_bits, parts, order, lifetimes };
        snapshot.is_consistent(log_start, at).then_some(snapshot)
    }

    /// Whether the numbers agree with one another and with the place of the record.
    fn is_consistent(&self, log_start: u64, at: u64) -> bool {
        let Covered { end, records, keys, live_bytes, .. } = self.covered;
        let smallest = RECORD_HEADER_LEN as u64;
        let lies_before = |part: &StoredPart| {
            let len = part.len(self.part_bits) as u64;
            let lies_before = || part.offset >= end && part.offset.checked_add(len).is_some_and(|end| end <= at);
            part.count == 0 || len <= StoredBytes::MOST && lies_before()
        };
        end % ALIGNMENT == 0
            && (log_start..=at).contains(&end)
            && records.checked_mul(smallest).is_some_and(|least| least <= end - log_start)
            && live_bytes <= end - log_start
            && keys <= records
            && self.parts.iter().map(|part| u64::from(part.count)).sum::<u64>() == keys
            && self.parts.iter().all(lies_before)
            && self.order.is_none_or(|order| order.lies_in(end..at) && u64::from(order.leaves) <= keys)
            && self
                .lifetimes
                .iter()
                .flatten()
                .all(|lifetime| lifetime.offset % ALIGNMENT == 0 && (log_start..end).contains(&lifetime.offset))
            && self.lifetimes.iter().flatten().is_sorted_by(|a, b| a.offset < b.offset)
    }
}

/// Whether this build knows a version.
fn is_known(version: u32) -> bool {
    (VERSION..=VERSION_WITH_LIFETIMES).contains(&version)
}

/// Whether a record header is that of a `SNAPSHOT`, which a loose record's rules allow nothing else.
pub(crate) fn is_snapshot(header: &RecordHeader) -> bool {
    header.kind == SNAPSHOT && header.flags == Flags::NONE && header.key_len == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        let file_id = std::array::from_fn(|byte| byte as u8);
        FileHeader { major: 1, minor: 0, has_roots: true, file_id, base_seq: 0, created: 0, complete_after: 0 }
    }

    fn hasher() -> KeyHasher {
        KeyHasher::new(&header())
    }

    /// Of a log of ten records from 216 to 616, with an image of two parts after it.
    fn snapshot() -> Snapshot {
        let covered =
            Covered { end: 616, previous_seq: 10, last_event: Some(9), records: 10, keys: 3, live_bytes: 120 };
        let parts =
            vec![StoredPart { offset: 640, count: 2, crc: 7 }, StoredPart { offset: 640 + 8208, count: 1, crc: 8 }];
        Snapshot { covered, part_bits: 1, parts, order: None, lifetimes: None }
    }

    const AT: u64 = 20_000;

    /// Vectors of SipHash-1-3 under the key 00 01 … 0f, of the messages of 0 to 3 bytes 00 01 02.
    #[test]
    fn the_hash_is_siphash_1_3_under_the_file_id() {
        let hashes = [0, 1, 2, 3].map(|len: u8| hasher().hash(&(0..len).collect::<Vec<u8>>()));
        assert_eq!(
            hashes.map(u64::to_le_bytes),
            [
                [0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab],
                [0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9],
                [0x4d, 0xd4, 0xc7, 0x4d, 0x02, 0x9b, 0xcb, 0x82],
                [0xfb, 0xf7, 0xdd, 0xe7, 0xb8, 0x0a, 0xf8, 0x8b],
            ]
        );
    }

    #[test]
    fn a_snapshot_reads_back_as_written() {
        let value = snapshot().encode(&hasher());
        assert_eq!(value.len(), Snapshot::value_len(1, 0));
        assert_eq!(Snapshot::decode(&value, &hasher(), 216, AT), Some(snapshot()));
    }

    /// Three records of the covered log: a pair with a deadline, a session, and its pair.
    fn with_lifetimes() -> Snapshot {
        let lifetimes = [(216, 1), (256, 2), (608, 3)];
        let lifetimes = lifetimes.map(|(offset, header_crc)| StoredLifetime { offset, header_crc });
        Snapshot { lifetimes: Some(lifetimes.to_vec()), ..snapshot() }
    }

    #[test]
    fn lifetimes_read_back_as_written_and_have_a_version_of_their_own() {
        for stored in [with_lifetimes(), Snapshot { lifetimes: Some(Vec::new()), ..snapshot() }] {
            let mut value = stored.encode(&hasher());
            assert_eq!(value.len(), Snapshot::value_len(1, stored.lifetimes.as_ref().unwrap().len()));
            assert_eq!(value[AT_VERSION], [2, 0, 0, 0]);
            assert_eq!(Snapshot::decode(&value, &hasher(), 216, AT), Some(stored.clone()));
            value[AT_VERSION.start] = 1;
            let as_before = (stored.lifetimes == Some(Vec::new())).then(snapshot);
            assert_eq!(Snapshot::decode(&value, &hasher(), 216, AT), as_before);
        }
    }

    #[test]
    fn lifetimes_that_contradict_the_log_are_not_used() {
        let decoded = |change: &dyn Fn(&mut Vec<StoredLifetime>)| {
            let mut snapshot = with_lifetimes();
            change(snapshot.lifetimes.as_mut().unwrap());
            Snapshot::decode(&snapshot.encode(&hasher()), &hasher(), 216, AT).is_some()
        };
        assert!(decoded(&|_| {}));
        assert!(!decoded(&|lifetimes| lifetimes[0].offset = 208), "before the log");
        assert!(!decoded(&|lifetimes| lifetimes[2].offset = 616), "after what is covered");
        assert!(!decoded(&|lifetimes| lifetimes[1].offset = 260), "no place of a record");
        assert!(!decoded(&|lifetimes| lifetimes.swap(0, 1)), "not in the order of the log");
        assert!(!decoded(&|lifetimes| lifetimes[1] = lifetimes[0]), "one record twice");
        let mut value = with_lifetimes().encode(&hasher());
        let count = value.len() - PART_ENTRY_LEN + AT_PART_COUNT.start;
        value[count] = 2;
        assert_eq!(Snapshot::decode(&value, &hasher(), 216, AT), None, "an entry of two records");
    }

    #[test]
    fn more_lifetimes_than_an_opening_reads_are_refused() {
        let is_used = |count: usize| {
            let covered = Covered { end: 1 << 20, ..snapshot().covered };
            let lifetimes = (0..count as u64).map(|n| StoredLifetime { offset: 216 + 8 * n, header_crc: 0 }).collect();
            let parts = vec![StoredPart { offset: 1 << 20, count: 3, crc: 7 }];
            let snapshot = Snapshot { covered, part_bits: 0, parts, lifetimes: Some(lifetimes), ..snapshot() };
            Snapshot::decode(&snapshot.encode(&hasher()), &hasher(), 216, 1 << 22).is_some()
        };
        assert!(is_used(MOST_LIFETIMES) && !is_used(MOST_LIFETIMES + 1));
    }

    #[test]
    fn the_last_event_is_stated_as_a_distance() {
        let far = u64::from(u32::MAX) - 1;
        for (previous_seq, last_event, stated) in [
            (10, Some(10), 1),
            (10, Some(0), 11),
            (10, None, 0),
            (10, Some(11), 0),
            (far, Some(0), u32::MAX),
            (far + 1, Some(0), 0),
        ] {
            let covered = Covered { previous_seq, last_event, ..snapshot().covered };
            assert_eq!(covered.since_event(), stated);
            assert_eq!(covered.with_event(stated).last_event, last_event.filter(|_| stated > 0));
        }
        assert_eq!(Covered { previous_seq: 3, ..snapshot().covered }.with_event(5).last_event, None);
    }

    #[test]
    fn a_snapshot_of_another_version_or_hash_is_not_used() {
        let value = snapshot().encode(&hasher());
        for at in [AT_VERSION.start, AT_HASH.start, AT_CHECK.start] {
            let mut other = value.clone();
            other[at] ^= 4;
            assert_eq!(Snapshot::decode(&other, &hasher(), 216, AT), None, "byte {at}");
        }
        let other = KeyHasher::new(&FileHeader { file_id: [9; 16], ..header() });
        assert_eq!(Snapshot::decode(&value, &other, 216, AT), None);
        for len in 0..value.len() {
            assert_eq!(Snapshot::decode(&value[..len], &hasher(), 216, AT), None, "{len} bytes");
        }
        assert_eq!(Snapshot::decode(&[&value[..], &[0]].concat(), &hasher(), 216, AT), None);
    }

    #[test]
    fn a_snapshot_that_contradicts_itself_is_not_used() {
        let decoded = |change: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = snapshot();
            change(&mut snapshot);
            Snapshot::decode(&snapshot.encode(&hasher()), &hasher(), 216, AT)
        };
        assert!(decoded(&|_| {}).is_some());
        type Change<'c> = (&'static str, &'c dyn Fn(&mut Snapshot));
        let wrong: [Change<'_>; 10] = [
            ("the end is no place of a record", &|snapshot| snapshot.covered.end += 4),
            ("the end lies before the log", &|snapshot| snapshot.covered.end = 208),
            ("the end lies after the snapshot", &|snapshot| snapshot.covered.end = AT + 8),
            ("more records than fit", &|snapshot| snapshot.covered.records = 17),
            ("records whose length overflows", &|snapshot| snapshot.covered.records = u64::MAX / 8),
            ("more keys than records", &|snapshot| snapshot.covered.records = 2),
            ("more live bytes than bytes", &|snapshot| snapshot.covered.live_bytes = 401),
            ("the parts have other keys", &|snapshot| snapshot.covered.keys = 2),
            ("a part in the covered log", &|snapshot| snapshot.parts[0].offset = 608),
            ("a part that reaches into the snapshot", &|snapshot| snapshot.parts[1].offset = AT - 8199),
        ];
        for (what, change) in wrong {
            assert_eq!(decoded(change), None, "{what}");
        }
        assert_eq!(decoded(&|snapshot| snapshot.parts[1].offset = u64::MAX), None);
        assert!(decoded(&|snapshot| snapshot.parts[1].offset = AT - 8200).is_some());
    }

    /// They lie in a file of terabytes that has holes, so that their checksums cost nothing to forge.
    #[test]
    fn a_part_or_directory_that_no_image_can_hold_is_refused_before_it_is_read() {
        const END: u64 = 1 << 41;
        let is_used = |count: u32, leaves: u32| {
            let keys = u64::from(count);
            let covered = Covered { end: END, previous_seq: 1, last_event: None, records: keys, keys, live_bytes: 0 };
            let parts = vec![StoredPart { offset: END, count, crc: 7 }];
            let order = Some(StoredOrder { leaves, directory: END, crc: 7 });
            let snapshot = Snapshot { covered, part_bits: 0, parts, order, lifetimes: None };
            Snapshot::decode(&snapshot.encode(&hasher()), &hasher(), 216, 2 * END).is_some()
        };
        let (words, leaves) = (((1 << 30) - (4 << TABLE_BITS)) / 8, (1 << 30) / 40);
        assert!(is_used(words, leaves));
        assert!(!is_used(words + 1, leaves) && !is_used(words, leaves + 1));
    }

    #[test]
    fn more_parts_than_sub_tables_are_refused_before_anything_is_allocated() {
        for part_bits in [TABLE_BITS + 1, 31, 32, u32::MAX] {
            let mut value = snapshot().encode(&hasher());
            LittleEndian::write_u32(&mut value[AT_PART_BITS], part_bits);
            assert_eq!(Snapshot::decode(&value, &hasher(), 216, AT), None);
        }
    }

    fn word(tag: u64, position: u64) -> u64 {
        (tag << 40) | (position / 8)
    }

    #[test]
    fn a_part_reads_back_as_written_and_only_under_its_own_checksum() {
        let bits = TABLE_BITS - 2;
        let tables: [&[u64]; 4] = [&[], &[word(1, 216), word(1, 224)], &[], &[word(0xff_ffff, 232)]];
        let mut bytes = Vec::new();
        encode_part(tables.into_iter(), &mut bytes);
        let mut part = StoredPart { offset: 640, count: 3, crc: 0 };
        assert_eq!(bytes.len(), part.len(bits));
        let seed = header().seed();
        part.crc = seed.crc_at(640, &bytes);
        assert!(part.bytes(bits).holds(seed, &bytes));
        assert!(!StoredPart { offset: 648, ..part }.bytes(bits).holds(seed, &bytes), "in another place");
        assert!(!part.bytes(bits).holds(FileSeed::new(&[9; 16]), &bytes), "in another file");
        assert_eq!(decode_part(&bytes, bits, &(216..240)).unwrap(), tables);
        for (covered, why) in [(224..240, "before the log"), (216..232, "after the covered log")] {
            assert_eq!(decode_part(&bytes, bits, &covered), None, "{why}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode_part(&bytes[..len], bits, &(216..240)), None, "{len} bytes");
        }
    }

    #[test]
    fn words_ascend() {
        let bits = TABLE_BITS;
        for (words, holds) in [
            ([word(1, 216), word(2, 216)], true),
            ([word(2, 216), word(1, 224)], false),
            ([word(1, 216), word(1, 216)], false),
        ] {
            let mut bytes = Vec::new();
            encode_part([&words[..]].into_iter(), &mut bytes);
            assert_eq!(decode_part(&bytes, bits, &(216..240)).is_some(), holds, "{words:x?}");
        }
    }
}
