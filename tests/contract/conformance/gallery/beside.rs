//! Backends whose stores are not apart.

use std::sync::Arc;

use caskfile::{Result, Store};

use super::{Calls, Fault, Handle, RIGHT};
use crate::conformance::memory::{MemoryStore, locks, whole};

/// A handle of the store beside, which is closed with the other.
fn beside(handle: &Handle) -> MemoryStore {
    MemoryStore { memory: Arc::clone(&handle.house.beside), closed: Arc::clone(&handle.right.closed) }
}

/// The keys of all stores are in one range, so the last prefix of a store ends in the next one.
fn delete_beyond(handle: &Handle, prefix: &[u8], reaches: fn(&[u8]) -> bool) -> Result<u64> {
    let deleted = whole::delete_tree(&handle.right, prefix)?;
    match reaches(prefix) {
        true => Ok(deleted + whole::delete_tree(&beside(handle), b"")?),
        false => Ok(deleted),
    }
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "the buckets are one",
        refused_by: "beside::writes_leave_a_store_beside_as_it_is",
        says: "a store must list nothing of a store beside",
        calls: Calls {
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                listed.extend(beside(handle).list(prefix)?);
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a delete is of all buckets",
        refused_by: "beside::writes_leave_a_store_beside_as_it_is",
        says: "a write must leave a store beside as it is",
        calls: Calls {
            delete: |handle, key| {
                beside(handle).delete(key)?;
                handle.right.delete(key)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "delete_tree of the empty prefix is of all buckets",
        refused_by: "beside::delete_tree_leaves_a_store_beside_as_it_is",
        says: "delete_tree must take the keys of its own store",
        calls: Calls { delete_tree: |handle, prefix| delete_beyond(handle, prefix, <[u8]>::is_empty), ..RIGHT },
    },
    Fault {
        does: "delete_tree of 0xff goes on in the next bucket",
        refused_by: "beside::delete_tree_leaves_a_store_beside_as_it_is",
        says: "delete_tree must take the keys of its own store",
        calls: Calls {
            delete_tree: |handle, prefix| delete_beyond(handle, prefix, |prefix| prefix == b"\xff"),
            ..RIGHT
        },
    },
    Fault {
        does: "a watch is of the key in another bucket",
        refused_by: "beside::a_watch_reports_no_write_to_a_store_beside",
        says: "a watch must not begin with a pair of a store beside",
        calls: Calls { watch: |handle, key| whole::watch(&beside(handle), key), ..RIGHT },
    },
    Fault {
        does: "a tree feed is of another bucket",
        refused_by: "beside::a_tree_feed_reports_no_write_to_a_store_beside",
        says: "a tree feed must list nothing of a store beside",
        calls: Calls { watch_tree: |handle, prefix| whole::watch_tree(&beside(handle), prefix), ..RIGHT },
    },
    Fault {
        does: "the locks of all buckets are one",
        refused_by: "beside::a_lock_keeps_out_none_of_a_store_beside",
        says: "try_lock must take a lock that is free",
        calls: Calls {
            new_lock: |handle, key, options| Ok(Box::new(locks::new_lock(&beside(handle), key, options)?)),
            ..RIGHT
        },
    },
];
