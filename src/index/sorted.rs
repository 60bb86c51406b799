//! The sorted index: every position in the order of the keys, for listings.
//!
//! A listing is a pair of ranks in a snapshot. The tree counts the entries below each branch, so one descent finds the
//! rank of a bound, and the length of a range is known. Ranges can be walked from both ends. A snapshot is a clone of
//! the root: a listing copies nothing and sees one moment.

use std::cmp::Ordering;
use std::ops::Range;

use super::entry::{Entry, Prefix};
use super::positions::Positions;
use super::search::Probe;
use super::tree::{Missing, Node, Place};
use super::{Hashed, Keys};

/// The positions of the live records in the order of their keys.
///
/// If long keys share their first 18 bytes, the methods compare with the key in the log. They may ask about replaced or
/// deleted records, but never about a position that was not inserted.
///
/// Every operation takes logarithmic time, and asks about a logarithmic number of keys.
#[derive(Clone)]
pub(crate) struct SortedIndex {
    root: Node,
    /// It began with the order of a snapshot, so leaves may be missing, or turn out to be bad.
    is_stored: bool,
}

/// The key of a search, and the source of keys in the log.
///
/// # Damage
///
/// A search compares with some twenty stored keys. Verifying all of them would be too expensive, so it verifies the
/// outcome. The entries are in the order of the keys that the records had when they were replayed. If the key before a
/// place is less than the sought key, and the key at the place is greater (or equal, if it was found), then the place
/// is right. An entry's own bytes come from a verified key and decide most of these two comparisons; otherwise the key
/// is read and [proven](read_proven). If the outcome is not proven, the search is repeated and every record that it
/// reads is verified.
pub(crate) struct Sought<'a, K> {
    pub(crate) key: &'a [u8],
    pub(crate) keys: &'a K,
    /// The position of the record that is known to have the key.
    pub(crate) known: Option<u64>,
    /// The hash index over the same records, if available.
    pub(crate) hashed: Option<Hashed<'a>>,
}

/// The outcome of a search.
struct Search {
    place: Place,
    /// Whether keys in the log were compared.
    asked: bool,
}

/// Appends the key of a record to `out`, and makes sure that it is the key that the record had when it was replayed.
///
/// The hash index has 36 bits of the key's hash, a proof as good as the record's checksum. It does not read the value,
/// which may be long, or damaged where the key is sound. Without that index, or if it does not have the key, the record
/// is verified.
///
/// # Errors
///
/// Those of `keys`, also for a damaged record.
pub(super) fn read_proven<K: Keys>(
    position: u64,
    keys: &K,
    hashed: Option<Hashed<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), K::Error> {
    let start = out.len();
    keys.read(position, out)?;
    // Without the part of an image that the witness needs, the record is verified.
    if hashed.is_some_and(|hashed| hashed.load(&out[start..], keys).is_ok() && hashed.has(&out[start..], position)) {
        return Ok(());
    }
    out.truncate(start);
    keys.read_verified(position, out)
}

impl Default for SortedIndex {
    fn default() -> Self {
        Self { root: Node::empty(), is_stored: false }
    }
}

impl SortedIndex {
    /// Builds the index from entries in strictly ascending order of their keys.
    pub(crate) fn from_sorted(entries: &[Entry]) -> Self {
        debug_assert!(entries.is_sorted_by_key(Entry::prefix));
        Self { root: Node::build(entries), is_stored: false }
    }

    /// The index over leaves of a snapshot.
    pub(super) fn stored(root: Node) -> Self {
        Self { root, is_stored: true }
    }

    /// Whether it began with the order of a snapshot. Then its entries are to be verified when they are used, and reading a leaf
    /// may fail.
    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// The number of keys.
    pub(crate) fn len(&self) -> usize {
        self.root.len()
    }

    /// Bytes allocated, shared ones included. The time is proportional to a hundredth of the number of keys.
    pub(crate) fn memory(&self) -> usize {
        self.root.memory()
    }

    /// The index as it is now. Takes constant time. While the snapshot lives, the first change to each node copies it.
    pub(crate) fn snapshot(&self) -> Self {
        self.clone()
    }

    /// Stores `position` for the sought key, and returns the position that it replaces, or `None` if the key is new.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`]; the index is unchanged then.
    ///
    /// # Panics
    ///
    /// If `position` is not a valid position: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
    pub(crate) fn insert<K: Keys>(&mut self, sought: &Sought<'_, K>, position: u64) -> Result<Option<u64>, K::Error> {
        let Search { place, asked } = self.find(sought)?;
        let (path, entry) = (place.path(), Entry::new(sought.key, position));
        if place.found {
            return Ok(Some(self.root.replace(path, entry).position()));
        }
        if asked {
            // The entries beside the place prove it. The separators on the way are not proven.
            let next = self.root.at_or_after(path).copied();
            self.root.lead_to(path, entry, next);
        }
        if let Some(new) = self.root.insert(path, entry) {
            self.root.grow(new);
        }
        Ok(None)
    }

