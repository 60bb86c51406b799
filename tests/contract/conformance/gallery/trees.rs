//! Backends that delete other trees than they should.

use caskfile::{Error, Result, Store};

use super::{Calls, Fault, Handle, RIGHT};
use crate::conformance::memory::whole;

/// Deletes these keys only.
fn delete_those(handle: &Handle, prefix: &[u8], takes: impl Fn(&[u8]) -> bool) -> Result<u64> {
    let listed = handle.right.list(prefix)?;
    let keys = listed.iter().map(|pair| &pair.key[..]).filter(|key| takes(key));
    keys.map(|key| handle.right.delete(key).map(|()| 1)).sum()
}

/// The keys from a prefix up to the next one, as a careless backend computes it.
fn below_next(prefix: &[u8], next: impl Fn(u8) -> u8) -> impl Fn(&[u8]) -> bool {
    let from = prefix.to_vec();
    let mut to = from.clone();
    if let Some(last) = to.last_mut() {
        *last = next(*last);
    }
    move |key| from.as_slice() <= key && (to.is_empty() || key < to.as_slice())
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a tree is a directory",
        refused_by: "trees::delete_tree_takes_what_list_lists_and_says_how_many",
        says: "must return how many keys it deleted",
        calls: Calls {
            delete_tree: |handle, prefix| {
                let directory = [prefix.strip_suffix(b"/").unwrap_or(prefix), b"/"].concat();
                delete_those(handle, prefix, |key| key.starts_with(&directory))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "delete_tree leaves the key that equals the prefix",
        refused_by: "trees::delete_tree_takes_what_list_lists_and_says_how_many",
        says: "must return how many keys it deleted",
        calls: Calls { delete_tree: |handle, prefix| delete_those(handle, prefix, |key| key != prefix), ..RIGHT },
    },
    Fault {
        does: "delete_tree takes one key more",
        refused_by: "trees::delete_tree_takes_what_list_lists_and_says_how_many",
        says: "must take its keys and leave all others",
        calls: Calls {
            delete_tree: |handle, prefix| {
                let deleted = whole::delete_tree(&handle.right, prefix)?;
                let next = handle.right.list(b"")?.into_iter().find(|pair| pair.key.as_slice() > prefix);
                next.map_or(Ok(()), |pair| handle.right.delete(&pair.key))?;
                Ok(deleted)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "delete_tree counts no keys",
        refused_by: "trees::delete_tree_takes_what_list_lists_and_says_how_many",
        says: "must return how many keys it deleted",
        calls: Calls { delete_tree: |handle, prefix| whole::delete_tree(&handle.right, prefix).map(|_| 0), ..RIGHT },
    },
    Fault {
        does: "nothing to delete is an error",
        refused_by: "trees::delete_tree_without_a_match_is_ok",
        says: "delete_tree in an empty store must succeed, but gave Err(KeyNotFound)",
        calls: Calls {
            delete_tree: |handle, prefix| match whole::delete_tree(&handle.right, prefix)? {
                0 => Err(Error::KeyNotFound),
                deleted => Ok(deleted),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a long prefix is an error",
        refused_by: "trees::delete_tree_without_a_match_is_ok",
        says: "delete_tree without a match must succeed, but gave Err(KeyLength",
        calls: Calls {
            delete_tree: |handle, prefix| match prefix.len() {
                0..=1000 => whole::delete_tree(&handle.right, prefix),
                len => Err(Error::KeyLength { len, max: 1000 }),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the empty prefix has no keys",
        refused_by: "trees::delete_tree_of_the_empty_prefix_empties_the_store",
        says: "delete_tree of the empty prefix must take every key",
        calls: Calls {
            delete_tree: |handle, prefix| match prefix {
                b"" => Ok(0),
                prefix => whole::delete_tree(&handle.right, prefix),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the prefix after 0xff is 0",
        refused_by: "trees::delete_tree_of_0xff_bytes_takes_its_keys",
        says: "delete_tree of 0xff bytes must take its keys",
        calls: Calls {
            delete_tree: |handle, prefix| delete_those(handle, prefix, below_next(prefix, |last| last.wrapping_add(1))),
            ..RIGHT
        },
    },
    Fault {
        does: "the prefix after 0xff is 0xff",
        refused_by: "trees::delete_tree_of_0xff_bytes_takes_its_keys",
        says: "delete_tree of 0xff bytes must take its keys",
        calls: Calls {
            delete_tree: |handle, prefix| {
                delete_those(handle, prefix, below_next(prefix, |last| last.saturating_add(1)))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "delete_tree goes on after a close",
        refused_by: "trees::delete_tree_after_close_is_closed",
        says: "delete_tree after close must be Err(Error::Closed), but gave Ok(0)",
        calls: Calls {
            delete_tree: |handle, prefix| Ok(whole::delete_tree(&handle.right, prefix).unwrap_or_default()),
            ..RIGHT
        },
    },
];
