//! The hash index: from a key's hash to the position of its record, in about 12 bytes per key.
//!
//! A general hash table needs the keys' hashes again when it grows. They are not stored here, so it would read a
//! million keys from the log in one pause. This table grows from its slots alone. Twelve bits of the hash choose one of
//! 4,096 sub-tables, 24 more are the slot's tag, and a slot's home is the tag scaled to the sub-table's capacity. So a
//! sub-table grows from its own words, without a key and without the other sub-tables, and a writer waits for 1/4,096
//! of the index at most.
//!
//! Homes are scaled and not masked, so capacities need not be powers of two. Growing by half wastes less than doubling:
//! 10 to 15 bytes per key instead of 10 to 20.

use std::sync::OnceLock;

use super::image::Image;
use super::packed::{self, TAG_BITS};
use super::table::{FIRST_CAPACITY, Place, Table};
use super::{Index, Keys, SortedIndex};
use crate::format::snapshot::{KeyHasher, Snapshot, TABLE_BITS};
use crate::prefetch::prefetch;

/// The index can be walked in this many parts.
pub(crate) const PIECES: usize = 1 << TABLE_BITS;

/// In a cache line of 64 bytes.
const SLOTS_IN_A_LINE: usize = 64 / size_of::<u64>();

/// The positions of the live records, found by the hashes of their keys.
///
/// Two keys may have the same tag, so every look-up asks the caller whether the record at a position has the right key.
/// At a million keys, one look-up in about seventy thousand asks about another key.
#[derive(Default)]
pub(crate) struct HashIndex {
    /// No sub-tables until the first insertion. Those whose part of the image is missing are unset, and without an image those that
    /// are empty: a small store is opened without setting thousands of them.
    tables: Vec<OnceLock<Table>>,
    /// The number of keys; an upper bound while parts of an image with notes are missing.
    len: usize,
    /// The image of a log that was opened through a snapshot, until all of it is loaded.
    image: Option<Box<Image>>,
}

/// The words of the index at one moment, sub-table by sub-table.
pub(crate) struct Frozen(Vec<Table>);

impl Frozen {
    /// The words of a sub-table in ascending order.
    pub(crate) fn sorted_words(&self, table: usize) -> Vec<u64> {
        let mut words: Vec<u64> = self.0.get(table).into_iter().flat_map(Table::occupied).collect();
        words.sort_unstable();
        words
    }

    /// The sorted index of these words, from the keys in the log.
    ///
    /// # Errors
    ///
    /// The first error of `keys`.
    pub(crate) fn sort<K: Keys>(&self, hasher: KeyHasher, keys: &K) -> Result<SortedIndex, K::Error> {
        let (tables, len) = (self.0.iter().cloned().map(OnceLock::from), self.0.iter().map(|table| table.used).sum());
        let hash = HashIndex { tables: tables.collect(), len, image: None };
        let index = Index { hash, ..Index::new(hasher) };
        Ok(index.build_sorted(keys, || Ok(()))?.into_sorted())
    }
}

impl HashIndex {
    /// The index of a snapshot, of which nothing is loaded yet.
    pub(super) fn stored(snapshot: &Snapshot, log_start: u64) -> HashIndex {
        let image = Some(Box::new(Image::new(snapshot, log_start)));
        HashIndex { tables: unset(), len: snapshot.covered.keys as usize, image }
    }

    /// The number of keys; an upper bound while parts of an image with notes are missing.
    pub(crate) fn len(&self) -> usize {
        self.len - self.image.as_ref().map_or(0, |image| image.dead().0 as usize)
    }

