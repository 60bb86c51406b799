//! From a key's hash to the position of its record, in about 12 bytes per key.
//!
//! A general hash table has to see a key's hash again when it grows, and the hash is not stored: it would read a
//! million keys from the log in one pause. Here everything that growing needs is in the slot. Twelve bits of the hash
//! choose one of 4,096 sub-tables, twenty-four more are the slot's tag, and a slot's home is the tag scaled to the
//! sub-table's capacity. So a sub-table grows from its own words, without a key and without its siblings; nobody
//! waits for more than one four-thousandth of the index to move.
//!
//! Because the home is a scaled tag and not a masked one, capacities need not be powers of two. Growing by half wastes
//! less than doubling: between 10 and 15 bytes per key instead of 10 to 20.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::mem;

use foldhash::quality::RandomState;

use super::packed::{self, TAG_BITS};
use crate::prefetch::prefetch;

/// Hash bits that choose the sub-table.
const TABLE_BITS: u32 = 12;

/// How many parts the index can be gone through in.
pub(crate) const PIECES: usize = 1 << TABLE_BITS;

/// A slot that holds nothing. No entry looks like this, because no record lies at position 0.
const EMPTY: u64 = 0;

/// In a cache line of 64 bytes.
const SLOTS_IN_A_LINE: usize = 64 / size_of::<u64>();

/// The capacity of a sub-table's first allocation.
const FIRST_CAPACITY: usize = 4;

/// Hashes keys with a seed of its own.
///
/// The seed is random per handle, so that somebody who chooses the keys of a store (a web server's users, say) cannot
/// prepare keys that all land in one sub-table. That holds against prepared keys, not against an attacker who can
/// measure a running process at length; what he gains are slow look-ups, never wrong ones. No hash is ever written to
/// the file, so two handles need not agree.
#[derive(Clone, Default)]
pub(crate) struct KeyHasher {
    state: RandomState,
}

impl KeyHasher {
    /// The hash of `key`, which is the same for the lifetime of this hasher and of its clones only.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// The positions of the live records, found by the hashes of their keys.
///
/// Two keys may have the same tag, so every look-up asks its caller whether the record at a position has the key that
/// is meant. Such questions about other keys are rare: at a million keys, about one look-up in seventy thousand.
#[derive(Default)]
pub(crate) struct HashIndex {
    /// Empty until the first insertion, then all of them, most without slots.
    tables: Vec<Table>,
    len: usize,
}

impl HashIndex {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated, in time proportional to the number of sub-tables.
    pub(crate) fn memory(&self) -> usize {
        let slots: usize = self.tables.iter().map(|table| table.slots.len()).sum();
        self.tables.capacity() * size_of::<Table>() + slots * size_of::<u64>()
    }

    /// The position whose record has the key, or `None`.
    ///
    /// `is_key` says so of a position; it is asked only where the tag is the one of `hash`.
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

    /// Has the slots [fetched](prefetch) where a walk for this hash begins: a cache line, and the next one, which every
    /// other walk needs.
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.tables.get(table_of(hash)).and_then(|table| table.slots.get(table.home(tag_of(hash))))
        {
            prefetch(slot);
            prefetch(std::ptr::from_ref(slot).wrapping_add(SLOTS_IN_A_LINE));
        }
    }

    /// Puts the key at `position`, and returns the position where it was, or `None` if it is new.
    ///
    /// # Errors
    ///
    /// The first error of `is_key`; the index is unchanged then.
    ///
    /// # Panics
    ///
    /// If `position` is not one: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
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

    /// Makes room for so many keys, if that is more than there is room for: growing to it step by step would move each key
    /// twice.
    pub(crate) fn reserve(&mut self, keys: usize) {
        let mean = keys >> TABLE_BITS;
        if mean < FIRST_CAPACITY {
            return;
        }
        self.make_tables();
        // A sub-table's share differs from the mean by the mean's root, or by twice that.
        let capacity = (mean + 2 * mean.isqrt()) * 5 / 4 + 1;
        self.tables.iter_mut().filter(|table| table.slots.len() < capacity).for_each(|table| table.resize(capacity));
    }

