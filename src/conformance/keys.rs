//! Promises about keys.

use super::{Fixture, get, list, listed_keys, ok, put};
use crate::{Error, KvPair, Result, Store};

/// Keys are not text: each single byte is a key, zeros count, and no byte separates or ends a key.
pub fn a_key_is_any_bytes(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    keys.extend([&[0, 0][..], &[0xff, 0xff], b"a\0", b"a\0b", b"/", b"//", b"../a", b"\xc3\x28", b"A"].map(Vec::from));
    keys.sort();
    keys.dedup();
    for key in &keys {
        put(&*store, key, key);
    }
    for key in &keys {
        let pair = get(&*store, key);
        assert_eq!((&pair.key, &pair.value), (key, key), "two keys that differ in a byte must be two keys");
    }
    assert_eq!(listed_keys(&*store, b""), keys, "keys must be listed byte by byte as they were put");
}

/// Keys are compared byte by byte: neither letters' case nor how a text is composed, padded, escaped or read as a number or a path
/// makes two keys one. Keys that look like names of a backend's own are keys like any other.
pub fn keys_that_look_alike_are_different_keys(fixture: &dyn Fixture) {
    let store = fixture.open();
    // Each with the bytes that a careless comparison takes for the same.
    let groups: &[&[&[u8]]] = &[
        &[b"key", b"KEY", b"Key", b"kEY", b"key ", b" key", b"key\t", b"key\n", b"key\0", b"key\0\0", b"key."],
        &["\u{e4}".as_bytes(), "\u{c4}".as_bytes(), "a\u{308}".as_bytes(), "A\u{308}".as_bytes(), b"\xe4", b"\xc4"],
        &["\u{df}".as_bytes(), b"ss", b"SS", "\u{131}".as_bytes(), b"i", b"I", "\u{130}".as_bytes()],
        &[b"\xff", b"\xfe", "\u{fffd}".as_bytes(), b"\xed\xa0\x80", b"\xf0\x9f"],
        &[b"1", b"01", b"1.0", b"+1", b"0x1", b"10", b"1e0"],
        &[b"a/b", b"a//b", b"/a/b", b"a/b/", b"./a/b", b"a/./b", b"a/c/../b", b"a\\b", b"a%2fb", b"a%2Fb", b"a\0/b"],
        &[b"a+b", b"a b", b"a%20b", b"a=b", b"a:b", b"a,b", b"a;b", b"a\"b", b"a'b", b"a\\'b", b"a''b"],
        &[b".", b"..", b".hidden", b"_id", b"__meta__", b"$index", b"last_index", b"null", b"", b"~"],
    ];
    let mut keys: Vec<&[u8]> = groups.concat();
    keys.retain(|key| !key.is_empty());
    for (number, key) in keys.iter().enumerate() {
        let created = store.atomic_put(key, format!("value {number}").as_bytes(), None);
        ok(created, &format!("atomic_put that creates \"{}\" beside keys that look alike", key.escape_ascii()));
    }
    for (number, key) in keys.iter().enumerate() {
        let expected = (key.to_vec(), format!("value {number}").into_bytes());
        let pair = get(&*store, key);
        assert_eq!((pair.key, pair.value), expected, "keys that look alike must be different keys");
    }
    let gone: Vec<&[u8]> = keys.iter().copied().step_by(2).collect();
    for key in &gone {
        ok(store.delete(key), "delete");
    }
    keys.retain(|key| !gone.contains(key));
    keys.sort();
    assert_eq!(listed_keys(&*store, b""), keys, "deleting a key must leave the keys that look alike");
}

/// Every byte of a key counts, also the last one of a long key.
pub fn long_keys_that_differ_in_one_byte_are_different_keys(fixture: &dyn Fixture) {
    let store = fixture.open();
    let limit = limit_of_keys(&*store).unwrap_or(4096);
    let mut keys = Vec::new();
    for len in [limit, limit / 2, 255, 256, 257, 128, 64, 63, 16, 8].into_iter().filter(|len| (2..=limit).contains(len))
    {
        for at in [0, len / 2, len - 1] {
            let mut key = vec![b'k'; len];
            key[at] = b'l';
            keys.push(key);
        }
        keys.push(vec![b'k'; len]);
    }
    keys.sort();
    keys.dedup();
    for (number, key) in keys.iter().enumerate() {
        put(&*store, key, &number.to_le_bytes());
    }
    for (number, key) in keys.iter().enumerate() {
        let pair = get(&*store, key);
        let same = pair.key == *key && pair.value == number.to_le_bytes();
        assert!(same, "keys of {} bytes that differ in one byte must be different keys", key.len());
    }
    assert!(listed_keys(&*store, b"") == keys, "long keys must be listed in the order of all their bytes");
}

