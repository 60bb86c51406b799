//! Backends with wrong values, deletions and numbers.

use caskfile::{Error, KvPair, Result, Store};
use std::sync::atomic::Ordering;

use super::{Calls, Fault, Handle, RIGHT};
use crate::conformance::memory::{MemoryStore, check_value};

/// Changes every value on its way in.
macro_rules! stored_as {
    ($change:expr) => {
        Calls {
            put: |handle, key, value| handle.right.put(key, &$change(value)),
            atomic_put: |handle, key, value, previous| handle.right.atomic_put(key, &$change(value), previous),
            ..RIGHT
        }
    };
}

/// Writes with a number that the fault chooses, given the number of the last write and the pair that is replaced.
fn put_numbered(handle: &Handle, key: &[u8], value: &[u8], number: fn(u64, u64) -> u64) -> Result<KvPair> {
    let mut pairs = handle.right.pairs_for(key)?;
    let old = pairs.values.get(key).map_or(0, |(_, index)| *index);
    pairs.last_index += 1;
    let index = number(pairs.last_index, old);
    pairs.values.insert(key.to_vec(), (value.to_vec(), index));
    Ok(KvPair::new(key, value, index))
}

macro_rules! numbered {
    ($number:expr) => {
        Calls {
            put: |handle, key, value| put_numbered(handle, key, value, $number).map(drop),
            atomic_put: |handle, key, value, previous| {
                match previous {
                    Some(previous) => handle.right.pairs_for(key)?.expect_unmodified(key, previous)?,
                    None if handle.right.exists(key)? => return Err(Error::KeyExists),
                    None => {}
                }
                put_numbered(handle, key, value, $number)
            },
            ..RIGHT
        }
    };
}

