//! A leaf of a snapshot, which is loaded when it is first needed.

use std::ops::Range;
use std::sync::OnceLock;

use super::Node;
use crate::format::order::StoredLeaf;
use crate::index::Keys;
use crate::index::entry::Entry;
use crate::index::order::decode_entries;

/// A leaf in the file, and its entries once it was needed. All trees that share it share them.
pub(in super::super) struct Stored {
    leaf: StoredLeaf,
    first: Entry,
    /// The first entry of the next leaf.
    next: Option<Entry>,
    /// The records of the order lie here.
    covered: Range<u64>,
    subtree: OnceLock<Node>,
}

impl Stored {
    /// A leaf as the directory has it, and the first entry of the next one.
    pub(in super::super) fn new(leaf: StoredLeaf, next: Option<Entry>, covered: Range<u64>) -> Stored {
        Stored { leaf, first: Entry::from_bytes(&leaf.first), next, covered, subtree: OnceLock::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.leaf.count as usize
    }

    pub(super) fn first(&self) -> &Entry {
        &self.first
    }

    pub(super) fn subtree(&self) -> Option<&Node> {
        self.subtree.get()
    }

    /// The entries, read from the file and verified.
    ///
    /// # Errors
    ///
    /// Those of `keys`, also if the leaf is not what the directory says.
    pub(in super::super) fn read<K: Keys>(&self, keys: &K) -> Result<Vec<Entry>, K::Error> {
        let stored = self.leaf.bytes();
        let entries = decode_entries(&keys.stored_bytes(&stored)?, &self.covered).filter(|entries| {
            let (first, last) = (entries.first(), entries.last());
            first.is_some_and(|first| first.to_bytes() == self.leaf.first)
                && last.zip(self.next).is_none_or(|(last, next)| last.prefix().may_precede(next.prefix()))
        });
        entries.ok_or_else(|| keys.not_stored(&stored))
    }

    /// Loads the leaf. Two threads may do so at once; one of both results stays.
    ///
    /// # Errors
    ///
    /// Those of [`Stored::read`]; the leaf is not loaded then.
    #[cold]
    pub(in super::super) fn load<K: Keys>(&self, keys: &K) -> Result<(), K::Error> {
        if self.subtree.get().is_none() {
            let _ = self.subtree.set(Node::build(&self.read(keys)?));
        }
        Ok(())
    }
}
