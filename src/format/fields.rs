//! Names for tools that show the bytes: the fields as `docs/FORMAT.md` names them, and the plain numbers of a record
//! header.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::expiry::{AT_ACQUIRED, AT_DEADLINE, AT_SESSION, EXPIRY_LEN, Expiry};
use super::header::{
    AT_BASE_SEQ, AT_COMPLETE_AFTER, AT_CRC, AT_CREATED, AT_FEATURES, AT_FILE_ID, AT_MAGIC, AT_MAJOR, AT_MINOR,
};
use super::kind::{
    FLAG_MORE, FLAG_SYNCED, KIND_DELETE, KIND_IMAGE, KIND_MARK, KIND_MOVED, KIND_PUT, KIND_PUT_OWNED, KIND_PUT_WITH,
    KIND_ROOTS, KIND_SESSION, KIND_SNAPSHOT, KIND_SYNCED_TO, Kind,
};
use super::record::{
    AT_BODY_CRC, AT_FLAGS, AT_HEADER_CRC, AT_KEY_LEN, AT_KIND, AT_SEQ, AT_VALUE_LEN, RECORD_HEADER_LEN,
};
use super::roots::{AT_GENERATION, AT_RESERVED, AT_SLOT_CRC, AT_SNAPSHOT, AT_SYNCED_TO};
use super::{header, session, snapshot};

/// The name of a field, and its place in its header.
pub(crate) type Named = (&'static str, Range<usize>);

/// The file header's fields, in order.
pub(crate) const FILE_HEADER_FIELDS: [Named; 10] = [
    ("magic", AT_MAGIC),
    ("major", AT_MAJOR),
    ("minor", AT_MINOR),
    ("features", AT_FEATURES),
    ("file_id", AT_FILE_ID),
    ("base_seq", AT_BASE_SEQ),
    ("created", AT_CREATED),
    ("complete_after", AT_COMPLETE_AFTER),
    ("reserved", header::AT_RESERVED),
    ("crc", AT_CRC),
];

/// The record header's fields, in order.
pub(crate) const RECORD_HEADER_FIELDS: [Named; 7] = [
    ("header_crc", AT_HEADER_CRC),
    ("body_crc", AT_BODY_CRC),
    ("flags", AT_FLAGS..AT_FLAGS + 1),
    ("kind", AT_KIND..AT_KIND + 1),
    ("key_len", AT_KEY_LEN),
    ("value_len", AT_VALUE_LEN),
    ("seq", AT_SEQ),
];

/// The fields in front of the user's part of the value of a put-with or put-owned, in order.
pub(crate) const EXPIRY_FIELDS: [Named; 3] =
    [("deadline", AT_DEADLINE), ("session", AT_SESSION), ("acquired", AT_ACQUIRED)];

/// The fields of a session's value, in order.
pub(crate) const SESSION_FIELDS: [Named; 7] = [
    ("session", session::AT_SESSION),
    ("owner", session::AT_OWNER),
    ("nonce", session::AT_NONCE),
    ("ttl", session::AT_TTL),
    ("deadline", session::AT_DEADLINE),
    ("boot", session::AT_BOOT),
    ("base_seq", session::AT_BASE_SEQ),
];

/// The fields of a slot of `ROOTS`, in order.
pub(crate) const SLOT_FIELDS: [Named; 5] = [
    ("generation", AT_GENERATION),
    ("synced_to", AT_SYNCED_TO),
    ("snapshot", AT_SNAPSHOT),
    ("reserved", AT_RESERVED),
    ("crc", AT_SLOT_CRC),
];

/// The fields at the start of the value of a `SNAPSHOT`, in order.
pub(crate) const SNAPSHOT_FIELDS: [Named; 13] = [
    ("version", snapshot::AT_VERSION),
    ("hash", snapshot::AT_HASH),
    ("check", snapshot::AT_CHECK),
    ("covered_to", snapshot::AT_COVERED_TO),
    ("covered_seq", snapshot::AT_COVERED_SEQ),
    ("records", snapshot::AT_RECORDS),
    ("keys", snapshot::AT_KEYS),
    ("live_bytes", snapshot::AT_LIVE_BYTES),
    ("part_bits", snapshot::AT_PART_BITS),
    ("leaves", snapshot::AT_LEAVES),
    ("directory", snapshot::AT_DIRECTORY),
    ("directory_crc", snapshot::AT_DIRECTORY_CRC),
    ("since_event", snapshot::AT_SINCE_EVENT),
];

/// The fields of a part's entry in a `SNAPSHOT`, in order.
pub(crate) const PART_FIELDS: [Named; 3] =
    [("offset", snapshot::AT_PART_OFFSET), ("count", snapshot::AT_PART_COUNT), ("crc", snapshot::AT_PART_CRC)];

/// The numbers in a record header, before they are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawRecordHeader {
    pub(crate) header_crc: u32,
    pub(crate) body_crc: u32,
    pub(crate) flags: u8,
    pub(crate) kind: u8,
    pub(crate) key_len: u16,
    pub(crate) value_len: u32,
    pub(crate) seq: u64,
}

