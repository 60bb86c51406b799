//! Snapshots of the index, made and checked from docs/FORMAT.md alone.

use std::collections::BTreeMap;

use super::bytes::{FILE_ID, FileBytes, record};
use super::layout::{
    ALIGNMENT, DELETE, EXPIRY, EXPIRY_LEN, FILE_HEADER, Field, IMAGE, MARK, MORE, NOW, PUT, PUT_OWNED, PUT_WITH,
    RECORD_HEADER, RECORD_HEADER_LEN, SESSION, SESSION_VALUE, SNAPSHOT, SYNCED, crc_at, log_start, number, session,
    set, with_deadline, with_owner,
};
use super::reader::Reader;
use super::seal::{seal_record, seal_roots};

/// The fields at the start of the value of a `SNAPSHOT`.
pub const HEAD: &[Field] = &[
    ("version", 0, 4),
    ("hash", 4, 4),
    ("check", 8, 8),
    ("covered_to", 16, 8),
    ("covered_seq", 24, 8),
    ("records", 32, 8),
    ("keys", 40, 8),
    ("live_bytes", 48, 8),
    ("part_bits", 56, 4),
    ("leaves", 60, 4),
    ("directory", 64, 8),
    ("directory_crc", 72, 4),
    ("since_event", 76, 4),
];
pub const HEAD_LEN: usize = 80;

/// The fields of the entry of a part.
pub const ENTRY: &[Field] = &[("offset", 0, 8), ("count", 8, 4), ("crc", 12, 4)];
pub const ENTRY_LEN: usize = 16;

/// The fields of a leaf's entry in the directory of an order.
pub const LEAF: &[Field] = &[("offset", 0, 8), ("count", 8, 4), ("crc", 12, 4), ("first", 16, ORDER_ENTRY_LEN)];
pub const LEAF_LEN: usize = 16 + ORDER_ENTRY_LEN;

/// The fields of an entry of the order.
pub const ORDER_ENTRY: &[Field] = &[("key", 0, 16), ("rest", 16, 8)];
pub const ORDER_ENTRY_LEN: usize = 24;

/// The first bits of a hash name a sub-table; the next are the tag.
pub const TABLE_BITS: u32 = 12;
pub const TAG_BITS: u32 = 24;

/// The field `snapshot` of the first slot.
const AT_SNAPSHOT: usize = 104;

/// SipHash-1-3.
pub fn sip_hash(key: &[u8], message: &[u8]) -> u64 {
    let half = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().unwrap());
    let (k0, k1) = (half(0), half(8));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut padded = message.to_vec();
    padded.resize(message.len() / 8 * 8 + 7, 0);
    padded.push(message.len() as u8);
    for bytes in padded.chunks(8) {
        let word = u64::from_le_bytes(bytes.try_into().unwrap());
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..3).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

/// Sub-table and tag of a hash.
pub fn place(hash: u64) -> (usize, u64) {
    ((hash >> (64 - TABLE_BITS)) as usize, hash << TABLE_BITS >> (64 - TAG_BITS))
}

/// The index of a log at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    pub covered_to: u64,
    pub covered_seq: u64,
    /// The number of the last event, or the file's floor; `None` if that is not stated.
    pub last_event: Option<u64>,
    pub records: u64,
    pub keys: u64,
    pub live_bytes: u64,
    /// The words of each sub-table, in ascending order.
    pub tables: Vec<Vec<u64>>,
    /// The entries of the keys in their order; none if it is not stored.
    pub order: Vec<[u8; ORDER_ENTRY_LEN]>,
    /// The records with a lifetime and the checksums of their headers, in the order of the log. `None` if the log has had none.
    pub lifetimes: Option<Vec<(u64, u32)>>,
}

/// Whether a record of this kind says how long something counts.
fn has_lifetime(kind: u64) -> bool {
    [PUT_WITH, PUT_OWNED, SESSION].contains(&kind)
}

