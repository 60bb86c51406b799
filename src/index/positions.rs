//! The positions of a range of ranks, for a listing.

use std::ops::Range;
use std::sync::Arc;

use super::Keys;
use super::entry::Entry;
use super::tree::{Leaf, Missing, Node};

/// The entries of a range of ranks in the order of their keys, from the moment of
/// [`SortedIndex::range`](super::SortedIndex::range).
///
/// Owns a snapshot, and steps in constant amortised time from either end. As an iterator, it is for an index of which all
/// leaves are loaded.
pub(crate) struct Positions {
    root: Node,
    /// The ranks that are left. Both ends take from here, so they cannot cross.
    ranks: Range<usize>,
    front: Option<Cursor>,
    back: Option<Cursor>,
}

/// A leaf and the rank of its first entry.
struct Cursor {
    leaf: Arc<Leaf>,
    first: usize,
}

/// The entry of a rank, if the cursor's leaf has it.
#[inline]
fn held(cursor: &Option<Cursor>, rank: usize) -> Option<&Entry> {
    let cursor = cursor.as_ref()?;
    cursor.leaf.entries().get(rank.checked_sub(cursor.first)?)
}

/// The entry of a rank, from the cursor's leaf or from the leaf to which the cursor moves.
#[inline]
fn entry_at<'r>(root: &'r Node, cursor: &mut Option<Cursor>, rank: usize) -> Result<Entry, Missing<'r>> {
    match held(cursor, rank) {
        Some(&entry) => Ok(entry),
        None => moved_to(root, cursor, rank),
    }
}

/// The position of a rank in an index of which all leaves are loaded.
// Without the copy of the entry: each pair of a listing would take a tenth longer.
#[inline]
fn position_at(root: &Node, cursor: &mut Option<Cursor>, rank: usize) -> u64 {
    match held(cursor, rank) {
        Some(entry) => entry.position(),
        None => moved_to(root, cursor, rank).unwrap_or_else(|_| unreachable!("all leaves are loaded")).position(),
    }
}

/// Not inlined: the step within a leaf is short, and must stay so.
#[inline(never)]
fn moved_to<'r>(root: &'r Node, cursor: &mut Option<Cursor>, rank: usize) -> Result<Entry, Missing<'r>> {
    let (leaf, first) = root.leaf_at(rank)?;
    *cursor = Some(Cursor { leaf: Arc::clone(leaf), first });
    Ok(leaf.entries()[rank - first])
}

impl Positions {
    /// The positions of these ranks, which must be in the tree.
    pub(super) fn new(root: Node, ranks: Range<usize>) -> Positions {
        Positions { root, ranks, front: None, back: None }
    }

    /// The next entry, if its leaf is loaded.
    #[inline]
    fn step(&mut self) -> Result<Option<Entry>, Missing<'_>> {
        let Range { start, end } = self.ranks;
        if start >= end {
            return Ok(None);
        }
        let entry = entry_at(&self.root, &mut self.front, start)?;
        self.ranks.start += 1;
        Ok(Some(entry))
    }

    #[inline]
    fn step_back(&mut self) -> Result<Option<Entry>, Missing<'_>> {
        let Range { start, end } = self.ranks;
        if start >= end {
            return Ok(None);
        }
        let entry = entry_at(&self.root, &mut self.back, end - 1)?;
        self.ranks.end -= 1;
        Ok(Some(entry))
    }

    /// The next entry. Loads its leaf.
    ///
    /// # Errors
    ///
    /// Those of `keys`. The entry is still the next one then.
    #[inline]
    pub(crate) fn next_entry<K: Keys>(&mut self, keys: &K) -> Result<Option<Entry>, K::Error> {
        loop {
            match self.step() {
                Ok(entry) => return Ok(entry),
                Err(Missing(leaf)) => leaf.load(keys)?,
            }
        }
    }

    /// The next entry from the other end. As [`Positions::next_entry`].
    #[inline]
    pub(crate) fn next_entry_back<K: Keys>(&mut self, keys: &K) -> Result<Option<Entry>, K::Error> {
        loop {
            match self.step_back() {
                Ok(entry) => return Ok(entry),
                Err(Missing(leaf)) => leaf.load(keys)?,
            }
        }
    }
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
