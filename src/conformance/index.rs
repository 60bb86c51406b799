//! Promises about `last_index`.

use super::{Fixture, create, get, list, ok, put};
use crate::KvPair;

/// The store has one sequence: a write gets a higher `last_index` than every earlier write to any key.
pub fn last_index_grows_with_each_write_to_any_key(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut highest = create(&*store, b"first", b"").last_index;
    for key in [&b"a"[..], b"b", b"a", b"first", b"c", b"b", b"b"] {
        put(&*store, key, b"value");
        highest = above(highest, &get(&*store, key));
        let current = get(&*store, b"a");
        highest = above(highest, &ok(store.atomic_put(b"a", b"swapped", Some(&current)), "atomic_put"));
    }
}

/// Every pair has a number of its own, also after more writes than a byte counts.
pub fn no_two_pairs_share_a_last_index(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut highest = 0;
    for write in 0..300 {
        let key = format!("{}", write % 150);
        put(&*store, key.as_bytes(), b"value");
        highest = above(highest, &get(&*store, key.as_bytes()));
    }
    let mut indexes: Vec<u64> = list(&*store, b"").iter().map(|pair| pair.last_index).collect();
    indexes.sort();
    indexes.dedup();
    assert_eq!(indexes.len(), 150, "no two pairs may share a last_index");
}

/// The sequence does not go back when the key with the highest `last_index` is deleted.
pub fn last_index_grows_across_delete_and_re_create(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut highest = create(&*store, b"key", b"value").last_index;
    for _ in 0..3 {
        ok(store.delete(b"key"), "delete");
        highest = above(highest, &create(&*store, b"key", b"value"));
        let current = get(&*store, b"key");
        ok(store.atomic_delete(b"key", Some(&current)), "atomic_delete");
        put(&*store, b"key", b"value");
        highest = above(highest, &get(&*store, b"key"));
    }
}

/// A write that changes no byte is still a write.
pub fn the_same_value_again_gets_a_new_last_index(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"value");
    let first = get(&*store, b"key");
    put(&*store, b"key", b"value");
    let second = get(&*store, b"key");
    above(first.last_index, &second);
    let third = ok(store.atomic_put(b"key", b"value", Some(&second)), "atomic_put of the same value");
    above(second.last_index, &third);
}

/// Reads, refused writes, deletions of absent keys and writes to other keys do not change a pair's `last_index`.
pub fn last_index_stays_while_nothing_is_written(fixture: &dyn Fixture) {
    let store = fixture.open();
    let pair = create(&*store, b"key", b"value");
    let wrong = KvPair::new("key", "value", u64::MAX);
    for _ in 0..3 {
        ok(store.exists(b"key"), "exists");
        assert_eq!(get(&*store, b"key"), pair, "reading a pair must leave its last_index");
        assert_eq!(list(&*store, b""), std::slice::from_ref(&pair), "listing a pair must leave its last_index");
    }
    ok(store.delete(b"absent"), "delete");
    store.atomic_put(b"key", b"x", None).expect_err("creating a key that exists must be refused");
    store.atomic_put(b"key", b"x", Some(&wrong)).expect_err("swapping with a wrong index must be refused");
    store.atomic_delete(b"key", Some(&wrong)).expect_err("deleting with a wrong index must be refused");
    store.atomic_delete(b"key", None).expect_err("deleting without a previous pair must be refused");
    put(&*store, b"other", b"value");
    assert_eq!(get(&*store, b"key"), pair, "last_index must stay while the key is not written");
    assert_eq!(list(&*store, b"key"), [pair], "last_index must stay while the key is not written");
}

#[track_caller]
fn above(highest: u64, pair: &KvPair) -> u64 {
    assert!(pair.last_index > highest, "last_index must grow with every write, but {highest} was followed by {pair:?}");
    pair.last_index
}