impl Image {
    /// What a walk over a sound file finds before `covered_to`.
    pub fn of(file: &[u8], covered_to: usize) -> Image {
        let (mut live, mut at, mut covered_seq, mut records) = (BTreeMap::new(), log_start(file), 0, 0);
        let mut last_event = floor(file);
        let (mut sessions, mut had_lifetimes) = (BTreeMap::new(), false);
        let reader = Reader::new(file);
        while at < covered_to {
            let Ok(record) = reader.record(at, covered_seq) else { panic!("no record at {at}") };
            had_lifetimes |= has_lifetime(record.kind);
            let says = |field| number(SESSION_VALUE, field, record.value);
            match record.kind {
                PUT | PUT_WITH | PUT_OWNED => drop(live.insert(record.key.to_vec(), (at, record.next - at))),
                DELETE => drop(live.remove(record.key)),
                SESSION if says("deadline") == 0 => drop(sessions.remove(&says("session"))),
                SESSION => drop(sessions.insert(says("session"), at)),
                _ => {}
            }
            if [PUT, PUT_WITH, PUT_OWNED, DELETE].contains(&record.kind) {
                last_event = last_event.max(record.seq);
            }
            (at, covered_seq, records) = (record.next, record.seq, records + 1);
        }
        assert_eq!(at, covered_to, "a record ends there");
        let mut tables = vec![Vec::new(); 1 << TABLE_BITS];
        for (key, (at, _)) in &live {
            let (table, tag) = place(sip_hash(&file[16..32], key));
            tables[table].push(tag << (64 - TAG_BITS) | (at / ALIGNMENT) as u64);
        }
        tables.iter_mut().for_each(|words| words.sort_unstable());
        let live_bytes = live.values().map(|(_, len)| *len as u64).sum();
        let order = live.iter().map(|(key, (at, _))| order_entry(key, *at)).collect();
        let (covered_to, last_event, keys) = (at as u64, Some(last_event), live.len() as u64);
        let lifetimes = had_lifetimes.then(|| {
            let of = |at: usize| (at as u64, number(RECORD_HEADER, "header_crc", &file[at..]) as u32);
            let has_one = |at: &usize| {
                let (kind, value) = (number(RECORD_HEADER, "kind", &file[*at..]), &file[at + RECORD_HEADER_LEN..]);
                let value = &value[number(RECORD_HEADER, "key_len", &file[*at..]) as usize..];
                // A put-with without a deadline is as a put.
                kind == PUT_OWNED || kind == PUT_WITH && number(EXPIRY, "deadline", value) > 0
            };
            let pairs = live.values().map(|(at, _)| *at).filter(has_one);
            let mut all: Vec<_> = pairs.chain(sessions.into_values()).map(of).collect();
            all.sort_unstable();
            all
        });
        Image { covered_to, covered_seq, last_event, records, keys, live_bytes, tables, order, lifetimes }
    }

    /// The bytes of each part.
    fn parts(&self, part_bits: u32) -> Vec<Vec<u8>> {
        let part = |tables: &[Vec<u64>]| {
            let mut bytes = Vec::new();
            tables.iter().for_each(|words| bytes.extend((words.len() as u32).to_le_bytes()));
            tables.iter().flatten().for_each(|word| bytes.extend(word.to_le_bytes()));
            if tables.iter().all(Vec::is_empty) { Vec::new() } else { bytes }
        };
        self.tables.chunks(1 << (TABLE_BITS - part_bits)).map(part).collect()
    }
}

/// Where the records of a kind stand in a file that may be damaged elsewhere.
pub fn records(file: &[u8], kind: u64) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut found) = (log_start(file), Vec::new());
    while at + RECORD_HEADER_LEN <= file.len() {
        let field = |name| number(RECORD_HEADER, name, &file[at..]);
        if field("header_crc") == 0 && field("seq") == 0 {
            break;
        }
        let len = RECORD_HEADER_LEN + (field("key_len") + field("value_len")) as usize;
        let end = at + len.next_multiple_of(ALIGNMENT);
        if field("kind") == kind {
            found.push(at..end);
        }
        at = end;
    }
    found
}

/// A closed file with a snapshot, and where its records stand.
#[derive(Clone)]
pub struct Snapshotted {
    pub file: Vec<u8>,
    pub image_at: usize,
    pub snapshot_at: usize,
    /// What the store holds, in the words of `summary`.
    pub holds: &'static str,
}

