//! Promises about deleting all keys of a prefix.

use super::{Fixture, list, listed_keys, ok, put};
use crate::{Error, Store};

/// The prefix is bytes, as that of `list`: the key that equals it goes, and one that goes on in the middle of a word.
pub fn delete_tree_takes_what_list_lists_and_says_how_many(fixture: &dyn Fixture) {
    let store = fixture.open();
    let keys: &[&[u8]] = &[b"a", b"a/", b"a/b", b"a/b/c", b"a/bc", b"a0", b"A/b", b"b", b"b/a/b", b"\0", b"\xff"];
    for prefix in [&b"a/b"[..], b"a/", b"a", b"b/", b"A", b"\0"] {
        for key in keys {
            put(&*store, key, b"value");
        }
        let (all, gone) = (list(&*store, b""), list(&*store, prefix));
        let name = prefix.escape_ascii();
        let deleted = ok(store.delete_tree(prefix), "delete_tree");
        assert_eq!(deleted, gone.len() as u64, "delete_tree of \"{name}\" must return how many keys it deleted");
        let left: Vec<_> = all.into_iter().filter(|pair| !pair.key.starts_with(prefix)).collect();
        assert_eq!(list(&*store, b""), left, "delete_tree of \"{name}\" must take its keys and leave all others");
    }
}

/// Backends of libkv return an error if there is nothing to delete.
pub fn delete_tree_without_a_match_is_ok(fixture: &dyn Fixture) {
    let store = fixture.open();
    assert_eq!(ok(store.delete_tree(b"a"), "delete_tree in an empty store"), 0);
    put(&*store, b"b", b"value");
    let before = list(&*store, b"");
    for prefix in [&b"a"[..], b"b\0", b"bb", b"c", &[b'b'; 100_000]] {
        assert_eq!(ok(store.delete_tree(prefix), "delete_tree without a match"), 0);
    }
    assert_eq!(list(&*store, b""), before, "delete_tree without a match must write nothing");
}

/// The empty prefix is the beginning of every key.
pub fn delete_tree_of_the_empty_prefix_empties_the_store(fixture: &dyn Fixture) {
    let store = fixture.open();
    for number in 0..300 {
        put(&*store, format!("{number}").as_bytes(), b"value");
    }
    assert_eq!(ok(store.delete_tree(b""), "delete_tree"), 300, "delete_tree of the empty prefix must take every key");
    assert_eq!(list(&*store, b""), [], "delete_tree of the empty prefix must leave nothing");
}

/// No prefix comes after these, so a backend that asks for the keys below the next prefix finds none, or too many.
pub fn delete_tree_of_0xff_bytes_takes_its_keys(fixture: &dyn Fixture) {
    let store = fixture.open();
    for key in [&b"\xfe"[..], b"\xfe\xff", b"\xff", b"\xff\0", b"\xff\xff", b"\xff\xffa"] {
        put(&*store, key, b"value");
    }
    assert_eq!(ok(store.delete_tree(b"\xff\xff"), "delete_tree"), 2, "delete_tree of 0xff bytes must take its keys");
    let left = listed_keys(&*store, b"");
    assert_eq!(
        left,
        [&b"\xfe"[..], b"\xfe\xff", b"\xff", b"\xff\0"],
        "delete_tree of 0xff bytes must leave other keys"
    );
    assert_eq!(ok(store.delete_tree(b"\xfe\xff"), "delete_tree"), 1, "delete_tree of a prefix that ends with 0xff");
    assert_eq!(ok(store.delete_tree(b"\xff"), "delete_tree"), 2, "delete_tree of 0xff bytes must take its keys");
}

/// As every call.
pub fn delete_tree_after_close_is_closed(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"value");
    ok(store.close(), "close");
    for prefix in [&b"key"[..], b"", b"absent"] {
        assert_refused!(store.delete_tree(prefix), Error::Closed, "delete_tree after close");
    }
}
