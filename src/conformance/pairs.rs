//! Promises about single keys: `put`, `get`, `exists`, `delete`.

use super::{Fixture, create, get, list, ok, put};
use crate::Error;

/// `get` returns what was put, with the same key.
pub fn get_returns_what_was_put(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"colour", b"blue");
    let pair = get(&*store, b"colour");
    assert_eq!(pair.key, b"colour", "get must return the key");
    assert_eq!(pair.value, b"blue", "get must return the value that was put");
}

/// An absent key has its own error, in an empty store and beside neighbours.
pub fn get_of_an_absent_key_is_key_not_found(fixture: &dyn Fixture) {
    let store = fixture.open();
    assert_refused!(store.get(b"b"), Error::KeyNotFound, "get in an empty store");
    put(&*store, b"a", b"1");
    put(&*store, b"bb", b"2");
    assert_refused!(store.get(b"b"), Error::KeyNotFound, "get of a key that is only a prefix of another");
    ok(store.delete(b"a"), "delete");
    assert_refused!(store.get(b"a"), Error::KeyNotFound, "get of a deleted key");
}

/// `exists` agrees with `get`, before, while and after the key is there.
pub fn exists_finds_present_keys_only(fixture: &dyn Fixture) {
    let store = fixture.open();
    assert!(!ok(store.exists(b"key"), "exists"), "a key must not exist in an empty store");
    put(&*store, b"ke", b"value");
    put(&*store, b"key2", b"value");
    assert!(!ok(store.exists(b"key"), "exists"), "a key must not exist because a longer or a shorter one does");
    put(&*store, b"key", b"");
    assert!(ok(store.exists(b"key"), "exists"), "a key with an empty value must exist");
    ok(store.delete(b"key"), "delete");
    assert!(!ok(store.exists(b"key"), "exists"), "a deleted key must not exist");
}

/// `put` needs no previous pair and refuses nothing: longer, shorter and empty values replace each other.
pub fn put_replaces_any_value(fixture: &dyn Fixture) {
    let store = fixture.open();
    for value in [&b"first"[..], b"second, and longer", b"3", b"", b"last"] {
        put(&*store, b"key", value);
        assert_eq!(get(&*store, b"key").value, value, "put must replace the value");
    }
    ok(store.delete(b"key"), "delete");
    put(&*store, b"key", b"again");
    assert_eq!(get(&*store, b"key").value, b"again", "put must set a key that was deleted");
}

/// The neighbours of a key in byte order, and its prefixes, keep their value and `last_index` when it is written.
pub fn put_leaves_other_keys_as_they_are(fixture: &dyn Fixture) {
    let store = fixture.open();
    let others = [&b"ke"[..], b"kex", b"key\0", b"keyy", b"kez", b"KEY"];
    for key in others {
        put(&*store, key, key);
    }
    let before = list(&*store, b"");
    put(&*store, b"key", b"1");
    put(&*store, b"key", b"2");
    ok(store.delete(b"key"), "delete");
    assert_eq!(list(&*store, b""), before, "writing one key must leave value and last_index of all others");
}

/// An empty value is not the same as no value.
pub fn an_empty_value_is_a_value(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"");
    let pair = get(&*store, b"key");
    assert_eq!(pair.value, b"", "an empty value must come back empty");
    assert_eq!(list(&*store, b"key"), std::slice::from_ref(&pair), "a key with an empty value must be listed");
    assert_refused!(store.atomic_put(b"key", b"x", None), Error::KeyExists, "creating a key that holds an empty value");
    let empty = ok(store.atomic_put(b"key", b"", Some(&pair)), "atomic_put of an empty value");
    assert_eq!(get(&*store, b"key"), empty, "atomic_put must set an empty value like any other");
}

/// Values are not text: every byte, zeros and invalid UTF-8 come back unchanged.
pub fn a_value_is_any_bytes(fixture: &dyn Fixture) {
    let store = fixture.open();
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    for value in [
        &every_byte[..],
        &[0; 64],
        &[0xff; 64],
        b"\r\n\x1a",
        b"trailing zero\0",
        b" blanks \n",
        b"\0",
        b"null",
        b"\"\"",
    ] {
        put(&*store, b"key", value);
        assert_eq!(get(&*store, b"key").value, value, "a value must come back byte by byte");
    }
}

