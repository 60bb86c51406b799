//! The file header: 64 bytes at the start of every caskfile.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::FileSeed;
use super::roots::ROOTS_END;

/// The first bytes of every caskfile: a byte that is not ASCII, and line ends and a control-Z that a copy in text mode
/// would change.
pub(crate) const MAGIC: [u8; 8] = [0xca, b'S', b'K', b'F', b'\r', b'\n', 0x1a, b'\n'];

/// The format's major version. A file with another one is refused.
pub const MAJOR_VERSION: u16 = 1;

/// The format's minor version. A file with a greater one is read: minor versions add only what older readers may skip.
pub const MINOR_VERSION: u16 = 0;

pub(super) const AT_MAGIC: Range<usize> = 0..8;
pub(super) const AT_MAJOR: Range<usize> = AT_MAGIC.end..AT_MAGIC.end + 2;
pub(super) const AT_MINOR: Range<usize> = AT_MAJOR.end..AT_MAJOR.end + 2;
pub(super) const AT_FEATURES: Range<usize> = AT_MINOR.end..AT_MINOR.end + 4;
pub(super) const AT_FILE_ID: Range<usize> = AT_FEATURES.end..AT_FEATURES.end + 16;
pub(super) const AT_BASE_SEQ: Range<usize> = AT_FILE_ID.end..AT_FILE_ID.end + 8;
pub(super) const AT_CREATED: Range<usize> = AT_BASE_SEQ.end..AT_BASE_SEQ.end + 8;
pub(super) const AT_COMPLETE_AFTER: Range<usize> = AT_CREATED.end..AT_CREATED.end + 8;
pub(super) const AT_RESERVED: Range<usize> = AT_COMPLETE_AFTER.end..AT_COMPLETE_AFTER.end + 4;
pub(super) const AT_CRC: Range<usize> = AT_RESERVED.end..AT_RESERVED.end + 4;

/// The bit of `features` that says that `ROOTS` follows the file header.
const HAS_ROOTS: u32 = 1;

/// The file header's length. `ROOTS` starts here, or the log if the file has none.
pub(crate) const FILE_HEADER_LEN: usize = AT_CRC.end;

/// A decoded file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    /// `ROOTS` follows the file header: see [`super::roots`].
    pub(crate) has_roots: bool,
    /// Random and new for every file, also for one that compaction makes. Secret: with it, record headers can be forged
    /// inside values. No tool prints it.
    pub(crate) file_id: [u8; 16],
    /// The highest sequence number that was assigned when the file was made. New records have higher numbers. Records
    /// that compaction copied keep their lower ones.
    pub(crate) base_seq: u64,
    /// Seconds since the Unix epoch.
    pub(crate) created: u64,
    /// See [`FileHeader::floor`].
    pub(crate) complete_after: u64,
}

/// The reason why 64 bytes are not a header that this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Magic,
    Checksum { found: u32, computed: u32 },
    Version { major: u16, minor: u16 },
}

impl FileHeader {
    pub(crate) fn seed(&self) -> FileSeed {
        FileSeed::new(&self.file_id)
    }

    /// Where the log starts.
    pub(crate) fn log_start(&self) -> u64 {
        if self.has_roots { ROOTS_END } else { FILE_HEADER_LEN as u64 }
    }

    /// The file holds every put and delete with a higher sequence number than this. Of those up to it, some are missing:
    /// the records that were dead when the file was made.
    ///
    /// Compaction states the last put or delete of the old file. Other copies state nothing: their floor is `base_seq`.
    pub(crate) fn floor(&self) -> u64 {
        // One more is stored, since the floor can be 0.
        self.complete_after.checked_sub(1).filter(|&floor| floor <= self.base_seq).unwrap_or(self.base_seq)
    }

    /// The same header with another floor.
    pub(crate) fn with_floor(self, floor: u64) -> FileHeader {
        FileHeader { complete_after: floor + 1, ..self }
    }

