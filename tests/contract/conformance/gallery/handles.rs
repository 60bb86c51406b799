//! Backends that mistake closing and reopening.

use std::sync::atomic::Ordering;
use std::thread;

use caskfile::{Error, Result, Store};

use super::{Calls, Fault, Handle, House, RIGHT};
use crate::conformance::memory::MemoryStore;

/// A look after the close, as if nothing had been closed.
fn unclosed<T>(handle: &Handle, look: impl FnOnce(&dyn Store) -> Result<T>) -> Result<T> {
    look(&MemoryStore::open(&handle.house.memory))
}

/// Changes all numbers.
fn renumber(house: &House, number: impl Fn(u64) -> u64) {
    let mut pairs = house.memory.0.lock().unwrap();
    pairs.values.values_mut().for_each(|(_, index)| *index = number(*index));
    pairs.last_index = number(pairs.last_index);
}

fn remove_last_written(handle: &Handle) {
    let mut pairs = handle.house.memory.0.lock().unwrap();
    let last = pairs.values.iter().max_by_key(|(_, (_, index))| *index).map(|(key, _)| key.clone());
    last.map(|key| pairs.values.remove(&key));
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a second close is an error",
        refused_by: "closing::closing_twice_is_ok",
        says: "a second close must succeed, but gave Err(Closed)",
        calls: Calls {
            close: |handle| {
                handle.right.list(b"")?;
                handle.right.close()
            },
            ..RIGHT
        },
    },
    Fault {
        does: "get goes on after a close",
        refused_by: "closing::every_call_after_close_is_closed",
        says: "get after close must be Err(Error::Closed)",
        calls: Calls { get: |handle, key| unclosed(handle, |store| store.get(key)), ..RIGHT },
    },
    Fault {
        does: "a list after a close is empty",
        refused_by: "closing::every_call_after_close_is_closed",
        says: "list after close must be Err(Error::Closed), but gave Ok",
        calls: Calls { list: |handle, prefix| Ok(handle.right.list(prefix).unwrap_or_default()), ..RIGHT },
    },
    Fault {
        does: "no key exists after a close",
        refused_by: "closing::every_call_after_close_is_closed",
        says: "exists after close must be Err(Error::Closed), but gave Ok",
        calls: Calls { exists: |handle, key| handle.right.exists(key).or(Ok(false)), ..RIGHT },
    },
    Fault {
        does: "delete of an absent key succeeds after a close",
        refused_by: "closing::every_call_after_close_is_closed",
        says: "delete after close must be Err(Error::Closed), but gave Ok",
        calls: Calls {
            delete: |handle, key| match unclosed(handle, |store| store.exists(key))? {
                true => handle.right.delete(key),
                false => Ok(()),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "keys are checked before the handle",
        refused_by: "closing::closed_comes_before_every_other_error",
        says: "put with an empty key after close must be Err(Error::Closed), but gave Err(KeyLength",
        calls: Calls {
            put: |handle, key, value| match key.len() {
                0 => Err(Error::KeyLength { len: 0, max: 1000 }),
                _ => handle.right.put(key, value),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the previous pair is checked before the handle",
        refused_by: "closing::closed_comes_before_every_other_error",
        says: "atomic_delete with an empty key after close must be Err(Error::Closed), but gave Err(PreviousNotSpecified)",
        calls: Calls {
            atomic_delete: |handle, key, previous| {
                handle.right.atomic_delete(key, Some(previous.ok_or(Error::PreviousNotSpecified)?))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "swaps go on after a close",
        refused_by: "closing::close_closes_every_clone_of_the_handle",
        says: "atomic_put that creates on a clone after close must be Err(Error::Closed)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| unclosed(handle, |store| store.atomic_put(key, value, previous)),
            ..RIGHT
        },
    },
    Fault {
        does: "a close empties the store before calls are refused",
        refused_by: "closing::a_close_beside_calls_ends_them",
        says: "a call that meets a close must succeed or be Err(Closed)|a listing that meets a close must not be empty",
        calls: Calls {
            close: |handle| {
                // Until the other threads have met it.
                for _ in 0..1_000 {
                    handle.right.pairs()?.values.clear();
                    thread::yield_now();
                }
                handle.right.close()
            },
            ..RIGHT
        },
    },
    Fault {
        does: "calls that meet a close fail as if the disk had",
        refused_by: "closing::a_close_beside_calls_ends_them",
        says: "a close",
        calls: Calls {
            put: |handle, key, value| match handle.right.put(key, value) {
                Err(Error::Closed) => Err(Error::other(std::io::Error::other("bad file descriptor"))),
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "reopening gives new numbers",
        refused_by: "reopening::reopening_keeps_pairs_and_their_last_index",
        says: "reopening must keep keys, values and last_index",
        calls: Calls { open: |house| renumber(house, |index| index + 1), ..RIGHT },
    },
    Fault {
        does: "empty values are gone after reopening",
        refused_by: "reopening::reopening_keeps_pairs_and_their_last_index",
        says: "reopening must keep keys, values and last_index",
        calls: Calls {
            open: |house| house.memory.0.lock().unwrap().values.retain(|_, (value, _)| !value.is_empty()),
            ..RIGHT
        },
    },
    Fault {
        does: "a close loses the last write",
        refused_by: "reopening::reopening_keeps_pairs_and_their_last_index",
        says: "reopening must keep keys, values and last_index",
        calls: Calls {
            close: |handle| {
                handle.right.close()?;
                remove_last_written(handle);
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "reopening brings back what was deleted",
        refused_by: "reopening::reopening_keeps_deletions",
        says: "reopening must bring back what was there, and nothing that was deleted",
        calls: Calls {
            delete: |handle, key| {
                let pair = handle.right.get(key);
                handle.house.notes.pairs.lock().unwrap().extend(pair.map(|pair| (key.to_vec(), pair)));
                handle.right.delete(key)
            },
            open: |house| {
                for (key, pair) in house.notes.pairs.lock().unwrap().iter() {
                    let mut pairs = house.memory.0.lock().unwrap();
                    pairs.values.entry(key.clone()).or_insert((pair.value.clone(), pair.last_index));
                }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "without a close the last write is lost",
        refused_by: "reopening::dropping_the_last_handle_keeps_all_writes",
        says: "dropping the last handle must keep what was written",
        calls: Calls {
            drop: |handle| {
                if !handle.right.closed.load(Ordering::Relaxed) {
                    remove_last_written(handle);
                }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "reopening counts on from the highest pair",
        refused_by: "reopening::no_last_index_is_assigned_again_after_reopening",
        says: "last_index must grow across reopening",
        calls: Calls {
            open: |house| {
                let mut pairs = house.memory.0.lock().unwrap();
                pairs.last_index = pairs.values.values().map(|(_, index)| *index).max().unwrap_or(0);
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap wants a pair of this opening",
        refused_by: "reopening::a_pair_from_before_reopening_still_swaps",
        says: "atomic_put with a pair from before reopening must succeed, but gave Err(KeyModified)",
        calls: Calls {
            open: |house| house.notes.count.store(house.memory.0.lock().unwrap().last_index, Ordering::Relaxed),
            atomic_put: |handle, key, value, previous| {
                let opened = handle.house.notes.count.load(Ordering::Relaxed);
                match previous {
                    Some(previous) if previous.last_index <= opened => Err(Error::KeyModified),
                    previous => handle.right.atomic_put(key, value, previous),
                }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "reopening counts from 1",
        refused_by: "reopening::a_stale_pair_from_before_reopening_is_refused",
        says: "swapping a stale pair must be Err(Error::KeyModified)",
        calls: Calls { open: |house| house.memory.0.lock().unwrap().last_index = 0, ..RIGHT },
    },
    Fault {
        does: "a close keeps 2,000 pairs",
        refused_by: "reopening::reopening_keeps_thousands_of_pairs",
        says: "a listing must not end before its last pair",
        calls: Calls {
            close: |handle| {
                let keys: Vec<Vec<u8>> = handle.right.list(b"")?.into_iter().skip(2_000).map(|pair| pair.key).collect();
                keys.iter().try_for_each(|key| handle.right.delete(key))?;
                handle.right.close()
            },
            ..RIGHT
        },
    },
    Fault {
        does: "after reopening, keys of later pages are not found",
        refused_by: "reopening::reopening_keeps_thousands_of_pairs",
        says: "get of a key that is there must succeed, but gave Err(KeyNotFound)",
        calls: Calls {
            open: |house| house.notes.count.store(house.memory.0.lock().unwrap().last_index, Ordering::Relaxed),
            get: |handle, key| {
                let opened = handle.house.notes.count.load(Ordering::Relaxed);
                match handle.right.get(key) {
                    Ok(pair) if opened > 4_000 && pair.last_index > 3_000 => Err(Error::KeyNotFound),
                    result => result,
                }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a second close closes the next handle",
        refused_by: "reopening::a_closed_handle_does_not_disturb_the_next_one",
        says: "get of a key that is there must succeed, but gave Err(Closed)",
        calls: Calls {
            close: |handle| {
                if handle.right.closed.load(Ordering::Relaxed) {
                    handle.house.notes.count.store(1, Ordering::Relaxed);
                }
                handle.right.close()
            },
            get: |handle, key| match handle.house.notes.count.load(Ordering::Relaxed) {
                0 => handle.right.get(key),
                _ => Err(Error::Closed),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a closed handle writes through the next one",
        refused_by: "reopening::a_closed_handle_does_not_disturb_the_next_one",
        says: "put on a closed handle while another one is open must be Err(Error::Closed)",
        calls: Calls { put: |handle, key, value| unclosed(handle, |store| store.put(key, value)), ..RIGHT },
    },
    Fault {
        does: "a close loses a write that it meets",
        refused_by: "reopening::a_close_beside_writers_keeps_what_they_wrote",
        says: "a close must keep every write that has returned, and no other",
        calls: Calls {
            close: |handle| {
                handle.right.close()?;
                remove_last_written(handle);
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a write that meets a close is done and refused",
        refused_by: "reopening::a_close_beside_writers_keeps_what_they_wrote",
        says: "a close must keep every write that has returned, and no other",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match handle.right.atomic_put(key, value, previous) {
                Err(Error::Closed) => {
                    handle.house.memory.0.lock().unwrap().set(key, value);
                    Err(Error::Closed)
                }
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "every fourth opening loses a pair",
        refused_by: "reopening::random_calls_across_reopening_agree_with_a_map",
        says: "must give Ok([",
        calls: Calls {
            open: |house| {
                if house.notes.count.fetch_add(1, Ordering::Relaxed) % 4 == 3 {
                    house.memory.0.lock().unwrap().values.pop_first();
                }
            },
            ..RIGHT
        },
    },
];
