//! Backends with wrong locks. Several are what locks of libkv's backends do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::{Error, Held, Lock, LockLoss, LockOptions, Result, Stopper, Store};

use super::{Calls, Fault, Handle, House, Locked, RIGHT};
use crate::conformance::memory::MemoryStore;
use crate::conformance::memory::locks::{MemoryLock, new_lock};

/// A lock with a fault.
struct Wrong {
    right: MemoryLock,
    calls: LockCalls,
    house: Arc<House>,
    count: AtomicU64,
}

/// What a lock does for each of its calls.
#[derive(Clone, Copy)]
struct LockCalls {
    try_lock: fn(&Wrong) -> Result<Option<Held>>,
    lock: fn(&Wrong, Option<Duration>) -> Result<Held>,
    unlock: fn(&Wrong) -> Result<()>,
    stopper: fn(&Wrong) -> Stopper,
    drop: fn(&Wrong),
}

/// The lock without a fault.
const RIGHT_LOCK: LockCalls = LockCalls {
    try_lock: |lock| lock.right.try_lock(),
    lock: |lock, timeout| lock.right.lock(timeout),
    unlock: |lock| lock.right.unlock(),
    stopper: |lock| lock.right.stopper(),
    drop: |_| {},
};

impl Lock for Wrong {
    fn try_lock(&self) -> Result<Option<Held>> {
        (self.calls.try_lock)(self)
    }

    fn lock(&self, timeout: Option<Duration>) -> Result<Held> {
        (self.calls.lock)(self, timeout)
    }

    fn unlock(&self) -> Result<()> {
        (self.calls.unlock)(self)
    }

    fn stopper(&self) -> Stopper {
        (self.calls.stopper)(self)
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        (self.calls.drop)(self);
    }
}

impl Wrong {
    /// The store, for what looks at it later.
    fn store(&self) -> MemoryStore {
        MemoryStore { memory: Arc::clone(&self.right.store.memory), closed: Arc::clone(&self.right.store.closed) }
    }

    /// The pair goes after this time, and the lock with it if it is held.
    fn ends_after(&self, ttl: Duration) -> Result<()> {
        self.right.store.pairs()?.ends.insert(self.right.key.clone(), Instant::now() + ttl);
        Ok(())
    }
}

fn lock(handle: &Handle, key: &[u8], options: &LockOptions, calls: LockCalls) -> Locked {
    let right = new_lock(&handle.right, key, options)?;
    Ok(Box::new(Wrong { right, calls, house: Arc::clone(&handle.house), count: AtomicU64::new(0) }))
}

/// A right lock of another key, or with other options.
fn right(handle: &Handle, key: &[u8], options: &LockOptions) -> Locked {
    lock(handle, key, options, RIGHT_LOCK)
}

/// Waits as a lock does whose `try_lock` is this one.
fn wait_with(lock: &Wrong, timeout: Option<Duration>, try_lock: fn(&Wrong) -> Result<Option<Held>>) -> Result<Held> {
    let began = Instant::now();
    loop {
        if let Some(held) = try_lock(lock)? {
            return Ok(held);
        }
        let waited = began.elapsed();
        if timeout.is_some_and(|timeout| waited >= timeout) {
            return Err(Error::TimedOut { waited });
        }
        thread::yield_now();
    }
}

/// Without its loss. It still knows that it is held.
fn without_loss(lock: &Wrong, held: &Held) -> Held {
    let (sender, loss) = LockLoss::channel().unwrap();
    // It is sent when it is dropped.
    std::mem::forget(sender);
    let (store, key, token) = (lock.store(), lock.right.key.clone(), held.token());
    Held::with_check(token, loss, move || store.pairs().is_ok_and(|pairs| pairs.is_owner(&key, token)))
}

fn tries_without_loss(lock: &Wrong) -> Result<Option<Held>> {
    Ok(lock.right.try_lock()?.map(|held| without_loss(lock, &held)))
}

/// Looks, and takes it then.
fn looks_and_takes(lock: &Wrong) -> Result<Option<Held>> {
    if lock.right.store.pairs()?.owners.contains_key(&lock.right.key) {
        return Ok(None);
    }
    thread::yield_now();
    let mut pairs = lock.right.store.pairs()?;
    Ok(Some(lock.right.take(&mut pairs)))
}

