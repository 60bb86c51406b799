//! The sorted index against a map, with keys that are damaged and with reads that fail.

use super::super::entry::sort_entries;
use super::super::testing::{Change, Changes, Failed, Log, TestKey};
use super::*;
use quickcheck::quickcheck;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Model = BTreeMap<Vec<u8>, u64>;

fn sought<'a>(key: &'a [u8], log: &'a Log) -> Sought<'a, Log> {
    Sought { key, keys: log, known: None, hashed: None }
}

/// A log that answers nothing.
fn silent() -> Log {
    let log = Log::default();
    log.fail_after(0);
    log
}

fn change(index: &mut SortedIndex, change: &Change, log: &mut Log) -> Result<Option<u64>, Failed> {
    match change {
        Change::Put(TestKey(key)) => {
            let position = log.append(key);
            index.insert(&sought(key, log), position)
        }
        Change::Delete(TestKey(key)) => index.remove(&sought(key, log)),
    }
}

fn change_model(model: &mut Model, change: &Change, log: &Log) -> Option<u64> {
    match change {
        Change::Put(TestKey(key)) => model.insert(key.clone(), log.last()),
        Change::Delete(TestKey(key)) => model.remove(key),
    }
}

fn built(changes: &Changes, log: &mut Log) -> (SortedIndex, Model) {
    let (mut index, mut model) = (SortedIndex::default(), Model::new());
    for each in &changes.0 {
        let old = change(&mut index, each, log).unwrap();
        assert_eq!(old, change_model(&mut model, each, log));
    }
    (index, model)
}

/// Damages some of the records.
fn damage_some(log: &mut Log, damage: Vec<(usize, TestKey)>) {
    let records = (log.last() / 8) as usize;
    for (at, TestKey(key)) in damage.into_iter().filter(|_| records > 0) {
        let position = 8 * (at % records + 1) as u64;
        if log.key(position) != key {
            log.damage(position, &key);
        }
    }
}

fn assert_is(index: &SortedIndex, model: &Model, log: &Log) {
    index.root.check(&|position| log.key(position));
    assert_eq!(index.len(), model.len());
    assert!(
        (0..=index.len())
            .map(|rank| index.entry(rank, log).unwrap().map(Entry::position))
            .eq(model.values().map(|at| Some(*at)).chain([None]))
    );
    assert!(index.range(0..index.len()).eq(model.values().copied()));
}

#[test]
fn an_index_without_keys_has_no_ranks_and_no_positions() {
    let index = SortedIndex::default();
    assert_eq!(index.len(), 0);
    assert_eq!(index.lower_rank(&sought(b"", &silent())), Ok(0));
    assert_eq!(index.upper_rank(&sought(&[0xFF; 40], &silent())), Ok(0));
    assert!(index.entry(0, &silent()).unwrap().is_none());
    assert_eq!(index.range(0..9).next_back(), None);
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "callers may pass ranks of bounds that exclude each other")]
fn ranks_out_of_bounds_are_left_out() {
    let index = SortedIndex::from_sorted(&[Entry::new(b"a", 8), Entry::new(b"b", 16)]);
    assert!(index.range(1..usize::MAX).eq([16]));
    assert_eq!(index.range(2..9).len(), 0);
    assert_eq!(index.range(2..1).len(), 0);
    assert_eq!(index.range(7..9).next(), None);
}

#[test]
fn an_emptied_index_is_as_small_as_a_new_one() {
    let mut index = SortedIndex::default();
    for number in 0..1000u64 {
        index.insert(&sought(&number.to_be_bytes(), &silent()), number * 8 + 8).unwrap();
    }
    for number in 0..1000u64 {
        assert_eq!(index.remove(&sought(&number.to_be_bytes(), &silent())), Ok(Some(number * 8 + 8)));
    }
    assert_eq!((index.len(), index.memory()), (0, SortedIndex::default().memory()));
}

