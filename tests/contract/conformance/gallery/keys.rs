//! Backends that take different keys for the same, or refuse the wrong ones.

use caskfile::{Error, Store};

use super::{Calls, Fault, RIGHT};
use crate::conformance::memory::MemoryStore;

/// Changes every key on its way in. Keys that become empty stay as they are.
macro_rules! found_as {
    ($change:expr) => {
        Calls {
            put: |handle, key, value| handle.right.put(&changed(key, $change), value),
            get: |handle, key| handle.right.get(&changed(key, $change)),
            exists: |handle, key| handle.right.exists(&changed(key, $change)),
            atomic_put: |handle, key, value, previous| handle.right.atomic_put(&changed(key, $change), value, previous),
            atomic_delete: |handle, key, previous| handle.right.atomic_delete(&changed(key, $change), previous),
            delete: |handle, key| handle.right.delete(&changed(key, $change)),
            ..RIGHT
        }
    };
}

fn changed(key: &[u8], change: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let changed = change(key);
    if changed.is_empty() { key.to_vec() } else { changed }
}

/// The key as text, changed, or as it is if it is no text.
fn text(key: &[u8], change: fn(&str) -> String) -> Vec<u8> {
    std::str::from_utf8(key).map_or(key.to_vec(), |text| change(text).into_bytes())
}

/// Refuses keys by a length that the fault counts, and names a limit of its own.
macro_rules! limited {
    ($len:expr, $limit:expr, $named:expr) => {
        Calls {
            put: |handle, key, value| {
                refused(key, $len, $limit, $named).map_or_else(|| handle.right.put(key, value), Err)
            },
            get: |handle, key| refused(key, $len, $limit, $named).map_or_else(|| handle.right.get(key), Err),
            exists: |handle, key| refused(key, $len, $limit, $named).map_or_else(|| handle.right.exists(key), Err),
            atomic_put: |handle, key, value, previous| {
                let refused = refused(key, $len, $limit, $named);
                refused.map_or_else(|| handle.right.atomic_put(key, value, previous), Err)
            },
            atomic_delete: |handle, key, previous| {
                let refused = refused(key, $len, $limit, $named);
                refused.map_or_else(|| handle.right.atomic_delete(key, previous), Err)
            },
            delete: |handle, key| refused(key, $len, $limit, $named).map_or_else(|| handle.right.delete(key), Err),
            ..RIGHT
        }
    };
}

fn refused(key: &[u8], len: fn(&[u8]) -> usize, limit: usize, named: usize) -> Option<Error> {
    (len(key) > limit).then_some(Error::KeyLength { len: len(key), max: named })
}

