//! Sequence numbers: their blocks and their bounds.

#[cfg(test)]
use crate::limits::Limits;

/// Sequence numbers are reserved in blocks of this many.
#[cfg(test)]
pub(crate) const BLOCK_LEN: u64 = Limits::REAL.block_len();

/// The largest distance between a sequence number and the one before it. A handle whose writes keep failing skips a
/// block each time; the bound allows 2^28 failures in a row. Larger steps come only from damage or forgery.
pub(crate) const MAX_SEQ_STEP: u64 = 1 << 48;

/// The largest sequence number. Arithmetic on sequence numbers and blocks cannot overflow.
pub(crate) const MAX_SEQ: u64 = (1 << 62) - 1;

/// The block of a sequence number.
#[cfg(test)]
pub(crate) const fn block_of(seq: u64) -> u64 {
    seq / BLOCK_LEN
}

/// The first sequence number of a block.
#[cfg(test)]
pub(crate) const fn block_start(block: u64) -> u64 {
    block * BLOCK_LEN
}

/// The bounds of a record's sequence number: above the record before it, and not too far above the highest number that
/// was assigned by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeqBound {
    /// The sequence number of the last record before; 0 if there is none.
    pub(crate) previous: u64,
    /// The file's `base_seq`.
    pub(crate) base: u64,
}

impl SeqBound {
    #[inline]
    pub(crate) fn admits(self, seq: u64) -> bool {
        let highest = self.previous.max(self.base);
        seq > self.previous && seq <= MAX_SEQ && seq <= highest + MAX_SEQ_STEP
    }
}
