//! File header, record header, full key and expiry, decoded by themselves: pure functions, compared with what docs/FORMAT.md
//! says, in a few lines for each. Nothing panics, whatever the numbers are.

#![no_main]

#[path = "../../tests/common/files/layout.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layout;

use caskfile::decode::{self, FileHeaderIs, PlaceInFile, RecordHeaderIs};
use layout::{FILE_HEADER, FILE_HEADER_LEN, RECORD_HEADER, RECORD_HEADER_LEN};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    file_header: [u8; FILE_HEADER_LEN],
    record_header: [u8; RECORD_HEADER_LEN],
    /// Whether magic and checksums are put right first.
    seal: bool,
    file_id: [u8; 16],
    offset: u64,
    /// Beyond the offset.
    file_len: u64,
    previous_seq: u64,
    base_seq: u64,
    /// Lengths that fit into the file, and an index that follows, unless they are to be what they are.
    fitting: Option<(u8, u8, u8)>,
    full_key: &'a [u8],
    put_with: &'a [u8],
    seq: u64,
    put_owned: &'a [u8],
    session: [u8; layout::SESSION_LEN],
}

fuzz_target!(|input: Input| {
    file_header(&input);
    record_header(&input);
    full_key(input.full_key);
    put_with(input.put_with);
    put_owned(input.seq, input.put_owned);
    session(input.seq, &input.session);
});

fn file_header(input: &Input) {
    let mut bytes = input.file_header;
    if input.seal {
        bytes[..8].copy_from_slice(&layout::MAGIC);
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
    }
    let field = |name| layout::number(FILE_HEADER, name, &bytes);
    let is_right = bytes[..8] == layout::MAGIC && field("crc") == u64::from(crc32fast::hash(&bytes[..60]));
    match decode::file_header(&bytes) {
        FileHeaderIs::Foreign => assert!(bytes[..8] != layout::MAGIC),
        FileHeaderIs::Damaged => assert!(bytes[..8] == layout::MAGIC && !is_right),
        FileHeaderIs::Unsupported => assert!(is_right && field("major") != layout::MAJOR),
        FileHeaderIs::Right { base_seq, encoded } => {
            assert!(is_right && field("major") == layout::MAJOR && field("base_seq") == base_seq);
            let known = [0..12, 16..56];
            assert!(known.into_iter().all(|range| encoded[range.clone()] == bytes[range]));
        }
    }
}

fn record_header(input: &Input) {
    let place = PlaceInFile {
        file_id: input.file_id,
        offset: input.offset >> 1,
        file_len: (input.offset >> 1) + (input.file_len >> 1),
        previous_seq: input.previous_seq & layout::MAX_SEQ,
        base_seq: input.base_seq & layout::MAX_SEQ,
    };
    let mut bytes = input.record_header;
    if let Some((key_len, value_len, step)) = input.fitting {
        bytes[10..12].copy_from_slice(&u16::from(key_len).to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(value_len).to_le_bytes());
        bytes[16..].copy_from_slice(&(place.previous_seq + u64::from(step)).to_le_bytes());
    }
    let covered = |bytes: &[u8]| [&place.file_id[..], &place.offset.to_le_bytes(), &bytes[4..]].concat();
    if input.seal {
        let crc = crc32fast::hash(&covered(&bytes)).max(1);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
    }
    // In the order of the page: W1 to W7.
    let field = |name| layout::number(RECORD_HEADER, name, &bytes);
    let end = u128::from(place.offset) + 24 + u128::from(field("key_len")) + u128::from(field("value_len"));
    let (seq, highest) = (field("seq"), place.previous_seq.max(place.base_seq));
    let expected = if bytes[..8] == [0; 8] {
        RecordHeaderIs::End
    } else if field("header_crc") != u64::from(crc32fast::hash(&covered(&bytes)).max(1))
        || field("value_len") > layout::MAX_VALUE_LEN
        || end > u128::from(place.file_len.min(layout::MAX_FILE_LEN))
        || seq <= place.previous_seq
        || seq > (highest + layout::MAX_SEQ_STEP).min(layout::MAX_SEQ)
    {
        RecordHeaderIs::False
    } else if field("flags") > 3 || !matches!(field("kind"), 1 | 2 | 4..=6 | 0x80..) {
        RecordHeaderIs::Unsupported
    } else {
        RecordHeaderIs::True { encoded: bytes }
    };
    assert_eq!(decode::record_header(&bytes, place), expected);
}

fn full_key(full: &[u8]) {
    let found = decode::full_key(full);
    let fits = full.first().is_some_and(|&len| full.len() > 1 + usize::from(len));
    assert_eq!(found.is_some(), fits);
    if let Some((bucket, key)) = found {
        assert_eq!([&[bucket.len() as u8], bucket, key].concat(), full);
    }
}

fn put_with(stored: &[u8]) {
    let found = decode::put_with(stored);
    assert_eq!(found.is_some(), stored.len() >= layout::EXPIRY_LEN);
    if let Some((expiry, value)) = found {
        // The other bytes are reserved.
        assert_eq!([&expiry.encoded[..8], &stored[8..layout::EXPIRY_LEN], value].concat(), stored);
        assert_eq!((expiry.encoded[8..] == [0; 16], expiry.owner), (true, None));
        assert_eq!(expiry.deadline, layout::number(layout::EXPIRY, "deadline", stored));
    }
}

fn put_owned(seq: u64, stored: &[u8]) {
    let found = decode::put_owned(seq, stored);
    let field = |name| layout::number(layout::EXPIRY, name, stored);
    let fits = stored.len() >= layout::EXPIRY_LEN && {
        let (session, acquired) = (field("session"), field("acquired"));
        session > 0 && session < seq && (acquired == 0 || session < acquired && acquired <= seq)
    };
    assert_eq!(found.is_some(), fits);
    if let Some((expiry, value)) = found {
        assert_eq!([&expiry.encoded[..], value].concat(), stored);
        let owner = (field("session"), field("acquired"));
        assert_eq!((expiry.deadline, expiry.owner), (field("deadline"), Some(owner)));
    }
}

fn session(seq: u64, value: &[u8; layout::SESSION_LEN]) {
    let field = |name| layout::number(layout::SESSION_VALUE, name, value);
    let fits = (1..=seq).contains(&field("session"))
        && field("owner") < 1 << 61
        && field("ttl") > 0
        && field("base_seq") < seq;
    assert_eq!(decode::session(seq, value), fits.then_some(*value));
    assert_eq!(decode::session(seq, &value[1..]), None);
}
