//! CRC-32 (the polynomial of IEEE 802.3, as in zip and PNG), and the checksum that binds a record header to its file.

use byteorder::{ByteOrder, LittleEndian};
use crc32fast::Hasher;

use super::record::{AT_HEADER_CRC, RECORD_HEADER_LEN};

/// Binds record headers to one file: four bytes that bring the CRC-32 to the same state as the file's `file_id`.
///
/// A header's checksum covers `file_id`, the header's own offset and the header. So neither a log stored as a value nor
/// a block written to the wrong place passes for a record. With four bytes in place of `file_id` the checksum covers 32
/// bytes, two full steps of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileSeed([u8; 4]);

impl FileSeed {
    pub(crate) fn new(file_id: &[u8; 16]) -> FileSeed {
        FileSeed::from_state(!crc32fast::hash(file_id))
    }

    /// The four bytes that lead to a state.
    fn from_state(state: u32) -> FileSeed {
        // The bytes are combined with the state bit by bit before the state moves on by four bytes.
        FileSeed((!back(state, &[0; 4])).to_le_bytes())
    }

    /// The checksum of a record header at `offset`. It covers the bytes after the checksum.
    ///
    /// 0 is stored as 1, so that no header starts like the end mark.
    #[inline]
    pub(crate) fn header_crc(self, offset: u64, header: &[u8; RECORD_HEADER_LEN]) -> u32 {
        const PLACE: usize = size_of::<FileSeed>() + size_of::<u64>();
        let mut bytes = [0; PLACE + RECORD_HEADER_LEN - AT_HEADER_CRC.end];
        bytes[..size_of::<FileSeed>()].copy_from_slice(&self.0);
        LittleEndian::write_u64(&mut bytes[size_of::<FileSeed>()..PLACE], offset);
        bytes[PLACE..].copy_from_slice(&header[AT_HEADER_CRC.end..]);
        crc32fast::hash(&bytes).max(1)
    }

    /// The checksum of bytes at `offset` that are no record header. It covers `file_id`, the offset and the bytes.
    pub(super) fn crc_at(self, offset: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&self.0);
        hasher.update(&offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }

    /// The seed of the file in which this header has its checksum at `offset`. Each sound record of a file gives it,
    /// even if the file header is lost.
    pub(crate) fn of_header(offset: u64, header: &[u8; RECORD_HEADER_LEN]) -> FileSeed {
        let (header_crc, covered) = header.split_at(AT_HEADER_CRC.end);
        let state = back(!LittleEndian::read_u32(header_crc), covered);
        FileSeed::from_state(back(state, &offset.to_le_bytes()))
    }
}

/// The CRC-32's state before these bytes.
///
/// CRC-32 can be run backwards, because each step maps states one to one.
fn back(mut state: u32, bytes: &[u8]) -> u32 {
    for &byte in bytes.iter().rev() {
        // A step shifts zeros in from above, so the highest byte shows which entry of the table was used.
        let taken = (0..=u8::MAX).find(|&entry| TABLE[usize::from(entry)] >> 24 == state >> 24).unwrap_or_default();
        state = (state ^ TABLE[usize::from(taken)]) << 8 | u32::from(taken ^ byte);
    }
    state
}

/// The effect of one byte on the CRC-32's state. Used only for running backwards.
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

/// The checksum of a record's meaning: the header from `kind` on, then the body.
pub(crate) fn body_crc(meaning: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    update_joined(&mut hasher, meaning, key);
    hasher.update(value);
    hasher.finalize()
}

/// Hashes two pieces, in one update if they are short: an update costs as much as some fifty bytes.
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
    fn a_header_is_valid_at_one_place_of_one_file() {
        let header = [7; RECORD_HEADER_LEN];
        let here = FileSeed::new(&[1; 16]).header_crc(64, &header);
        assert_ne!(here, FileSeed::new(&[1; 16]).header_crc(72, &header));
        assert_ne!(here, FileSeed::new(&[2; 16]).header_crc(64, &header));
        // The checksum of the plain concatenation.
        for id in 0..200 {
            let mut whole = vec![id; 16];
            whole.extend_from_slice(&64u64.to_le_bytes());
            whole.extend_from_slice(&header[4..]);
            assert_eq!(FileSeed::new(&[id; 16]).header_crc(64, &header), crc32fast::hash(&whole));
        }
    }

    #[test]
    fn the_body_checksum_is_that_of_the_concatenation() {
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
