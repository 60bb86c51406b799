//! The value of a session's record: [`SessionRecord`].
//!
//! A session has a record when it begins, one for each renewal, and one when it ends. The last of them in the log counts.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

pub(super) const AT_SESSION: Range<usize> = 0..8;
pub(super) const AT_OWNER: Range<usize> = AT_SESSION.end..AT_SESSION.end + 8;
pub(super) const AT_NONCE: Range<usize> = AT_OWNER.end..AT_OWNER.end + 8;
pub(super) const AT_TTL: Range<usize> = AT_NONCE.end..AT_NONCE.end + 8;
pub(super) const AT_DEADLINE: Range<usize> = AT_TTL.end..AT_TTL.end + 8;
pub(super) const AT_BOOT: Range<usize> = AT_DEADLINE.end..AT_DEADLINE.end + 16;
pub(super) const AT_BASE_SEQ: Range<usize> = AT_BOOT.end..AT_BOOT.end + 8;

/// The length of the value.
pub(crate) const SESSION_LEN: usize = AT_BASE_SEQ.end;

/// The largest number of an owner. The owner's byte in the file is this far above 2^60, where no record is.
pub(crate) const MAX_OWNER: u64 = (1 << 61) - 1;

/// What a record says about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    /// The session: the sequence number of its first record.
    pub(crate) session: u64,
    /// A random number, at most [`MAX_OWNER`], that says which byte of the file the owner holds a lock on.
    pub(crate) owner: u64,
    /// A random number of the session.
    pub(crate) nonce: u64,
    /// The time to live in milliseconds, above 0.
    pub(crate) ttl: u64,
    /// The session is over from this moment on, in milliseconds of the monotonic clock, less the offset of the time namespace.
    /// 0 in the record that ends it.
    pub(crate) deadline: u64,
    /// Which boot of which machine that clock belongs to.
    pub(crate) boot: [u8; 16],
    /// `base_seq` of the file that the record was written in, or a number that no file has. A copy in another file keeps it.
    pub(crate) base_seq: u64,
}

impl SessionRecord {
    /// Whether the record ends its session.
    #[inline]
    pub(crate) fn is_end(&self) -> bool {
        self.deadline == 0
    }

    /// Whether a record with this sequence number can say this.
    pub(crate) fn fits(&self, seq: u64) -> bool {
        (1..=seq).contains(&self.session) && self.owner <= MAX_OWNER && self.ttl > 0 && self.base_seq < seq
    }

    pub(crate) fn encode(&self) -> [u8; SESSION_LEN] {
        let mut bytes = [0; SESSION_LEN];
        LittleEndian::write_u64(&mut bytes[AT_SESSION], self.session);
        LittleEndian::write_u64(&mut bytes[AT_OWNER], self.owner);
        LittleEndian::write_u64(&mut bytes[AT_NONCE], self.nonce);
        LittleEndian::write_u64(&mut bytes[AT_TTL], self.ttl);
        LittleEndian::write_u64(&mut bytes[AT_DEADLINE], self.deadline);
        bytes[AT_BOOT].copy_from_slice(&self.boot);
        LittleEndian::write_u64(&mut bytes[AT_BASE_SEQ], self.base_seq);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SESSION_LEN]) -> SessionRecord {
        let mut boot = [0; 16];
        boot.copy_from_slice(&bytes[AT_BOOT]);
        SessionRecord {
            session: LittleEndian::read_u64(&bytes[AT_SESSION]),
            owner: LittleEndian::read_u64(&bytes[AT_OWNER]),
            nonce: LittleEndian::read_u64(&bytes[AT_NONCE]),
            ttl: LittleEndian::read_u64(&bytes[AT_TTL]),
            deadline: LittleEndian::read_u64(&bytes[AT_DEADLINE]),
            boot,
            base_seq: LittleEndian::read_u64(&bytes[AT_BASE_SEQ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: SessionRecord =
        SessionRecord { session: 11, owner: 12, nonce: 13, ttl: 14, deadline: 15, boot: [16; 16], base_seq: 17 };

    #[test]
    fn the_value_is_64_bytes_and_reads_back_as_written() {
        assert_eq!(SESSION_LEN, 64);
        let bytes = SAMPLE.encode();
        for (at, number) in [(0, 11), (8, 12), (16, 13), (24, 14), (32, 15), (56, 17)] {
            assert_eq!(bytes[at..at + 8], u64::to_le_bytes(number));
        }
        assert_eq!(bytes[40..56], [16; 16]);
        assert_eq!(SessionRecord::decode(&bytes), SAMPLE);
        assert!(!SAMPLE.is_end() && SessionRecord { deadline: 0, ..SAMPLE }.is_end());
    }

    #[test]
    fn every_bit_means_something() {
        for bit in 0..SESSION_LEN * 8 {
            let mut bytes = SAMPLE.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = SessionRecord::decode(&bytes);
            assert_ne!(found, SAMPLE, "bit {bit}");
            assert_eq!(found.encode(), bytes, "bit {bit}");
        }
    }

    #[test]
    fn numbers_that_no_writer_can_mean_do_not_fit() {
        assert!(SAMPLE.fits(18) && !SAMPLE.fits(17), "the file has higher numbers than its base");
        let of_new_store = SessionRecord { base_seq: 0, ..SAMPLE };
        assert!(of_new_store.fits(11), "the first record of a session");
        assert!(!of_new_store.fits(10) && !SessionRecord { session: 0, ..of_new_store }.fits(11));
        assert!(SessionRecord { owner: MAX_OWNER, ..of_new_store }.fits(11));
        assert!(!SessionRecord { owner: 1 << 61, ..of_new_store }.fits(11));
        assert!(!SessionRecord { ttl: 0, ..of_new_store }.fits(11));
        assert!(SessionRecord { deadline: 0, ..of_new_store }.fits(11), "END");
    }
}
