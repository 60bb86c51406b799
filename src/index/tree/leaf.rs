//! The leaves of the tree.

use super::{Child, split_point};
use crate::index::entry::Entry;

/// The most entries of a leaf. Tests use small nodes, so that small trees are deep.
pub(super) const LEAF_CAPACITY: usize = if cfg!(test) { 8 } else { 128 };

/// Entries in the order of their keys.
///
/// They lie in the node itself, which saves a pointer and an over-sized `Vec`.
#[derive(Clone)]
pub(in super::super) struct Leaf {
    pub(super) len: usize,
    pub(super) slots: [Entry; LEAF_CAPACITY],
}

impl Leaf {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut slots = [Entry::default(); LEAF_CAPACITY];
        slots[..entries.len()].copy_from_slice(entries);
        Self { len: entries.len(), slots }
    }

    /// The entries, in order.
    #[inline]
    pub(in super::super) fn entries(&self) -> &[Entry] {
        &self.slots[..self.len]
    }

    /// Inserts an entry before the one at `at`. A full leaf returns its upper part.
    pub(super) fn insert(&mut self, at: usize, entry: Entry) -> Option<Child> {
        if self.len < LEAF_CAPACITY {
            self.slots.copy_within(at..self.len, at + 1);
            self.slots[at] = entry;
            self.len += 1;
            return None;
        }
        let middle = split_point(at, LEAF_CAPACITY);
        let mut upper = Self::of(&self.slots[middle..]);
        self.len = middle;
        let (half, at) = if at < middle || middle == 0 { (self, at) } else { (&mut upper, at - middle) };
        half.insert(at, entry);
        Some(Child::leaf(upper))
    }

    pub(super) fn remove(&mut self, at: usize) -> Entry {
        let removed = self.slots[at];
        self.slots.copy_within(at + 1..self.len, at);
        self.len -= 1;
        removed
    }
}