#[test]
fn a_key_that_bounds_two_leaves_may_go_and_come_back() {
    let mut log = Log::default();
    // Keys that only the log can order, so that separators of removed records are compared.
    let key = |number: u32| [[b'k'; 20].as_slice(), &number.to_be_bytes()].concat();
    let put = |number| Change::Put(TestKey(key(number)));
    let delete = |number| Change::Delete(TestKey(key(number)));
    let (mut index, mut model) = built(&Changes((0..200).map(put).collect()), &mut log);
    for number in (0..200).chain((0..200).rev()) {
        for each in [delete(number), put(number), put(number)] {
            let old = change(&mut index, &each, &mut log).unwrap();
            assert_eq!(old, change_model(&mut model, &each, &log));
            assert_is(&index, &model, &log);
        }
    }
}

#[test]
fn a_snapshot_shares_all_nodes_until_one_changes() {
    let entries: Vec<Entry> = (0..500u64).map(|number| Entry::new(&number.to_be_bytes(), number * 8 + 8)).collect();
    let mut index = SortedIndex::from_sorted(&entries);
    let snapshot = index.snapshot();
    let shared = |index: &SortedIndex| {
        let leaf = |index: &SortedIndex, rank| Arc::as_ptr(index.root.leaf_at(rank).ok().unwrap().0);
        (0..500).filter(|rank| leaf(index, *rank) == leaf(&snapshot, *rank)).count()
    };
    assert_eq!(shared(&index), 500);
    index.insert(&sought(&7u64.to_be_bytes(), &silent()), 8).unwrap();
    assert!((490..500).contains(&shared(&index)));
}

