//! The positions of a range of ranks, for a listing.

use std::ops::Range;
use std::sync::Arc;

use super::entry::Entry;
use super::tree::{Leaf, Node};

/// The positions of a range of ranks in the order of their keys, from the moment of
/// [`SortedIndex::range`](super::SortedIndex::range).
///
/// Owns a snapshot, and steps in constant amortised time from either end.
pub(crate) struct Positions {
    root: Node,
    /// The ranks that are left. Both ends take from here, so they cannot cross.
    ranks: Range<usize>,
    front: Option<Cursor>,
    back: Option<Cursor>,
}

impl Positions {
    /// The positions of these ranks, which must be in the tree.
    pub(super) fn new(root: Node, ranks: Range<usize>) -> Positions {
        Positions { root, ranks, front: None, back: None }
    }
}

/// A leaf and the rank of its first entry.
struct Cursor {
    leaf: Arc<Leaf>,
    first: usize,
}

/// The position of a rank, if the cursor's leaf has it.
#[inline]
fn held(cursor: &Option<Cursor>, rank: usize) -> Option<u64> {
    let cursor = cursor.as_ref()?;
    cursor.leaf.entries().get(rank.checked_sub(cursor.first)?).map(Entry::position)
}

/// The position of a rank, from the cursor's leaf or from the leaf to which the cursor moves.
#[inline]
fn position_at(root: &Node, cursor: &mut Option<Cursor>, rank: usize) -> u64 {
    held(cursor, rank).unwrap_or_else(|| moved_to(root, cursor, rank))
}

/// Not inlined: the step within a leaf is short, and must stay so.
#[inline(never)]
fn moved_to(root: &Node, cursor: &mut Option<Cursor>, rank: usize) -> u64 {
    let (leaf, first) = root.leaf_at(rank);
    *cursor = Some(Cursor { leaf: Arc::clone(leaf), first });
    leaf.entries()[rank - first].position()
}

impl Iterator for Positions {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let rank = self.ranks.next()?;
        Some(position_at(&self.root, &mut self.front, rank))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<u64> {
        let rank = self.ranks.nth(n)?;
        Some(position_at(&self.root, &mut self.front, rank))
    }
}

impl DoubleEndedIterator for Positions {
    fn next_back(&mut self) -> Option<u64> {
        let rank = self.ranks.next_back()?;
        Some(position_at(&self.root, &mut self.back, rank))
    }

    fn nth_back(&mut self, n: usize) -> Option<u64> {
        let rank = self.ranks.nth_back(n)?;
        Some(position_at(&self.root, &mut self.back, rank))
    }
}

impl ExactSizeIterator for Positions {}
impl std::iter::FusedIterator for Positions {}
