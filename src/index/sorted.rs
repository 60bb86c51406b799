//! Every position in the order of the keys, for listings.
//!
//! A listing is a pair of ranks in a snapshot. The tree counts the entries below each branch, so the rank of a bound is
//! found on one way down; what lies between two ranks can be walked from both ends and its length is known; and as the
//! snapshot is a clone of the root, a listing copies nothing and sees one moment, however long it takes.

use std::cmp::Ordering;
use std::ops::Range;

use super::entry::{Entry, Prefix};
use super::positions::Positions;
use super::search::Probe;
use super::tree::{Node, Place};
use super::{Hashed, Keys};

/// The positions of the live records in the order of their keys.
///
/// Where keys are alike in their first 18 bytes, and longer, the methods compare with the key in the log. They may ask
/// about records that are replaced or deleted by now, but never about a position that was not inserted.
///
/// Every operation takes logarithmic time, and asks as often.
#[derive(Clone)]
pub(crate) struct SortedIndex {
    root: Node,
}

/// A key that is looked for, and what is asked about the keys in the log.
///
/// # Damage
///
/// A search asks some twenty stored keys, and to verify all of them would cost too much. So it verifies the outcome. The
/// entries are in the order of the keys that the records had when they were taken in. If the key before a place is less
/// than the one that is sought, and the key at the place is greater (or if the key there is the one), then the place is
/// right, whatever has led there. What an entry holds of its key was taken from a verified key, and decides most of these
/// two comparisons; else the key is read, and [proven](read_proven). Only if the outcome is not proven, the search is made
/// once more, and every record that it asks is verified.
pub(crate) struct Sought<'a, K> {
    pub(crate) key: &'a [u8],
    pub(crate) keys: &'a K,
    /// The position of the record that is known to have the key.
    pub(crate) known: Option<u64>,
    /// The hash index over the same records, if it is at hand.
    pub(crate) hashed: Option<Hashed<'a>>,
}

/// What a search has found.
struct Search {
    place: Place,
    /// Whether keys in the log had a say in it.
    asked: bool,
}

/// Appends the key of a record to `out`, after making sure that it is the one that the record was taken in with.
///
/// The hash index knows 36 bits of the key's hash, which is proof as good as the record's checksum, and needs no look at a
/// value that may be long, or damaged where the key is not. Without that index, or if it knows of no such key, the record
/// is verified.
///
/// # Errors
///
/// Those of `keys`: that of a damaged record among them.
pub(super) fn read_proven<K: Keys>(
    position: u64,
    keys: &K,
    hashed: Option<Hashed<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), K::Error> {
    let start = out.len();
    keys.read(position, out)?;
    if !hashed.is_some_and(|hashed| hashed.has(&out[start..], position)) {
        out.truncate(start);
        keys.read_verified(position, out)?;
    }
    Ok(())
}

impl Default for SortedIndex {
    fn default() -> Self {
        Self { root: Node::empty() }
    }
}

impl SortedIndex {
    /// Builds the index from entries in strictly ascending order of their keys: see
    /// [`sort_entries`](super::sort_entries).
    pub(crate) fn from_sorted(entries: &[Entry]) -> Self {
        debug_assert!(entries.is_sorted_by_key(Entry::prefix));
        Self { root: Node::build(entries) }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.root.len()
    }

    /// Bytes allocated, those shared with snapshots included; in time proportional to a hundredth of the length.
    pub(crate) fn memory(&self) -> usize {
        self.root.memory()
    }

    /// The index as it is now, whatever happens to this one. Takes constant time; afterwards the first change to each
    /// node copies it, as long as the snapshot lives.
    pub(crate) fn snapshot(&self) -> Self {
        self.clone()
    }

    /// Puts the key that is sought at `position`, and returns the position where it was, or `None` if it is new.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`]; the index is unchanged then.
    ///
    /// # Panics
    ///
    /// If `position` is not one: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
    pub(crate) fn insert<K: Keys>(&mut self, sought: &Sought<'_, K>, position: u64) -> Result<Option<u64>, K::Error> {
        let Search { place, asked } = self.find(sought)?;
        let (path, entry) = (place.path(), Entry::new(sought.key, position));
        if place.found {
            return Ok(Some(self.root.replace(path, entry).position()));
        }
        if asked {
            // The place is proven by the entries beside it. Separators were asked as well, and are not verified.
            let next = self.root.at_or_after(path).copied();
            self.root.lead_to(path, entry, next);
        }
        if let Some(new) = self.root.insert(path, entry) {
            self.root.grow(new);
        }
        Ok(None)
    }