    /// Bytes of records that notes have replaced or removed.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.dead().1)
    }

    /// Bytes allocated, in time proportional to the number of sub-tables.
    pub(crate) fn memory(&self) -> usize {
        let slots: usize = self.loaded().map(|table| table.slots.len()).sum();
        self.tables.capacity() * size_of::<OnceLock<Table>>()
            + self.image.as_ref().map_or(0, |image| image.memory())
            + slots * size_of::<u64>()
    }

    /// The sub-tables that are loaded.
    fn loaded(&self) -> impl Iterator<Item = &Table> + '_ {
        self.tables.iter().filter_map(OnceLock::get)
    }

    /// A sub-table, if it is loaded.
    #[inline]
    fn table(&self, table: usize) -> Option<&Table> {
        self.tables.get(table)?.get()
    }

    #[inline]
    fn table_mut(&mut self, table: usize) -> Option<&mut Table> {
        self.tables.get_mut(table)?.get_mut()
    }

    /// Loads what a look-up of this hash needs. Without this, keys of a missing part are not found.
    ///
    /// # Errors
    ///
    /// Those of `keys`.
    #[inline]
    pub(super) fn load<K: Keys>(&self, hash: u64, keys: &K) -> Result<(), K::Error> {
        let table = table_of(hash);
        match &self.image {
            Some(image) if self.table(table).is_none() => image.load(table, &self.tables, keys),
            _ => Ok(()),
        }
    }

    /// Loads the first part that is missing from sub-table `next` on, and moves `next` beyond it. `false` if none is missing.
    pub(super) fn load_next<K: Keys>(&self, next: &mut usize, keys: &K) -> Result<bool, K::Error> {
        let Some(image) = &self.image else { return Ok(false) };
        let Some(missing) = (*next..PIECES).find(|&table| self.table(table).is_none()) else { return Ok(false) };
        *next = missing + 1;
        image.load(missing, &self.tables, keys).map(|()| true)
    }

    /// Loads all parts, or those with notes.
    pub(super) fn load_parts<K: Keys>(&self, all: bool, keys: &K) -> Result<(), K::Error> {
        self.image.as_ref().map_or(Ok(()), |image| image.load_parts(all, &self.tables, keys))
    }

    /// Whether all keys are in memory.
    pub(super) fn is_loaded(&self) -> bool {
        self.image.as_ref().is_none_or(|image| image.is_complete())
    }

    /// Gives up the image once all of it is loaded. Returns the bytes of dead records that it has counted.
    pub(super) fn settle(&mut self) -> u64 {
        if !self.is_loaded() {
            return 0;
        }
        let dead_bytes = self.dead_bytes();
        self.len = self.len();
        self.image = None;
        dead_bytes
    }

    /// Whether the part for this hash is not loaded, so that a put or a delete of its key is noted.
    #[inline]
    pub(super) fn is_missing(&self, hash: u64) -> bool {
        self.image.is_some() && self.table(table_of(hash)).is_none()
    }

    /// Notes a put or a delete of a key whose part is missing.
    pub(super) fn note(&mut self, hash: u64, position: u64, is_delete: bool) {
        let Some(image) = &mut self.image else { return };
        image.note(table_of(hash), is_delete, packed::pack(tag_of(hash), position));
        self.len += usize::from(!is_delete);
    }

    /// The words as they are now. All parts must be loaded. Takes time in proportion to the number of sub-tables.
    pub(crate) fn freeze(&self) -> Frozen {
        debug_assert!(self.is_loaded());
        Frozen(self.tables.iter().map(|table| table.get().cloned().unwrap_or_default()).collect())
    }

    /// The position of the record that has the key, or `None`.
    ///
    /// `is_key` says whether a position is the right one. It is asked only about positions with the tag of `hash`.
    ///
    /// # Errors
    ///
    /// The first error of `is_key`.
    pub(crate) fn find<E>(&self, hash: u64, is_key: impl FnMut(u64) -> Result<bool, E>) -> Result<Option<u64>, E> {
        let Some(table) = self.table(table_of(hash)) else { return Ok(None) };
        Ok(match table.probe(tag_of(hash), is_key)? {
            Place::Occupied(at) => Some(packed::position(table.slots[at])),
            Place::Vacant(_) => None,
        })
    }

    /// [Prefetches](prefetch) the slots where a walk for this hash begins: a cache line and the next one, which every
    /// other walk needs.
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.table(table_of(hash)).and_then(|table| table.slots.get(table.home(tag_of(hash)))) {
            prefetch(slot);
            prefetch(std::ptr::from_ref(slot).wrapping_add(SLOTS_IN_A_LINE));
        }
    }

    /// Stores `position` for the key, and returns the position that it replaces, or `None` if the key is new.
    ///
    /// # Errors
    ///
    /// The first error of `is_key`; the index is unchanged then.
    ///
    /// # Panics
    ///
    /// If `position` is not a valid position: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
    pub(crate) fn insert<E>(
        &mut self,
        hash: u64,
        position: u64,
        is_key: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Option<u64>, E> {
        self.make_tables();
        debug_assert!(self.image.is_none() || self.table(table_of(hash)).is_some(), "a key of a missing part is noted");
        let table = set(&mut self.tables[table_of(hash)]);
        let slot = packed::pack(tag_of(hash), position);
        match table.probe(tag_of(hash), is_key)? {
            Place::Occupied(at) => Ok(Some(packed::position(table.replace(at, slot)))),
            Place::Vacant(at) => {
                table.occupy(at, slot);
                self.len += 1;
                Ok(None)
            }
        }
    }

    /// Makes room for this many keys, if there is less. Growing step by step would move each key twice.
    pub(crate) fn reserve(&mut self, keys: usize) {
        let mean = keys >> TABLE_BITS;
        if mean < FIRST_CAPACITY {
            return;
        }
        self.make_tables();
        // A sub-table's share differs from the mean by one or two square roots of the mean.
        let capacity = (mean + 2 * mean.isqrt()) * 5 / 4 + 1;
        self.tables
            .iter_mut()
            .map(set)
            .filter(|table| table.slots.len() < capacity)
            .for_each(|table| table.resize(capacity));
    }

    /// Gives back the unused room of [`HashIndex::reserve`].
    pub(crate) fn shrink(&mut self) {
        for table in self.loaded_mut() {
            let enough = if table.used == 0 { 0 } else { FIRST_CAPACITY.max(table.used * 3 / 2) };
            if table.slots.len() > enough.max(table.used * 2) {
                table.resize(enough);
            }
        }
    }

    fn loaded_mut(&mut self) -> impl Iterator<Item = &mut Table> + '_ {
        self.tables.iter_mut().filter_map(OnceLock::get_mut)
    }

    fn make_tables(&mut self) {
        if self.tables.is_empty() {
            self.tables = unset();
        }
    }

    /// Removes the key and returns its position, or `None` if it was not there.
    ///
    /// # Errors
    ///
    /// The first error of `is_key`; the index is unchanged then.
    pub(crate) fn remove<E>(
        &mut self,
        hash: u64,
        is_key: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Option<u64>, E> {
        let Some(table) = self.table_mut(table_of(hash)) else { return Ok(None) };
        let Place::Occupied(at) = table.probe(tag_of(hash), is_key)? else { return Ok(None) };
        let slot = table.vacate(at);
        self.len -= 1;
        Ok(Some(packed::position(slot)))
    }

    /// Every position, in any order. All parts must be loaded.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        debug_assert!(self.is_loaded());
        self.loaded().flat_map(Table::occupied).map(packed::position)
    }

    /// The positions of one of [`PIECES`] parts. A key stays in its part. So a walk over all parts meets every key that
    /// is there all the time exactly once, even if the index changes between two parts. All parts must be loaded.
    pub(crate) fn positions_in(&self, piece: usize) -> impl Iterator<Item = u64> + '_ {
        self.table(piece).into_iter().flat_map(Table::occupied).map(packed::position)
    }
}

#[cfg(test)]
impl HashIndex {
    pub(super) fn plant_len(&mut self, more: isize) {
        self.len = self.len.checked_add_signed(more).expect("a test plants a length");
    }
}

fn unset() -> Vec<OnceLock<Table>> {
    (0..PIECES).map(|_| OnceLock::new()).collect()
}

/// The sub-table, which is made if it is unset.
#[inline]
fn set(table: &mut OnceLock<Table>) -> &mut Table {
    if table.get().is_none() {
        *table = OnceLock::from(Table::default());
    }
    table.get_mut().expect("it is set")
}

/// Whether the index cannot tell two keys with these hashes apart, and asks the log.
pub(crate) fn is_beside(one: u64, other: u64) -> bool {
    (table_of(one), tag_of(one)) == (table_of(other), tag_of(other))
}

/// The sub-table of a hash: its highest bits.
fn table_of(hash: u64) -> usize {
    (hash >> (u64::BITS - TABLE_BITS)) as usize
}

/// The tag of a hash: the bits below those of the sub-table, so that the two are independent.
fn tag_of(hash: u64) -> u64 {
    (hash << TABLE_BITS) >> (u64::BITS - TAG_BITS)
}

#[cfg(test)]
mod tests;
