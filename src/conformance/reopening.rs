//! Promises about a store that is opened again.

use super::{Fixture, create, get, list, ok, put};
use crate::{Error, KvPair};

/// All of a pair outlives the handle.
pub fn reopening_keeps_pairs_and_their_last_index(fixture: &dyn Fixture) {
    let written = {
        let store = fixture.open();
        put(&*store, b"overwritten", b"old");
        put(&*store, b"overwritten", b"new");
        put(&*store, b"empty", b"");
        put(&*store, b"\0\xff", b"\xff\0");
        put(&*store, b"large", &[b'x'; 100_000]);
        create(&*store, b"created", b"value");
        let written = list(&*store, b"");
        ok(store.close(), "close");
        written
    };
    for _ in 0..2 {
        let store = fixture.open();
        assert_eq!(list(&*store, b""), written, "reopening must keep keys, values and last_index");
        for pair in &written {
            assert_eq!(get(&*store, &pair.key), *pair, "after reopening, get must return what list returns");
        }
        ok(store.close(), "close");
    }
}

/// What was deleted does not come back, and what was deleted and put again does not go.
pub fn reopening_keeps_deletions(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"deleted", b"value");
    put(&*store, b"deleted", b"value again");
    ok(store.delete(b"deleted"), "delete");
    let pair = create(&*store, b"deleted atomically", b"value");
    ok(store.atomic_delete(b"deleted atomically", Some(&pair)), "atomic_delete");
    put(&*store, b"there again", b"value");
    ok(store.delete(b"there again"), "delete");
    put(&*store, b"there again", b"value");
    let kept = get(&*store, b"there again");
    ok(store.close(), "close");
    drop(store);

    let store = fixture.open();
    assert_eq!(list(&*store, b""), [kept], "reopening must bring back what was there, and nothing that was deleted");
    assert_refused!(store.get(b"deleted"), Error::KeyNotFound, "get, after reopening, of a deleted key");
}

/// Dropping is closing: a program that ends without a close loses nothing.
pub fn dropping_the_last_handle_keeps_what_was_written(fixture: &dyn Fixture) {
    let store = fixture.open();
    let clone = store.clone();
    put(&*store, b"key", b"value");
    drop(store);
    put(&*clone, b"key through a clone", b"value");
    let written = list(&*clone, b"");
    drop(clone);
    assert_eq!(list(&*fixture.open(), b""), written, "dropping the last handle must keep what was written");
}

/// Indexes go on above all that anyone saw, the highest of which may be gone from the store.
pub fn a_last_index_from_before_reopening_is_never_handed_out_again(fixture: &dyn Fixture) {
    let mut highest = 0;
    for _ in 0..3 {
        let store = fixture.open();
        for key in [&b"stays"[..], b"leaves"] {
            put(&*store, key, b"value");
            let pair = get(&*store, key);
            assert!(
                pair.last_index > highest,
                "last_index must grow across reopening, but {highest} was followed by {pair:?}"
            );
            highest = pair.last_index;
        }
        // The pair with the highest index leaves no trace in a listing: its index is still taken.
        ok(store.delete(b"leaves"), "delete");
        ok(store.close(), "close");
        // An opening that writes nothing must not forget either.
        ok(fixture.open().close(), "close");
    }
}

/// Reopening is no write: who read a pair before may still swap it after.
pub fn a_pair_from_before_reopening_still_swaps(fixture: &dyn Fixture) {
    let (swapped, deleted) = {
        let store = fixture.open();
        let pairs = (create(&*store, b"swapped", b"value"), create(&*store, b"deleted", b"value"));
        ok(store.close(), "close");
        pairs
    };
    let store = fixture.open();
    ok(store.atomic_put(b"swapped", b"new", Some(&swapped)), "atomic_put with a pair from before reopening");
    ok(store.atomic_delete(b"deleted", Some(&deleted)), "atomic_delete with a pair from before reopening");
}

/// The case that a counter kept in memory gets wrong: after reopening it starts again, and a pair from before meets its
/// own index at a value that is not its own.
pub fn a_stale_pair_from_before_reopening_is_refused(fixture: &dyn Fixture) {
    let stale: Vec<KvPair> = {
        let store = fixture.open();
        let stale = (0..5).map(|count: u8| {
            put(&*store, b"key", &[count]);
            get(&*store, b"key")
        });
        let stale = stale.collect();
        ok(store.delete(b"key"), "delete");
        ok(store.close(), "close");
        stale
    };
    let store = fixture.open();
    for _ in 0..2 * stale.len() {
        put(&*store, b"key", b"value");
        let current = get(&*store, b"key");
        for stale in &stale {
            assert_refused!(store.atomic_put(b"key", b"x", Some(stale)), Error::KeyModified, "swapping a stale pair");
            assert_refused!(store.atomic_delete(b"key", Some(stale)), Error::KeyModified, "deleting by a stale pair");
        }
        assert_eq!(get(&*store, b"key"), current, "a refused write must leave the pair as it is");
    }
}