    /// Takes the key out and returns the position where it was, or `None` if it was not there.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`]; the index is unchanged then.
    pub(crate) fn remove<K: Keys>(&mut self, sought: &Sought<'_, K>) -> Result<Option<u64>, K::Error> {
        let Search { place, .. } = self.find(sought)?;
        if !place.found {
            return Ok(None);
        }
        let removed = self.root.remove(place.path());
        self.root.shrink();
        Ok(Some(removed.position()))
    }

    /// How many keys are less than the one that is sought: the rank where a range begins that includes it, and where one
    /// ends that excludes it.
    ///
    /// # Errors
    ///
    /// The first error of the keys that it asks, and the error of a record that is damaged, if that could have led to a
    /// wrong rank.
    pub(crate) fn lower_rank<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<usize, K::Error> {
        Ok(self.root.rank(self.find(sought)?.place.path()))
    }

    /// How many keys are less than the one that is sought or equal to it: the rank where a range begins that excludes it,
    /// and where one ends that includes it.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`].
    pub(crate) fn upper_rank<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<usize, K::Error> {
        let place = self.find(sought)?.place;
        Ok(self.root.rank(place.path()) + usize::from(place.found))
    }

    /// Where a key is, or where it would go. The place is right whatever damage there is in the log; see [`Sought`].
    fn find<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<Search, K::Error> {
        let (prefix, mut asked) = (Prefix::of(sought.key), false);
        let compare = |at| {
            asked = true;
            if sought.known == Some(at) { Ok(Ordering::Equal) } else { sought.keys.compare(at, sought.key) }
        };
        let place = self.root.find(&mut Probe { prefix, compare })?;
        if !asked || self.is_proven(&place, prefix, sought)? {
            return Ok(Search { place, asked });
        }
        // A record said something else of its key than what it was taken in with. Find it.
        let mut key = Vec::new();
        let compare = |at| {
            key.clear();
            sought.keys.read_verified(at, &mut key)?;
            Ok(key.as_slice().cmp(sought.key))
        };
        Ok(Search { place: self.root.find(&mut Probe { prefix, compare })?, asked })
    }

    /// Whether the key at a place, or else the keys beside it, are as they have to be if this is the place.
    fn is_proven<K: Keys>(&self, place: &Place, prefix: Prefix, sought: &Sought<'_, K>) -> Result<bool, K::Error> {
        let mut key = Vec::new();
        let mut is = |entry: Option<&Entry>, expected| match entry {
            None => Ok(true),
            Some(entry) if sought.known == Some(entry.position()) => Ok(expected == Ordering::Equal),
            Some(entry) if entry.prefix() != prefix => Ok(entry.prefix().cmp(&prefix) == expected),
            Some(entry) => {
                key.clear();
                read_proven(entry.position(), sought.keys, sought.hashed, &mut key)?;
                Ok(key.as_slice().cmp(sought.key) == expected)
            }
        };
        let path = place.path();
        if place.found {
            return is(self.root.at_or_after(path), Ordering::Equal);
        }
        Ok(is(self.root.before(path), Ordering::Less)? && is(self.root.at_or_after(path), Ordering::Greater)?)
    }

    /// The entry of a rank.
    pub(crate) fn entry(&self, rank: usize) -> Option<&Entry> {
        let (leaf, first) = self.root.leaf_at(rank);
        leaf.entries().get(rank - first)
    }

    /// The positions of these ranks, as they are now. Ranks past the end are left out; a range that ends before it
    /// begins is empty.
    pub(crate) fn range(&self, ranks: Range<usize>) -> Positions {
        let ranks = ranks.start..ranks.end.min(self.len());
        Positions::new(self.root.clone(), ranks)
    }
}

#[cfg(test)]
mod tests;
