//! CRC-32 (the polynomial of IEEE 802.3, as in zip and PNG), bound to one file where that is wanted.

use byteorder::{ByteOrder, LittleEndian};
use crc32fast::Hasher;

/// The CRC-32 state after a file's `file_id`: what makes a record header valid in one file only.
///
/// A header's checksum covers `file_id`, the header's own offset and the header, so neither a log stored as a value
/// inside the log nor a block that the disk wrote to the wrong place passes for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileSeed(u32);

impl FileSeed {
    pub(crate) fn new(file_id: &[u8; 16]) -> FileSeed {
        FileSeed(crc32fast::hash(file_id))
    }

    /// The checksum of a record header at `offset`, given the header's bytes behind the checksum itself.
    ///
    /// 0 is stored as 1, so that a header never starts as the end mark does.
    pub(crate) fn header_crc(self, offset: u64, covered: &[u8]) -> u32 {
        let mut place = [0; 8];
        LittleEndian::write_u64(&mut place, offset);
        let mut hasher = Hasher::new_with_initial(self.0);
        update_joined(&mut hasher, &place, covered);
        hasher.finalize().max(1)
    }

    /// The seed of the file in which a header at `offset` has this checksum over these bytes: what a file whose own
    /// header is lost gives away with every sound record.
    ///
    /// CRC-32 can be run backwards: each step of it maps the states to one another one to one.
    pub(crate) fn of_header(header_crc: u32, offset: u64, covered: &[u8]) -> FileSeed {
        let mut place = [0; 8];
        LittleEndian::write_u64(&mut place, offset);
        let mut state = !header_crc;
        for &byte in covered.iter().rev().chain(place.iter().rev()) {
            // A step shifts zeros in from above, so the highest byte tells which entry of the table it took.
            let taken = (0..=u8::MAX).find(|&entry| TABLE[usize::from(entry)] >> 24 == state >> 24).unwrap_or_default();
            state = (state ^ TABLE[usize::from(taken)]) << 8 | u32::from(taken ^ byte);
        }
        FileSeed(!state)
    }
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
        let covered = [7; 20];
        let here = FileSeed::new(&[1; 16]).header_crc(64, &covered);
        assert_ne!(here, FileSeed::new(&[1; 16]).header_crc(72, &covered));
        assert_ne!(here, FileSeed::new(&[2; 16]).header_crc(64, &covered));
        // The seed is nothing but the CRC state: the checksum is that of the plain concatenation.
        let mut whole = vec![1; 16];
        whole.extend_from_slice(&64u64.to_le_bytes());
        whole.extend_from_slice(&covered);
        assert_eq!(here, crc32fast::hash(&whole));
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
            let seed = FileSeed(number.wrapping_mul(0x9e37_79b9));
            let covered: Vec<u8> = (0..20).map(|at| (number * 7 + at) as u8).collect();
            assert_eq!(FileSeed::of_header(seed.header_crc(offset, &covered), offset, &covered), seed);
        }
    }
}
