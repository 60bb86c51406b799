//! An order and what follows it, against a map.

use std::collections::BTreeMap;

use quickcheck::quickcheck;

use super::super::Index;
use super::super::image::tests::stored;
use super::super::testing::{Change, Changes, Failed, Log, TestKey};
use super::*;
use crate::format::order::{StoredLeaf, encode_directory};

type Model = BTreeMap<Vec<u8>, u64>;

/// Puts the order of a model into the log of a test, after its records: leaves of `leaf_len` entries, and the directory.
fn write_order(model: &Model, log: &mut Log, leaf_len: usize) -> Option<StoredOrder> {
    let (entries, mut offset) =
        (model.iter().map(|(key, at)| Entry::new(key, *at).to_bytes()).collect::<Vec<_>>(), log.last() + 8);
    let mut leaves = Vec::new();
    for entries in entries.chunks(leaf_len) {
        let bytes = entries.concat();
        leaves.push(StoredLeaf { offset, count: entries.len() as u32, crc: 0, first: entries[0] });
        let len = bytes.len() as u64;
        log.order.insert(offset, bytes);
        offset += len;
    }
    log.order.insert(offset, encode_directory(&leaves));
    (!leaves.is_empty()).then_some(StoredOrder { leaves: leaves.len() as u32, directory: offset, crc: 0 })
}

fn apply(index: &mut Index, change: &Change, position: u64, log: &Log) {
    match change {
        Change::Put(TestKey(key)) => {
            index.apply_put(index.hash(key), key, position, log, |at| log.is_key(at, key)).map(drop)
        }
        Change::Delete(TestKey(key)) => {
            index.apply_delete(index.hash(key), key, position, log, |at| log.is_key(at, key)).map(drop)
        }
    }
    .unwrap();
}

fn apply_to_model(model: &mut Model, change: &Change, position: u64) {
    match change {
        Change::Put(TestKey(key)) => drop(model.insert(key.clone(), position)),
        Change::Delete(TestKey(key)) => drop(model.remove(key)),
    }
}

fn key_of(change: &Change) -> &[u8] {
    match change {
        Change::Put(TestKey(key)) | Change::Delete(TestKey(key)) => key,
    }
}

/// An index and a model after some changes, with the order of that moment, and nothing loaded.
fn begun(before: &Changes, log: &mut Log, part_bits: u32, leaf_len: usize) -> (Index, Model) {
    let (mut all, mut model) = (Index::default(), Model::new());
    for change in &before.0 {
        let position = log.append(key_of(change));
        apply(&mut all, change, position, log);
        apply_to_model(&mut model, change, position);
    }
    let order = write_order(&model, log, leaf_len);
    (stored(&all, log, part_bits, order), model)
}

/// Lists, at first with questions that fail after some answers.
fn list(index: &mut Index, log: &Log, fails: u64) {
    while index.sorted().is_none() {
        log.fail_after(fails);
        let built = index.build_sorted(log, || Ok(()));
        log.heal();
        let built = built.unwrap_or_else(|Failed| index.build_sorted(log, || Ok(())).unwrap());
        assert!(index.install_sorted(built));
    }
}

fn assert_lists(index: &Index, model: &Model, log: &Log) {
    let (sorted, mut entries) = (index.sorted().unwrap(), Vec::new());
    sorted.entries(0..usize::MAX, log, &mut entries).unwrap();
    assert!(entries.iter().map(Entry::position).eq(model.values().copied()));
    assert_eq!(sorted.len(), model.len());
}