    /// Eight bytes by which a log without records is recognised, and their offset: half of the file's identity.
    /// Reserved bytes are not used, since a later minor version may change them.
    pub(crate) fn fingerprint(&self) -> (u64, u64) {
        let half = self.file_id.len() / 2;
        ((AT_FILE_ID.start + half) as u64, LittleEndian::read_u64(&self.file_id[half..]))
    }

    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_LEN] {
        let mut bytes = [0; FILE_HEADER_LEN];
        bytes[AT_MAGIC].copy_from_slice(&MAGIC);
        LittleEndian::write_u16(&mut bytes[AT_MAJOR], self.major);
        LittleEndian::write_u16(&mut bytes[AT_MINOR], self.minor);
        LittleEndian::write_u32(&mut bytes[AT_FEATURES], if self.has_roots { HAS_ROOTS } else { 0 });
        bytes[AT_FILE_ID].copy_from_slice(&self.file_id);
        LittleEndian::write_u64(&mut bytes[AT_BASE_SEQ], self.base_seq);
        LittleEndian::write_u64(&mut bytes[AT_CREATED], self.created);
        LittleEndian::write_u64(&mut bytes[AT_COMPLETE_AFTER], self.complete_after);
        let crc = crc32fast::hash(&bytes[..AT_CRC.start]);
        LittleEndian::write_u32(&mut bytes[AT_CRC], crc);
        bytes
    }

    /// Checks the magic first, so that a foreign file is named as such; then the checksum, so that a flipped bit in the
    /// version does not pass for a future version; then the version. Future versions keep these three where they are.
    pub(crate) fn decode(bytes: &[u8; FILE_HEADER_LEN]) -> Result<FileHeader, HeaderFault> {
        if bytes[AT_MAGIC] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let found = LittleEndian::read_u32(&bytes[AT_CRC]);
        let computed = crc32fast::hash(&bytes[..AT_CRC.start]);
        if found != computed {
            return Err(HeaderFault::Checksum { found, computed });
        }
        let major = LittleEndian::read_u16(&bytes[AT_MAJOR]);
        let minor = LittleEndian::read_u16(&bytes[AT_MINOR]);
        if major != MAJOR_VERSION {
            return Err(HeaderFault::Version { major, minor });
        }
        let mut file_id = [0; 16];
        file_id.copy_from_slice(&bytes[AT_FILE_ID]);
        Ok(FileHeader {
            major,
            minor,
            has_roots: LittleEndian::read_u32(&bytes[AT_FEATURES]) & HAS_ROOTS != 0,
            file_id,
            base_seq: LittleEndian::read_u64(&bytes[AT_BASE_SEQ]),
            created: LittleEndian::read_u64(&bytes[AT_CREATED]),
            complete_after: LittleEndian::read_u64(&bytes[AT_COMPLETE_AFTER]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            major: MAJOR_VERSION,
            minor: 0,
            has_roots: true,
            file_id: [9; 16],
            base_seq: 1 << 40,
            created: 1_700_000_000,
            complete_after: 1 << 39,
        }
    }

    #[test]
    fn the_header_is_64_bytes_and_reads_back_as_written() {
        assert_eq!(FILE_HEADER_LEN, 64);
        for has_roots in [false, true] {
            let header = FileHeader { has_roots, ..header() };
            assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
            assert_eq!(header.log_start(), if has_roots { 216 } else { 64 });
        }
    }

    #[test]
    fn the_floor_is_what_is_stated_or_base_seq() {
        let header = FileHeader { base_seq: 9, ..header() };
        let floors =
            [0, 1, 5, 9, 10, 11, u64::MAX].map(|complete_after| FileHeader { complete_after, ..header }.floor());
        assert_eq!(floors, [9, 0, 4, 8, 9, 9, 9]);
        assert_eq!([0, 9].map(|floor| header.with_floor(floor).floor()), [0, 9]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for bit in 0..FILE_HEADER_LEN * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match FileHeader::decode(&bytes) {
                Err(HeaderFault::Magic) => assert!(bit / 8 < AT_MAGIC.end),
                Err(HeaderFault::Checksum { .. }) => assert!(bit / 8 >= AT_MAGIC.end),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn newer_major_versions_are_refused_and_minor_ones_read() {
        let future = FileHeader { major: 2, minor: 3, ..header() };
        assert_eq!(FileHeader::decode(&future.encode()), Err(HeaderFault::Version { major: 2, minor: 3 }));
        let next = FileHeader { minor: 7, ..header() };
        assert_eq!(FileHeader::decode(&next.encode()), Ok(next));
    }
}
