//! CRC-32 (the polynomial of IEEE 802.3, as in zip and PNG), bound to one file where that is wanted.

use byteorder::{ByteOrder, LittleEndian};
use crc32fast::Hasher;

/// The CRC-32 state after a file's `file_id`: what makes a record header valid in one file only.
///
/// A header's checksum covers `file_id`, the header's own offset and the header, so neither a log stored as a value
/// inside the log nor a block that the disk wrote to the wrong place passes for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSeed(u32);

impl FileSeed {
    pub(crate) fn new(file_id: &[u8; 16]) -> FileSeed {
        FileSeed(crc32fast::hash(file_id))
    }

    /// The checksum of a record header at `offset`, given the header's bytes behind the checksum itself.
    ///
    /// 0 is stored as 1, so that a header never starts as the end mark does.
    pub(crate) fn header_crc(self, offset: u64, covered: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        let mut place = [0; 8];
        LittleEndian::write_u64(&mut place, offset);
        hasher.update(&place);
        hasher.update(covered);
        hasher.finalize().max(1)
    }
}

/// The checksum of a record's meaning: header bytes from `kind` on, then the body.
pub(crate) fn body_crc(meaning: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(meaning);
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
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
}
