//! Promises about a store that is opened again.

use super::calls::Game;
use super::effort::close_beside;
use super::list::{assert_complete, put_thousands};
use super::{Fixture, create, get, list, listed_keys, ok, put};
use crate::{Error, KvPair};

/// All of a pair survives the handle.
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

/// A deleted key does not come back, and one that was put again stays.
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

/// A program that ends without a close loses nothing.
pub fn dropping_the_last_handle_keeps_all_writes(fixture: &dyn Fixture) {
    let store = fixture.open();
    let clone = store.clone();
    put(&*store, b"key", b"value");
    drop(store);
    put(&*clone, b"key through a clone", b"value");
    let written = list(&*clone, b"");
    drop(clone);
    assert_eq!(list(&*fixture.open(), b""), written, "dropping the last handle must keep what was written");
}

/// New numbers are above all that were seen, also if the pair with the highest one was deleted.
pub fn no_last_index_is_assigned_again_after_reopening(fixture: &dyn Fixture) {
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
        // A listing shows no trace of the pair with the highest number, but the number is still taken.
        ok(store.delete(b"leaves"), "delete");
        ok(store.close(), "close");
        // An opening that writes nothing must not forget it either.
        ok(fixture.open().close(), "close");
    }
}

/// Reopening is no write, so a pair from before still swaps.
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

/// A counter in memory would start again after reopening, and an old pair would have the number of another value.
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

/// What each kind of write has left is there again, and so are the pairs of a store that has thousands.
pub fn reopening_keeps_thousands_of_pairs(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut keys = put_thousands(&*store);
    let last = get(&*store, &keys[keys.len() - 1]);
    ok(store.atomic_delete(&last.key, Some(&last)), "atomic_delete");
    ok(store.delete(&keys[1_000]), "delete");
    keys.pop();
    keys.remove(1_000);
    ok(store.close(), "close");
    drop(store);

    let store = fixture.open();
    assert_complete(&listed_keys(&*store, b""), &keys);
    for key in keys.iter().rev().step_by(7) {
        assert_eq!(get(&*store, key).value, *key, "after reopening, each of thousands of pairs must be found");
    }
}

/// The handle that was closed stays closed, and what is done with it does not concern the next one.
pub fn a_closed_handle_does_not_disturb_the_next_one(fixture: &dyn Fixture) {
    let closed = fixture.open();
    put(&*closed, b"key", b"value");
    ok(closed.close(), "close");
    let store = fixture.open();
    assert_refused!(closed.put(b"key", b"x"), Error::Closed, "put on a closed handle while another one is open");
    assert_refused!(closed.list(b""), Error::Closed, "list on a closed handle while another one is open");
    ok(closed.close(), "a second close");
    drop(closed);
    assert_eq!(get(&*store, b"key").value, b"value", "a closed handle must not disturb the next one");
    put(&*store, b"key", b"new");
    ok(store.close(), "close");
    assert_eq!(get(&*fixture.open(), b"key").value, b"new", "what the next handle writes must be kept");
}

/// Every write that has returned before a close in another thread ended the rest is there again.
pub fn a_close_beside_writers_keeps_what_they_wrote(fixture: &dyn Fixture) {
    let store = fixture.open();
    let write = |thread, round| store.atomic_put(format!("{thread}/{round:06}").as_bytes(), b"value", None);
    let written = close_beside(&*store, 10, write).concat();
    drop(store);
    let kept = list(&*fixture.open(), b"") == written;
    assert!(kept, "a close must keep every write that has returned, and no other");
}

/// As [`calls::random_calls_agree_with_a_map`](super::calls::random_calls_agree_with_a_map), with a close or a drop now and then.
pub fn random_calls_across_reopening_agree_with_a_map(fixture: &dyn Fixture) {
    Game::new(0x5eed).reopening().play(fixture, 1);
}