/// No length is special, neither for one value nor for many of one size.
pub fn a_value_of_any_length_comes_back_whole(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut lengths = vec![0, 1];
    for power in 2..=17 {
        lengths.extend([(1 << power) - 1, 1 << power, (1 << power) + 1]);
    }
    let key = |len: usize| format!("of {len} bytes").into_bytes();
    // The period of the pattern is no power of two, so a swapped or repeated block is found.
    let value = |len: usize| (0..=250).cycle().skip(len % 251).take(len).collect::<Vec<u8>>();
    for &len in &lengths {
        put(&*store, &key(len), &value(len));
    }
    for &len in &lengths {
        assert!(get(&*store, &key(len)).value == value(len), "a value of {len} bytes must come back whole");
    }
    let listed = list(&*store, b"of ");
    assert_eq!(listed.len(), lengths.len(), "values of every length must be listed");
    for pair in listed {
        assert!(key(pair.value.len()) == pair.key, "the value {} must be listed whole", pair.key.escape_ascii());
    }
}

/// A large value works with `put`, `atomic_put`, `get` and `list`.
pub fn a_value_of_a_mebibyte_comes_back_whole(fixture: &dyn Fixture) {
    let store = fixture.open();
    // The period of the pattern is no power of two, so a swapped or repeated block is found.
    let large: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    put(&*store, b"before", b"1");
    put(&*store, b"large", &large);
    put(&*store, b"after", b"2");
    let pair = get(&*store, b"large");
    assert!(pair.value == large, "a value of 1 MiB must come back whole");

    let shorter = &large[1..];
    let pair = ok(store.atomic_put(b"large", shorter, Some(&pair)), "atomic_put of a large value");
    assert!(pair.value == shorter, "atomic_put must return the value that it set");
    assert!(list(&*store, b"large") == [pair], "a large value must be listed whole");
    assert_eq!(get(&*store, b"before").value, b"1", "the value written before a large one must stay");
    assert_eq!(get(&*store, b"after").value, b"2", "the value written after a large one must stay");
}

/// A store may limit the length of values, by that of the key too. The error of a call names its limit, which is exact, and nothing is
/// written. Limits above four mebibytes are not looked at.
pub fn a_value_at_the_limit_is_kept_and_a_longer_one_refused(fixture: &dyn Fixture) {
    let store = fixture.open();
    let long: Vec<u8> = (0..=250).cycle().take(4 << 20).collect();
    // Some limits are those of a request, which has the key too, perhaps more than once.
    for key in [&b"\0"[..], &[0xff; 100]] {
        for call in 0..3 {
            ok(store.delete(key), "delete");
            let previous = (call == 2).then(|| create(&*store, key, b"replaced"));
            let write = |len: usize| match call {
                0 => store.put(key, &long[..len]),
                _ => store.atomic_put(key, &long[..len], previous.as_ref()).map(drop),
            };
            let before = list(&*store, b"");
            let limit = match write(long.len()) {
                Ok(()) => {
                    assert!(get(&*store, key).value == long, "a long value that was taken must be kept");
                    continue;
                }
                Err(Error::ValueTooLong { len, max }) => {
                    assert_eq!(len, long.len(), "the error about a long value must tell its length");
                    assert!(max < len, "the error about a long value must tell a limit below its length, not {max}");
                    max
                }
                Err(other) => {
                    panic!("a write of a long value must succeed or be Err(ValueTooLong), but gave {other:?}")
                }
            };
            assert_refused!(
                write(limit + 1),
                Error::ValueTooLong { len, max } if len == limit + 1 && max == limit,
                format_args!("a write of a value of one byte above the limit of {limit}")
            );
            assert_eq!(list(&*store, b""), before, "a call that refuses its value must write nothing");
            ok(write(limit), "a write of a value as long as the limit");
            let pair = get(&*store, key);
            assert!(pair.value == long[..limit], "a value as long as the limit must be kept");
            assert!(list(&*store, key) == [pair], "a value as long as the limit must be listed");
        }
    }
}

/// `delete` needs no previous pair, and removes neither prefixes nor extensions of the key.
pub fn delete_removes_the_key_and_no_other(fixture: &dyn Fixture) {
    let store = fixture.open();
    for key in [&b"dir"[..], b"dir/", b"dir/file", b"di"] {
        put(&*store, key, b"value");
    }
    ok(store.delete(b"dir"), "delete");
    assert_refused!(store.get(b"dir"), Error::KeyNotFound, "get after delete");
    for key in [&b"dir/"[..], b"dir/file", b"di"] {
        assert!(ok(store.exists(key), "exists"), "delete must not take other keys with it");
    }
}

/// Deleting an absent key is no error, the first time and the second.
pub fn delete_of_an_absent_key_is_ok(fixture: &dyn Fixture) {
    let store = fixture.open();
    ok(store.delete(b"never there"), "delete in an empty store");
    put(&*store, b"key", b"value");
    ok(store.delete(b"key"), "delete");
    ok(store.delete(b"key"), "delete of a deleted key");
    assert_eq!(list(&*store, b""), [], "deleting an absent key must create nothing");
}