impl RawRecordHeader {
    #[inline]
    pub(crate) fn read(bytes: &[u8; RECORD_HEADER_LEN]) -> RawRecordHeader {
        RawRecordHeader {
            header_crc: LittleEndian::read_u32(&bytes[AT_HEADER_CRC]),
            body_crc: LittleEndian::read_u32(&bytes[AT_BODY_CRC]),
            flags: bytes[AT_FLAGS],
            kind: bytes[AT_KIND],
            key_len: LittleEndian::read_u16(&bytes[AT_KEY_LEN]),
            value_len: LittleEndian::read_u32(&bytes[AT_VALUE_LEN]),
            seq: LittleEndian::read_u64(&bytes[AT_SEQ]),
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.flags & FLAG_SYNCED != 0
    }

    pub(crate) fn has_more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }
}

/// The name of a kind that this version knows.
pub(crate) fn kind_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        KIND_PUT => "put",
        KIND_DELETE => "delete",
        KIND_PUT_WITH => "put-with",
        KIND_SESSION => "session",
        KIND_PUT_OWNED => "put-owned",
        KIND_MARK => "mark",
        KIND_SYNCED_TO => "SYNCED_TO",
        KIND_MOVED => "MOVED",
        KIND_ROOTS => "ROOTS",
        KIND_IMAGE => "IMAGE",
        KIND_SNAPSHOT => "SNAPSHOT",
        _ => return None,
    })
}

/// The number of bytes in front of the value that users see, in a record of this kind.
pub(crate) fn expiry_len(kind: u8) -> usize {
    Kind::decode(kind).map_or(0, Kind::expiry_len)
}

/// The expiry that these bytes are in a record of this kind; `None` if the kind has none.
pub(crate) fn expiry_of(kind: u8, bytes: &[u8; EXPIRY_LEN]) -> Option<Expiry> {
    let kind = Kind::decode(kind).filter(|kind| kind.expiry_len() > 0)?;
    Some(Expiry::decode(kind, bytes))
}

/// Whether a record of this kind says how long a session lives.
pub(crate) fn is_session_kind(kind: u8) -> bool {
    kind == KIND_SESSION
}

/// Whether a record of this kind says where the parts of an image are.
pub(crate) fn is_snapshot_kind(kind: u8) -> bool {
    kind == KIND_SNAPSHOT
}

/// The flags that this version knows, and their names.
pub(crate) const FLAG_NAMES: [(u8, &str); 2] = [(FLAG_SYNCED, "SYNCED"), (FLAG_MORE, "MORE")];

#[cfg(test)]
mod tests {
    use super::super::snapshot::{PART_ENTRY_LEN, SNAPSHOT_HEAD_LEN};
    use super::super::{FILE_HEADER_LEN, SESSION_LEN, SLOT_LEN};
    use super::*;

    const PAGE: &str = include_str!("../../docs/FORMAT.md");

    #[test]
    fn every_byte_of_a_header_has_the_pages_name() {
        let tables: [(&[Named], usize); 7] = [
            (&FILE_HEADER_FIELDS, FILE_HEADER_LEN),
            (&RECORD_HEADER_FIELDS, RECORD_HEADER_LEN),
            (&EXPIRY_FIELDS, EXPIRY_LEN),
            (&SESSION_FIELDS, SESSION_LEN),
            (&SLOT_FIELDS, SLOT_LEN),
            (&SNAPSHOT_FIELDS, SNAPSHOT_HEAD_LEN),
            (&PART_FIELDS, PART_ENTRY_LEN),
        ];
        for (fields, len) in tables {
            let mut end = 0;
            for (name, at) in fields {
                assert_eq!(at.start, end, "{name}");
                end = at.end;
                let row = format!("| {} | {} | `{name}` |", at.start, at.len());
                assert!(PAGE.contains(&row), "docs/FORMAT.md lacks {row}");
            }
            assert_eq!(end, len);
        }
    }

    #[test]
    fn both_flags_are_read() {
        use super::super::{FileSeed, Flags, Kind, RecordHeader};

        for (synced, more) in [(false, false), (true, false), (false, true), (true, true)] {
            let flags = Flags { synced, more };
            let header = RecordHeader::new(FileSeed::new(&[1; 16]), 64, flags, Kind::Put, 1, b"\0key", b"");
            let raw = RawRecordHeader::read(&header.encode());
            assert_eq!((raw.is_synced(), raw.has_more()), (synced, more));
        }
    }

    #[test]
    fn kinds_and_flags_have_the_names_that_the_page_gives_them() {
        let named: Vec<_> = (0..=u8::MAX).filter_map(|kind| Some((kind, kind_name(kind)?))).collect();
        assert_eq!(named.len(), 11);
        for (number, name) in named.into_iter().chain(FLAG_NAMES) {
            let rows = [format!("| {number:#04x} | {name} |"), format!("| {number:#04x} | `{name}` |")];
            assert!(rows.iter().any(|row| PAGE.contains(row)), "docs/FORMAT.md lacks {rows:?}");
        }
    }
}