quickcheck! {
    fn changes_give_what_a_map_gives(changes: Changes) -> () {
        let (mut index, mut model, mut log) = (SortedIndex::default(), Model::new(), Log::default());
        for each in &changes.0 {
            let old = change(&mut index, each, &mut log).unwrap();
            assert_eq!(old, change_model(&mut model, each, &log));
            index.root.check(&|position| log.key(position));
        }
        assert_is(&index, &model, &log);
    }

    fn an_index_built_at_once_takes_changes_like_any_other(before: Changes, after: Changes) -> () {
        let mut log = Log::default();
        let (_, mut model) = built(&before, &mut log);
        let mut entries: Vec<Entry> = model.iter().map(|(key, at)| Entry::new(key, *at)).rev().collect();
        sort_entries(&mut entries, |at, out| log.read(at, out)).unwrap();
        let mut index = SortedIndex::from_sorted(&entries);
        assert_is(&index, &model, &log);
        for each in &after.0 {
            let old = change(&mut index, each, &mut log).unwrap();
            assert_eq!(old, change_model(&mut model, each, &log));
        }
        assert_is(&index, &model, &log);
    }

    fn snapshots_and_ranges_do_not_change_with_the_index(changes: Changes, every: u8) -> () {
        let (mut index, mut model, mut log) = (SortedIndex::default(), Model::new(), Log::default());
        let mut kept = Vec::new();
        for (at, each) in changes.0.iter().enumerate() {
            if at % (usize::from(every) + 1) == 0 {
                let (mut range, mut values) = (index.range(0..index.len()), model.clone());
                // Half read, so that cursors hold leaves while the index changes.
                assert_eq!(range.next(), values.pop_first().map(|(_, position)| position));
                assert_eq!(range.next_back(), values.pop_last().map(|(_, position)| position));
                kept.push((index.snapshot(), model.clone(), range, values));
            }
            change(&mut index, each, &mut log).unwrap();
            change_model(&mut model, each, &log);
        }
        assert_is(&index, &model, &log);
        for (snapshot, model, range, values) in kept {
            assert_is(&snapshot, &model, &log);
            assert!(range.eq(values.into_values()));
        }
    }

    fn a_change_whose_comparison_fails_changes_nothing(changes: Changes, last: Vec<Change>, answers: u8) -> () {
        let mut log = Log::default();
        let (mut index, mut model) = built(&changes, &mut log);
        let snapshot = index.snapshot();
        let (len, old_model) = (index.len(), model.clone());
        for each in &last {
            log.fail_after(u64::from(answers % 8));
            if let Ok(old) = change(&mut index, each, &mut log) {
                assert_eq!(old, change_model(&mut model, each, &log));
            }
            log.heal();
            assert_is(&index, &model, &log);
        }
        assert_eq!(snapshot.len(), len);
        assert_is(&snapshot, &old_model, &log);
    }

    fn ranks_count_the_keys_before_a_bound(changes: Changes, bounds: Vec<TestKey>) -> () {
        let mut log = Log::default();
        let (index, model) = built(&changes, &mut log);
        for key in model.keys().chain(bounds.iter().map(|TestKey(key)| key)) {
            let lower = index.lower_rank(&sought(key, &log));
            let upper = index.upper_rank(&sought(key, &log));
            let below = |end: Bound<&Vec<u8>>| model.range::<Vec<u8>, _>((Bound::Unbounded, end)).count();
            assert_eq!(lower, Ok(below(Bound::Excluded(key))));
            assert_eq!(upper, Ok(below(Bound::Included(key))));
        }
    }

    fn damaged_keys_lead_to_the_right_rank_or_to_an_error(
        changes: Changes, damage: Vec<(usize, TestKey)>, bounds: Vec<TestKey>
    ) -> () {
        let mut log = Log::default();
        let (index, model) = built(&changes, &mut log);
        damage_some(&mut log, damage);
        for key in model.keys().chain(bounds.iter().map(|TestKey(key)| key)) {
            let below = |end: Bound<&Vec<u8>>| model.range::<Vec<u8>, _>((Bound::Unbounded, end)).count();
            let lower = index.lower_rank(&sought(key, &log));
            assert!(lower == Err(Failed) || lower == Ok(below(Bound::Excluded(key))), "{lower:?} of {key:?}");
            let upper = index.upper_rank(&sought(key, &log));
            assert!(upper == Err(Failed) || upper == Ok(below(Bound::Included(key))), "{upper:?} of {key:?}");
        }
    }

    fn changes_over_damaged_keys_are_right_or_fail(
        before: Changes, damage: Vec<(usize, TestKey)>, during: Vec<Change>, after: Changes
    ) -> () {
        let mut log = Log::default();
        let (mut index, mut model) = built(&before, &mut log);
        damage_some(&mut log, damage);
        for each in &during {
            if let Ok(old) = change(&mut index, each, &mut log) {
                assert_eq!(old, change_model(&mut model, each, &log));
            }
            assert_is(&index, &model, &log);
        }
        log.repair();
        for each in &after.0 {
            let old = change(&mut index, each, &mut log).unwrap();
            assert_eq!(old, change_model(&mut model, each, &log));
        }
        assert_is(&index, &model, &log);
    }

    fn a_range_gives_each_position_once_from_either_end(
        changes: Changes, start: u8, end: u8, steps: Vec<Option<bool>>
    ) -> () {
        let mut log = Log::default();
        let (index, model) = built(&changes, &mut log);
        let (start, end) = (usize::from(start), usize::from(end));
        let values: Vec<u64> = model.values().copied().collect();
        let mut expected = values.get(start..end.min(values.len())).unwrap_or_default().iter().copied();
        let mut range = index.range(start..end);
        for step in steps {
            assert_eq!(range.len(), expected.len());
            match step {
                Some(true) => assert_eq!(range.next(), expected.next()),
                Some(false) => assert_eq!(range.next_back(), expected.next_back()),
                None => assert_eq!((range.nth(1), range.nth_back(2)), (expected.nth(1), expected.nth_back(2))),
            }
        }
        assert!(range.rev().eq(expected.rev()));
    }
}