/// Adds a snapshot to the file of a log, then records of `after`, a mark, and the end mark. Its root leads to the snapshot, and
/// states the offset of the mark. The log has `ROOTS` with empty slots.
pub fn with_snapshot(log: FileBytes, part_bits: u32, after: &[super::bytes::Fields<'_>]) -> Snapshotted {
    with_order(log, part_bits, usize::MAX, after)
}

/// As [`with_snapshot`], and with the order of the keys in leaves of `leaf_entries`, unless that is `usize::MAX`.
pub fn with_order(
    log: FileBytes,
    part_bits: u32,
    leaf_entries: usize,
    after: &[super::bytes::Fields<'_>],
) -> Snapshotted {
    let image = Image::of(&log.0, log.len());
    let image_at = log.len();
    let parts = image.parts(part_bits);
    let mut entries = Vec::new();
    let mut at = image_at + RECORD_HEADER_LEN;
    for bytes in &parts {
        let count = (bytes.len() - if bytes.is_empty() { 0 } else { 4 << (TABLE_BITS - part_bits) }) / 8;
        let is_empty = bytes.is_empty();
        entries.extend((if is_empty { 0 } else { at as u64 }).to_le_bytes());
        entries.extend((count as u32).to_le_bytes());
        entries.extend((if is_empty { 0 } else { crc_at(&log.0, at, bytes) }).to_le_bytes());
        at += bytes.len();
    }
    let (mut body, mut directory) = (parts.concat(), Vec::new());
    if leaf_entries < usize::MAX {
        for leaf in image.order.chunks(leaf_entries) {
            let bytes = leaf.concat();
            directory.extend((at as u64).to_le_bytes());
            directory.extend((leaf.len() as u32).to_le_bytes());
            directory.extend(crc_at(&log.0, at, &bytes).to_le_bytes());
            directory.extend(leaf[0]);
            at += bytes.len();
            body.extend(bytes);
        }
        body.extend(&directory);
    }
    for (offset, header_crc) in image.lifetimes.iter().flatten() {
        entries.extend(offset.to_le_bytes());
        entries.extend(1u32.to_le_bytes());
        entries.extend(header_crc.to_le_bytes());
    }
    let version = 1 + u32::from(image.lifetimes.is_some());
    let mut value = [version.to_le_bytes(), 1u32.to_le_bytes()].concat();
    for number in [
        sip_hash(&FILE_ID, b"caskfile"),
        image.covered_to,
        image.covered_seq,
        image.records,
        image.keys,
        image.live_bytes,
    ] {
        value.extend(number.to_le_bytes());
    }
    value.extend(part_bits.to_le_bytes());
    let (leaves, no_directory) = (directory.len() / LEAF_LEN, directory.is_empty());
    value.extend((leaves as u32).to_le_bytes());
    value.extend((if no_directory { 0 } else { at as u64 }).to_le_bytes());
    value.extend((if no_directory { 0 } else { crc_at(&log.0, at, &directory) }).to_le_bytes());
    value.extend([0; 4]);
    value.extend(entries);
    let log = log.push(record(0, IMAGE, image.covered_seq + 1, b"", &body));
    let snapshot_at = log.len();
    let mut log = log.push(record(0, SNAPSHOT, image.covered_seq + 2, b"", &value));
    for fields in after {
        log = log.push(*fields);
    }
    let seq = after.last().map_or(image.covered_seq + 2, |last| last.seq) + 1;
    let stated = log.len() as u64;
    let mut file = log.push(record(SYNCED, MARK, seq, b"", b"")).end();
    file[88..96].copy_from_slice(&1u64.to_le_bytes());
    file[96..104].copy_from_slice(&stated.to_le_bytes());
    file[AT_SNAPSHOT..AT_SNAPSHOT + 8].copy_from_slice(&(snapshot_at as u64).to_le_bytes());
    seal_roots(&mut file);
    Snapshotted { file, image_at, snapshot_at, holds: HOLDS }
}

impl Snapshotted {
    /// The place of a field of the head.
    pub fn field(&self, name: &str) -> std::ops::Range<usize> {
        let &(_, at, len) = HEAD.iter().find(|field| field.0 == name).expect("a field of the page's table");
        let start = self.snapshot_at + RECORD_HEADER_LEN + at;
        start..start + len
    }

    /// The places of the entries, in order.
    pub fn entries(&self) -> Vec<std::ops::Range<usize>> {
        let part_bits = number(HEAD, "part_bits", &self.file[self.snapshot_at + RECORD_HEADER_LEN..]);
        let start = self.snapshot_at + RECORD_HEADER_LEN + HEAD_LEN;
        (0..1 << part_bits).map(|part| start + part * ENTRY_LEN..start + (part + 1) * ENTRY_LEN).collect()
    }

    /// The place of the bytes of each part that has keys, and of its entry.
    pub fn parts(&self) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
        let entries = self.entries();
        let counts = 4 * ((1 << TABLE_BITS) / entries.len());
        let part = |entry: std::ops::Range<usize>| {
            let field = |name| number(ENTRY, name, &self.file[entry.clone()]) as usize;
            (field("count") > 0)
                .then(|| (field("offset")..field("offset") + counts + 8 * field("count"), entry.clone()))
        };
        entries.into_iter().filter_map(part).collect()
    }

    /// The place of the directory, if it lies in the file.
    pub fn directory(&self) -> Option<std::ops::Range<usize>> {
        let field = |name| number(HEAD, name, &self.file[self.snapshot_at + RECORD_HEADER_LEN..]) as usize;
        let end = field("leaves").checked_mul(LEAF_LEN)?.checked_add(field("directory"))?;
        (field("leaves") > 0 && end <= self.file.len()).then(|| field("directory")..end)
    }

    /// The place of the bytes of each leaf that lies in the file, and of its entry in the directory.
    pub fn leaves(&self) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
        let entries = self.directory().into_iter().flat_map(|place| place.step_by(LEAF_LEN));
        let leaf = |start: usize| {
            let field = |name| number(LEAF, name, &self.file[start..]) as usize;
            let end = field("offset").checked_add(ORDER_ENTRY_LEN * field("count"))?;
            (end <= self.file.len()).then(|| (field("offset")..end, start..start + LEAF_LEN))
        };
        entries.filter_map(leaf).collect()
    }

    /// Puts the checksum of the directory right, and with `and_leaves` first those of the leaves and their first entries.
    pub fn seal_order(&mut self, and_leaves: bool) {
        for (bytes, entry) in if and_leaves { self.leaves() } else { Vec::new() } {
            let crc = crc_at(&self.file, bytes.start, &self.file[bytes.clone()]);
            self.file[entry.start + 12..entry.start + 16].copy_from_slice(&crc.to_le_bytes());
            if bytes.len() >= ORDER_ENTRY_LEN {
                self.file.copy_within(bytes.start..bytes.start + ORDER_ENTRY_LEN, entry.start + 16);
            }
        }
        let Some(place) = self.directory() else { return };
        let crc = crc_at(&self.file, place.start, &self.file[place]);
        let at = self.field("directory_crc");
        self.file[at].copy_from_slice(&crc.to_le_bytes());
    }

    /// The place of all entries, as the length of the value says.
    pub fn room_of_entries(&self) -> std::ops::Range<usize> {
        let value_len = number(RECORD_HEADER, "value_len", &self.file[self.snapshot_at..]) as usize;
        let start = self.snapshot_at + RECORD_HEADER_LEN;
        start + HEAD_LEN..start + value_len
    }

    /// Puts the checksums of the parts right, of those that lie in the file. There are as many parts as there were before fields were
    /// changed: the largest power of two that the entries have room for.
    pub fn seal_parts_that_fit(&mut self) {
        let entries = self.room_of_entries();
        let parts = 1 << (entries.len() / ENTRY_LEN).ilog2();
        let counts = (4 << TABLE_BITS) / parts;
        for start in entries.step_by(ENTRY_LEN).take(parts) {
            let field = |name| number(ENTRY, name, &self.file[start..start + ENTRY_LEN]) as usize;
            let (offset, len) = (field("offset"), counts + 8 * field("count"));
            let Some(bytes) = offset.checked_add(len).and_then(|end| self.file.get(offset..end)) else { continue };
            let crc = crc_at(&self.file, offset, bytes);
            self.file[start + 12..start + ENTRY_LEN].copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Puts the checksums of both records right, and with `and_parts` those of the parts.
    pub fn seal(&mut self, and_parts: bool) {
        if and_parts {
            for (bytes, entry) in self.parts() {
                let crc = crc_at(&self.file, bytes.start, &self.file[bytes]);
                self.file[entry.start + 12..entry.end].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let _ = seal_record(&mut self.file, self.image_at);
        let _ = seal_record(&mut self.file, self.snapshot_at);
    }
}

/// The image in a file, as its root's snapshot has it. `None` if the root leads to none.
pub fn stored(file: &[u8]) -> Option<Image> {
    let at = Reader::new(file).root()?.2 as usize;
    let value = &file[at + RECORD_HEADER_LEN..];
    let field = |name| number(HEAD, name, value);
    (at > 0).then(|| {
        assert_eq!((field("version") - 1, field("hash")), (u64::from(field("version") == 2), 1));
        assert_eq!(field("check"), sip_hash(&file[16..32], b"caskfile"));
        let part_bits = field("part_bits") as u32;
        let in_part = 1 << (TABLE_BITS - part_bits);
        let mut tables = Vec::new();
        for entry in value[HEAD_LEN..HEAD_LEN + (ENTRY_LEN << part_bits)].chunks(ENTRY_LEN) {
            let of = |name| number(ENTRY, name, entry) as usize;
            let (start, count) = (of("offset"), of("count"));
            if count == 0 {
                assert_eq!(entry, [0; ENTRY_LEN]);
                tables.resize(tables.len() + in_part, Vec::new());
                continue;
            }
            let bytes = &file[start..start + 4 * in_part + 8 * count];
            assert_eq!(crc_at(file, start, bytes) as usize, of("crc"));
            let (counts, mut words) = bytes.split_at(4 * in_part);
            for count in counts.chunks(4) {
                let (own, rest) = words.split_at(8 * u32::from_le_bytes(count.try_into().unwrap()) as usize);
                tables.push(own.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect());
                words = rest;
            }
            assert!(words.is_empty());
        }
        Image {
            covered_to: field("covered_to"),
            covered_seq: field("covered_seq"),
            last_event: field("since_event").checked_sub(1).map(|since| field("covered_seq") - since),
            records: field("records"),
            keys: field("keys"),
            live_bytes: field("live_bytes"),
            tables,
            order: order(file).unwrap_or_default(),
            lifetimes: (field("version") == 2).then(|| {
                let value_len = number(RECORD_HEADER, "value_len", &file[at..]) as usize;
                let entry = |entry: &[u8]| {
                    let of = |name| number(ENTRY, name, entry);
                    assert_eq!(of("count"), 1);
                    (of("offset"), of("crc") as u32)
                };
                value[HEAD_LEN + (ENTRY_LEN << part_bits)..value_len].chunks(ENTRY_LEN).map(entry).collect()
            }),
        }
    })
}

/// The highest number up to which events may be missing.
fn floor(file: &[u8]) -> u64 {
    let field = |name| number(FILE_HEADER, name, file);
    let (stated, base_seq) = (field("complete_after"), field("base_seq"));
    if (1..=base_seq + 1).contains(&stated) { stated - 1 } else { base_seq }
}

/// The entry of a full key whose put is at an offset.
pub fn order_entry(key: &[u8], at: usize) -> [u8; ORDER_ENTRY_LEN] {
    let mut shown = key[..key.len().min(18)].to_vec();
    shown.resize(18, 0);
    let mut entry = [0; ORDER_ENTRY_LEN];
    entry[..16].copy_from_slice(&shown[..16]);
    let bits = u64::from(shown[16]) << 56 | u64::from(shown[17]) << 48 | (key.len().min(19) as u64) << 40;
    entry[16..].copy_from_slice(&(bits | (at / ALIGNMENT) as u64).to_le_bytes());
    entry
}

/// The entries of the order in a file, as its root's snapshot has it. `None` if there is none.
pub fn order(file: &[u8]) -> Option<Vec<[u8; ORDER_ENTRY_LEN]>> {
    let at = Reader::new(file).root()?.2 as usize;
    let value = &file[at + RECORD_HEADER_LEN..];
    let field = |name| number(HEAD, name, value) as usize;
    if at == 0 || field("leaves") == 0 {
        return None;
    }
    let start = field("directory");
    let bytes = &file[start..start + LEAF_LEN * field("leaves")];
    assert!(start >= field("covered_to") && start + bytes.len() <= at);
    assert_eq!(crc_at(file, start, bytes) as usize, field("directory_crc"));
    let mut entries = Vec::new();
    for leaf in bytes.chunks(LEAF_LEN) {
        let of = |name| number(LEAF, name, leaf) as usize;
        let bytes = &file[of("offset")..of("offset") + ORDER_ENTRY_LEN * of("count")];
        assert!(of("offset") >= field("covered_to") && of("offset") + bytes.len() <= start);
        assert_eq!(crc_at(file, of("offset"), bytes) as usize, of("crc"));
        assert_eq!(bytes[..ORDER_ENTRY_LEN], leaf[16..]);
        entries.extend(bytes.chunks(ORDER_ENTRY_LEN).map(|entry| <[u8; ORDER_ENTRY_LEN]>::try_from(entry).unwrap()));
    }
    assert_eq!(entries.len(), field("keys"));
    Some(entries)
}

/// The log of a small store, before its snapshot: `a` was deleted.
pub fn small_log() -> FileBytes {
    FileBytes::with_roots(0, [(0, 0); 2])
        .push(record(0, PUT, 1, b"\0a", b"1"))
        .push(record(0, PUT, 2, b"\0b", b"22"))
        .push(record(0, DELETE, 3, b"\0a", b""))
        .push(record(MORE, PUT, 4, b"\0b", b"3"))
        .push(record(0, PUT, 5, b"\x01xc", b"333"))
}

/// A small closed store with a snapshot. It holds two keys where the snapshot ends, and [`HOLDS`] at the end.
pub fn small(part_bits: u32) -> Snapshotted {
    with_snapshot(small_log(), part_bits, &[record(0, PUT, 8, b"\0d", b"4"), record(0, DELETE, 9, b"\0b", b"")])
}

/// As [`small`], with the order of the keys in two leaves.
pub fn small_ordered(part_bits: u32) -> Snapshotted {
    with_order(small_log(), part_bits, 1, &[record(0, PUT, 8, b"\0d", b"4"), record(0, DELETE, 9, b"\0b", b"")])
}

/// A small closed store with a session, its lock, a pair with a deadline, and a snapshot that leads to all three.
pub fn small_with_lifetimes() -> Snapshotted {
    // It names another file, so its owner cannot be found gone.
    let mut session = session(6, 1000);
    set(SESSION_VALUE, "base_seq", &mut session, 3);
    let log = small_log()
        .push(record(0, SESSION, 6, b"", &session))
        .push(record(0, PUT_OWNED, 7, b"\0lock", &with_owner(0, 6, 7, b"held")))
        .push(record(0, PUT_WITH, 8, b"\0until", &with_deadline(2 * NOW, b"5")))
        .push(record(0, PUT_WITH, 9, b"\0until", &with_deadline(3 * NOW, b"6")));
    let of = with_snapshot(log, 6, &[record(0, PUT, 12, b"\0d", b"4")]);
    Snapshotted { holds: "b=3@4 d=4@12 lock=held@7 until=6@9 x/c=333@5", ..of }
}

/// What [`small`] holds, in the words of `summary`.
pub const HOLDS: &str = "d=4@8 x/c=333@5";

/// What is wrong with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing that a reader checks.
    None,
    /// It is of a later version: not used, and not compared.
    Later,
    /// A check fails, so no reader uses it, or the part that is wrong.
    Broken,
    /// Every check holds, and it is not what the log says.
    Lie,
}

/// Snapshots that are wrong in one way, with checksums that hold if the story does not say otherwise.
pub fn faults() -> Vec<(&'static str, Fault, Snapshotted)> {
    let mut faults = Vec::new();
    let right = small(6);
    let mut with = |story, fault, and_parts: bool, change: &dyn Fn(&mut Snapshotted)| {
        let mut changed = right.clone();
        change(&mut changed);
        changed.seal(and_parts);
        assert!(changed.file != right.file || fault == Fault::None, "{story}");
        faults.push((story, fault, changed));
    };
    fn add(of: &mut Snapshotted, at: std::ops::Range<usize>, more: u64) {
        let (mut bytes, len) = ([0; 8], at.len().min(8));
        let at = at.start..at.start + len;
        bytes[..len].copy_from_slice(&of.file[at.clone()]);
        let sum = u64::from_le_bytes(bytes).wrapping_add(more).to_le_bytes();
        of.file[at].copy_from_slice(&sum[..len]);
    }
    let field = |name: &'static str, more: u64| {
        move |of: &mut Snapshotted| {
            let at = of.field(name);
            add(of, at, more);
        }
    };
    let (less, snapshot_at, image_at) = (u64::MAX, right.snapshot_at as u64, right.image_at as u64);
    with("a right one", Fault::None, false, &|_| {});
    with("a later version", Fault::Later, false, &field("version", 1));
    with("another hash", Fault::Later, false, &field("hash", 1));
    with("the check value of another hash", Fault::Broken, false, &field("check", 1));
    with("an end that is no multiple of 8", Fault::Broken, false, &field("covered_to", 4));
    with("an end inside a record", Fault::Broken, false, &field("covered_to", 8));
    with("an end before the log", Fault::Broken, false, &field("covered_to", 208u64.wrapping_sub(image_at)));
    with("an end after its image", Fault::Broken, false, &field("covered_to", snapshot_at - image_at));
    with("an end after itself", Fault::Broken, false, &field("covered_to", snapshot_at + 8 - image_at));
    with("an end inside a batch", Fault::Broken, false, &field("covered_to", (-32i64) as u64));
    with("a number that the next record does not follow", Fault::Broken, false, &field("covered_seq", 1));
    with("a number that is too low", Fault::Lie, false, &field("covered_seq", less));
    with("more records than there are", Fault::Lie, false, &field("records", 1));
    with("more records than fit", Fault::Broken, false, &field("records", 1 << 20));
    with("a number of records that overflows", Fault::Broken, false, &field("records", 1 << 61));
    with("fewer records than keys", Fault::Broken, false, &field("records", (-4i64) as u64));
    with("more keys than words", Fault::Broken, false, &field("keys", 1));
    with("fewer keys than words", Fault::Broken, false, &field("keys", less));
    with("live bytes that are too few", Fault::Lie, false, &field("live_bytes", less));
    with("no live bytes", Fault::Lie, false, &field("live_bytes", (-64i64) as u64));
    with("more live bytes than bytes", Fault::Broken, false, &field("live_bytes", 1 << 20));
    with("fewer parts than entries", Fault::Broken, false, &field("part_bits", less));
    with("more parts than entries", Fault::Broken, false, &field("part_bits", 1));
    with("more parts than sub-tables", Fault::Broken, false, &field("part_bits", 7));
    with("2 to the 2^32 parts", Fault::Broken, false, &field("part_bits", u64::from(u32::MAX)));
    with("another last event", Fault::Lie, false, &field("since_event", 3));
    with("a last event before all numbers", Fault::None, false, &field("since_event", u64::from(u32::MAX)));

    let entry = |at: std::ops::Range<usize>, more: u64| {
        move |of: &mut Snapshotted| {
            let start = of.parts()[0].1.start;
            add(of, start + at.start..start + at.end, more);
        }
    };
    with("a part at another place", Fault::Broken, false, &entry(0..8, 8));
    with("a part in the log before the end", Fault::Broken, false, &entry(0..8, 192u64.wrapping_sub(image_at)));
    with("a part after the snapshot", Fault::Broken, false, &entry(0..8, 1 << 20));
    with("a part whose end overflows", Fault::Broken, false, &entry(0..8, (u64::MAX - 8) - image_at));
    with("a part with another number of keys", Fault::Broken, false, &entry(8..12, 1));
    with("a part with more keys than bytes", Fault::Broken, false, &entry(8..12, 1 << 31));
    with("another checksum of a part", Fault::Broken, false, &entry(12..16, 1));

    // The bytes of the first part with keys: 64 counts, and a word.
    let part = |at: usize, more: u64, len: usize| {
        move |of: &mut Snapshotted| {
            let start = of.parts()[0].0.start + at;
            add(of, start..start + len, more);
        }
    };
    let word = 4 * 64;
    with("a word with another checksum", Fault::Broken, false, &part(word, 1, 8));
    with("a sub-table with another number of words", Fault::Broken, true, &part(0, 1, 4));
    with("a sub-table with more words than a part", Fault::Broken, true, &part(0, u64::from(u32::MAX), 4));
    with("a word that leads beyond the end", Fault::Broken, true, &part(word, image_at / 8, 8));
    with("a word that leads before the log", Fault::Broken, true, &|of| {
        let start = of.parts()[0].0.start + word;
        of.file[start..start + 5].copy_from_slice(&[26, 0, 0, 0, 0]);
    });
    with("a word that leads to another record", Fault::Lie, true, &part(word, (-4i64) as u64, 8));
    with("a word with another tag", Fault::Lie, true, &part(word, 1 << 40, 8));
    with("a key in another sub-table", Fault::Lie, true, &|of| {
        let bytes = of.parts()[0].0.clone();
        let counts = &mut of.file[bytes.start..bytes.start + word];
        let at = counts.chunks(4).position(|count| count != [0; 4]).expect("a part with a key");
        counts.swap(4 * at, (4 * at + 4) % word);
    });
    faults.extend(faults_of_order());
    faults.extend(faults_of_lifetimes());
    faults
}

/// As [`faults`], in the entries of the records with a lifetime.
fn faults_of_lifetimes() -> Vec<(&'static str, Fault, Snapshotted)> {
    let mut faults = Vec::new();
    let right = small_with_lifetimes();
    let entries = right.room_of_entries();
    let mut with = |story, fault, change: &dyn Fn(&mut [u8])| {
        let mut changed = right.clone();
        // The last three entries.
        change(&mut changed.file[entries.end - 3 * ENTRY_LEN..entries.end]);
        changed.seal(false);
        assert!(changed.file != right.file || fault == Fault::None, "{story}");
        faults.push((story, fault, changed));
    };
    with("lifetimes", Fault::None, &|_| {});
    with("a lifetime of two records", Fault::Broken, &|entries| entries[8] = 2);
    with("a lifetime of another record", Fault::Broken, &|entries| entries[12] ^= 1);
    with("a lifetime at no place of a record", Fault::Broken, &|entries| entries[0] += 4);
    with("a lifetime before the log", Fault::Broken, &|entries| entries[..8].copy_from_slice(&208u64.to_le_bytes()));
    with("a lifetime after the log", Fault::Broken, &|entries| entries[2 * ENTRY_LEN + 3] = 1);
    with("one lifetime twice", Fault::Broken, &|entries| entries.copy_within(..ENTRY_LEN, ENTRY_LEN));
    with("lifetimes out of order", Fault::Broken, &|entries| {
        let (first, second) = entries.split_at_mut(ENTRY_LEN);
        first.swap_with_slice(&mut second[..ENTRY_LEN]);
    });
    with("the lifetime of a plain put", Fault::Broken, &|entries| {
        let at = log_start(&right.file);
        entries[..8].copy_from_slice(&(at as u64).to_le_bytes());
        entries[12..ENTRY_LEN].copy_from_slice(&right.file[at..at + 4]);
    });
    with("a lifetime of a pair that was replaced", Fault::Lie, &|entries| {
        let last = &mut entries[2 * ENTRY_LEN..];
        let at = u64::from_le_bytes(last[..8].try_into().unwrap()) as usize;
        // The record before it is as long.
        let before = at - (RECORD_HEADER_LEN + b"\0until".len() + EXPIRY_LEN + 1).next_multiple_of(ALIGNMENT);
        last[..8].copy_from_slice(&(before as u64).to_le_bytes());
        last[12..].copy_from_slice(&right.file[before..before + 4]);
    });
    faults
}

/// As [`faults`], in the order of the keys.
fn faults_of_order() -> Vec<(&'static str, Fault, Snapshotted)> {
    /// What is put right after the change.
    #[derive(PartialEq)]
    enum Seal {
        Records,
        Directory,
        Leaves,
    }
    let mut faults = Vec::new();
    let right = small_ordered(6);
    let mut with = |story, fault, seal: Seal, change: &dyn Fn(&mut Snapshotted)| {
        let mut changed = right.clone();
        change(&mut changed);
        if seal != Seal::Records {
            changed.seal_order(seal == Seal::Leaves);
        }
        changed.seal(false);
        assert!(changed.file != right.file || fault == Fault::None, "{story}");
        faults.push((story, fault, changed));
    };
    let set = |name: &'static str, value: u64| {
        move |of: &mut Snapshotted| {
            let at = of.field(name);
            let len = at.len();
            of.file[at].copy_from_slice(&value.to_le_bytes()[..len]);
        }
    };
    let directory = right.directory().expect("it is ordered").start as u64;
    let (image_at, snapshot_at) = (right.image_at as u64, right.snapshot_at as u64);
    with("an order", Fault::None, Seal::Leaves, &|_| {});
    with("no order, and a directory", Fault::None, Seal::Records, &set("leaves", 0));
    with("a directory at another place", Fault::Broken, Seal::Records, &set("directory", directory - 8));
    with("a directory in the log before the end", Fault::Broken, Seal::Directory, &set("directory", 216));
    with("a directory after the snapshot", Fault::Broken, Seal::Directory, &set("directory", snapshot_at));
    with("a directory whose end overflows", Fault::Broken, Seal::Records, &set("directory", u64::MAX - 8));
    with("more leaves than keys", Fault::Broken, Seal::Directory, &set("leaves", 3));
    with("as many leaves as fit into no file", Fault::Broken, Seal::Records, &set("leaves", u64::from(u32::MAX)));
    with("fewer leaves than there are", Fault::Broken, Seal::Directory, &set("leaves", 1));
    with("another checksum of the directory", Fault::Broken, Seal::Records, &set("directory_crc", 1));

    let leaf = |at: usize, value: u64, len: usize| {
        move |of: &mut Snapshotted| {
            let start = of.leaves()[0].1.start + at;
            of.file[start..start + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
    };
    let first = right.leaves()[0].0.start as u64;
    with("a leaf at another place", Fault::Broken, Seal::Directory, &leaf(0, first + 8, 8));
    with("a leaf in the log before the end", Fault::Broken, Seal::Leaves, &leaf(0, image_at - 24, 8));
    with("a leaf after its directory", Fault::Broken, Seal::Leaves, &leaf(0, directory, 8));
    with("a leaf whose end overflows", Fault::Broken, Seal::Directory, &leaf(0, u64::MAX - 8, 8));
    with("a leaf with another number of entries", Fault::Broken, Seal::Leaves, &leaf(8, 2, 4));
    with("a leaf with more entries than the file has", Fault::Broken, Seal::Directory, &leaf(8, 1 << 31, 4));
    with("another checksum of a leaf", Fault::Broken, Seal::Directory, &leaf(12, 1, 4));
    with("a checksum without its leaf's offset", Fault::Broken, Seal::Directory, &|of| {
        let (bytes, entry) = of.leaves()[0].clone();
        let crc = crc_at(&of.file, 0, &of.file[bytes]);
        of.file[entry.start + 12..entry.start + 16].copy_from_slice(&crc.to_le_bytes());
    });
    with("another first entry in the directory", Fault::Broken, Seal::Directory, &leaf(16 + 2, 1, 1));
    with("a leaf without entries, and one with two", Fault::Broken, Seal::Leaves, &|of| {
        let leaves = of.leaves();
        of.file[leaves[0].1.start + 8] = 0;
        of.file[leaves[1].1.start + 8] = 2;
        of.file.copy_within(leaves[0].1.start..leaves[0].1.start + 8, leaves[1].1.start);
    });
    with("leaves in the wrong order", Fault::Broken, Seal::Directory, &|of| {
        let leaves = of.leaves();
        let first = of.file[leaves[0].1.clone()].to_vec();
        of.file.copy_within(leaves[1].1.clone(), leaves[0].1.start);
        of.file[leaves[1].1.clone()].copy_from_slice(&first);
    });
    with("one key twice", Fault::Broken, Seal::Leaves, &|of| {
        let leaves = of.leaves();
        of.file.copy_within(leaves[0].0.clone(), leaves[1].0.start);
    });

    // The entry in the first leaf is that of `b`, whose full key has two bytes.
    let entry = |change: &'static dyn Fn(&mut [u8])| {
        move |of: &mut Snapshotted| {
            let bytes = of.leaves()[0].0.clone();
            change(&mut of.file[bytes]);
        }
    };
    with("an entry with another checksum", Fault::Broken, Seal::Directory, &entry(&|entry| entry[16] ^= 1));
    with("an entry of a key that is too long", Fault::Broken, Seal::Leaves, &entry(&|entry| entry[21] = 20));
    with("an entry with bytes after its key", Fault::Broken, Seal::Leaves, &entry(&|entry| entry[9] = 1));
    with("an entry that leads before the log", Fault::Broken, Seal::Leaves, &entry(&|entry| entry[16] = 26));
    with("an entry that leads beyond the end", Fault::Broken, Seal::Leaves, &entry(&|entry| entry[18] = 1));
    with("an entry that leads to another record", Fault::Lie, Seal::Leaves, &entry(&|entry| entry[16] -= 4));
    with("an entry of another key", Fault::Lie, Seal::Leaves, &entry(&|entry| entry[1] = b'a'));
    with("an entry of a key that is longer", Fault::Lie, Seal::Leaves, &entry(&|entry| entry[21] += 1));
    with("an order of an earlier moment", Fault::Lie, Seal::Leaves, &|of| {
        let bytes = of.leaves()[0].0.clone();
        let put = order_entry(b"\0b", 216 + 32);
        of.file[bytes].copy_from_slice(&put);
    });
    faults
}
