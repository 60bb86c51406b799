//! Promises about compare-and-swap: `atomic_put` and `atomic_delete`.

use super::{Fixture, create, get, list, ok, put};
use crate::{Error, KvPair};

/// With `None` the key is created, and the new pair is returned.
pub fn atomic_put_without_previous_creates_the_key(fixture: &dyn Fixture) {
    let store = fixture.open();
    let created = create(&*store, b"key", b"value");
    assert_eq!((&created.key[..], &created.value[..]), (&b"key"[..], &b"value"[..]), "atomic_put must return the pair");
    assert_eq!(get(&*store, b"key"), created, "what atomic_put returns must be what get returns");

    ok(store.delete(b"key"), "delete");
    let again = create(&*store, b"key", b"again");
    assert_eq!(get(&*store, b"key"), again, "atomic_put must create a key that was deleted");
}

/// With `None` nothing is overwritten, not even by the same value.
pub fn atomic_put_without_previous_refuses_a_key_that_exists(fixture: &dyn Fixture) {
    let store = fixture.open();
    let created = create(&*store, b"key", b"value");
    assert_refused!(store.atomic_put(b"key", b"other", None), Error::KeyExists, "creating a key twice");
    assert_refused!(store.atomic_put(b"key", b"value", None), Error::KeyExists, "creating a key with the same value");
    assert_eq!(get(&*store, b"key"), created, "a refused atomic_put must write nothing");
}

/// With the current pair, whether it was returned or read, the value is replaced.
pub fn atomic_put_with_the_current_pair_replaces_it(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"0");
    let read = get(&*store, b"key");
    let first = ok(store.atomic_put(b"key", b"1", Some(&read)), "atomic_put with the pair from get");
    assert_eq!((&first.key[..], &first.value[..]), (&b"key"[..], &b"1"[..]), "atomic_put must return the new pair");
    assert_eq!(get(&*store, b"key"), first, "what atomic_put returns must be what get returns");
    let second = ok(store.atomic_put(b"key", b"2", Some(&first)), "atomic_put with the pair from atomic_put");
    let listed = list(&*store, b"key").remove(0);
    assert_eq!(listed, second, "what atomic_put returns must be what list returns");
    ok(store.atomic_put(b"key", b"3", Some(&listed)), "atomic_put with the pair from list");
}

/// With `Some` no key is created, whether it was never there or was deleted.
pub fn atomic_put_with_previous_of_an_absent_key_is_key_not_found(fixture: &dyn Fixture) {
    let store = fixture.open();
    let made_up = KvPair::new("key", "value", 1);
    assert_refused!(
        store.atomic_put(b"key", b"x", Some(&made_up)),
        Error::KeyNotFound,
        "swapping a key that never was"
    );
    let deleted = create(&*store, b"key", b"value");
    ok(store.delete(b"key"), "delete");
    assert_refused!(store.atomic_put(b"key", b"x", Some(&deleted)), Error::KeyNotFound, "swapping a deleted key");
    assert_eq!(list(&*store, b""), [], "a refused atomic_put must write nothing");
}

/// A pair is stale after any later write to the key, also of the same value.
pub fn atomic_put_with_a_stale_pair_is_key_modified(fixture: &dyn Fixture) {
    let store = fixture.open();
    let first = create(&*store, b"key", b"value");
    put(&*store, b"key", b"value");
    assert_refused!(
        store.atomic_put(b"key", b"x", Some(&first)),
        Error::KeyModified,
        "swapping after a put of the same"
    );
    let second = get(&*store, b"key");
    let third = ok(store.atomic_put(b"key", b"value", Some(&second)), "atomic_put");
    for stale in [&first, &second] {
        assert_refused!(store.atomic_put(b"key", b"x", Some(stale)), Error::KeyModified, "swapping after a swap");
    }
    assert_eq!(get(&*store, b"key"), third, "a refused atomic_put must write nothing");
}

/// With the current pair, the key is deleted, and no other.
pub fn atomic_delete_with_the_current_pair_deletes_it(fixture: &dyn Fixture) {
    let store = fixture.open();
    let key = create(&*store, b"key", b"value");
    let longer = create(&*store, b"key2", b"value");
    ok(store.atomic_delete(b"key", Some(&key)), "atomic_delete with the current pair");
    assert_refused!(store.get(b"key"), Error::KeyNotFound, "get after atomic_delete");
    assert_eq!(list(&*store, b""), [longer], "atomic_delete must leave other keys");
}

/// The missing pair is the error, before anything else about the key.
pub fn atomic_delete_without_previous_is_refused(fixture: &dyn Fixture) {
    let store = fixture.open();
    assert_refused!(store.atomic_delete(b"key", None), Error::PreviousNotSpecified, "atomic_delete(absent key, None)");
    let created = create(&*store, b"key", b"value");
    assert_refused!(store.atomic_delete(b"key", None), Error::PreviousNotSpecified, "atomic_delete(key, None)");
    assert_eq!(get(&*store, b"key"), created, "a refused atomic_delete must delete nothing");
}

