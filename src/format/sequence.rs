//! Sequence numbers: their blocks and their bounds.

/// Indexes are handed out from blocks of this many.
pub(crate) const BLOCK_LEN: u64 = 1 << 20;

/// How far a sequence number may be above the one before it. A handle whose writes keep failing moves on by a block each
/// time, so the bound leaves room for 2^28 failures in a row; beyond it only damage could lead, or a forger who
/// wants to use the sequence numbers up.
pub(crate) const MAX_SEQ_STEP: u64 = 1 << 48;

/// No sequence number is above this, so that arithmetic on sequence numbers and blocks cannot overflow.
pub(crate) const MAX_SEQ: u64 = (1 << 62) - 1;

/// The block that a sequence number belongs to.
pub(crate) const fn block_of(seq: u64) -> u64 {
    seq / BLOCK_LEN
}

/// The first sequence number of a block.
pub(crate) const fn block_start(block: u64) -> u64 {
    block * BLOCK_LEN
}

/// What bounds the sequence number of a record: it is above the one before it in the file, and not too far above the highest
/// that had been assigned by then.
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
