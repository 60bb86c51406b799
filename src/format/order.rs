//! The order of the keys in a snapshot: leaves of entries that ascend, and a directory that says where they are.
//!
//! Entries and leaves are those of the sorted index in memory, so that a leaf is used as it was read. The directory has the
//! first entry and the number of entries of each leaf. So a search reads the directory and one leaf or two, and every key's
//! rank is known.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::checksum::FileSeed;
use super::record::MAX_VALUE_LEN;

/// The length of an entry: the first bytes of a key, and the position of its record.
pub(crate) const ORDER_ENTRY_LEN: usize = 24;

pub(super) const AT_LEAF_OFFSET: Range<usize> = 0..8;
pub(super) const AT_LEAF_COUNT: Range<usize> = AT_LEAF_OFFSET.end..AT_LEAF_OFFSET.end + 4;
pub(super) const AT_LEAF_CRC: Range<usize> = AT_LEAF_COUNT.end..AT_LEAF_COUNT.end + 4;
pub(super) const AT_LEAF_FIRST: Range<usize> = AT_LEAF_CRC.end..AT_LEAF_CRC.end + ORDER_ENTRY_LEN;

/// The length of a leaf's entry in the directory.
pub(crate) const LEAF_ENTRY_LEN: usize = AT_LEAF_FIRST.end;

/// Bytes of an image that are read and verified as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredBytes {
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) crc: u32,
}

impl StoredBytes {
    /// The most bytes that are read as a whole: what the value of an `IMAGE` can hold. A file with holes can claim any number.
    pub(super) const MOST: u64 = MAX_VALUE_LEN as u64;

    pub(crate) fn holds(&self, seed: FileSeed, bytes: &[u8]) -> bool {
        seed.crc_at(self.offset, bytes) == self.crc
    }
}

/// Where the order is: what a `SNAPSHOT` says of its directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoredOrder {
    /// The number of leaves, at least 1.
    pub(crate) leaves: u32,
    /// The offset of the directory.
    pub(crate) directory: u64,
    pub(crate) crc: u32,
}

impl StoredOrder {
    /// The order with this directory at an offset of the file.
    pub(crate) fn new(seed: FileSeed, directory: u64, bytes: &[u8]) -> StoredOrder {
        StoredOrder { leaves: (bytes.len() / LEAF_ENTRY_LEN) as u32, directory, crc: seed.crc_at(directory, bytes) }
    }

    fn len(&self) -> u64 {
        u64::from(self.leaves) * LEAF_ENTRY_LEN as u64
    }

    /// Whether the directory lies in this range of the file, and is no longer than an `IMAGE` can hold.
    pub(super) fn lies_in(&self, range: Range<u64>) -> bool {
        self.directory >= range.start
            && self.directory.checked_add(self.len()).is_some_and(|end| end <= range.end)
            && self.len() <= StoredBytes::MOST
    }

    pub(crate) fn bytes(&self) -> StoredBytes {
        StoredBytes { offset: self.directory, len: self.len() as usize, crc: self.crc }
    }
}

/// A leaf as the directory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredLeaf {
    pub(crate) offset: u64,
    /// The number of entries, at least 1.
    pub(crate) count: u32,
    pub(crate) crc: u32,
    pub(crate) first: [u8; ORDER_ENTRY_LEN],
}

impl StoredLeaf {
    /// The leaf with these bytes at an offset of the file.
    pub(crate) fn new(seed: FileSeed, offset: u64, bytes: &[u8]) -> StoredLeaf {
        let first = bytes[..ORDER_ENTRY_LEN].try_into().expect("a leaf has an entry");
        StoredLeaf { offset, count: (bytes.len() / ORDER_ENTRY_LEN) as u32, crc: seed.crc_at(offset, bytes), first }
    }

    pub(crate) fn bytes(&self) -> StoredBytes {
        StoredBytes { offset: self.offset, len: self.count as usize * ORDER_ENTRY_LEN, crc: self.crc }
    }
}