quickcheck! {
    /// With changes before and after the first listing, with few leaves loaded, and with parts of the image that are missing.
    fn an_order_and_what_follows_it_are_those_of_all_changes(
        before: Changes, after: Changes, listed: u8, shape: (u8, u8), bounds: Vec<(u8, TestKey)>, fails: u8
    ) -> () {
        let (mut log, steps) = (Log::default(), after.0.len().max(1));
        let (part_bits, leaf_len) = (u32::from(shape.0) % 13, 1 + usize::from(shape.1) % 20);
        let (mut index, mut model) = begun(&before, &mut log, part_bits, leaf_len);
        for (at, change) in after.0.iter().enumerate() {
            if at >= usize::from(listed) % steps {
                list(&mut index, &log, (fails % 16).into());
            }
            let position = log.append(key_of(change));
            apply(&mut index, change, position, &log);
            apply_to_model(&mut model, change, position);
            for (_, TestKey(key)) in bounds.iter().filter(|(when, _)| usize::from(*when) % steps == at) {
                assert_eq!(index.find(key, &log).unwrap(), model.get(key).copied());
                let Some(sorted) = index.sorted() else { continue };
                let below = model.range::<Vec<u8>, _>(..key).count();
                log.fail_after((fails % 8).into());
                let rank = sorted.lower_rank(&index.sought(key, &log));
                log.heal();
                assert!(rank == Ok(below) || rank == Err(Failed));
                assert_eq!(sorted.lower_rank(&index.sought(key, &log)), Ok(below));
                assert_eq!(sorted.upper_rank(&index.sought(key, &log)), Ok(below + usize::from(model.contains_key(key))));
                let entry = sorted.entry(below, &log).unwrap().map(Entry::position);
                assert_eq!(entry, model.range::<Vec<u8>, _>(key.clone()..).next().map(|(_, at)| *at));
            }
        }
        list(&mut index, &log, (fails % 16).into());
        let snapshot = index.sorted().unwrap().snapshot();
        assert_lists(&index, &model, &log);
        snapshot.check(&|position| log.key(position));
    }

    /// Where a change meets a leaf that cannot be read, the order is given up, and the next listing sorts all keys.
    fn a_change_that_meets_a_bad_leaf_does_not_fail(before: Changes, after: Changes, leaf_len: u8, bad: Vec<u8>) -> () {
        let mut log = Log::default();
        let (mut index, mut model) = begun(&before, &mut log, 0, 1 + usize::from(leaf_len) % 10);
        list(&mut index, &log, 1000);
        index.load_all(&log).unwrap();
        let leaves: Vec<u64> = log.order.keys().copied().collect();
        for at in bad.iter().filter(|_| !leaves.is_empty()) {
            log.order.remove(&leaves[usize::from(*at) % leaves.len()]);
        }
        for change in &after.0 {
            let position = log.append(key_of(change));
            apply(&mut index, change, position, &log);
            apply_to_model(&mut model, change, position);
        }
        if index.sorted().is_none() {
            assert!(index.is_ordered());
            list(&mut index, &log, 1000);
            assert_lists(&index, &model, &log);
        }
        let all: Vec<u64> = model.values().copied().collect();
        let mut found: Vec<u64> = index.positions().collect();
        found.sort_unstable();
        assert_eq!(found, { let mut all = all; all.sort_unstable(); all });
    }
}

#[test]
fn a_search_reads_the_directory_and_a_leaf_or_two() {
    let mut log = Log::default();
    let before = Changes((0..2000u16).map(|n| Change::Put(TestKey(n.to_be_bytes().to_vec()))).collect());
    let (mut index, _) = begun(&before, &mut log, 4, 100);
    log.heal();
    list(&mut index, &log, 1);
    assert!(index.sorted().is_some(), "the directory is one answer");
    let sorted = index.sorted().unwrap();
    for n in [0u16, 1, 99, 100, 1234, 1999] {
        log.fail_after(2);
        assert_eq!(sorted.lower_rank(&index.sought(&n.to_be_bytes(), &log)), Ok(usize::from(n)));
    }
    log.heal();
    assert_eq!(sorted.lower_rank(&index.sought(&[], &log)), Ok(0));
    assert!(log.asked_so_far() <= 1);
}

/// More notes than they are worth give the order up; a few do not, however few keys there are.
#[test]
fn an_order_is_given_up_when_much_has_changed() {
    let keys = 20_000;
    let mut order =
        Order { stored: StoredOrder { leaves: 1, directory: 0, crc: 0 }, covered: 8..16, keys, notes: Vec::new() };
    assert!((0..keys / KEYS_PER_NOTE).all(|n| order.note(n * 8, n % 2 == 0)));
    assert!(!order.note(8, false));
    let mut few = Order { keys: 1, notes: Vec::new(), ..order };
    assert!((0..FEW_NOTES).all(|_| few.note(8, true)) && !few.note(8, true));
}
