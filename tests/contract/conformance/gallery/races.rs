//! Backends whose threads or handles disturb each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use caskfile::{Error, KvPair, Result, Store};

use super::{Calls, Fault, Handle, RIGHT};

/// What comes between two steps that should be one. Now and then it takes so long that another thread comes in for certain.
fn pause() {
    static PAUSES: AtomicU64 = AtomicU64::new(0);
    if PAUSES.fetch_add(1, Ordering::Relaxed) % 16 == 0 {
        thread::sleep(Duration::from_micros(20));
    }
}

/// The condition of a write, looked at under the lock.
fn expect(handle: &Handle, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
    let pairs = handle.right.pairs_for(key)?;
    match previous {
        Some(previous) => pairs.expect_unmodified(key, previous),
        None if pairs.values.contains_key(key) => Err(Error::KeyExists),
        None => Ok(()),
    }
}

/// Check and set, with the lock released between them.
fn swap_in_two_steps(handle: &Handle, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
    expect(handle, key, previous)?;
    pause();
    Ok(handle.right.pairs()?.set(key, value))
}

fn delete_in_two_steps(handle: &Handle, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
    expect(handle, key, Some(previous.ok_or(Error::PreviousNotSpecified)?))?;
    pause();
    handle.right.delete(key)
}

/// A write whose number is drawn without a lock.
fn numbered_in_two_steps(handle: &Handle, key: &[u8], value: &[u8]) -> KvPair {
    let count = &handle.house.notes.count;
    let index = count.load(Ordering::SeqCst) + 1;
    pause();
    count.store(index, Ordering::SeqCst);
    handle.right.pairs().unwrap().values.insert(key.to_vec(), (value.to_vec(), index));
    KvPair::new(key, value, index)
}

/// The keys first, then each pair.
fn list_in_steps(handle: &Handle, prefix: &[u8]) -> Result<Vec<KvPair>> {
    let keys: Vec<Vec<u8>> = handle.right.list(prefix)?.into_iter().map(|pair| pair.key).collect();
    keys.iter().inspect(|_| pause()).map(|key| handle.right.get(key)).collect()
}

