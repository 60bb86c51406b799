//! Backends with wrong compare-and-swap.

use caskfile::{Error, KvPair, Result, Store};

use super::{Calls, Fault, Handle, RIGHT};

/// Compares the pair that is there with the previous one in the fault's way, for swaps and deletions.
fn checked(handle: &Handle, key: &[u8], previous: &KvPair, same: fn(&KvPair, &KvPair) -> bool) -> Result<()> {
    if same(&handle.right.get(key)?, previous) { Ok(()) } else { Err(Error::KeyModified) }
}

macro_rules! compared_by {
    ($same:expr) => {
        Calls {
            atomic_put: |handle, key, value, previous| match previous {
                None => handle.right.atomic_put(key, value, None),
                Some(previous) => {
                    checked(handle, key, previous, $same)?;
                    handle.right.put(key, value)?;
                    handle.right.get(key)
                }
            },
            atomic_delete: |handle, key, previous| match previous {
                None => handle.right.atomic_delete(key, None),
                Some(previous) => {
                    checked(handle, key, previous, $same)?;
                    handle.right.delete(key)
                }
            },
            ..RIGHT
        }
    };
}

/// Replaces an error of a swap.
macro_rules! swap_gives {
    ($change:expr) => {
        Calls {
            atomic_put: |handle, key, value, previous| handle.right.atomic_put(key, value, previous).or_else($change),
            ..RIGHT
        }
    };
}

