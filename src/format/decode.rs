//! The decoders alone, for the fuzz target that compares them with others made from `docs/FORMAT.md`.
//!
//! Each takes bytes apart and encodes them again, which must give the same bytes: no meaningful bit is ignored.

use super::record::{Place, RECORD_HEADER_LEN, RecordHeader, Verdict};
use super::sequence::SeqBound;
use super::{
    EXPIRY_LEN, Expiry, FILE_HEADER_LEN, FileHeader, FileSeed, HeaderFault, Kind, Owner, SESSION_LEN, SessionRecord,
    split_full_key,
};

/// The meaning of 64 bytes in the place of a file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileHeaderIs {
    /// A header that this version can read.
    Right {
        /// The highest sequence number that had been assigned when the file was made.
        base_seq: u64,
        /// The same header as this version would write it, with zeros in reserved bytes.
        encoded: [u8; FILE_HEADER_LEN],
    },
    /// Not a caskfile.
    Foreign,
    /// The checksum does not match.
    Damaged,
    /// Another major version.
    Unsupported,
}

/// Decodes a file header.
pub fn file_header(bytes: &[u8; FILE_HEADER_LEN]) -> FileHeaderIs {
    match FileHeader::decode(bytes) {
        Ok(header) => FileHeaderIs::Right { base_seq: header.base_seq, encoded: header.encode() },
        Err(HeaderFault::Magic) => FileHeaderIs::Foreign,
        Err(HeaderFault::Checksum { .. }) => FileHeaderIs::Damaged,
        Err(HeaderFault::Version { .. }) => FileHeaderIs::Unsupported,
    }
}

/// The meaning of 24 bytes in the place of a record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordHeaderIs {
    /// The end of the log.
    End,
    /// A record of a kind that can be read or skipped.
    True {
        /// The same header as this version would write it.
        encoded: [u8; RECORD_HEADER_LEN],
    },
    /// A record of a kind, or with a flag, that this version must not skip.
    Unsupported,
    /// Not a record.
    False,
}

/// The place of bytes that may be a record header.
#[derive(Debug, Clone, Copy)]
pub struct PlaceInFile {
    /// The file's random identity.
    pub file_id: [u8; 16],
    /// The offset of the bytes, at most 2^63.
    pub offset: u64,
    /// The length of the file.
    pub file_len: u64,
    /// The sequence number of the record before, 0 if there is none. At most 2^62 - 1.
    pub previous_seq: u64,
    /// `base_seq` of the file header. At most 2^62 - 1.
    pub base_seq: u64,
}

/// Decodes a record header.
pub fn record_header(bytes: &[u8; RECORD_HEADER_LEN], place: PlaceInFile) -> RecordHeaderIs {
    let after = SeqBound { previous: place.previous_seq, base: place.base_seq };
    let (offset, file_len) = (place.offset, place.file_len);
    let place = Place { seed: FileSeed::new(&place.file_id), offset, file_len, after };
    match RecordHeader::judge(bytes, place) {
        Verdict::End => RecordHeaderIs::End,
        Verdict::True(header) => RecordHeaderIs::True { encoded: header.encode() },
        Verdict::Unsupported { .. } => RecordHeaderIs::Unsupported,
        Verdict::False(_) => RecordHeaderIs::False,
    }
}

/// Returns bucket and key of a record's full key; `None` if the bytes do not have that form.
pub fn full_key(full: &[u8]) -> Option<(&[u8], &[u8])> {
    split_full_key(full)
}

/// An expiry taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryIs {
    /// The moment from which on the pair is over, in milliseconds since 1970; 0 for none.
    pub deadline: u64,
    /// Session and fencing token of a put-owned; `None` in a put-with.
    pub owner: Option<(u64, u64)>,
    /// The same as this version would write it, with zeros in reserved bytes.
    pub encoded: [u8; EXPIRY_LEN],
}

/// Returns the expiry and the user's part of a value of the kind put-with; `None` if it is too short.
pub fn put_with(stored: &[u8]) -> Option<(ExpiryIs, &[u8])> {
    expiry(Kind::PutWith, stored)
}

/// Returns the same of the kind put-owned, in a record with this sequence number; `None` if it does not have the form.
pub fn put_owned(seq: u64, stored: &[u8]) -> Option<(ExpiryIs, &[u8])> {
    let fits = |(expiry, _): &(ExpiryIs, &[u8])| {
        expiry.owner.is_some_and(|(session, acquired)| Owner { session, acquired }.fits(seq))
    };
    expiry(Kind::PutOwned, stored).filter(fits)
}