/// The pair as this handle saw it first.
fn first_seen(handle: &Handle, key: &[u8]) -> Result<KvPair> {
    let mut seen = handle.own.pairs.lock().unwrap();
    if let Some(pair) = seen.get(key) {
        return Ok(pair.clone());
    }
    let pair = handle.right.get(key)?;
    seen.insert(key.to_vec(), pair.clone());
    Ok(pair)
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a swap checks and sets in two steps",
        refused_by: "threads::concurrent_increments_are_all_counted",
        says: "concurrent increments must all be counted",
        calls: Calls { atomic_put: swap_in_two_steps, ..RIGHT },
    },
    Fault {
        does: "a create checks and sets in two steps",
        refused_by: "threads::one_of_the_concurrent_creators_wins",
        says: "exactly one thread must create a key",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match previous {
                None => swap_in_two_steps(handle, key, value, None),
                previous => handle.right.atomic_put(key, value, previous),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a deletion checks and deletes in two steps",
        refused_by: "threads::one_of_the_concurrent_users_of_a_pair_wins",
        says: "was used again|the one pair that no thread used",
        calls: Calls { atomic_delete: delete_in_two_steps, ..RIGHT },
    },
    Fault {
        does: "a number is drawn without a lock",
        refused_by: "threads::no_two_concurrent_writes_get_the_same_last_index",
        says: "no two writes may have the same last_index|last_index must grow from write to write in a thread",
        calls: Calls { atomic_put: |handle, key, value, _| Ok(numbered_in_two_steps(handle, key, value)), ..RIGHT },
    },
    Fault {
        does: "a list reads the keys and then each pair",
        refused_by: "threads::every_listing_is_one_moment",
        says: "a listing must be of one moment",
        calls: Calls { list: list_in_steps, ..RIGHT },
    },
    Fault {
        does: "a put deletes the old pair first",
        refused_by: "threads::reads_beside_a_writer_show_whole_writes",
        says: "a key that is replaced must never be missing|listed once at every moment|get of a key that is replaced",
        calls: Calls {
            put: |handle, key, value| {
                handle.right.delete(key)?;
                pause();
                handle.right.put(key, value)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "get reads the value and then the number",
        refused_by: "threads::reads_beside_a_writer_show_whole_writes",
        says: "two pairs of one last_index must be equal|must be one that it wrote, whole",
        calls: Calls {
            get: |handle, key| {
                let value = handle.right.get(key)?.value;
                pause();
                Ok(KvPair { value, ..handle.right.get(key)? })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a value is written in two halves",
        refused_by: "threads::reads_beside_a_writer_show_whole_writes",
        says: "two pairs of one last_index must be equal|must be one that it wrote, whole",
        calls: Calls {
            put: |handle, key, value| {
                let index = handle.right.pairs_for(key)?.set(key, &value[..value.len() / 2]).last_index;
                pause();
                handle.right.pairs()?.values.insert(key.to_vec(), (value.to_vec(), index));
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "each thread has a cache",
        refused_by: "threads::a_write_that_has_returned_is_seen_by_every_thread",
        says: "get must show a write that has returned",
        calls: Calls {
            get: |handle, key| {
                let own = [key, format!("{:?}", thread::current().id()).as_bytes()].concat();
                let mut cache = handle.own.pairs.lock().unwrap();
                // Every third look is a fresh one.
                if handle.own.count.fetch_add(1, Ordering::Relaxed) % 3 == 0 {
                    cache.remove(&own);
                }
                let pair = cache.get(&own).cloned().map_or_else(|| handle.right.get(key), Ok)?;
                cache.insert(own, pair.clone());
                Ok(pair)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a list is a moment late",
        refused_by: "threads::a_write_that_has_returned_is_seen_by_every_thread",
        says: "list must show a write that has returned",
        calls: Calls {
            list: |handle, prefix| {
                let now = handle.right.list(prefix)?;
                let before = handle.own.listing.lock().unwrap().replace(now.clone());
                Ok(before.unwrap_or(now))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a delete moves the next key for a moment",
        refused_by: "threads::writes_beside_a_key_leave_it_as_it_is",
        says: "get of a key that is there must succeed|leave a key as it is",
        calls: Calls {
            delete: |handle, key| {
                handle.right.delete(key)?;
                let next = handle.right.list(b"")?.into_iter().find(|pair| pair.key == b"k/m");
                if let Some(KvPair { key, value, last_index }) = next {
                    handle.right.pairs()?.values.remove(&key);
                    pause();
                    handle.right.pairs()?.values.insert(key, (value, last_index));
                }
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "each handle has a cache",
        refused_by: "sharing::one_handle_reads_what_another_wrote",
        says: "a delete must be seen through every handle|get of a key that another handle deleted must be|atomic_put must succeed",
        calls: Calls { get: first_seen, ..RIGHT },
    },
    Fault {
        does: "each handle counts for itself",
        refused_by: "sharing::last_index_grows_across_handles",
        says: "last_index must grow across handles",
        calls: Calls {
            put: |handle, key, value| {
                let index = handle.own.count.fetch_add(1, Ordering::Relaxed) + 1;
                handle.right.pairs_for(key)?.values.insert(key.to_vec(), (value.to_vec(), index));
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap wants a pair of this handle",
        refused_by: "sharing::a_pair_of_one_handle_swaps_through_another",
        says: "atomic_put with another handle's pair must succeed, but gave Err(KeyModified)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                if previous.is_some() && !handle.own.pairs.lock().unwrap().contains_key(key) {
                    return Err(Error::KeyModified);
                }
                let pair = handle.right.atomic_put(key, value, previous)?;
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), pair.clone());
                Ok(pair)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a handle trusts the pair that it wrote",
        refused_by: "sharing::a_pair_that_another_handle_made_stale_is_refused",
        says: "swapping what another handle wrote must be Err(Error::KeyModified)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let known = handle.own.pairs.lock().unwrap().get(key).cloned();
                let pair = match (previous, known) {
                    (Some(previous), Some(known)) if *previous == known => {
                        handle.right.put(key, value)?;
                        handle.right.get(key)?
                    }
                    _ => handle.right.atomic_put(key, value, previous)?,
                };
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), pair.clone());
                Ok(pair)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a close closes every handle",
        refused_by: "sharing::closing_one_handle_leaves_the_other_open",
        says: "get of a key that is there must succeed, but gave Err(Closed)",
        calls: Calls {
            close: |handle| {
                handle.house.notes.count.store(1, Ordering::Relaxed);
                handle.right.close()
            },
            get: |handle, key| match handle.house.notes.count.load(Ordering::Relaxed) {
                0 => handle.right.get(key),
                _ => Err(Error::Closed),
            },
            ..RIGHT
        },
    },
    // From here on, a lock of each handle makes the threads of one handle right.
    Fault {
        does: "a swap of two steps has its handle's lock",
        refused_by: "sharing::concurrent_increments_through_several_handles_are_all_counted",
        says: "concurrent increments must all be counted",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let _own = handle.own.lock.lock();
                swap_in_two_steps(handle, key, value, previous)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a create of two steps has its handle's lock",
        refused_by: "sharing::one_of_the_concurrent_creators_through_several_handles_wins",
        says: "exactly one thread must create a key",
        calls: Calls {
            atomic_put: |handle, key, value, previous| {
                let _own = handle.own.lock.lock();
                swap_in_two_steps(handle, key, value, previous)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a deletion of two steps has its handle's lock",
        refused_by: "sharing::one_of_the_concurrent_users_of_a_pair_through_several_handles_wins",
        says: "was used again|the one pair that no thread used",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                let _own = handle.own.lock.lock();
                delete_in_two_steps(handle, key, previous)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a number is drawn under its handle's lock",
        refused_by: "sharing::no_two_concurrent_writes_through_several_handles_get_the_same_last_index",
        says: "no two writes may have the same last_index|last_index must grow from write to write in a thread",
        calls: Calls {
            atomic_put: |handle, key, value, _| {
                let _own = handle.own.lock.lock();
                Ok(numbered_in_two_steps(handle, key, value))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a list in steps has its handle's lock",
        refused_by: "sharing::reads_beside_another_handle_show_one_moment_and_whole_writes",
        says: "a listing must be of one moment",
        calls: Calls {
            put: |handle, key, value| {
                let _own = handle.own.lock.lock();
                handle.right.put(key, value)
            },
            list: |handle, prefix| {
                let _own = handle.own.lock.lock();
                list_in_steps(handle, prefix)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a handle remembers which keys exist",
        refused_by: "sharing::random_calls_through_several_handles_agree_with_a_map",
        says: "must give Ok(",
        calls: Calls {
            exists: |handle, key| first_seen(handle, key).map(|_| true).or_else(|_| handle.right.exists(key)),
            ..RIGHT
        },
    },
];