/// The length of the order of this many keys, in leaves of `leaf_len` entries.
pub(crate) fn order_len(keys: u64, leaf_len: u64) -> u64 {
    keys * ORDER_ENTRY_LEN as u64 + keys.div_ceil(leaf_len) * LEAF_ENTRY_LEN as u64
}

/// The bytes of a directory.
pub(crate) fn encode_directory(leaves: &[StoredLeaf]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(leaves.len() * LEAF_ENTRY_LEN);
    for leaf in leaves {
        bytes.extend_from_slice(&leaf.offset.to_le_bytes());
        bytes.extend_from_slice(&leaf.count.to_le_bytes());
        bytes.extend_from_slice(&leaf.crc.to_le_bytes());
        bytes.extend_from_slice(&leaf.first);
    }
    bytes
}

/// The leaves in a directory whose checksum was verified. `None` if they have not `keys` entries together, if one lies
/// outside of `place`, or if one is longer than an `IMAGE` can hold.
pub(crate) fn decode_directory(bytes: &[u8], keys: u64, place: &Range<u64>) -> Option<Vec<StoredLeaf>> {
    let leaves = bytes.chunks_exact(LEAF_ENTRY_LEN).map(|entry| StoredLeaf {
        offset: LittleEndian::read_u64(&entry[AT_LEAF_OFFSET]),
        count: LittleEndian::read_u32(&entry[AT_LEAF_COUNT]),
        crc: LittleEndian::read_u32(&entry[AT_LEAF_CRC]),
        first: entry[AT_LEAF_FIRST].try_into().expect("as long as an entry"),
    });
    let leaves: Vec<StoredLeaf> = leaves.collect();
    let lies_in_place = |leaf: &StoredLeaf| {
        let len = u64::from(leaf.count) * ORDER_ENTRY_LEN as u64;
        let end = leaf.offset.checked_add(len);
        (1..=StoredBytes::MOST).contains(&len) && leaf.offset >= place.start && end.is_some_and(|end| end <= place.end)
    };
    let counted: u64 = leaves.iter().map(|leaf| u64::from(leaf.count)).sum();
    (counted == keys && leaves.iter().all(lies_in_place)).then_some(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> Vec<StoredLeaf> {
        [(640, 2), (700, 1)]
            .map(|(offset, count)| StoredLeaf { offset, count, crc: 7, first: [count as u8; 24] })
            .to_vec()
    }

    #[test]
    fn a_directory_reads_back_as_written() {
        let bytes = encode_directory(&leaves());
        assert_eq!(bytes.len(), 2 * LEAF_ENTRY_LEN);
        assert_eq!(decode_directory(&bytes, 3, &(616..1000)), Some(leaves()));
    }

    #[test]
    fn a_directory_that_contradicts_its_snapshot_is_not_used() {
        let bytes = encode_directory(&leaves());
        assert_eq!(decode_directory(&bytes, 4, &(616..1000)), None, "another number of keys");
        assert_eq!(decode_directory(&bytes, 3, &(641..1000)), None, "a leaf before the place");
        assert_eq!(decode_directory(&bytes, 3, &(616..723)), None, "a leaf that ends after the place");
        let mut empty = leaves();
        (empty[0].count, empty[1].count) = (0, 3);
        assert_eq!(decode_directory(&encode_directory(&empty), 3, &(616..1000)), None, "a leaf without entries");
        let mut long = leaves();
        let most = (1_u32 << 30) / 24;
        for (count, is_used) in [(most, true), (most + 1, false)] {
            long[1].count = count;
            let read = decode_directory(&encode_directory(&long), 2 + u64::from(count), &(616..u64::MAX));
            assert_eq!(read.is_some(), is_used, "a leaf of {count} entries in a file with a hole");
        }
        let mut far = leaves();
        far[1].offset = u64::MAX;
        assert_eq!(decode_directory(&encode_directory(&far), 3, &(616..u64::MAX)), None, "an end that overflows");
    }
}
