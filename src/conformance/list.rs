//! Promises about `list`.

use super::effort::at_once;
use super::{Fixture, create, get, list, listed_keys, ok, put};
use crate::{KvPair, Store};

/// An empty `Vec`, not an error: in an empty store, beside other keys, and after the last match was deleted.
pub fn without_a_match_the_list_is_empty(fixture: &dyn Fixture) {
    let store = fixture.open();
    assert_eq!(list(&*store, b""), [], "an empty store must list nothing");
    put(&*store, b"a", b"");
    put(&*store, b"c", b"");
    assert_eq!(list(&*store, b"b"), [], "a prefix that no key has must list nothing");
    assert_eq!(list(&*store, b"aa"), [], "a prefix longer than the key must not list it");
    ok(store.delete(b"a"), "delete");
    assert_eq!(list(&*store, b"a"), [], "a prefix whose only key was deleted must list nothing");
}

/// Every key starts with the empty prefix.
pub fn the_empty_prefix_lists_everything(fixture: &dyn Fixture) {
    let store = fixture.open();
    for key in [&b"\xff"[..], b"m", b"\0"] {
        put(&*store, key, b"");
    }
    assert_eq!(listed_keys(&*store, b""), [&b"\0"[..], b"m", b"\xff"], "the empty prefix must list everything");
}

/// The key that is the prefix itself starts with it, and comes first.
pub fn the_key_that_equals_the_prefix_belongs_to_it(fixture: &dyn Fixture) {
    let store = fixture.open();
    for key in [&b"dir/b"[..], b"dir/", b"dir/a", b"dir"] {
        put(&*store, key, b"");
    }
    assert_eq!(
        listed_keys(&*store, b"dir/"),
        [&b"dir/"[..], b"dir/a", b"dir/b"],
        "the key that equals the prefix must be listed"
    );
}

/// No byte is a separator: a prefix matches in the middle of a word and across slashes.
pub fn a_prefix_is_bytes_and_not_a_path(fixture: &dyn Fixture) {
    let store = fixture.open();
    for key in [&b"a"[..], b"a/b", b"a/b/c", b"ab", b"/a", b"b"] {
        put(&*store, key, b"");
    }
    assert_eq!(listed_keys(&*store, b"a"), [&b"a"[..], b"a/b", b"a/b/c", b"ab"], "a prefix must match bytes");
    assert_eq!(
        listed_keys(&*store, b"a/"),
        [&b"a/b"[..], b"a/b/c"],
        "a slash in a prefix must be a byte like any other"
    );
    assert_eq!(listed_keys(&*store, b"/a"), [b"/a"], "a slash in front must not be dropped");
}

/// A prefix is compared byte by byte: it has no case, no wildcards, no escapes, and a zero does not end it.
pub fn a_prefix_matches_only_its_own_bytes(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let starts = [
        "key", "KEY", "Key", "k%y", "k_y", "k*y", "k?y", "k[e]y", "k.y", "k\\y", "^key", "\u{e4}", "\u{c4}", "a\u{308}",
    ];
    for start in starts.iter().map(|start| start.as_bytes()).chain([&b"k\0y"[..], b"k\0z", b"k", b"%", b"*", b"\xc3"]) {
        keys.extend([start.to_vec(), [start, b"1"].concat(), [start, b"/2"].concat()]);
    }
    keys.sort();
    keys.dedup();
    for key in &keys {
        put(&*store, key, b"");
    }
    let mut prefixes = keys.clone();
    prefixes.extend(
        [&b"ke"[..], b"KE", b"k\0", b"k[", b"k[a-z]", b".", b".*", b"key*", b"key%", b"%y", b"\0", b" key"]
            .map(Vec::from),
    );
    for prefix in &prefixes {
        let expected: Vec<&Vec<u8>> = keys.iter().filter(|key| key.starts_with(prefix)).collect();
        let listed = listed_keys(&*store, prefix);
        assert_eq!(
            listed.iter().collect::<Vec<_>>(),
            expected,
            "the prefix \"{}\" must match its own bytes and nothing else",
            prefix.escape_ascii()
        );
    }
}

/// Thousands of pairs come in one listing, under the empty prefix and under a longer one, and all of them.
pub fn a_listing_of_thousands_of_pairs_is_complete(fixture: &dyn Fixture) {
    let store = fixture.open();
    let keys = put_thousands(&*store);
    assert_complete(&listed_keys(&*store, b""), &keys);
    let under = |prefix: &[u8]| keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect::<Vec<_>>();
    for prefix in [&b"k/"[..], b"k/0", b"k/1"] {
        assert_complete(&listed_keys(&*store, prefix), &under(prefix));
    }
    let values = list(&*store, b"k/2").into_iter().map(|pair| pair.value);
    assert!(values.eq(under(b"k/2")), "each pair of a long listing must have its own value");
}

/// Puts enough pairs for four pages of 1,000, and returns their keys in byte order. The value of each is its key. Several threads
/// write, so that a store that syncs can do it for all of them at once.
pub(super) fn put_thousands(store: &dyn Store) -> Vec<Vec<u8>> {
    const THREADS: usize = 8;
    const KEYS: usize = 4_200;
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|number| format!("k/{number:04}").into_bytes()).collect();
    at_once(THREADS, |thread| keys.iter().skip(thread).step_by(THREADS).for_each(|key| put(store, key, key)));
    keys
}

