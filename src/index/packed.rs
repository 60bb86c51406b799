//! A position and a tag in one word.
//!
//! Records start at multiples of eight, so 40 bits hold the positions of an 8 TiB log. The other 24 bits are a tag:
//! bits of the hash in the hash index, bits of the key in the sorted index.

use crate::format::ALIGNMENT;
pub(super) use crate::format::snapshot::TAG_BITS;

/// The bits of a word that hold the position, in units of [`ALIGNMENT`].
const POSITION_BITS: u32 = u64::BITS - TAG_BITS;

/// All positions are below this.
pub(crate) const POSITION_LIMIT: u64 = ALIGNMENT << POSITION_BITS;

/// Joins a tag of [`TAG_BITS`] and a position.
///
/// # Panics
///
/// If the position is 0, not a multiple of 8, or at or above [`POSITION_LIMIT`]. A wrong position would silently become
/// another key's, so the cheap check is in release builds too.
pub(super) fn pack(tag: u64, position: u64) -> u64 {
    assert!(position != 0 && position % ALIGNMENT == 0 && position < POSITION_LIMIT, "no record lies at {position}");
    debug_assert!(tag >> TAG_BITS == 0);
    (tag << POSITION_BITS) | (position / ALIGNMENT)
}

/// The tag of a packed word.
pub(super) fn tag(word: u64) -> u64 {
    word >> POSITION_BITS
}

/// The position of a packed word.
pub(super) fn position(word: u64) -> u64 {
    (word & (u64::MAX >> TAG_BITS)) * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_back_its_tag_and_its_position() {
        for at in [8, 64, POSITION_LIMIT / 2, POSITION_LIMIT - 8] {
            for bits in [0, 1, 0xAB_CDEF, 0xFF_FFFF] {
                assert_eq!((tag(pack(bits, at)), position(pack(bits, at))), (bits, at));
            }
        }
    }

    #[test]
    fn impossible_positions_are_refused() {
        for at in [0, 7, 12, POSITION_LIMIT, u64::MAX - 7] {
            assert!(std::panic::catch_unwind(|| pack(1, at)).is_err(), "{at}");
        }
    }
}
