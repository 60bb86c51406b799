//! The hash index against a map, with hashes that collide and questions that fail.

use super::super::table::EMPTY;
use super::*;
use crate::format::snapshot::KeyHasher;
use quickcheck::{Arbitrary, Gen, quickcheck};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;

impl HashIndex {
    /// Panics unless every entry is found from its home, and the sub-tables are as full as they may be.
    fn check(&self) {
        for table in self.loaded().filter(|table| table.used != 0 || !table.slots.is_empty()) {
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
        assert_eq!(self.len, self.loaded().map(|table| table.used).sum::<usize>());
    }
}

/// One of few hashes: two sub-tables, and tags that are equal, adjacent or at the ends, so that walks collide and wrap
/// around.
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
    assert_eq!(index.memory(), (1 << TABLE_BITS) * size_of::<OnceLock<Table>>());
}

#[test]
fn reserved_room_suffices_and_the_rest_is_given_back() {
    for (expected, keys) in [(100_000, 100_000), (100_000, 130_000), (400_000, 100_000), (400_000, 5000), (1000, 1000)]
    {
        let mut index = HashIndex::default();
        index.reserve(expected);
        let reserved = index.memory();
        for key in 0..keys {
            let Ok(_) = index.insert(spread_hash(key), (key + 1) * 8, no_key);
        }
        // Some of the sub-tables get more than their share by chance.
        assert!(keys > expected as u64 || keys < 16_384 || index.memory() < reserved * 11 / 10);
        index.shrink();
        index.check();
        let slots = index.memory() - (1 << TABLE_BITS) * size_of::<OnceLock<Table>>();
        assert!(slots <= (16 * keys as usize).max((8 * FIRST_CAPACITY) << TABLE_BITS), "{slots} bytes for {keys} keys");
        for key in 0..keys {
            let position = (key + 1) * 8;
            assert_eq!(index.find(spread_hash(key), |at| Ok::<_, ()>(at == position)), Ok(Some(position)));
        }
    }
}

#[test]
fn no_room_is_reserved_for_few_keys() {
    let mut index = HashIndex::default();
    index.reserve(FIRST_CAPACITY << TABLE_BITS >> 1);
    assert_eq!(index.memory(), 0);
}

#[test]
fn hashes_of_similar_keys_fill_all_sub_tables() {
    let hasher = KeyHasher::of_tests();
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
