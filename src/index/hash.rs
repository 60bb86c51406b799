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

use std::hash::{BuildHasher, Hasher};
use std::mem;

use foldhash::quality::RandomState;

use super::packed::{self, TAG_BITS};
use super::table::{FIRST_CAPACITY, Place, Table};
use crate::prefetch::prefetch;

/// The bits of the hash that choose the sub-table.
const TABLE_BITS: u32 = 12;

/// The index can be walked in this many parts.
pub(crate) const PIECES: usize = 1 << TABLE_BITS;

/// In a cache line of 64 bytes.
const SLOTS_IN_A_LINE: usize = 64 / size_of::<u64>();

/// Hashes keys with a seed of its own.
///
/// The seed is random per handle. So a user of a store cannot prepare keys that all fall into one sub-table. With long
/// measurements of a running process that may still be possible, and makes look-ups slow, never wrong. No hash is
/// written to the file, so handles need not agree.
#[derive(Clone, Default)]
pub(crate) struct KeyHasher {
    state: RandomState,
}

impl KeyHasher {
    /// The hash of `key`. Only this hasher and its clones give the same.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// The positions of the live records, found by the hashes of their keys.
///
/// Two keys may have the same tag, so every look-up asks the caller whether the record at a position has the right key.
/// At a million keys, one look-up in about seventy thousand asks about another key.
#[derive(Default)]
pub(crate) struct HashIndex {
    /// Empty until the first insertion; then all sub-tables, most without slots.
    tables: Vec<Table>,
    len: usize,
}

impl HashIndex {
    /// The number of keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated, in time proportional to the number of sub-tables.
    pub(crate) fn memory(&self) -> usize {
        let slots: usize = self.tables.iter().map(|table| table.slots.len()).sum();
        self.tables.capacity() * size_of::<Table>() + slots * size_of::<u64>()
    }

    /// The position of the record that has the key, or `None`.
    ///
    /// `is_key` says whether a position is the right one. It is asked only about positions with the tag of `hash`.
    ///
    /// # Errors
    ///
    /// The first error of `is_key`.
    pub(crate) fn find<E>(&self, hash: u64, is_key: impl FnMut(u64) -> Result<bool, E>) -> Result<Option<u64>, E> {
        let Some(table) = self.tables.get(table_of(hash)) else { return Ok(None) };
        Ok(match table.probe(tag_of(hash), is_key)? {
            Place::Occupied(at) => Some(packed::position(table.slots[at])),
            Place::Vacant(_) => None,
        })
    }

    /// [Prefetches](prefetch) the slots where a walk for this hash begins: a cache line and the next one, which every
    /// other walk needs.
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.tables.get(table_of(hash)).and_then(|table| table.slots.get(table.home(tag_of(hash))))
        {
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
        let table = &mut self.tables[table_of(hash)];
        let slot = packed::pack(tag_of(hash), position);
        match table.probe(tag_of(hash), is_key)? {
            Place::Occupied(at) => Ok(Some(packed::position(mem::replace(&mut table.slots[at], slot)))),
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
        self.tables.iter_mut().filter(|table| table.slots.len() < capacity).for_each(|table| table.resize(capacity));
    }

    /// Gives back the unused room of [`HashIndex::reserve`].
    pub(crate) fn shrink(&mut self) {
        for table in &mut self.tables {
            let enough = if table.used == 0 { 0 } else { FIRST_CAPACITY.max(table.used * 3 / 2) };
            if table.slots.len() > enough.max(table.used * 2) {
                table.resize(enough);
            }
        }
    }

    fn make_tables(&mut self) {
        if self.tables.is_empty() {
            self.tables.resize_with(1 << TABLE_BITS, Table::default);
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
        let Some(table) = self.tables.get_mut(table_of(hash)) else { return Ok(None) };
        let Place::Occupied(at) = table.probe(tag_of(hash), is_key)? else { return Ok(None) };
        let slot = table.vacate(at);
        self.len -= 1;
        Ok(Some(packed::position(slot)))
    }

    /// Every position, in any order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.tables.iter().flat_map(Table::occupied).map(packed::position)
    }

    /// The positions of one of [`PIECES`] parts. A key stays in its part. So a walk over all parts meets every key that
    /// is there all the time exactly once, even if the index changes between two parts.
    pub(crate) fn positions_in(&self, piece: usize) -> impl Iterator<Item = u64> + '_ {
        self.tables.get(piece).into_iter().flat_map(Table::occupied).map(packed::position)
    }
}

#[cfg(test)]
impl HashIndex {
    pub(super) fn plant_len(&mut self, more: isize) {
        self.len = self.len.checked_add_signed(more).expect("a test plants a length");
    }
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
