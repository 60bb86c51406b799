//! An image and what follows it, against an index that has seen everything.

use quickcheck::quickcheck;

use super::super::testing::{Change, Changes, Failed, Log, RECORD_LEN, TestKey};
use super::super::{Index, Keys};
use super::*;
use crate::format::order::StoredOrder;
use crate::format::snapshot::{Covered, KeyHasher, encode_part};

/// The bytes of the records that an index points to.
fn live_bytes(index: &Index, log: &Log) -> u64 {
    index.positions().map(|position| RECORD_LEN + log.key(position).len() as u64).sum()
}

/// The index as a snapshot has it in the file, with nothing loaded.
pub(in super::super) fn stored(index: &Index, log: &mut Log, part_bits: u32, order: Option<StoredOrder>) -> Index {
    let (frozen, tables) = (index.freeze(), tables_in_part(part_bits));
    let part = |part: usize| {
        let words: Vec<Vec<u64>> = (part * tables..(part + 1) * tables).map(|at| frozen.sorted_words(at)).collect();
        let mut bytes = Vec::new();
        encode_part(words.iter().map(Vec::as_slice), &mut bytes);
        log.parts.push(bytes);
        let count = words.iter().map(Vec::len).sum::<usize>() as u32;
        StoredPart { offset: log.parts.len() as u64 - 1, count, crc: 0 }
    };
    let parts = (0..1 << part_bits).map(part).collect();
    let covered = Covered {
        end: log.last() + 8,
        previous_seq: 0,
        last_event: None,
        records: 0,
        keys: index.len() as u64,
        live_bytes: live_bytes(index, log),
    };
    Index::stored(KeyHasher::of_tests(), &Snapshot { covered, part_bits, parts, order, lifetimes: None }, 8)
}

/// An index and the bytes that are counted for it, as [`KeySpace`](crate::replay::KeySpace) counts them.
struct Counted {
    index: Index,
    bytes: u64,
}

impl Counted {
    fn apply(&mut self, change: &Change, position: u64, log: &Log) {
        self.bytes -= self.index.settle();
        let replaced = match change {
            Change::Put(TestKey(key)) => {
                self.bytes += log.record_len(position).unwrap();
                let is_key = |at| log.is_key(at, key);
                self.index.apply_put(self.index.hash(key), key, position, log, is_key)
            }
            Change::Delete(TestKey(key)) => {
                let is_key = |at| log.is_key(at, key);
                self.index.apply_delete(self.index.hash(key), key, position, log, is_key)
            }
        };
        self.bytes -= replaced.unwrap().map_or(0, |at| log.record_len(at).unwrap());
    }

    fn live_bytes(&self) -> u64 {
        self.bytes - self.index.dead_bytes()
    }
}

fn key_of(change: &Change) -> &[u8] {
    match change {
        Change::Put(TestKey(key)) | Change::Delete(TestKey(key)) => key,
    }
}

fn sorted(positions: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut positions: Vec<u64> = positions.collect();
    positions.sort_unstable();
    positions
}

quickcheck! {
    /// In any order of loading, with changes before and after a part is loaded, and with loads that fail.
    fn an_image_and_what_follows_it_come_to_the_same_as_all_changes(
        before: Changes, after: Changes, part_bits: u8, look_ups: Vec<(u8, TestKey)>, fails: u8
    ) -> () {
        let (mut log, part_bits) = (Log::default(), u32::from(part_bits) % (TABLE_BITS + 1));
        let mut all = Counted { index: Index::default(), bytes: 0 };
        for change in &before.0 {
            let position = log.append(key_of(change));
            all.apply(change, position, &log);
        }
        let index = stored(&all.index, &mut log, part_bits, None);
        let mut image = Counted { bytes: live_bytes(&all.index, &log), index };
        for (at, change) in after.0.iter().enumerate() {
            let position = log.append(key_of(change));
            all.apply(change, position, &log);
            image.apply(change, position, &log);
            for (_, TestKey(key)) in look_ups.iter().filter(|(before, _)| usize::from(*before) % after.0.len() == at) {
                log.fail_after(u64::from(fails % 6));
                // Fails or finds: a key whose part cannot be loaded is never absent.
                let found = image.index.find(key, &log);
                log.heal();
                let known = all.index.find(key, &log);
                assert!(found == known || found == Err(Failed));
                assert_eq!(image.index.find(key, &log), known);
            }
            assert!(image.index.len() >= all.index.len() && image.live_bytes() >= all.live_bytes());
        }
        image.index.load_noted(&log).unwrap();
        assert_eq!((image.index.len(), image.live_bytes()), (all.index.len(), all.live_bytes()));
        image.index.load_all(&log).unwrap();
        assert!(image.index.is_loaded());
        assert_eq!(sorted(image.index.positions()), sorted(all.index.positions()));
        image.bytes -= image.index.settle();
        assert_eq!((image.index.len(), image.live_bytes()), (all.index.len(), all.live_bytes()));
        assert_eq!(image.live_bytes(), live_bytes(&all.index, &log));
    }

    /// A writer goes on while an image is written.
    fn an_index_does_not_change_what_was_frozen(before: Changes, after: Changes) -> () {
        let mut log = Log::default();
        let mut counted = Counted { index: Index::default(), bytes: 0 };
        for change in &before.0 {
            let position = log.append(key_of(change));
            counted.apply(change, position, &log);
        }
        let (frozen, expected) = (counted.index.freeze(), sorted(counted.index.positions()));
        for change in &after.0 {
            let position = log.append(key_of(change));
            counted.apply(change, position, &log);
        }
        let words = (0..1 << TABLE_BITS).flat_map(|table| frozen.sorted_words(table));
        assert_eq!(sorted(words.map(packed::position)), expected);
    }
}

#[test]
fn a_part_is_read_once_and_only_for_its_keys() {
    let (mut log, mut index) = (Log::default(), Index::default());
    let keys: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 3]).collect();
    for key in &keys {
        let position = log.append(key);
        index.put(key, position, &log).unwrap();
    }
    let image = stored(&index, &mut log, TABLE_BITS, None);
    let asked = |key: &[u8]| {
        log.heal();
        image.find(key, &log).unwrap().unwrap();
        log.asked_so_far()
    };
    for key in &keys {
        let (first, second) = (asked(key), asked(key));
        assert!(first >= second && (1..=3).contains(&second), "{first}, {second}");
    }
    assert_eq!(asked(&keys[0]), asked(&keys[0]));
    assert!(!image.is_loaded(), "most parts have no key that was asked for");
}
