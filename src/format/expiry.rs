//! The bytes in front of the value of a pair that expires: [`Expiry`].
//!
//! The record has a kind of its own, put-with. Its stored value is an expiry, followed by the value that users see.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::MAX_VALUE_LEN;

pub(super) const AT_DEADLINE: Range<usize> = 0..8;
pub(super) const AT_SESSION: Range<usize> = AT_DEADLINE.end..AT_DEADLINE.end + 8;
pub(super) const AT_ACQUIRED: Range<usize> = AT_SESSION.end..AT_SESSION.end + 8;

/// The length of an expiry in a record.
pub(crate) const EXPIRY_LEN: usize = AT_ACQUIRED.end;

/// The longest value of a pair with a deadline, in bytes: 24 less than [`MAX_VALUE_LEN`], since the deadline is stored with the value.
///
/// ```
/// assert_eq!(caskfile::MAX_EXPIRING_VALUE_LEN, caskfile::MAX_VALUE_LEN - 24);
/// ```
pub const MAX_EXPIRING_VALUE_LEN: usize = MAX_VALUE_LEN - EXPIRY_LEN;

/// How long a pair counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Expiry {
    /// The pair is over from this moment on, in milliseconds since 1970-01-01 00:00 UTC by the wall clock; 0 if there is
    /// none.
    pub(crate) deadline: u64,
    /// Reserved: written as 0, not checked. A record that belongs to a session will have a kind of its own, so that this version
    /// refuses it by name.
    pub(crate) session: u64,
    /// Reserved as `session` is.
    pub(crate) acquired: u64,
}

impl Expiry {
    /// A pair that is over at this moment, which is not 0.
    pub(crate) fn at(deadline: u64) -> Expiry {
        Expiry { deadline, ..Expiry::default() }
    }

    pub(crate) fn encode(&self) -> [u8; EXPIRY_LEN] {
        let mut bytes = [0; EXPIRY_LEN];
        LittleEndian::write_u64(&mut bytes[AT_DEADLINE], self.deadline);
        LittleEndian::write_u64(&mut bytes[AT_SESSION], self.session);
        LittleEndian::write_u64(&mut bytes[AT_ACQUIRED], self.acquired);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; EXPIRY_LEN]) -> Expiry {
        Expiry {
            deadline: LittleEndian::read_u64(&bytes[AT_DEADLINE]),
            session: LittleEndian::read_u64(&bytes[AT_SESSION]),
            acquired: LittleEndian::read_u64(&bytes[AT_ACQUIRED]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Expiry = Expiry { deadline: 0x0102_0304_0506_0708, session: 0x11, acquired: 1 << 63 };

    #[test]
    fn an_expiry_is_24_bytes_and_reads_back_as_written() {
        assert_eq!(EXPIRY_LEN, 24);
        let bytes = SAMPLE.encode();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[8..16], [0x11, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..], [0, 0, 0, 0, 0, 0, 0, 0x80]);
        assert_eq!(Expiry::decode(&bytes), SAMPLE);
    }

    #[test]
    fn every_bit_of_an_expiry_means_something() {
        for bit in 0..EXPIRY_LEN * 8 {
            let mut bytes = SAMPLE.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Expiry::decode(&bytes), SAMPLE, "bit {bit}");
            assert_eq!(Expiry::decode(&bytes).encode(), bytes, "bit {bit}");
        }
    }
}