    /// Gives back what [`HashIndex::reserve`] has made too much room by.
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

    /// Takes the key out and returns the position where it was, or `None` if it was not there.
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

    /// Every position, in no order that means anything.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.tables.iter().flat_map(Table::occupied).map(packed::position)
    }

    /// The positions of one of [`PIECES`] parts. A key stays in its part as long as it is there, so whoever goes
    /// through all parts, while the index is changed in between, meets every key that was there all the time once.
    pub(crate) fn positions_in(&self, piece: usize) -> impl Iterator<Item = u64> + '_ {
        self.tables.get(piece).into_iter().flat_map(Table::occupied).map(packed::position)
    }
}

/// Which sub-table: the highest bits.
fn table_of(hash: u64) -> usize {
    (hash >> (u64::BITS - TABLE_BITS)) as usize
}

/// The tag: the bits below those of the sub-table, so that the two are independent.
fn tag_of(hash: u64) -> u64 {
    (hash << TABLE_BITS) >> (u64::BITS - TAG_BITS)
}

/// One linear-probe table of tagged positions.
///
/// Walking from an entry's home (round the end, if need be) one meets the entry before the first empty slot. At least
/// one slot is always empty, or there are no slots at all.
#[derive(Default)]
struct Table {
    slots: Box<[u64]>,
    used: usize,
}

/// Where a probe ended.
enum Place {
    /// At the key's slot.
    Occupied(usize),
    /// At the first empty slot on the way, where the key would go.
    Vacant(usize),
}

