//! The two meta pages, which are the first two pages of a file.
//!
//! Each transaction writes one of them, in turns. So a torn write leaves the other one, which belongs to the transaction before.
//! All numbers are little-endian: BoltDB writes those of the machine.

use std::fmt;
use std::ops::Range;

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::page::PAGE_HEADER_LEN;

const AT_MAGIC: usize = PAGE_HEADER_LEN;
const AT_VERSION: usize = AT_MAGIC + 4;
const AT_PAGE_SIZE: usize = AT_VERSION + 4;
/// Flags, 4 bytes, are not used. The root bucket's number follows, with its sequence number, which is not used either.
const AT_ROOT: usize = AT_PAGE_SIZE + 8;
/// The page of the free list, 8 bytes, follows.
const AT_PAGES: usize = AT_ROOT + 24;
const AT_TRANSACTION: usize = AT_PAGES + 8;
const AT_CHECKSUM: usize = AT_TRANSACTION + 8;
/// The bytes of a meta page that mean anything.
pub(super) const META_LEN: usize = AT_CHECKSUM + 8;

const CHECKED: Range<usize> = AT_MAGIC..AT_CHECKSUM;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// The sizes that the second meta page is looked for at, if the first one is broken: those of the Go library. All of them are powers of
/// two, which this expects of every file.
pub(super) const PAGE_SIZES: Range<u32> = 10..25;

/// What a whole meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: u64,
    /// The first page of the bucket of all buckets.
    pub(super) root: u64,
    /// How many pages the file has. Later ones, if there are any, are not used yet.
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

/// Why a meta page does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetaFault {
    Missing,
    Magic,
    BigEndian,
    Version(u32),
    Checksum,
    PageSize(u32),
}

impl MetaFault {
    /// Whether the page is that of a BoltDB file all the same.
    pub(super) fn is_damage(self) -> bool {
        matches!(self, MetaFault::Checksum)
    }
}

impl fmt::Display for MetaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaFault::Missing => f.write_str("the file is too short for it"),
            MetaFault::Magic => f.write_str("it does not begin as one"),
            MetaFault::BigEndian => f.write_str("it was written on a big-endian machine, which is not supported"),
            MetaFault::Version(version) => write!(f, "it has version {version}, and only version {VERSION} is known"),
            MetaFault::Checksum => f.write_str("its checksum does not hold"),
            MetaFault::PageSize(size) => write!(f, "its pages have {size} bytes, which is not supported"),
        }
    }
}

impl Meta {
    pub(super) fn read(bytes: &[u8; META_LEN]) -> Result<Meta, MetaFault> {
        let word = |at: usize| LittleEndian::read_u64(&bytes[at..]);
        match LittleEndian::read_u32(&bytes[AT_MAGIC..]) {
            MAGIC => {}
            _ if BigEndian::read_u32(&bytes[AT_MAGIC..]) == MAGIC => return Err(MetaFault::BigEndian),
            _ => return Err(MetaFault::Magic),
        }
        let version = LittleEndian::read_u32(&bytes[AT_VERSION..]);
        if version != VERSION {
            return Err(MetaFault::Version(version));
        }
        // The Go libraries take a page with 0 there as one without a checksum.
        if ![0, fnv_1a(&bytes[CHECKED])].contains(&word(AT_CHECKSUM)) {
            return Err(MetaFault::Checksum);
        }
        let page_size = LittleEndian::read_u32(&bytes[AT_PAGE_SIZE..]);
        if !PAGE_SIZES.map(|bits| 1 << bits).any(|known: u32| known == page_size) {
            return Err(MetaFault::PageSize(page_size));
        }
        let (root, pages, transaction) = (word(AT_ROOT), word(AT_PAGES), word(AT_TRANSACTION));
        Ok(Meta { page_size: page_size.into(), root, pages, transaction })
    }
}

/// The hash FNV-1a of 64 bits.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_1a() {
        // From the reference page of the hash.
        assert_eq!(fnv_1a(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv_1a(b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn a_page_that_does_not_count_says_why() {
        let mut page = [0; META_LEN];
        LittleEndian::write_u32(&mut page[AT_MAGIC..], MAGIC);
        LittleEndian::write_u32(&mut page[AT_VERSION..], VERSION);
        LittleEndian::write_u32(&mut page[AT_PAGE_SIZE..], 4096);
        LittleEndian::write_u64(&mut page[AT_ROOT..], 3);
        LittleEndian::write_u64(&mut page[AT_PAGES..], 4);
        LittleEndian::write_u64(&mut page[AT_TRANSACTION..], 7);
        let sealed = |mut page: [u8; META_LEN]| {
            let sum = fnv_1a(&page[CHECKED]);
            LittleEndian::write_u64(&mut page[AT_CHECKSUM..], sum);
            page
        };
        let with = |at: usize, value: u32| {
            let mut page = page;
            LittleEndian::write_u32(&mut page[at..], value);
            Meta::read(&sealed(page))
        };
        let meta = Meta { page_size: 4096, root: 3, pages: 4, transaction: 7 };
        assert_eq!(Meta::read(&sealed(page)), Ok(meta));
        assert_eq!(Meta::read(&page), Ok(meta), "without a checksum");
        let mut wrong = page;
        wrong[AT_CHECKSUM] = 1;
        assert_eq!(Meta::read(&wrong), Err(MetaFault::Checksum));
        assert_eq!(with(AT_MAGIC, 7), Err(MetaFault::Magic));
        assert_eq!(with(AT_MAGIC, MAGIC.swap_bytes()), Err(MetaFault::BigEndian));
        assert_eq!(with(AT_VERSION, 3), Err(MetaFault::Version(3)));
        for size in [0, 1, 512, 1000, 4097, 1 << 25, u32::MAX] {
            assert_eq!(with(AT_PAGE_SIZE, size), Err(MetaFault::PageSize(size)));
        }
        for at in CHECKED {
            let mut page = sealed(page);
            page[at] ^= 0x10;
            assert!(Meta::read(&page).is_err(), "byte {at}");
        }
    }
}
