//! CRC-32 (the polynomial of IEEE 802.3, as in zip and PNG), bound to one file where that is wanted.

use byteorder::{ByteOrder, LittleEndian};
use crc32fast::Hasher;

use super::record::{AT_HEADER_CRC, RECORD_HEADER_LEN};

/// What makes a record header valid in one file only: four bytes that bring the CRC-32 to where a file's `file_id` does.
///
/// A header's checksum covers `file_id`, the header's own offset and the header, so neither a log stored as a value
/// inside the log nor a block that the disk wrote to the wrong place passes for a record. With four bytes in the place of
/// `file_id` it is one of 32 bytes, which are two full steps and no rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileSeed([u8; 4]);

impl FileSeed {
    pub(crate) fn new(file_id: &[u8; 16]) -> FileSeed {
        FileSeed::from_state(!crc32fast::hash(file_id))
    }

    /// The four bytes that lead to a state.
    fn from_state(state: u32) -> FileSeed {
        // They meet the state bit by bit, before all of it moves on by four bytes.
        FileSeed((!back(state, &[0; 4])).to_le_bytes())
    }

    /// The checksum of a record header at `offset`, which covers what is behind the checksum itself.
    ///
    /// 0 is stored as 1, so that a header never starts as the end mark does.
    #[inline]
    pub(crate) fn header_crc(self, offset: u64, header: &[u8; RECORD_HEADER_LEN]) -> u32 {
        const PLACE: usize = size_of::<FileSeed>() + size_of::<u64>();
        let mut bytes = [0; PLACE + RECORD_HEADER_LEN - AT_HEADER_CRC.end];
        bytes[..size_of::<FileSeed>()].copy_from_slice(&self.0);
        LittleEndian::write_u64(&mut bytes[size_of::<FileSeed>()..PLACE], offset);
        bytes[PLACE..].copy_from_slice(&header[AT_HEADER_CRC.end..]);
        crc32fast::hash(&bytes).max(1)
    }

    /// The seed of the file in which a header at `offset` has the checksum that it has: what a file whose own header is
    /// lost gives away with every sound record.
    pub(crate) fn of_header(offset: u64, header: &[u8; RECORD_HEADER_LEN]) -> FileSeed {
        let (header_crc, covered) = header.split_at(AT_HEADER_CRC.end);
        let state = back(!LittleEndian::read_u32(header_crc), covered);
        FileSeed::from_state(back(state, &offset.to_le_bytes()))
    }
}

/// The CRC-32's state before it has taken in these bytes.
///
/// CRC-32 can be run backwards: each step of it maps the states to one another one to one.
fn back(mut state: u32, bytes: &[u8]) -> u32 {
    for &byte in bytes.iter().rev() {
        // A step shifts zeros in from above, so the highest byte tells which entry of the table it took.
        let taken = (0..=u8::MAX).find(|&entry| TABLE[usize::from(entry)] >> 24 == state >> 24).unwrap_or_default();
        state = (state ^ TABLE[usize::from(taken)]) << 8 | u32::from(taken ^ byte);
    }
    state
}

/// What one byte does to the CRC-32's state; used for going backwards only.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut state = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            // The polynomial of IEEE 802.3, bits reversed.
            state = if state & 1 == 1 { state >> 1 ^ 0xedb8_8320 } else { state >> 1 };
            bit += 1;
        }
        table[byte] = state;
        byte += 1;
    }
    table
};

/// The checksum of a record's meaning: header bytes from `kind` on, then the body.
pub(crate) fn body_crc(meaning: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    update_joined(&mut hasher, meaning, key);
    hasher.update(value);
    hasher.finalize()
}

/// Takes in two pieces, at once if they are short: an update has a price of its own, about that of fifty bytes.
#[inline]
fn update_joined(hasher: &mut Hasher, first: &[u8], second: &[u8]) {
    let mut joined = [0; 64];
    let len = first.len() + second.len();
    if len > joined.len() {
        hasher.update(first);
        hasher.update(second);
        return;
    }
    joined[..first.len()].copy_from_slice(first);
    joined[first.len()..len].copy_from_slice(second);
    hasher.update(&joined[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_that_of_ieee_802_3() {
        // The check value that catalogues of CRCs print for CRC-32/ISO-HDLC.
        assert_eq!(body_crc(b"123", b"456", b"789"), 0xcbf4_3926);
    }

    #[test]
    fn a_header_is_valid_in_one_file_and_at_one_place_only() {
        let header = [7; RECORD_HEADER_LEN];
        let here = FileSeed::new(&[1; 16]).header_crc(64, &header);
        assert_ne!(here, FileSeed::new(&[1; 16]).header_crc(72, &header));
        assert_ne!(here, FileSeed::new(&[2; 16]).header_crc(64, &header));
        // The checksum is that of the plain concatenation.
        for id in 0..200 {
            let mut whole = vec![id; 16];
            whole.extend_from_slice(&64u64.to_le_bytes());
            whole.extend_from_slice(&header[4..]);
            assert_eq!(FileSeed::new(&[id; 16]).header_crc(64, &header), crc32fast::hash(&whole));
        }
    }

    #[test]
    fn a_body_is_checked_as_the_plain_concatenation_however_long_its_parts_are() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            for first in [0, len / 2, len] {
                let (meaning, rest) = bytes[..len].split_at(first);
                assert_eq!(body_crc(meaning, rest, b"value"), crc32fast::hash(&[&bytes[..len], b"value"].concat()));
            }
        }
    }

    #[test]
    fn a_header_gives_the_seed_of_its_file_away() {
        for (number, offset) in (0..300u32).zip([64, 72, 4096, 1 << 33].into_iter().cycle()) {
            let seed = FileSeed(number.wrapping_mul(0x9e37_79b9).to_le_bytes());
            let mut header: [u8; RECORD_HEADER_LEN] = std::array::from_fn(|at| (number as usize * 7 + at) as u8);
            let header_crc = seed.header_crc(offset, &header);
            LittleEndian::write_u32(&mut header[AT_HEADER_CRC], header_crc);
            assert_eq!(FileSeed::of_header(offset, &header), seed);
        }
    }
}