const MAX: usize = MemoryStore::MAX_KEY_LEN;
/// Below that of the backend, so that a fault's own limit comes first.
const LOW: usize = 240;

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "keys end at a zero",
        refused_by: "keys::a_key_is_any_bytes",
        says: "two keys that differ in a byte must be two keys",
        calls: found_as!(|key| key.split(|byte| *byte == 0).next().unwrap().to_vec()),
    },
    Fault {
        does: "keys are text",
        refused_by: "keys::a_key_is_any_bytes",
        says: "two keys that differ in a byte must be two keys",
        calls: found_as!(|key| String::from_utf8_lossy(key).into_owned().into_bytes()),
    },
    Fault {
        does: "the key / is a key of the backend's own",
        refused_by: "keys::a_key_is_any_bytes",
        says: "keys must be listed byte by byte as they were put",
        calls: Calls {
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                listed.retain(|pair| pair.key != b"/");
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "letters' case does not count in keys",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "beside keys that look alike must succeed, but gave Err(KeyExists)",
        calls: found_as!(|key| key.to_ascii_lowercase()),
    },
    Fault {
        does: "case does not count in letters beyond ASCII",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "atomic_put that creates \"\\xc3\\x84\" beside keys that look alike must succeed",
        calls: found_as!(|key| text(key, |text| if text.is_ascii() { text.to_owned() } else { text.to_lowercase() })),
    },
    Fault {
        does: "composed letters are one with their parts",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "beside keys that look alike must succeed, but gave Err(KeyExists)",
        calls: found_as!(|key| text(key, |text| text.replace("a\u{308}", "\u{e4}"))),
    },
    Fault {
        does: "blanks around keys are cut",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "beside keys that look alike must succeed, but gave Err(KeyExists)",
        calls: found_as!(|key| key.trim_ascii().to_vec()),
    },
    Fault {
        does: "keys that are numbers are compared as numbers",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "atomic_put that creates \"01\" beside keys that look alike",
        calls: found_as!(|key| text(key, |text| text
            .parse::<u64>()
            .map_or(text.to_owned(), |number| number.to_string()))),
    },
    Fault {
        does: "keys are paths",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "atomic_put that creates \"a//b\" beside keys that look alike",
        calls: found_as!(|key| text(key, |text| text.replace("//", "/"))),
    },
    Fault {
        does: "escapes in keys are read",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "atomic_put that creates \"a%2fb\" beside keys that look alike",
        calls: found_as!(|key| text(key, |text| text.replace("%2f", "/").replace("%20", " "))),
    },
    Fault {
        does: "keys that begin with a dot are hidden",
        refused_by: "keys::keys_that_look_alike_are_different_keys",
        says: "deleting a key must leave the keys that look alike",
        calls: Calls {
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                listed.retain(|pair| !pair.key.starts_with(b"."));
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "keys count up to their 255th byte",
        refused_by: "keys::long_keys_that_differ_in_one_byte_are_different_keys",
        says: "bytes that differ in one byte must be different keys",
        calls: found_as!(|key| if key.len() > MAX { key.to_vec() } else { key[..key.len().min(255)].to_vec() }),
    },
    Fault {
        does: "keys are known by length and ends",
        refused_by: "keys::long_keys_that_differ_in_one_byte_are_different_keys",
        says: "bytes that differ in one byte must be different keys",
        calls: found_as!(|key| match key.len() {
            16..=MAX => [&key[..4], &key[key.len() - 4..], &key.len().to_le_bytes()].concat(),
            _ => key.to_vec(),
        }),
    },
    Fault {
        does: "an empty key is a key",
        refused_by: "keys::every_call_refuses_an_empty_key",
        says: "put with an empty key must be Err(Error::KeyLength",
        calls: Calls {
            put: |handle, key, value| handle.right.pairs().map(|mut pairs| drop(pairs.set(key, value))),
            ..RIGHT
        },
    },
    Fault {
        does: "an empty key is an absent one",
        refused_by: "keys::every_call_refuses_an_empty_key",
        says: "exists with an empty key must be Err(Error::KeyLength",
        calls: Calls {
            exists: |handle, key| if key.is_empty() { Ok(false) } else { handle.right.exists(key) },
            ..RIGHT
        },
    },
    Fault {
        does: "an empty key may be deleted",
        refused_by: "keys::every_call_refuses_an_empty_key",
        says: "delete with an empty key must be Err(Error::KeyLength",
        calls: Calls { delete: |handle, key| if key.is_empty() { Ok(()) } else { handle.right.delete(key) }, ..RIGHT },
    },
    Fault {
        does: "the limit is named one byte too high",
        refused_by: "keys::a_key_at_the_limit_is_kept_and_a_longer_one_refused",
        says: "put must succeed, but gave Err(KeyLength|a key of one byte above the limit",
        calls: limited!(|key| key.len(), LOW - 1, LOW),
    },
    Fault {
        does: "the limit is named one byte too low",
        refused_by: "keys::a_key_at_the_limit_is_kept_and_a_longer_one_refused",
        says: "put with a key of one byte above the limit of 239 must be",
        calls: limited!(|key| key.len(), LOW, LOW - 1),
    },
    Fault {
        does: "only put knows the limit",
        refused_by: "keys::a_key_at_the_limit_is_kept_and_a_longer_one_refused",
        says: "get with a key of one byte above the limit of 240 must be",
        calls: Calls {
            put: |handle, key, value| {
                refused(key, |key| key.len(), LOW, LOW).map_or_else(|| handle.right.put(key, value), Err)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the limit counts characters",
        refused_by: "keys::the_limit_of_keys_counts_bytes",
        says: "bytes of \"\\xc3\\xa4\", where the limit is 240 bytes must be",
        calls: limited!(|key| std::str::from_utf8(key).map_or(key.len(), |text| text.chars().count()), LOW, LOW),
    },
    Fault {
        does: "the limit counts units of UTF-16",
        refused_by: "keys::the_limit_of_keys_counts_bytes",
        says: "where the limit is 240 bytes must be",
        calls: limited!(|key| String::from_utf8_lossy(key).encode_utf16().count(), LOW, LOW),
    },
    Fault {
        does: "the limit counts escaped bytes",
        refused_by: "keys::the_limit_of_keys_counts_bytes",
        says: "must be|must succeed",
        calls: limited!(|key| key.escape_ascii().count(), LOW, LOW),
    },
    Fault {
        does: "errors count the characters of a long key",
        refused_by: "keys::the_limit_of_keys_counts_bytes",
        says: "with a key of 241 bytes of \"\\xc3\\xa4\", where the limit is 240 bytes must be",
        calls: Calls {
            get: |handle, key| match key.len() {
                0..=LOW => handle.right.get(key),
                _ => Err(Error::KeyLength { len: String::from_utf8_lossy(key).chars().count(), max: LOW }),
            },
            ..limited!(|key| key.len(), LOW, LOW)
        },
    },
];
