//! Promises about pairs with a time to live.

use std::thread;
use std::time::{Duration, Instant};

use super::{Fixture, PATIENCE, create, get, list, ok, put};
use crate::{Error, KvPair, OptionalExt, PutOptions, Store};

/// No test is under way for so long.
const LONG: Duration = Duration::from_secs(3600);

/// Some backends count in seconds, and make this one of them.
const SHORT: Duration = Duration::from_millis(20);

/// The pair that is returned is the one that is there, with or without a time to live.
pub fn put_with_returns_the_pair_that_get_returns(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut highest = create(&*store, b"first", b"").last_index;
    for options in [PutOptions::new(), PutOptions::new().ttl(LONG), PutOptions::new()] {
        let pair = put_with(&*store, b"key", b"value", &options);
        assert_eq!((&pair.key[..], &pair.value[..]), (&b"key"[..], &b"value"[..]), "put_with must return the new pair");
        assert_eq!(get(&*store, b"key"), pair, "put_with must return the pair that get returns");
        assert!(pair.last_index > highest, "put_with must get a new last_index");
        highest = pair.last_index;
    }
}

/// Until its time is over, a pair is like any other.
pub fn a_pair_is_there_until_its_time_is_over(fixture: &dyn Fixture) {
    let store = fixture.open();
    let pair = put_with(&*store, b"key", b"value", &PutOptions::new().ttl(LONG));
    assert_eq!(get(&*store, b"key"), pair, "a pair whose time is not over must be there");
    assert!(ok(store.exists(b"key"), "exists"), "a pair whose time is not over must exist");
    assert_eq!(list(&*store, b""), std::slice::from_ref(&pair), "a pair whose time is not over must be listed");
    assert_refused!(store.atomic_put(b"key", b"x", None), Error::KeyExists, "creating a key whose time is not over");
    let swapped = ok(store.atomic_put(b"key", b"new", Some(&pair)), "atomic_put with a pair of put_with");
    ok(store.atomic_delete(b"key", Some(&swapped)), "atomic_delete");
}

/// Then it is absent for every call, as if it had been deleted.
pub fn a_pair_is_absent_once_its_time_is_over(fixture: &dyn Fixture) {
    let store = fixture.open();
    let pair = put_with(&*store, b"key", b"value", &PutOptions::new().ttl(SHORT));
    put(&*store, b"other", b"value");
    until_absent(&*store, b"key");
    assert!(!ok(store.exists(b"key"), "exists"), "a pair whose time is over must not exist");
    let listed: Vec<Vec<u8>> = list(&*store, b"").into_iter().map(|pair| pair.key).collect();
    assert_eq!(listed, [b"other"], "a pair whose time is over must not be listed");
    assert_refused!(
        store.atomic_put(b"key", b"x", Some(&pair)),
        Error::KeyNotFound,
        "atomic_put with a pair whose time is over"
    );
    assert_refused!(
        store.atomic_delete(b"key", Some(&pair)),
        Error::KeyNotFound,
        "atomic_delete with a pair whose time is over"
    );
    ok(store.delete(b"key"), "delete of a key whose time is over");
    let new = create(&*store, b"key", b"new");
    assert!(new.last_index > pair.last_index, "a key that is created again must get a higher last_index");
    assert_eq!(get(&*store, b"key"), new, "a key that is created again must stay");
}

/// A time to live belongs to one write. The next one has its own, or none.
pub fn a_plain_put_makes_the_pair_stay(fixture: &dyn Fixture) {
    let store = fixture.open();
    let short = PutOptions::new().ttl(SHORT);
    for key in [&b"put"[..], b"put_with", b"swapped"] {
        put_with(&*store, key, b"short", &short);
    }
    put(&*store, b"put", b"stays");
    put_with(&*store, b"put_with", b"stays", &PutOptions::new());
    // In time, unless this thread was held up; then there is nothing to swap.
    if let Some(pair) = ok(store.get(b"swapped").optional(), "get") {
        let _ = store.atomic_put(b"swapped", b"stays", Some(&pair));
    }
    let swapped = ok(store.get(b"swapped").optional(), "get").filter(|pair| pair.value == b"stays");
    // Its end comes after theirs would.
    put_with(&*store, b"last", b"", &short);
    until_absent(&*store, b"last");
    for key in [&b"put"[..], b"put_with"] {
        let value = ok(store.get(key).optional(), "get").map(|pair| pair.value);
        assert_eq!(value.as_deref(), Some(&b"stays"[..]), "a later put without a time to live must make the pair stay");
    }
    assert_eq!(ok(store.get(b"swapped").optional(), "get"), swapped, "a later swap must make the pair stay");
}

/// Zero is no time. It could be taken for "for ever", or for "delete".
pub fn a_time_of_zero_is_refused(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"value");
    let before = list(&*store, b"");
    for key in [&b"key"[..], b"new"] {
        let result = store.put_with(key, b"x", &PutOptions::new().ttl(Duration::ZERO));
        assert_refused!(result, Error::ZeroTtl, "put_with a time to live of zero");
    }
    assert_eq!(list(&*store, b""), before, "a put_with that is refused must write nothing");
}

/// As of `put`: an empty key is refused, and a closed store.
pub fn put_with_refuses_what_put_refuses(fixture: &dyn Fixture) {
    let store = fixture.open();
    let options = PutOptions::new().ttl(LONG);
    let result = store.put_with(b"", b"value", &options);
    assert_refused!(result, Error::KeyLength { len: 0, .. }, "put_with an empty key");
    assert_eq!(list(&*store, b""), [], "a put_with that is refused must write nothing");
    ok(store.close(), "close");
    assert_refused!(store.put_with(b"key", b"value", &options), Error::Closed, "put_with after close");
    assert_refused!(store.put_with(b"", b"value", &options), Error::Closed, "put_with an empty key after close");
}

#[track_caller]
fn put_with(store: &dyn Store, key: &[u8], value: &[u8], options: &PutOptions) -> KvPair {
    ok(store.put_with(key, value, options), "put_with")
}

#[track_caller]
fn until_absent(store: &dyn Store, key: &[u8]) {
    let began = Instant::now();
    while ok(store.get(key).optional(), "get").is_some() {
        assert!(began.elapsed() < PATIENCE, "a pair must be absent some time after its time to live");
        thread::sleep(Duration::from_millis(1));
    }
}