fn expiry(kind: Kind, stored: &[u8]) -> Option<(ExpiryIs, &[u8])> {
    let (expiry, value) = stored.split_first_chunk()?;
    let expiry = Expiry::decode(kind, expiry);
    let owner = expiry.owner.map(|owner| (owner.session, owner.acquired));
    Some((ExpiryIs { deadline: expiry.deadline, owner, encoded: expiry.encode() }, value))
}

/// Returns the value of a session in a record with this sequence number, as this version would write it; `None` if it does not
/// have the form.
pub fn session(seq: u64, value: &[u8]) -> Option<[u8; SESSION_LEN]> {
    let record = SessionRecord::decode(value.try_into().ok()?);
    record.fits(seq).then(|| record.encode())
}

#[cfg(test)]
mod tests {
    use super::super::Flags;
    use super::*;

    #[test]
    fn file_headers_are_right_foreign_damaged_or_of_another_version() {
        let header = FileHeader {
            major: 1,
            minor: 0,
            has_roots: false,
            file_id: [7; 16],
            base_seq: 5,
            created: 6,
            complete_after: 3,
        };
        let right = header.encode();
        assert_eq!(file_header(&right), FileHeaderIs::Right { base_seq: 5, encoded: right });
        let (mut foreign, mut damaged) = (right, right);
        foreign[0] ^= 1;
        damaged[40] ^= 1;
        assert_eq!(file_header(&foreign), FileHeaderIs::Foreign);
        assert_eq!(file_header(&damaged), FileHeaderIs::Damaged);
        assert_eq!(file_header(&FileHeader { major: 2, ..header }.encode()), FileHeaderIs::Unsupported);
    }

    #[test]
    fn record_headers_are_true_in_their_place_only() {
        let place = PlaceInFile { file_id: [7; 16], offset: 64, file_len: 1000, previous_seq: 8, base_seq: 0 };
        let seed = FileSeed::new(&place.file_id);
        let encoded = RecordHeader::new(seed, 64, Flags::NONE, Kind::Put, 9, b"\0key", b"value").encode();
        assert_eq!(record_header(&encoded, place), RecordHeaderIs::True { encoded });
        assert_eq!(record_header(&encoded, PlaceInFile { offset: 72, ..place }), RecordHeaderIs::False);
        assert_eq!(record_header(&encoded, PlaceInFile { previous_seq: 9, ..place }), RecordHeaderIs::False);
        assert_eq!(record_header(&encoded, PlaceInFile { file_len: 90, ..place }), RecordHeaderIs::False);
        assert_eq!(record_header(&[0; RECORD_HEADER_LEN], place), RecordHeaderIs::End);
        let mut later = encoded;
        later[9] = 0x7f;
        let crc = seed.header_crc(64, &later);
        later[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(record_header(&later, place), RecordHeaderIs::Unsupported);
    }

    #[test]
    fn values_with_an_expiry_are_taken_apart() {
        let stored = [&[9, 0, 0, 0, 0, 0, 0, 0][..], &[1; 16], b"value"].concat();
        let (expiry, value) = put_with(&stored).unwrap();
        assert_eq!((expiry.deadline, expiry.owner, value), (9, None, &b"value"[..]));
        assert_eq!(expiry.encoded[..], [&stored[..8], &[0; 16]].concat());
        assert_eq!(put_with(&stored[..23]), None);
    }

    #[test]
    fn values_with_an_owner_are_taken_apart() {
        let stored = [&[9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0][..], b"value"].concat();
        let (expiry, value) = put_owned(5, &stored).unwrap();
        assert_eq!((expiry.deadline, expiry.owner, value), (9, Some((3, 4)), &b"value"[..]));
        assert_eq!(expiry.encoded[..], stored[..24]);
        assert_eq!((put_owned(5, &stored[..23]), put_owned(3, &stored)), (None, None));
    }

    #[test]
    fn the_value_of_a_session_is_taken_apart() {
        let mut value = [7; SESSION_LEN];
        value[..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        value[56..].fill(0);
        assert_eq!(session(1, &value), Some(value));
        assert_eq!((session(0, &value), session(1, &value[..63]), session(1, &[0; 65])), (None, None, None));
    }

    #[test]
    fn full_keys_are_taken_apart() {
        assert_eq!(full_key(b"\x06bucketkey"), Some((&b"bucket"[..], &b"key"[..])));
        assert_eq!(full_key(b"\x06bucket"), None);
    }
}