/// What a create returns if the key is there.
fn overwrite(handle: &Handle, key: &[u8], value: &[u8]) -> Result<KvPair> {
    handle.right.put(key, value)?;
    handle.right.get(key)
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a create returns no number",
        refused_by: "atomic::atomic_put_without_previous_creates_the_key",
        says: "what atomic_put returns must be what get returns",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let pair = handle.right.atomic_put(key, value, previous)?;
                Ok(if previous.is_none() { KvPair { last_index: 0, ..pair } } else { pair })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a deleted key cannot be created again",
        refused_by: "atomic::atomic_put_without_previous_creates_the_key",
        says: "atomic_put that creates must succeed, but gave Err(KeyExists)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match previous.is_none()
                && handle.own.pairs.lock().unwrap().contains_key(key)
            {
                true => Err(Error::KeyExists),
                false => handle.right.atomic_put(key, value, previous),
            },
            delete: |handle, key| {
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), KvPair::new(key, "", 0));
                handle.right.delete(key)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a create overwrites",
        refused_by: "atomic::atomic_put_without_previous_refuses_a_key_that_exists",
        says: "creating a key twice must be Err(Error::KeyExists)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match previous {
                None => overwrite(handle, key, value),
                previous => handle.right.atomic_put(key, value, previous),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a create of the value that is there succeeds",
        refused_by: "atomic::atomic_put_without_previous_refuses_a_key_that_exists",
        says: "creating a key with the same value must be Err(Error::KeyExists)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match handle.right.get(key) {
                Ok(pair) if previous.is_none() && pair.value == value => Ok(pair),
                _ => handle.right.atomic_put(key, value, previous),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a create of a key that exists is KeyModified",
        refused_by: "atomic::atomic_put_without_previous_refuses_a_key_that_exists",
        says: "creating a key twice must be Err(Error::KeyExists), but gave Err(KeyModified)",
        calls: swap_gives!(|error| Err(if matches!(error, Error::KeyExists) { Error::KeyModified } else { error })),
    },
    Fault {
        does: "a refused create writes",
        refused_by: "atomic::atomic_put_without_previous_refuses_a_key_that_exists",
        says: "a refused atomic_put must write nothing",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let result = handle.right.atomic_put(key, value, previous);
                if matches!(result, Err(Error::KeyExists)) {
                    handle.right.put(key, value)?;
                }
                result
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap returns the old pair",
        refused_by: "atomic::atomic_put_with_the_current_pair_replaces_it",
        says: "atomic_put must return the new pair",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let new = handle.right.atomic_put(key, value, previous)?;
                Ok(previous.cloned().unwrap_or(new))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap creates an absent key",
        refused_by: "atomic::atomic_put_with_previous_of_an_absent_key_is_key_not_found",
        says: "swapping a key that never was must be Err(Error::KeyNotFound)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match handle.right.atomic_put(key, value, previous) {
                Err(Error::KeyNotFound) => overwrite(handle, key, value),
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap of an absent key is KeyModified",
        refused_by: "atomic::atomic_put_with_previous_of_an_absent_key_is_key_not_found",
        says: "swapping a key that never was must be Err(Error::KeyNotFound), but gave Err(KeyModified)",
        calls: swap_gives!(|error| Err(if matches!(error, Error::KeyNotFound) { Error::KeyModified } else { error })),
    },
    Fault {
        does: "pairs are compared by value",
        refused_by: "atomic::atomic_put_with_a_stale_pair_is_key_modified",
        says: "swapping after a put of the same must be Err(Error::KeyModified)",
        calls: compared_by!(|there, previous| there.value == previous.value),
    },
    Fault {
        does: "a stale swap is KeyExists",
        refused_by: "atomic::atomic_put_with_a_stale_pair_is_key_modified",
        says: "must be Err(Error::KeyModified), but gave Err(KeyExists)",
        calls: swap_gives!(|error| Err(if matches!(error, Error::KeyModified) { Error::KeyExists } else { error })),
    },
    Fault {
        does: "atomic_delete only answers",
        refused_by: "atomic::atomic_delete_with_the_current_pair_deletes_it",
        says: "get after atomic_delete must be Err(Error::KeyNotFound)",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                handle.right.pairs_for(key)?.expect_unmodified(key, previous.ok_or(Error::PreviousNotSpecified)?)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "atomic_delete takes all keys under the key",
        refused_by: "atomic::atomic_delete_with_the_current_pair_deletes_it",
        says: "atomic_delete must leave other keys",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                handle.right.atomic_delete(key, previous)?;
                handle.right.list(key)?.iter().try_for_each(|pair| handle.right.delete(&pair.key))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "atomic_delete without a pair deletes",
        refused_by: "atomic::atomic_delete_without_previous_is_refused",
        says: "atomic_delete(absent key, None) must be Err(Error::PreviousNotSpecified)",
        calls: Calls {
            atomic_delete: |handle, key, previous| match previous {
                None => handle.right.delete(key),
                previous => handle.right.atomic_delete(key, previous),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "atomic_delete without a pair looks for the key first",
        refused_by: "atomic::atomic_delete_without_previous_is_refused",
        says: "atomic_delete(absent key, None) must be Err(Error::PreviousNotSpecified), but gave Err(KeyNotFound)",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                handle.right.get(key)?;
                handle.right.atomic_delete(key, previous)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "atomic_delete of an absent key is ok",
        refused_by: "atomic::atomic_delete_of_an_absent_key_is_key_not_found",
        says: "deleting a key that never was must be Err(Error::KeyNotFound)",
        calls: Calls {
            atomic_delete: |handle, key, previous| match handle.right.atomic_delete(key, previous) {
                Err(Error::KeyNotFound) => Ok(()),
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "atomic_delete compares nothing",
        refused_by: "atomic::atomic_delete_with_a_stale_pair_is_key_modified",
        says: "deleting with a stale pair must be Err(Error::KeyModified), but gave Ok",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                let previous = previous.ok_or(Error::PreviousNotSpecified)?;
                let there = handle.right.get(key)?;
                handle.right.atomic_delete(key, Some(&KvPair { last_index: there.last_index, ..previous.clone() }))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a key that is created again has its old number",
        refused_by: "atomic::a_pair_stays_stale_after_delete_and_re_create",
        says: "after a re-create must be Err(Error::KeyModified)",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                handle.right.atomic_delete(key, previous)?;
                let old = previous.unwrap().clone();
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), old);
                Ok(())
            },
            atomic_put: |handle, key, value, previous| {
                let mut pair = handle.right.atomic_put(key, value, previous)?;
                if let Some(old) = handle.own.pairs.lock().unwrap().remove(key) {
                    pair.last_index = old.last_index;
                    handle.right.pairs()?.values.insert(key.to_vec(), (value.to_vec(), old.last_index));
                }
                Ok(pair)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "pairs are compared whole",
        refused_by: "atomic::only_last_index_of_the_previous_pair_is_compared",
        says: "atomic_put with a pair made by hand must succeed, but gave Err(KeyModified)",
        calls: compared_by!(|there, previous| there == previous),
    },
    Fault {
        does: "a swap writes to the key of the pair",
        refused_by: "atomic::only_last_index_of_the_previous_pair_is_compared",
        says: "the key that is written must be the argument",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match previous {
                None => handle.right.atomic_put(key, value, None),
                Some(previous) => {
                    handle.right.pairs_for(key)?.expect_unmodified(key, previous)?;
                    overwrite(handle, &previous.key, value)
                }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "numbers are compared in 32 bits",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "swapping with the index 0x100000002 in place of 0x2 must be Err(Error::KeyModified)",
        calls: compared_by!(|there, previous| there.last_index as u32 == previous.last_index as u32),
    },
    Fault {
        does: "numbers are compared without their highest bit",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "swapping with the index 0x8000000000000002 in place of 0x2",
        calls: compared_by!(|there, previous| there.last_index << 1 == previous.last_index << 1),
    },
    Fault {
        does: "numbers are compared in 53 bits",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "swapping with the index 0x20000000000002 in place of 0x2",
        calls: compared_by!(|there, previous| there.last_index << 11 == previous.last_index << 11),
    },
    Fault {
        does: "a higher number is taken",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "must be Err(Error::KeyModified)",
        calls: compared_by!(|there, previous| there.last_index <= previous.last_index),
    },
    Fault {
        does: "the number 0 fits every pair",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "swapping with the index 0x0 in place of 0x2",
        calls: compared_by!(|there, previous| [0, there.last_index].contains(&previous.last_index)),
    },
    Fault {
        does: "the highest number fits every pair",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "swapping with the index 0xffffffffffffffff in place of 0x2",
        calls: compared_by!(|there, previous| [u64::MAX, there.last_index].contains(&previous.last_index)),
    },
    Fault {
        does: "a pair of the number 0 creates",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "swapping an absent key with the index 0 must be Err(Error::KeyNotFound)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match handle.right.atomic_put(key, value, previous) {
                Err(Error::KeyNotFound) if previous.is_some_and(|pair| pair.last_index == 0) => {
                    overwrite(handle, key, value)
                }
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap takes the number of any pair",
        refused_by: "atomic::any_other_last_index_is_refused",
        says: "must be Err(Error::KeyModified)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match previous {
                Some(previous) if handle.right.list(b"")?.iter().any(|pair| pair.last_index == previous.last_index) => {
                    overwrite(handle, key, value)
                }
                previous => handle.right.atomic_put(key, value, previous),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a refused deletion deletes",
        refused_by: "index::last_index_stays_while_nothing_is_written",
        says: "get of a key that is there must succeed, but gave Err(KeyNotFound)",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                let result = handle.right.atomic_delete(key, previous);
                if matches!(result, Err(Error::KeyModified)) {
                    handle.right.delete(key)?;
                }
                result
            },
            ..RIGHT
        },
    },
];