impl Table {
    /// Where the walk of `tag` starts. Scaling spreads tags evenly over any capacity; a mask would need a power of two.
    fn home(&self, tag: u64) -> usize {
        ((tag * self.slots.len() as u64) >> TAG_BITS) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// How many steps a walk takes from `from` to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn probe<E>(&self, tag: u64, mut is_key: impl FnMut(u64) -> Result<bool, E>) -> Result<Place, E> {
        if self.slots.is_empty() {
            return Ok(Place::Vacant(0));
        }
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Ok(Place::Vacant(at));
            }
            if packed::tag(slot) == tag && is_key(packed::position(slot))? {
                return Ok(Place::Occupied(at));
            }
            at = self.after(at);
        }
    }

    /// Stores a new entry, whose probe ended at the empty slot `at`.
    fn occupy(&mut self, at: usize, slot: u64) {
        let capacity = self.slots.len();
        // Above four fifths the walks of absent keys get long: 13 slots on average there, 50 at nine tenths.
        if (self.used + 1) * 5 > capacity * 4 {
            self.resize(FIRST_CAPACITY.max(capacity + capacity / 2));
            self.place(slot);
        } else {
            self.slots[at] = slot;
        }
        self.used += 1;
    }

    /// Empties the slot at `hole`, and moves back what was pushed past it: no tombstones, so walks never get longer
    /// with age.
    fn vacate(&mut self, mut hole: usize) -> u64 {
        let slot = self.slots[hole];
        let mut at = self.after(hole);
        while self.slots[at] != EMPTY {
            // An entry may move back to the hole unless its home lies behind the hole.
            let home = self.home(packed::tag(self.slots[at]));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
        let capacity = self.slots.len();
        if self.used == 0 {
            self.slots = Box::default();
        } else if capacity > FIRST_CAPACITY && self.used * 5 < capacity {
            // Two fifths full after this: far from growing again, and from shrinking further.
            self.resize(capacity / 2);
        }
        slot
    }

    fn resize(&mut self, capacity: usize) {
        let old = mem::replace(&mut self.slots, vec![EMPTY; capacity].into_boxed_slice());
        old.iter().filter(|&&slot| slot != EMPTY).for_each(|&slot| self.place(slot));
    }

    /// Stores an entry that is known to be absent.
    fn place(&mut self, slot: u64) {
        let Ok(place) = self.probe(packed::tag(slot), |_| Ok::<_, Infallible>(false));
        if let Place::Vacant(at) = place {
            self.slots[at] = slot;
        }
    }

    fn occupied(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().copied().filter(|&slot| slot != EMPTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::{Arbitrary, Gen, quickcheck};
    use std::collections::{BTreeSet, HashMap};

    impl HashIndex {
        /// Panics unless every entry is found from its home, and the sub-tables are as full as they may be.
        fn check(&self) {
            for table in self.tables.iter().filter(|table| table.used != 0 || !table.slots.is_empty()) {
                assert_eq!(table.used, table.occupied().count());
                assert!((1..=table.slots.len() * 4 / 5).contains(&table.used));
                for (at, &slot) in table.slots.iter().enumerate().filter(|(_, slot)| **slot != EMPTY) {
                    let mut walk = table.home(packed::tag(slot));
                    while walk != at {
                        assert_ne!(table.slots[walk], EMPTY, "the walk to an entry ends before it");
                        walk = table.after(walk);
                    }
                }
            }
            assert_eq!(self.len, self.tables.iter().map(|table| table.used).sum::<usize>());
        }
    }

    /// A hash out of few: two sub-tables, and tags that are equal, adjacent or at the ends, so that walks collide and
    /// go round. Keys are told apart by `key` alone.
    #[derive(Clone, Debug)]
    struct Step {
        key: u16,
        remove: bool,
        answers: Option<u8>,
    }

    impl Arbitrary for Step {
        fn arbitrary(g: &mut Gen) -> Self {
            Self { key: u16::arbitrary(g) % 150, remove: bool::arbitrary(g), answers: Option::arbitrary(g) }
        }
    }

    fn colliding_hash(key: u16) -> u64 {
        let table = u64::from(key % 2) * 0xFFF;
        let tag = [0, 1, 2, 0x7F_FFFF, 0x80_0000, 0xFF_FFFE, 0xFF_FFFF][usize::from(key % 7)];
        (table << 52) | (tag << 28) | u64::from(key % 3)
    }

    /// Hashes that are spread over all bits, and the same in every run.
    fn spread_hash(key: u64) -> u64 {
        let mixed = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    fn no_key(_: u64) -> Result<bool, Infallible> {
        Ok(false)
    }

    #[test]
    fn an_empty_index_finds_nothing_and_allocates_nothing() {
        let mut index = HashIndex::default();
        assert_eq!(index.find(7, |_| Err(())), Ok(None));
        assert_eq!(index.remove(7, |_| Err(())), Ok(None));
        assert_eq!((index.len(), index.memory(), index.positions().count()), (0, 0, 0));
    }

    #[test]
    fn a_look_up_asks_about_no_key_with_another_tag() {
        let mut index = HashIndex::default();
        for tag in 0..1000u64 {
            let Ok(_) = index.insert(tag << 28, (tag + 1) * 8, no_key);
        }
        assert_eq!(
            index.find(77 << 28, |position| if position == 78 * 8 { Ok(true) } else { Err(position) }),
            Ok(Some(78 * 8))
        );
        assert_eq!(index.find(1000 << 28, Err::<bool, u64>), Ok(None));
    }

    #[test]
    fn a_hundred_thousand_keys_are_all_found_in_16_bytes_each() {
        let mut index = HashIndex::default();
        for key in 0..100_000 {
            let Ok(_) = index.insert(spread_hash(key), (key + 1) * 8, no_key);
        }
        index.check();
        for key in 0..100_000 {
            let position = (key + 1) * 8;
            assert_eq!(index.find(spread_hash(key), |at| Ok::<_, ()>(at == position)), Ok(Some(position)));
        }
        let all: BTreeSet<u64> = index.positions().collect();
        assert!(all.into_iter().eq((1..=100_000).map(|at| at * 8)));
        assert!(index.memory() < 16 * index.len(), "{} bytes", index.memory());
    }

    #[test]
    fn an_index_that_loses_its_keys_gives_memory_back() {
        let mut index = HashIndex::default();
        for key in 0..100_000 {
            let Ok(_) = index.insert(spread_hash(key), (key + 1) * 8, no_key);
        }
        let full = index.memory();
        for key in 0..100_000 {
            let removed = index.remove(spread_hash(key), |at| Ok::<_, ()>(at == (key + 1) * 8));
            assert_eq!(removed, Ok(Some((key + 1) * 8)));
            if key == 90_000 {
                assert!(index.memory() < full / 3);
            }
        }
        index.check();
        assert_eq!(index.memory(), (1 << TABLE_BITS) * size_of::<Table>());
    }

    #[test]
    fn room_that_was_made_beforehand_is_enough_and_what_is_not_needed_is_given_back() {
        for (expected, keys) in
            [(100_000, 100_000), (100_000, 130_000), (400_000, 100_000), (400_000, 5000), (1000, 1000)]
        {
            let mut index = HashIndex::default();
            index.reserve(expected);
            let reserved = index.memory();
            for key in 0..keys {
                let Ok(_) = index.insert(spread_hash(key), (key + 1) * 8, no_key);
            }
            // Of so many sub-tables a few get more than their share by chance.
            assert!(keys > expected as u64 || keys < 16_384 || index.memory() < reserved * 11 / 10);
            index.shrink();
            index.check();
            let slots = index.memory() - (1 << TABLE_BITS) * size_of::<Table>();
            assert!(
                slots <= (16 * keys as usize).max((8 * FIRST_CAPACITY) << TABLE_BITS),
                "{slots} bytes for {keys} keys"
            );
            for key in 0..keys {
                let position = (key + 1) * 8;
                assert_eq!(index.find(spread_hash(key), |at| Ok::<_, ()>(at == position)), Ok(Some(position)));
            }
        }
    }

    #[test]
    fn no_room_is_made_where_each_sub_table_would_have_a_key_or_two() {
        let mut index = HashIndex::default();
        index.reserve(FIRST_CAPACITY << TABLE_BITS >> 1);
        assert_eq!(index.memory(), 0);
    }

    #[test]
    fn a_hasher_agrees_with_its_clone_and_with_no_other() {
        let (first, second) = (KeyHasher::default(), KeyHasher::default());
        let hashes = |hasher: &KeyHasher| (0..100u8).map(|byte| hasher.hash(&[byte])).collect::<Vec<_>>();
        assert_eq!(hashes(&first), hashes(&first.clone()));
        assert_ne!(hashes(&first), hashes(&second));
    }

    #[test]
    fn hashes_of_similar_keys_fill_all_sub_tables() {
        let hasher = KeyHasher::default();
        let used: BTreeSet<usize> =
            (0..100_000).map(|number| table_of(hasher.hash(format!("key-{number:012}").as_bytes()))).collect();
        assert_eq!(used.len(), 1 << TABLE_BITS);
    }

    quickcheck! {
        fn colliding_keys_follow_a_map_and_failures_change_nothing(steps: Vec<Step>) -> () {
            let (mut index, mut model) = (HashIndex::default(), HashMap::new());
            let mut keys = Vec::new();
            for Step { key, remove, answers } in steps {
                let mut left = answers.map_or(u8::MAX, |answers| answers % 8);
                keys.push(key);
                let position = keys.len() as u64 * 8;
                let is_key = |at: u64| {
                    left = left.checked_sub(1).ok_or(())?;
                    Ok::<_, ()>(keys[at as usize / 8 - 1] == key)
                };
                let hash = colliding_hash(key);
                let result = if remove { index.remove(hash, is_key) } else { index.insert(hash, position, is_key) };
                if let Ok(old) = result {
                    assert_eq!(old, if remove { model.remove(&key) } else { model.insert(key, position) });
                }
                index.check();
                assert_eq!(index.len(), model.len());
                for (key, position) in &model {
                    let found = index.find(colliding_hash(*key), |at| Ok::<_, ()>(keys[at as usize / 8 - 1] == *key));
                    assert_eq!(found, Ok(Some(*position)));
                }
            }
        }
    }
}