/// Gives the key a new number and leaves its value.
fn renew(handle: &Handle, key: &[u8]) {
    if let Ok(pair) = handle.right.get(key) {
        handle.right.put(key, &pair.value).unwrap();
    }
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a value that is too long is cut",
        refused_by: "pairs::a_value_at_the_limit_is_kept_and_a_longer_one_refused",
        says: "a long value that was taken must be kept",
        calls: stored_as!(|value: &[u8]| value[..value.len().min(1 << 20)].to_vec()),
    },
    Fault {
        does: "the limit of values is one byte less than the error says",
        refused_by: "pairs::a_value_at_the_limit_is_kept_and_a_longer_one_refused",
        says: "a write of a value as long as the limit must succeed",
        calls: Calls {
            put: |handle, key, value| match check_value(key, &[value, b"1"].concat()) {
                Err(_) => {
                    let (len, max) = (value.len(), MemoryStore::MAX_PAIR_LEN - key.len());
                    Err(Error::ValueTooLong { len, max })
                }
                Ok(()) => handle.right.put(key, value),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the limit of values does not count the key",
        refused_by: "pairs::a_value_at_the_limit_is_kept_and_a_longer_one_refused",
        says: "a write of a value of one byte above the limit of",
        calls: Calls {
            put: |handle, key, value| match handle.right.put(key, value) {
                Err(Error::ValueTooLong { len, .. }) => {
                    Err(Error::ValueTooLong { len, max: MemoryStore::MAX_PAIR_LEN - 2 * key.len() })
                }
                put => put,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "get returns the value in place of the key",
        refused_by: "pairs::get_returns_what_was_put",
        says: "get must return the key",
        calls: Calls {
            get: |handle, key| handle.right.get(key).map(|pair| KvPair { key: pair.value.clone(), ..pair }),
            ..RIGHT
        },
    },
    Fault {
        does: "an absent key is an empty pair",
        refused_by: "pairs::get_of_an_absent_key_is_key_not_found",
        says: "get in an empty store must be Err(Error::KeyNotFound)",
        calls: Calls {
            get: |handle, key| match handle.right.get(key) {
                Err(Error::KeyNotFound) => Ok(KvPair::new(key, "", 0)),
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "get finds the next key",
        refused_by: "pairs::get_of_an_absent_key_is_key_not_found",
        says: "get of a key that is only a prefix of another must be",
        calls: Calls {
            get: |handle, key| {
                let listed = handle.right.list(b"")?;
                let next = listed.into_iter().find(|pair| pair.key.as_slice() >= key);
                next.map(|pair| KvPair { key: key.to_vec(), ..pair }).ok_or(Error::KeyNotFound)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "exists looks for a prefix",
        refused_by: "pairs::exists_finds_present_keys_only",
        says: "a key must not exist because a longer or a shorter one does",
        calls: Calls { exists: |handle, key| handle.right.list(key).map(|listed| !listed.is_empty()), ..RIGHT },
    },
    Fault {
        does: "exists is false for an empty value",
        refused_by: "pairs::exists_finds_present_keys_only",
        says: "a key with an empty value must exist",
        calls: Calls {
            exists: |handle, key| Ok(handle.right.exists(key)? && !handle.right.get(key)?.value.is_empty()),
            ..RIGHT
        },
    },
    Fault {
        does: "put leaves the end of a longer value",
        refused_by: "pairs::put_replaces_any_value",
        says: "put must replace the value",
        calls: Calls {
            put: |handle, key, value| {
                let mut whole = handle.right.get(key).map_or(Vec::new(), |pair| pair.value);
                whole.splice(..value.len().min(whole.len()), value.iter().copied());
                handle.right.put(key, &whole)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "put does not set a key that was deleted",
        refused_by: "pairs::put_replaces_any_value",
        says: "get of a key that is there must succeed",
        calls: Calls {
            put: |handle, key, value| match handle.own.pairs.lock().unwrap().contains_key(key) {
                true => Ok(()),
                false => handle.right.put(key, value),
            },
            delete: |handle, key| {
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), KvPair::new(key, "", 0));
                handle.right.delete(key)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "put gives the next key a new number",
        refused_by: "pairs::put_leaves_other_keys_as_they_are",
        says: "writing one key must leave value and last_index of all others",
        calls: Calls {
            put: |handle, key, value| {
                handle.right.put(key, value)?;
                let next = handle.right.list(b"")?.into_iter().find(|pair| pair.key.as_slice() > key);
                next.map_or(Ok(()), |next| handle.right.put(&next.key, &next.value))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "an empty value deletes",
        refused_by: "pairs::an_empty_value_is_a_value",
        says: "get of a key that is there must succeed, but gave Err(KeyNotFound)",
        calls: Calls {
            put: |handle, key, value| {
                if value.is_empty() { handle.right.delete(key) } else { handle.right.put(key, value) }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a key with an empty value can be created",
        refused_by: "pairs::an_empty_value_is_a_value",
        says: "creating a key that holds an empty value must be Err(Error::KeyExists)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let old = if previous.is_none() { handle.right.get(key).ok() } else { None };
                let empty = old.filter(|old| old.value.is_empty());
                handle.right.atomic_put(key, value, empty.as_ref().or(previous))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "values end at a zero",
        refused_by: "pairs::a_value_is_any_bytes",
        says: "a value must come back byte by byte",
        calls: stored_as!(|value: &[u8]| value.split(|byte| *byte == 0).next().unwrap().to_vec()),
    },
    Fault {
        does: "blanks around values are cut",
        refused_by: "pairs::a_value_is_any_bytes",
        says: "a value must come back byte by byte",
        calls: stored_as!(|value: &[u8]| value.trim_ascii().to_vec()),
    },
    Fault {
        does: "values are text",
        refused_by: "pairs::a_value_is_any_bytes",
        says: "a value must come back byte by byte",
        calls: stored_as!(|value: &[u8]| String::from_utf8_lossy(value).into_owned().into_bytes()),
    },
    Fault {
        does: "the value null is no value",
        refused_by: "pairs::a_value_is_any_bytes",
        says: "a value must come back byte by byte",
        calls: stored_as!(|value: &[u8]| if value == b"null" { Vec::new() } else { value.to_vec() }),
    },
    Fault {
        does: "lengths of values have 16 bits",
        refused_by: "pairs::a_value_of_any_length_comes_back_whole",
        says: "a value of 65536 bytes must come back whole",
        calls: stored_as!(|value: &[u8]| value[..value.len() % (1 << 16)].to_vec()),
    },
    Fault {
        does: "values of a whole page lose a byte",
        refused_by: "pairs::a_value_of_any_length_comes_back_whole",
        says: "a value of 4096 bytes must come back whole",
        calls: stored_as!(|value: &[u8]| value[..value.len() - usize::from(value.len() == 4096)].to_vec()),
    },
    Fault {
        does: "values end after 200,000 bytes",
        refused_by: "pairs::a_value_of_a_mebibyte_comes_back_whole",
        says: "a value of 1 MiB must come back whole",
        calls: stored_as!(|value: &[u8]| value[..value.len().min(200_000)].to_vec()),
    },
    Fault {
        does: "list cuts large values",
        refused_by: "pairs::a_value_of_a_mebibyte_comes_back_whole",
        says: "a large value must be listed whole",
        calls: Calls {
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                listed.iter_mut().for_each(|pair| pair.value.truncate(1 << 19));
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "delete leaves an empty value",
        refused_by: "pairs::delete_removes_the_key_and_no_other",
        says: "get after delete must be Err(Error::KeyNotFound)",
        calls: Calls { delete: |handle, key| handle.right.put(key, b""), ..RIGHT },
    },
    Fault {
        does: "delete takes all keys under the key",
        refused_by: "pairs::delete_removes_the_key_and_no_other",
        says: "delete must not take other keys with it",
        calls: Calls {
            delete: |handle, key| {
                handle.right.delete(key)?;
                handle.right.list(key)?.iter().try_for_each(|pair| handle.right.delete(&pair.key))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "delete of an absent key is an error",
        refused_by: "pairs::delete_of_an_absent_key_is_ok",
        says: "delete in an empty store must succeed, but gave Err(KeyNotFound)",
        calls: Calls {
            delete: |handle, key| {
                if handle.right.exists(key)? { handle.right.delete(key) } else { Err(Error::KeyNotFound) }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the second delete puts the key back",
        refused_by: "pairs::delete_of_an_absent_key_is_ok",
        says: "deleting an absent key must create nothing",
        calls: Calls {
            delete: |handle, key| {
                if handle.right.exists(key)? { handle.right.delete(key) } else { handle.right.put(key, b"") }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "each key counts for itself",
        refused_by: "index::last_index_grows_with_each_write_to_any_key",
        says: "last_index must grow with every write",
        calls: numbered!(|_, old| old + 1),
    },
    Fault {
        does: "every fifth write goes back",
        refused_by: "index::last_index_grows_with_each_write_to_any_key",
        says: "last_index must grow with every write",
        calls: numbered!(|next, _| if next % 5 == 0 { next - 2 } else { next }),
    },
    Fault {
        does: "the next number is one above the highest that is there",
        refused_by: "index::last_index_grows_across_delete_and_re_create",
        says: "last_index must grow with every write",
        calls: Calls {
            delete: |handle, key| {
                handle.right.delete(key)?;
                let mut pairs = handle.right.pairs()?;
                pairs.last_index = pairs.values.values().map(|(_, index)| *index).max().unwrap_or(0);
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "numbers have a byte",
        refused_by: "index::no_two_pairs_share_a_last_index",
        says: "last_index must grow with every write, but 255 was followed by",
        calls: numbered!(|next, _| next % 256),
    },
    Fault {
        does: "list gives all pairs the last number",
        refused_by: "index::no_two_pairs_share_a_last_index",
        says: "no two pairs may share a last_index",
        calls: Calls {
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                let last = handle.right.pairs()?.last_index;
                listed.iter_mut().for_each(|pair| pair.last_index = last);
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "equal values write nothing",
        refused_by: "index::the_same_value_again_gets_a_new_last_index",
        says: "last_index must grow with every write",
        calls: Calls {
            put: |handle, key, value| match handle.right.get(key) {
                Ok(pair) if pair.value == value => Ok(()),
                _ => handle.right.put(key, value),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap of equal values writes nothing",
        refused_by: "index::the_same_value_again_gets_a_new_last_index",
        says: "last_index must grow with every write",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match (handle.right.get(key), previous) {
                (Ok(pair), Some(previous)) if pair.value == value && pair == *previous => Ok(pair),
                _ => handle.right.atomic_put(key, value, previous),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "get gives a new number",
        refused_by: "index::last_index_stays_while_nothing_is_written",
        says: "reading a pair must leave its last_index",
        calls: Calls {
            get: |handle, key| {
                renew(handle, key);
                handle.right.get(key)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "exists gives a new number",
        refused_by: "index::last_index_stays_while_nothing_is_written",
        says: "reading a pair must leave its last_index",
        calls: Calls {
            exists: |handle, key| {
                renew(handle, key);
                handle.right.exists(key)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "list gives a new number",
        refused_by: "index::last_index_stays_while_nothing_is_written",
        says: "listing a pair must leave its last_index|reading a pair must leave its last_index",
        calls: Calls {
            list: |handle, prefix| {
                let listed = handle.right.list(prefix)?;
                listed.iter().for_each(|pair| renew(handle, &pair.key));
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a refused swap gives a new number",
        refused_by: "index::last_index_stays_while_nothing_is_written",
        says: "last_index must stay while the key is not written",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let result = handle.right.atomic_put(key, value, previous);
                if result.is_err() {
                    renew(handle, key);
                }
                result
            },
            ..RIGHT
        },
    },
    Fault {
        does: "every fiftieth put is lost",
        refused_by: "calls::random_calls_agree_with_a_map",
        says: "must give",
        calls: Calls {
            put: |handle, key, value| match handle.house.notes.count.fetch_add(1, Ordering::Relaxed) % 50 {
                49 if handle.right.exists(key)? => {
                    renew(handle, key);
                    Ok(())
                }
                _ => handle.right.put(key, value),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a delete takes the key that goes on with a zero",
        refused_by: "calls::random_calls_agree_with_a_map",
        says: "must give Ok([",
        calls: Calls {
            delete: |handle, key| {
                handle.right.delete(&[key, b"\0"].concat())?;
                handle.right.delete(key)
            },
            ..RIGHT
        },
    },
];