/// The limit is one of bytes, whatever they mean: characters that take several, invalid text and zeros.
pub fn the_limit_of_keys_counts_bytes(fixture: &dyn Fixture) {
    let store = fixture.open();
    let Some(limit) = limit_of_keys(&*store) else { return };
    for letter in
        ["k", "\u{e4}", "\u{20ac}", "\u{1f512}"].map(str::as_bytes).into_iter().chain([&b"\xff"[..], b"\0", b"/", b"%"])
    {
        let bytes: Vec<u8> = letter.iter().copied().cycle().take(limit + letter.len()).collect();
        let name = letter.escape_ascii();
        // In characters, both of these are shorter than the limit if a character takes more than one byte.
        for len in [limit + 1, limit + letter.len()] {
            for (call, result) in calls_with_key(&*store, &bytes[..len]) {
                assert_refused!(
                    result,
                    Error::KeyLength { len: said, max } if said == len && max == limit,
                    format_args!("{call} with a key of {len} bytes of \"{name}\", where the limit is {limit} bytes")
                );
            }
        }
        let longest = &bytes[..limit];
        put(&*store, longest, letter);
        let pair = get(&*store, longest);
        assert!(
            pair.key == longest && pair.value == letter,
            "a key of as many bytes of \"{name}\" as the limit must be kept"
        );
        assert!(list(&*store, longest) == [pair], "a key of as many bytes of \"{name}\" as the limit must be listed");
    }
}

/// A key has at least one byte, and every call refuses an empty one in the same way; the prefix of `list` may be empty.
pub fn every_call_refuses_an_empty_key(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"value");
    let before = list(&*store, b"");
    for (call, result) in calls_with_key(&*store, b"") {
        assert_refused!(result, Error::KeyLength { len: 0, .. }, format_args!("{call} with an empty key"));
    }
    assert_eq!(list(&*store, b""), before, "a call that refuses its key must write nothing");
}

/// A store may limit the length of keys. The error names the limit, which is exact.
pub fn a_key_at_the_limit_is_kept_and_a_longer_one_refused(fixture: &dyn Fixture) {
    let store = fixture.open();
    let long = vec![b'k'; 1 << 20];
    let limit = match store.put(&long, b"value") {
        Ok(()) => {
            assert_eq!(get(&*store, &long).value, b"value", "a long key that was taken must be kept");
            return;
        }
        Err(Error::KeyLength { len, max }) => {
            assert_eq!(len, long.len(), "the error about a long key must tell its length");
            assert!(0 < max && max < len, "the error about a long key must tell a limit below its length, not {max}");
            max
        }
        Err(other) => panic!("put with a long key must succeed or be Err(KeyLength), but gave {other:?}"),
    };
    for (call, result) in calls_with_key(&*store, &long[..=limit]) {
        assert_refused!(
            result,
            Error::KeyLength { len, max } if len == limit + 1 && max == limit,
            format_args!("{call} with a key of one byte above the limit of {limit}")
        );
    }
    assert_eq!(list(&*store, b""), [], "a call that refuses its key must write nothing");

    let longest = &long[..limit];
    put(&*store, longest, b"value");
    let pair = get(&*store, longest);
    assert!(pair.key == longest && pair.value == b"value", "a key as long as the limit must be kept");
    assert!(list(&*store, longest) == [pair], "a key as long as the limit must be listed");
}

/// The length of the longest key; `None` if it is more than a mebibyte.
fn limit_of_keys(store: &dyn Store) -> Option<usize> {
    match store.exists(&vec![b'k'; 1 << 20]) {
        Err(Error::KeyLength { max, .. }) => Some(max),
        _ => None,
    }
}

/// Every call that takes a key, with one key.
fn calls_with_key(store: &dyn Store, key: &[u8]) -> [(&'static str, Result<()>); 7] {
    let previous = KvPair::new(key, "value", 1);
    [
        ("put", store.put(key, b"value")),
        ("get", store.get(key).map(drop)),
        ("exists", store.exists(key).map(drop)),
        ("atomic_put that creates", store.atomic_put(key, b"value", None).map(drop)),
        ("atomic_put that replaces", store.atomic_put(key, b"value", Some(&previous)).map(drop)),
        ("atomic_delete", store.atomic_delete(key, Some(&previous))),
        ("delete", store.delete(key)),
    ]
}
