//! Promises about keys.

use super::{Fixture, get, list, listed_keys, put};
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