/// Takes the lock from the holder of another handle.
fn takes_from_other_handles(lock: &Wrong) -> Result<Option<Held>> {
    if let Some(held) = lock.right.try_lock()? {
        return Ok(Some(held));
    }
    let mut pairs = lock.right.store.pairs()?;
    let is_others = pairs.owners.get(&lock.right.key).is_some_and(|owner| !owner.is_of(&lock.right.store));
    Ok(is_others.then(|| lock.right.take(&mut pairs)))
}

/// Closes a handle, and leaves its locks.
fn close_alone(handle: &Handle) -> Result<()> {
    handle.right.closed.store(true, Ordering::Relaxed);
    Ok(())
}

fn remove(lock: &Wrong) {
    if let Ok(mut pairs) = lock.right.store.pairs() {
        pairs.remove(&lock.right.key);
    }
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "try_lock takes the lock from its holder",
        refused_by: "locks::a_lock_has_one_holder",
        says: "try_lock must not take a lock that another one holds",
        calls: Calls {
            new_lock: |handle, key, options| {
                let try_lock = |lock: &Wrong| match lock.right.try_lock()? {
                    None => Ok(Some(lock.right.take(&mut *lock.right.store.pairs()?))),
                    held => Ok(held),
                };
                lock(handle, key, options, LockCalls { try_lock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a wait takes the lock when its time is over",
        refused_by: "locks::a_lock_has_one_holder",
        says: "a wait for a lock that another one holds must be Err(Error::TimedOut { .. }), but gave Ok",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| match lock.right.lock(timeout) {
                    Err(Error::TimedOut { .. }) => Ok(lock.right.take(&mut *lock.right.store.pairs()?)),
                    held => held,
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a holder takes its lock again",
        refused_by: "locks::a_lock_has_one_holder",
        says: "try_lock of a lock that is held through the same value must be Err(Error::AlreadyHeld), but gave Ok",
        calls: Calls {
            new_lock: |handle, key, options| {
                let try_lock = |lock: &Wrong| match lock.right.try_lock() {
                    Err(Error::AlreadyHeld) => Ok(Some(lock.right.take(&mut *lock.right.store.pairs()?))),
                    held => held,
                };
                lock(handle, key, options, LockCalls { try_lock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a store has one lock",
        refused_by: "locks::a_lock_has_one_holder",
        says: "try_lock must take a lock that is free",
        calls: Calls { new_lock: |handle, _, options| right(handle, b"lock", options), ..RIGHT },
    },
    Fault {
        does: "a lock is good for one time",
        refused_by: "locks::a_lock_can_be_taken_again_after_unlock",
        says: "lock of a lock that was released must succeed, but gave Err(TimedOut",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| {
                    wait_with(lock, timeout, |lock| match lock.right.current.lock().unwrap().is_some() {
                        true => lock.right.try_lock(),
                        false => Ok(None),
                    })
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a released lock is held by the second one",
        refused_by: "locks::a_lock_can_be_taken_again_after_unlock",
        says: "a lock that was released must not be held",
        calls: Calls {
            new_lock: |handle, key, options| {
                let try_lock = |lock: &Wrong| {
                    let held = lock.right.try_lock()?;
                    let (sender, loss) = LockLoss::channel().unwrap();
                    std::mem::forget(sender);
                    Ok(held.map(|held| Held::new(held.token(), loss)))
                };
                lock(handle, key, options, LockCalls { try_lock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the end by unlock is not reported",
        refused_by: "locks::a_lock_can_be_taken_again_after_unlock",
        says: "the end of a lock that was released must be reported",
        calls: Calls {
            new_lock: |handle, key, options| {
                lock(handle, key, options, LockCalls { try_lock: tries_without_loss, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "tokens are counted by each lock",
        refused_by: "locks::the_token_rises_with_each_holder",
        says: "the token must rise with each holder, but 2 was followed by 1",
        calls: Calls {
            new_lock: |handle, key, options| {
                let try_lock = |lock: &Wrong| {
                    let held = lock.right.try_lock()?;
                    let token = lock.count.fetch_add(1, Ordering::Relaxed) + 1;
                    Ok(held.map(|held| Held::new(token, held.loss().clone())))
                };
                lock(handle, key, options, LockCalls { try_lock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a lock's key has no value",
        refused_by: "locks::the_key_has_the_value_of_its_holder",
        says: "the key of a lock that is held must have the value of its holder",
        calls: Calls { new_lock: |handle, key, options| right(handle, key, &options.clone().value("")), ..RIGHT },
    },
    Fault {
        does: "a lock has a key of its own beside",
        refused_by: "locks::the_key_has_the_value_of_its_holder",
        says: "the key of a lock that is held must have the value of its holder",
        calls: Calls { new_lock: |handle, key, options| right(handle, &[key, b".lock"].concat(), options), ..RIGHT },
    },
    Fault {
        does: "a lock leaves its key",
        refused_by: "locks::the_key_has_the_value_of_its_holder",
        says: "the key of a lock that was released must be gone",
        calls: Calls {
            new_lock: |handle, key, options| right(handle, key, &options.clone().delete_on_unlock(false)),
            ..RIGHT
        },
    },
    Fault {
        does: "every lock removes its key",
        refused_by: "locks::a_key_that_is_left_has_no_owner",
        says: "with delete_on_unlock(false) the pair must stay, but there is None",
        calls: Calls {
            new_lock: |handle, key, options| right(handle, key, &options.clone().delete_on_unlock(true)),
            ..RIGHT
        },
    },
    Fault {
        does: "a key that is left ends with the time to live",
        refused_by: "locks::a_key_that_is_left_has_no_owner",
        says: "with delete_on_unlock(false) the pair must stay, but there is None",
        calls: Calls {
            new_lock: |handle, key, options| {
                let try_lock = |lock: &Wrong| {
                    let held = lock.right.try_lock()?;
                    if held.is_some() {
                        lock.ends_after(lock.right.options.get_ttl())?;
                    }
                    Ok(held)
                };
                lock(handle, key, options, LockCalls { try_lock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a key that is left keeps its owner",
        refused_by: "locks::a_key_that_is_left_has_no_owner",
        says: "try_lock must take a lock that is free",
        calls: Calls {
            new_lock: |handle, key, options| {
                let unlock = |lock: &Wrong| match lock.right.options.get_delete_on_unlock() {
                    true => lock.right.unlock(),
                    false => Ok(()),
                };
                lock(handle, key, options, LockCalls { unlock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "anyone can unlock",
        refused_by: "locks::unlock_by_a_stranger_is_refused",
        says: "unlock of a lock that was never taken must be Err(Error::NotHeld), but gave Ok",
        calls: Calls {
            new_lock: |handle, key, options| {
                let unlock = |lock: &Wrong| {
                    remove(lock);
                    Ok(())
                };
                lock(handle, key, options, LockCalls { unlock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a stranger gets an error from unlock, and unlocks",
        refused_by: "locks::unlock_by_a_stranger_is_refused",
        says: "unlock by a stranger must change nothing",
        calls: Calls {
            new_lock: |handle, key, options| {
                let unlock = |lock: &Wrong| {
                    let unlocked = lock.right.unlock();
                    remove(lock);
                    unlocked
                };
                lock(handle, key, options, LockCalls { unlock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "unlock twice is no error",
        refused_by: "locks::unlock_by_a_stranger_is_refused",
        says: "a second unlock must be Err(Error::NotHeld), but gave Ok",
        calls: Calls {
            new_lock: |handle, key, options| {
                let unlock = |lock: &Wrong| {
                    let was_held = lock.right.current.lock().unwrap().is_some();
                    if was_held {
                        lock.count.fetch_add(1, Ordering::Relaxed);
                    }
                    let unlocked = lock.right.unlock();
                    if lock.count.load(Ordering::Relaxed) == 0 { unlocked } else { Ok(()) }
                };
                lock(handle, key, options, LockCalls { unlock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the loss by another's write is not reported",
        refused_by: "locks::a_lock_that_was_taken_away_is_lost_and_says_so",
        says: "the loss of a lock must be reported",
        calls: Calls {
            new_lock: |handle, key, options| {
                lock(handle, key, options, LockCalls { try_lock: tries_without_loss, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "unlock of a lock that is lost removes its key",
        refused_by: "locks::a_lock_that_was_taken_away_is_lost_and_says_so",
        says: "a lock that is lost must leave the key as it is",
        calls: Calls {
            new_lock: |handle, key, options| {
                let unlock = |lock: &Wrong| {
                    let unlocked = lock.right.unlock();
                    remove(lock);
                    unlocked
                };
                lock(handle, key, options, LockCalls { unlock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a renewal is no compare-and-swap",
        refused_by: "locks::a_renewal_does_not_take_a_lock_back",
        says: "a renewal must not take a lock back",
        calls: Calls {
            new_lock: |handle, key, options| {
                // That of the holder of before comes right after the lock was taken.
                let wait = |lock: &Wrong, timeout| {
                    let held = lock.right.lock(timeout)?;
                    lock.right.store.pairs()?.set(&lock.right.key, b"last");
                    Ok(held)
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a lock is not renewed",
        refused_by: "locks::a_lock_is_held_for_longer_than_its_time_to_live",
        says: "a lock must be held for longer than its time to live",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| {
                    let held = lock.right.lock(timeout)?;
                    lock.ends_after(lock.right.options.get_ttl())?;
                    Ok(held)
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a lock is renewed once",
        refused_by: "locks::a_lock_is_held_for_longer_than_its_time_to_live",
        says: "a lock must be held for longer than its time to live",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| {
                    let held = lock.right.lock(timeout)?;
                    lock.ends_after(lock.right.options.get_ttl() * 4 / 3)?;
                    Ok(held)
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "an aborted wait goes on",
        refused_by: "locks::a_stopped_wait_ends_and_no_other",
        says: "a wait for a lock that was stopped must be Err(Error::Stopped), but gave Err(TimedOut",
        calls: Calls {
            new_lock: |handle, key, options| {
                lock(handle, key, options, LockCalls { stopper: |_| Stopper::new(|| ()), ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a stopper ends all waits",
        refused_by: "locks::a_stopped_wait_ends_and_no_other",
        says: "a wait for a lock beside one that was stopped must succeed, but gave Err(Stopped)",
        calls: Calls {
            new_lock: |handle, key, options| {
                let calls = LockCalls {
                    lock: |lock, timeout| {
                        wait_with(lock, timeout, |lock| match lock.house.notes.count.load(Ordering::Relaxed) {
                            0 => lock.right.try_lock(),
                            _ => Err(Error::Stopped),
                        })
                    },
                    stopper: |lock| {
                        let (house, right) = (Arc::clone(&lock.house), lock.right.stopper());
                        Stopper::new(move || {
                            right.stop();
                            house.notes.count.store(1, Ordering::Relaxed);
                        })
                    },
                    ..RIGHT_LOCK
                };
                lock(handle, key, options, calls)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a stopper releases the lock",
        refused_by: "locks::a_stopped_wait_ends_and_no_other",
        says: "a lock that is held must stay held when its waits are stopped",
        calls: Calls {
            new_lock: |handle, key, options| {
                let stopper = |lock: &Wrong| {
                    let (right, store, key) = (lock.right.stopper(), lock.store(), lock.right.key.clone());
                    let token = *lock.right.current.lock().unwrap();
                    Stopper::new(move || {
                        right.stop();
                        if let (Ok(mut pairs), Some(token)) = (store.pairs(), token) {
                            if pairs.is_owner(&key, token) {
                                pairs.remove(&key);
                            }
                        }
                    })
                };
                lock(handle, key, options, LockCalls { stopper, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "no wait for a lock is for ever",
        refused_by: "locks::unlock_ends_a_wait",
        says: "lock without a timeout must succeed, but gave Err(TimedOut",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout: Option<Duration>| {
                    lock.right.lock(timeout.or(Some(Duration::from_millis(1))))
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "closing stops the waits for locks",
        refused_by: "locks::close_ends_waits_and_locks",
        says: "a wait for a lock of a closed store must be Err(Error::Closed), but gave Err(Stopped)",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| match lock.right.lock(timeout) {
                    Err(Error::Closed) => Err(Error::Stopped),
                    held => held,
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a wait goes on after a close",
        refused_by: "locks::close_ends_waits_and_locks",
        says: "a wait for a lock of a closed store must be Err(Error::Closed), but gave Err(TimedOut",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout: Option<Duration>| match lock.right.lock(timeout) {
                    Err(Error::Closed) => Err(Error::TimedOut { waited: timeout.unwrap_or_default() }),
                    held => held,
                };
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the end by closing is not reported",
        refused_by: "locks::close_ends_waits_and_locks",
        says: "the loss of a lock of a closed store must be reported",
        calls: Calls {
            new_lock: |handle, key, options| {
                lock(handle, key, options, LockCalls { try_lock: tries_without_loss, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a closed store looks at the arguments of new_lock first",
        refused_by: "locks::close_ends_waits_and_locks",
        says: "new_lock after close must be Err(Error::Closed), but gave Err(ZeroTtl)",
        calls: Calls {
            new_lock: |handle, key, options| match options.get_ttl().is_zero() {
                true => Err(Error::ZeroTtl),
                false => right(handle, key, options),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "dropping a lock leaves it held",
        refused_by: "locks::dropping_a_lock_releases_it",
        says: "the end of a lock that was dropped must be reported",
        calls: Calls {
            new_lock: |handle, key, options| {
                let forget = |lock: &Wrong| *lock.right.current.lock().unwrap() = None;
                lock(handle, key, options, LockCalls { drop: forget, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "dropping any lock releases it",
        refused_by: "locks::dropping_a_lock_releases_it",
        says: "dropping a lock that was not taken must do nothing",
        calls: Calls {
            new_lock: |handle, key, options| lock(handle, key, options, LockCalls { drop: remove, ..RIGHT_LOCK }),
            ..RIGHT
        },
    },
    Fault {
        does: "a lock looks, and takes it then",
        refused_by: "locks::threads_take_turns",
        says: "a lock must have one holder at a time|the token must rise|unlock of a lock that is held must succeed",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| wait_with(lock, timeout, looks_and_takes);
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "making a lock puts its value",
        refused_by: "locks::new_lock_writes_nothing_and_refuses_what_it_cannot_take",
        says: "a lock that was not taken must write nothing",
        calls: Calls {
            new_lock: |handle, key, options| {
                handle.right.put(key, options.get_value())?;
                right(handle, key, options)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "an empty key can be locked",
        refused_by: "locks::new_lock_writes_nothing_and_refuses_what_it_cannot_take",
        says: "a lock on an empty key must be Err(Error::KeyLength { len: 0, .. }), but gave Ok",
        calls: Calls {
            new_lock: |handle, key, options| right(handle, if key.is_empty() { b"lock" } else { key }, options),
            ..RIGHT
        },
    },
    Fault {
        does: "a lock can live for no time",
        refused_by: "locks::new_lock_writes_nothing_and_refuses_what_it_cannot_take",
        says: "a lock with a time to live of zero must be Err(Error::ZeroTtl), but gave Ok",
        calls: Calls {
            new_lock: |handle, key, options| {
                let ttl = options.get_ttl().max(Duration::from_millis(1));
                right(handle, key, &options.clone().ttl(ttl))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a lock is of a handle",
        refused_by: "shared_locks::a_lock_keeps_out_every_handle",
        says: "try_lock must not take a lock that another one holds",
        calls: Calls {
            new_lock: |handle, key, options| {
                lock(handle, key, options, LockCalls { try_lock: takes_from_other_handles, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the loss by another handle is not reported",
        refused_by: "shared_locks::the_loss_of_a_lock_is_reported_to_another_handle",
        says: "the loss of a lock must be reported, whichever handle has caused it",
        calls: Calls {
            new_lock: |handle, key, options| {
                lock(handle, key, options, LockCalls { try_lock: tries_without_loss, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "the locks of a closed handle are held",
        refused_by: "shared_locks::closing_a_handle_frees_its_locks",
        says: "a wait for a lock whose holder's handle is closed must succeed, but gave Err(TimedOut",
        calls: Calls { close: close_alone, ..RIGHT },
    },
    Fault {
        does: "threads of two handles do not wait for each other",
        refused_by: "shared_locks::threads_of_several_handles_take_turns",
        says: "a lock must have one holder at a time|the token must rise|unlock of a lock that is held must succeed",
        calls: Calls {
            new_lock: |handle, key, options| {
                let wait = |lock: &Wrong, timeout| wait_with(lock, timeout, takes_from_other_handles);
                lock(handle, key, options, LockCalls { lock: wait, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a lock outlives its handle",
        refused_by: "reopened_locks::a_lock_is_free_after_reopening_and_its_token_rises",
        says: "the key of a lock must be gone once its handle was closed",
        calls: Calls { close: close_alone, ..RIGHT },
    },
    Fault {
        does: "tokens begin again with each handle",
        refused_by: "reopened_locks::a_lock_is_free_after_reopening_and_its_token_rises",
        says: "the token must rise across reopening, but 1 was followed by 1",
        calls: Calls {
            new_lock: |handle, key, options| {
                let try_lock = |lock: &Wrong| {
                    let held = lock.right.try_lock()?;
                    Ok(held.map(|held| Held::new(1, held.loss().clone())))
                };
                lock(handle, key, options, LockCalls { try_lock, ..RIGHT_LOCK })
            },
            ..RIGHT
        },
    },
];