    /// Removes the key and returns its position, or `None` if it was not there.
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

    /// The number of keys that are less than the sought one: the start of a range that includes it, and the end of one
    /// that excludes it.
    ///
    /// # Errors
    ///
    /// The first error of the keys that are compared, and the error of a damaged record that could have led to a wrong
    /// rank.
    pub(crate) fn lower_rank<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<usize, K::Error> {
        Ok(self.root.rank(self.find(sought)?.place.path()))
    }

    /// The number of keys that are not greater than the sought one: the start of a range that excludes it, and the end
    /// of one that includes it.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`].
    pub(crate) fn upper_rank<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<usize, K::Error> {
        let place = self.find(sought)?.place;
        Ok(self.root.rank(place.path()) + usize::from(place.found))
    }

    /// The place of a key, or where it would go. It is right even if the log is damaged; see [`Sought`].
    fn find<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<Search, K::Error> {
        let (prefix, mut asked) = (Prefix::of(sought.key), false);
        let compare = |at| {
            asked = true;
            if sought.known == Some(at) { Ok(Ordering::Equal) } else { sought.keys.compare(at, sought.key) }
        };
        let place = self.place(&mut Probe { prefix, compare }, sought.keys)?;
        if !asked || self.is_proven(&place, prefix, sought)? {
            return Ok(Search { place, asked });
        }
        // A record's key differs from the one that was replayed. Find it.
        let mut key = Vec::new();
        let compare = |at| {
            key.clear();
            sought.keys.read_verified(at, &mut key)?;
            Ok(key.as_slice().cmp(sought.key))
        };
        Ok(Search { place: self.place(&mut Probe { prefix, compare }, sought.keys)?, asked })
    }

    /// The place of a key according to the probe's comparisons. Loads what leads there.
    fn place<K: Keys>(
        &self,
        probe: &mut Probe<impl FnMut(u64) -> Result<Ordering, K::Error>>,
        keys: &K,
    ) -> Result<Place, K::Error> {
        loop {
            match self.root.find(probe)? {
                Ok(place) => return Ok(place),
                Err(Missing(leaf)) => leaf.load(keys)?,
            }
        }
    }

    /// Whether the key at a place, or the keys beside it, prove that the search ended in the right place.
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
        let before = loop {
            match self.root.before(path) {
                Ok(before) => break before,
                Err(Missing(leaf)) => leaf.load(sought.keys)?,
            }
        };
        Ok(is(before, Ordering::Less)? && is(self.root.at_or_after(path), Ordering::Greater)?)
    }

    /// The entry of a rank.
    ///
    /// # Errors
    ///
    /// Those of `keys`, if the entry lies in a stored leaf.
    pub(crate) fn entry<K: Keys>(&self, rank: usize, keys: &K) -> Result<Option<&Entry>, K::Error> {
        loop {
            match self.root.leaf_at(rank) {
                Ok((leaf, first)) => return Ok(leaf.entries().get(rank - first)),
                Err(Missing(leaf)) => leaf.load(keys)?,
            }
        }
    }

    /// Appends the entries of these ranks to `out`.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::entry`].
    pub(crate) fn entries<K: Keys>(&self, ranks: Range<usize>, keys: &K, out: &mut Vec<Entry>) -> Result<(), K::Error> {
        let mut positions = self.range(ranks);
        while let Some(entry) = positions.next_entry(keys)? {
            out.push(entry);
        }
        Ok(())
    }

    /// The positions of these ranks as they are now. Ranks past the end are left out. A range that ends before it
    /// begins is empty.
    pub(crate) fn range(&self, ranks: Range<usize>) -> Positions {
        let ranks = ranks.start..ranks.end.min(self.len());
        Positions::new(self.root.clone(), ranks)
    }
}

#[cfg(test)]
impl SortedIndex {
    /// An index of entries in any order.
    pub(super) fn planted(entries: &[Entry]) -> Self {
        Self { root: Node::build(entries), is_stored: false }
    }

    /// Panics unless the tree is as its documentation says.
    pub(super) fn check<'a>(&self, key_of: &impl Fn(u64) -> &'a [u8]) {
        self.root.check_all(key_of, !self.is_stored);
    }

    pub(super) fn plant_separator(&mut self) {
        self.root.plant_separator();
    }
}

#[cfg(test)]
mod tests;
