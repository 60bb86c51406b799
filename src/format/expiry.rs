//! The bytes in front of the value of a pair that may end by itself: [`Expiry`].
//!
//! Such records have kinds of their own, put-with and put-owned. Their stored value is an expiry, followed by the value that
//! users see.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::MAX_VALUE_LEN;
use super::kind::Kind;

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
    /// The pair is over with its owner. Only a put-owned has one; in a put-with, these bytes are reserved.
    pub(crate) owner: Option<Owner>,
}

/// The session to which a pair belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The sequence number of the session's first record.
    pub(crate) session: u64,
    /// The sequence number of the record that took the lock, kept when the value is rewritten: the fencing token. 0 if the pair
    /// is no lock.
    pub(crate) acquired: u64,
}

impl Owner {
    /// Whether a record with this sequence number can have this owner. The session's first record comes before the record that
    /// takes the lock, which comes before those that rewrite its value.
    pub(crate) fn fits(&self, seq: u64) -> bool {
        (1..seq).contains(&self.session) && (self.acquired == 0 || (self.session + 1..=seq).contains(&self.acquired))
    }
}

impl Expiry {
    /// A pair that is over at this moment, which is not 0.
    pub(crate) fn at(deadline: u64) -> Expiry {
        Expiry { deadline, owner: None }
    }

    /// The kind of the record that this stands in.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        if self.owner.is_some() { Kind::PutOwned } else { Kind::PutWith }
    }

    pub(crate) fn encode(&self) -> [u8; EXPIRY_LEN] {
        let mut bytes = [0; EXPIRY_LEN];
        LittleEndian::write_u64(&mut bytes[AT_DEADLINE], self.deadline);
        if let Some(owner) = self.owner {
            LittleEndian::write_u64(&mut bytes[AT_SESSION], owner.session);
            LittleEndian::write_u64(&mut bytes[AT_ACQUIRED], owner.acquired);
        }
        bytes
    }

    /// The expiry in a record of this kind.
    pub(crate) fn decode(kind: Kind, bytes: &[u8; EXPIRY_LEN]) -> Expiry {
        let owner = || Owner {
            session: LittleEndian::read_u64(&bytes[AT_SESSION]),
            acquired: LittleEndian::read_u64(&bytes[AT_ACQUIRED]),
        };
        let owner = (kind == Kind::PutOwned).then(owner);
        Expiry { deadline: LittleEndian::read_u64(&bytes[AT_DEADLINE]), owner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { session: 0x11, acquired: 1 << 63 };
    const SAMPLE: Expiry = Expiry { deadline: 0x0102_0304_0506_0708, owner: Some(OWNER) };

    #[test]
    fn an_expiry_is_24_bytes_and_reads_back_as_written() {
        assert_eq!(EXPIRY_LEN, 24);
        let bytes = SAMPLE.encode();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[8..16], [0x11, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..], [0, 0, 0, 0, 0, 0, 0, 0x80]);
        assert_eq!((Expiry::decode(SAMPLE.kind(), &bytes), SAMPLE.kind()), (SAMPLE, Kind::PutOwned));
    }

    #[test]
    fn every_bit_of_an_owned_pairs_expiry_means_something() {
        for bit in 0..EXPIRY_LEN * 8 {
            let mut bytes = SAMPLE.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = Expiry::decode(Kind::PutOwned, &bytes);
            assert_ne!(found, SAMPLE, "bit {bit}");
            assert_eq!(found.encode(), bytes, "bit {bit}");
        }
    }

    #[test]
    fn reserved_bytes_of_a_put_with_mean_nothing() {
        let found = Expiry::decode(Kind::PutWith, &SAMPLE.encode());
        assert_eq!((found, found.kind()), (Expiry::at(SAMPLE.deadline), Kind::PutWith));
        assert_eq!(found.encode()[8..], [0; 16]);
    }

    #[test]
    fn an_owner_is_older_than_its_pair() {
        let fits = |session, acquired, seq| Owner { session, acquired }.fits(seq);
        assert!(fits(6, 0, 7) && fits(1, 0, 7) && fits(5, 6, 7) && fits(5, 7, 7));
        assert!(!fits(0, 0, 7) && !fits(7, 0, 7) && !fits(8, 0, 7), "the session is 0, or not before the pair");
        assert!(!fits(5, 8, 7) && !fits(5, 5, 7) && !fits(5, 4, 7), "the lock is of the future, or before its session");
        assert!(!fits(u64::MAX, 1, u64::MAX) && !fits(u64::MAX, u64::MAX, 7));
    }
}