/// Unlike with `delete`, an absent key is an error.
pub fn atomic_delete_of_an_absent_key_is_key_not_found(fixture: &dyn Fixture) {
    let store = fixture.open();
    let made_up = KvPair::new("key", "value", 1);
    assert_refused!(store.atomic_delete(b"key", Some(&made_up)), Error::KeyNotFound, "deleting a key that never was");
    let created = create(&*store, b"key", b"value");
    ok(store.atomic_delete(b"key", Some(&created)), "atomic_delete");
    assert_refused!(store.atomic_delete(b"key", Some(&created)), Error::KeyNotFound, "deleting a deleted key");
}

/// A pair that was overwritten does not delete the newer value.
pub fn atomic_delete_with_a_stale_pair_is_key_modified(fixture: &dyn Fixture) {
    let store = fixture.open();
    let first = create(&*store, b"key", b"value");
    put(&*store, b"key", b"value");
    let second = get(&*store, b"key");
    assert_refused!(store.atomic_delete(b"key", Some(&first)), Error::KeyModified, "deleting with a stale pair");
    assert_eq!(get(&*store, b"key"), second, "a refused atomic_delete must delete nothing");
}

/// Key and value are the same as before, but the old pair is refused.
pub fn a_pair_stays_stale_after_delete_and_re_create(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut stale = vec![create(&*store, b"key", b"value")];
    ok(store.delete(b"key"), "delete");
    put(&*store, b"key", b"value");
    stale.push(get(&*store, b"key"));
    ok(store.atomic_delete(b"key", stale.last()), "atomic_delete");
    let current = create(&*store, b"key", b"value");
    for stale in &stale {
        assert_refused!(store.atomic_put(b"key", b"x", Some(stale)), Error::KeyModified, "swapping after a re-create");
        assert_refused!(store.atomic_delete(b"key", Some(stale)), Error::KeyModified, "deleting after a re-create");
    }
    assert_eq!(get(&*store, b"key"), current, "a refused write must leave the pair as it is");
}

/// A program may keep `last_index` alone and construct the pair.
pub fn only_last_index_of_the_previous_pair_is_compared(fixture: &dyn Fixture) {
    let store = fixture.open();
    let created = create(&*store, b"key", b"value");
    let by_hand = KvPair { key: b"another key".to_vec(), value: Vec::new(), last_index: created.last_index };
    let replaced = ok(store.atomic_put(b"key", b"new", Some(&by_hand)), "atomic_put with a pair made by hand");
    assert_eq!(replaced.key, b"key", "the key that is written must be the argument, not the previous pair's");
    assert_refused!(store.get(b"another key"), Error::KeyNotFound, "get of the key that only the previous pair has");
    let by_hand = KvPair::new("", "", replaced.last_index);
    ok(store.atomic_delete(b"key", Some(&by_hand)), "atomic_delete with a pair made by hand");
}

/// With the right key and value, lower, higher, extreme and another key's `last_index` are all refused; so is one that differs in
/// a single bit, whichever it is: an index has 64 of them.
pub fn any_other_last_index_is_refused(fixture: &dyn Fixture) {
    let store = fixture.open();
    let before = create(&*store, b"before", b"value");
    let current = create(&*store, b"key", b"value");
    let after = create(&*store, b"after", b"value");
    let index = current.last_index;
    let wrong = [index.wrapping_sub(1), index.wrapping_add(1), before.last_index, after.last_index, 0, u64::MAX];
    let one_bit = (0..u64::BITS).map(|bit| index ^ (1 << bit));
    for last_index in wrong.into_iter().chain(one_bit).filter(|wrong| *wrong != index) {
        let pair = KvPair { last_index, ..current.clone() };
        let what = |does: &str| format!("{does} with the index {last_index:#x} in place of {index:#x}");
        assert_refused!(store.atomic_put(b"key", b"x", Some(&pair)), Error::KeyModified, what("swapping"));
        assert_refused!(store.atomic_delete(b"key", Some(&pair)), Error::KeyModified, what("deleting"));
    }
    assert_eq!(get(&*store, b"key"), current, "a refused write must leave the pair as it is");
    ok(store.atomic_delete(b"key", Some(&current)), "atomic_delete with the right index after wrong ones");
    for last_index in [0, 1, index, u64::MAX] {
        let pair = KvPair { last_index, ..current.clone() };
        let what = |does: &str| format!("{does} an absent key with the index {last_index}");
        assert_refused!(store.atomic_put(b"key", b"x", Some(&pair)), Error::KeyNotFound, what("swapping"));
        assert_refused!(store.atomic_delete(b"key", Some(&pair)), Error::KeyNotFound, what("deleting"));
    }
    assert_eq!(list(&*store, b""), [after, before], "a refused write must create nothing");
}