pub(super) fn assert_complete(listed: &[Vec<u8>], keys: &[Vec<u8>]) {
    let wrong = listed.iter().zip(keys).find(|(listed, key)| listed != key);
    assert_eq!(wrong, None, "a long listing must be in byte order, without gaps");
    assert_eq!(listed.len(), keys.len(), "a listing must not end before its last pair");
}

/// Whatever changes the pairs, the next listing shows it.
pub fn a_listing_shows_every_change_since_the_last_one(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut expected = Vec::new();
    let check = |after: &str, expected: &[KvPair]| {
        for prefix in [&b""[..], b"k", b"k/"] {
            assert_eq!(list(&*store, prefix), expected, "a listing must show {after}");
        }
    };
    check("that there is nothing yet", &expected);
    put(&*store, b"k/b", b"1");
    expected.push(get(&*store, b"k/b"));
    check("a put", &expected);
    expected.insert(0, create(&*store, b"k/a", b"2"));
    check("an atomic_put that created", &expected);
    put(&*store, b"k/b", b"3");
    expected[1] = get(&*store, b"k/b");
    check("a put that replaced", &expected);
    expected[0] = ok(store.atomic_put(b"k/a", b"4", Some(&expected[0])), "atomic_put");
    check("an atomic_put that replaced", &expected);
    ok(store.delete(b"k/b"), "delete");
    expected.pop();
    check("a delete", &expected);
    ok(store.atomic_delete(b"k/a", expected.pop().as_ref()), "atomic_delete");
    check("an atomic_delete", &expected);
    expected.push(create(&*store, b"k/a", b"5"));
    check("that a deleted key is there again", &expected);
}

/// The last prefix of its length has no successor. The keys that start with it are listed, and no others.
pub fn a_prefix_of_0xff_bytes_lists_its_keys(fixture: &dyn Fixture) {
    let store = fixture.open();
    let keys = [&b"\xfe\xff"[..], b"\xff", b"\xff\0", b"\xff\xfe\xff", b"\xff\xff", b"\xff\xff\0", b"\xff\xff\xff"];
    for key in keys {
        put(&*store, key, b"");
    }
    assert_eq!(listed_keys(&*store, b"\xff"), keys[1..], "prefix ff");
    assert_eq!(listed_keys(&*store, b"\xff\xff"), keys[4..], "prefix ff ff");
    assert_eq!(listed_keys(&*store, b"\xff\xff\xff"), keys[6..], "prefix ff ff ff");
    assert_eq!(listed_keys(&*store, b"\xfe\xff"), keys[..1], "prefix fe ff");
}

/// A prefix is not a key, so no length is an error.
pub fn a_prefix_longer_than_any_key_finds_nothing(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"kkk", b"");
    assert_eq!(list(&*store, &vec![b'k'; 1 << 20]), [], "a prefix of 1 MiB must list nothing");
}

/// Unsigned bytes from left to right, a key before its extensions, in whatever order they were put.
pub fn keys_come_in_the_order_of_their_bytes(fixture: &dyn Fixture) {
    let store = fixture.open();
    let sorted = [
        &b"\0"[..],
        b"\0\0",
        b"\0\xff",
        b"\x01",
        b"10",
        b"9",
        b"B",
        b"a",
        b"a\0",
        b"aa",
        b"a\xff",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xc3\xa4",
        b"\xff",
        b"\xff\0",
        b"\xff\xff",
    ];
    // 7 and 18 have no common factor, so this visits every key once, out of order.
    for step in 0..sorted.len() {
        put(&*store, sorted[step * 7 % sorted.len()], b"");
    }
    assert_eq!(listed_keys(&*store, b""), sorted, "keys must be listed in byte order");

    // A key that is put after a listing must get its place among those that were listed.
    put(&*store, b"a\x01", b"");
    let position = sorted.iter().position(|key| key == b"aa").unwrap();
    assert_eq!(listed_keys(&*store, b"")[position], b"a\x01", "a key put after a listing must be listed in its place");
}

/// A listed pair has the key, the value and the `last_index`.
pub fn a_listing_holds_what_get_returns(fixture: &dyn Fixture) {
    let store = fixture.open();
    let created = create(&*store, b"k/1", b"one");
    put(&*store, b"k/2", b"two");
    put(&*store, b"k/2", b"two again");
    put(&*store, b"k/3", b"");
    let expected = [created, get(&*store, b"k/2"), get(&*store, b"k/3")];
    assert_eq!(list(&*store, b"k/"), expected, "list must return the pairs that get returns");
}

/// History is not listed: neither earlier values nor deleted keys.
pub fn a_listing_has_each_key_once(fixture: &dyn Fixture) {
    let store = fixture.open();
    for round in [b"1", b"2", b"3"] {
        for key in [b"a", b"b", b"c", b"d"] {
            put(&*store, key, round);
        }
    }
    ok(store.delete(b"b"), "delete");
    let c = get(&*store, b"c");
    ok(store.atomic_delete(b"c", Some(&c)), "atomic_delete");
    put(&*store, b"c", b"back");
    let listed: Vec<_> = list(&*store, b"").into_iter().map(|pair| (pair.key, pair.value)).collect();
    let expected = [(&b"a"[..], &b"3"[..]), (b"c", b"back"), (b"d", b"3")];
    assert_eq!(listed, expected.map(|(key, value)| (key.to_vec(), value.to_vec())), "each key once, as it is now");
}
