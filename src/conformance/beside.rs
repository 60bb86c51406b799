//! Promises about stores side by side: buckets of one file, or roots of one server.

use std::sync::Arc;

use super::feeds::{next, nothing_more};
use super::locks::{new_lock, taken};
use super::{Fixture, create, list, ok, put};
use crate::{Change, Error, KvPair, Store, TreeEvent};

/// In all of the stores. Those at the ends tell most: a range that is a bit too long begins or ends in the store beside.
const KEYS: [&[u8]; 7] = [b"\0", b"\0\0", b"key", b"key/a", b"\xfe\xff", b"\xff", b"\xff\xff\xff"];

/// The same key is another one there.
pub fn writes_leave_a_store_beside_as_it_is(fixture: &dyn Fixture) {
    let (store, beside) = (fixture.open(), filled(fixture));
    assert_eq!(list(&*store, b""), [], "a store must list nothing of a store beside");
    for key in KEYS {
        assert_refused!(store.get(key), Error::KeyNotFound, "get of a key that is in the store beside only");
        let pair = create(&*store, key, b"own");
        assert_refused!(store.atomic_put(key, b"x", None), Error::KeyExists, "creating a key that exists");
        ok(store.atomic_delete(key, Some(&pair)), "atomic_delete");
        put(&*store, key, b"again");
        ok(store.delete(key), "delete");
        put(&*store, key, b"last");
    }
    let listed: Vec<Vec<u8>> = list(&*store, b"").into_iter().map(|pair| pair.key).collect();
    assert_eq!(listed, KEYS, "a store must list its own keys");
    is_unchanged(&beside);
}

/// The empty prefix is the beginning of this store's keys, and not of all that the file or the server has.
pub fn delete_tree_leaves_a_store_beside_as_it_is(fixture: &dyn Fixture) {
    let (store, beside) = (fixture.open(), filled(fixture));
    for prefix in [&b""[..], b"\xff", b"\xff\xff\xff", b"\0"] {
        for key in KEYS {
            put(&*store, key, b"own");
        }
        let own = list(&*store, prefix).len() as u64;
        let deleted = ok(store.delete_tree(prefix), "delete_tree");
        assert_eq!(deleted, own, "delete_tree must take the keys of its own store");
        is_unchanged(&beside);
    }
}

/// A key that is watched is that of its store.
pub fn a_watch_reports_no_write_to_a_store_beside(fixture: &dyn Fixture) {
    let (store, beside) = (fixture.open(), filled(fixture));
    let mut feed = ok(store.watch(b"key"), "watch");
    assert_eq!(next(&mut *feed), None, "a watch must not begin with a pair of a store beside");
    for (beside, _) in &beside {
        put(&**beside, b"key", b"beside");
        ok(beside.delete(b"key"), "delete");
    }
    nothing_more(&mut *feed);
    let pair = create(&*store, b"key", b"own");
    assert_eq!(next(&mut *feed), Some(pair), "a watch must report the writes to its own store");
}

/// Also of the empty prefix, and of the last one that there is.
pub fn a_tree_feed_reports_no_write_to_a_store_beside(fixture: &dyn Fixture) {
    let (store, beside) = (fixture.open(), filled(fixture));
    let mut feeds = [&b""[..], b"\xff\xff"].map(|prefix| ok(store.watch_tree(prefix), "watch_tree"));
    for feed in &mut feeds {
        let first = next(&mut **feed);
        assert_eq!(first, TreeEvent::List(Vec::new()), "a tree feed must list nothing of a store beside");
    }
    for (beside, _) in &beside {
        for key in KEYS {
            put(&**beside, key, b"beside");
            ok(beside.delete(key), "delete");
        }
    }
    feeds.iter_mut().for_each(|feed| nothing_more(&mut **feed));
    let own = TreeEvent::Changes(vec![Change::Put(create(&*store, b"\xff\xff\xff", b"own"))]);
    for feed in &mut feeds {
        assert_eq!(next(&mut **feed), own, "a tree feed must report the writes to its own store");
    }
}

/// The lock of the same key is another one there.
pub fn a_lock_keeps_out_none_of_a_store_beside(fixture: &dyn Fixture) {
    let store = fixture.open();
    let beside = fixture.neighbours();
    let lock = new_lock(&*store, b"lock", "own");
    let held = taken(&*lock);
    for beside in &beside {
        let other = new_lock(&**beside, b"lock", "beside");
        let taken_beside = taken(&*other);
        assert!(held.is_held() && taken_beside.is_held(), "locks of two stores must be two locks");
        ok(other.unlock(), "unlock of a lock that is held");
    }
    ok(lock.unlock(), "unlock of a lock that is held");
}

/// The stores beside, with the keys and what they list.
fn filled(fixture: &dyn Fixture) -> Vec<(Arc<dyn Store>, Vec<KvPair>)> {
    let stores = fixture.neighbours();
    for store in &stores {
        for key in KEYS {
            put(&**store, key, b"beside");
        }
    }
    let with_list = |store: Arc<dyn Store>| {
        let listed = list(&*store, b"");
        (store, listed)
    };
    stores.into_iter().map(with_list).collect()
}

#[track_caller]
fn is_unchanged(beside: &[(Arc<dyn Store>, Vec<KvPair>)]) {
    for (store, listed) in beside {
        assert_eq!(list(&**store, b""), *listed, "a write must leave a store beside as it is");
    }
}
