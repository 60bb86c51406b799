//! Promises about locks. Most are about faults that locks of libkv's backends have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::effort::{Effort, at_once};
use super::{Fixture, create, get, list, ok, put};
use crate::{Error, Held, Lock, LockOptions, OptionalExt, Store};

/// A machine that is busy may keep a backend from renewing a lock of a short time to live, which is lost then. So often in a row it
/// does not.
const ATTEMPTS: usize = 10;

/// Neither the holder itself nor another one takes a lock that is held. Another key is another lock.
pub fn a_lock_has_one_holder(fixture: &dyn Fixture) {
    let store = fixture.open();
    let (lock, other) = (new_lock(&*store, b"lock", "one"), new_lock(&*store, b"lock", "other"));
    let held = taken(&*lock);
    assert!(held.is_held() && !held.loss().is_lost(), "a lock that was taken must be held");
    is_taken(&*other);
    let result = other.lock(Some(Duration::from_millis(5)));
    assert_refused!(result, Error::TimedOut { .. }, "a wait for a lock that another one holds");
    assert_refused!(lock.try_lock(), Error::AlreadyHeld, "try_lock of a lock that is held through the same value");
    assert_refused!(lock.lock(None), Error::AlreadyHeld, "lock of a lock that is held through the same value");
    for key in [&b"loc"[..], b"lock/", b"lock\0", b"LOCK", b"\0", b"\xff"] {
        taken(&*new_lock(&*store, key, "another"));
    }
    assert!(held.is_held(), "a lock must be held until it is released or lost");
    ok(lock.unlock(), "unlock of a lock that is held");
    taken(&*other);
}

/// A value that was used once is good for ever. Some backends renew the first time only, or wait for their own key.
pub fn a_lock_can_be_taken_again_after_unlock(fixture: &dyn Fixture) {
    let (store, patience) = (fixture.open(), fixture.patience());
    let lock = new_lock(&*store, b"lock", "value");
    for round in 0..6 {
        let held = match round % 2 {
            0 => taken(&*lock),
            _ => ok(lock.lock(Some(patience)), "lock of a lock that was released"),
        };
        assert!(held.is_held(), "a lock that was taken again must be held");
        ok(lock.unlock(), "unlock of a lock that was taken again");
        assert!(!held.is_held(), "a lock that was released must not be held");
        assert!(held.loss().wait(Some(patience)), "the end of a lock that was released must be reported");
    }
}

/// However the last holder has lost it.
pub fn the_token_rises_with_each_holder(fixture: &dyn Fixture) {
    let (store, patience) = (fixture.open(), fixture.patience());
    let locks = [new_lock(&*store, b"lock", "one"), new_lock(&*store, b"lock", "other")];
    let mut highest = 0;
    for round in 0..8 {
        let lock = &*locks[round / 2 % 2];
        let held = taken(lock);
        let token = held.token();
        assert!(token > highest, "the token must rise with each holder, but {highest} was followed by {token}");
        highest = token;
        match round % 4 {
            0 => ok(store.delete(b"lock"), "delete"),
            1 => put(&*store, b"lock", b"an operator's"),
            _ => ok(lock.unlock(), "unlock of a lock that is held"),
        }
        assert!(held.loss().wait(Some(patience)), "the loss of a lock must be reported");
        assert_eq!(held.token(), token, "the token of a holder must not change");
    }
}

/// Others read the name of the holder. What was at the key before is gone, and nothing stays after the last holder.
pub fn the_key_has_the_value_of_its_holder(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"lock", b"of no holder");
    for value in ["one", "", "other"] {
        let lock = new_lock(&*store, b"lock", value);
        taken(&*lock);
        let pair = ok(store.get(b"lock").optional(), "get");
        let pair = pair.unwrap_or_else(|| panic!("the key of a lock that is held must be there"));
        assert_eq!(pair.value, value.as_bytes(), "the key of a lock that is held must have the value of its holder");
        assert_eq!(list(&*store, b""), [pair], "the key of a lock that is held must be listed, and nothing else");
        ok(lock.unlock(), "unlock of a lock that is held");
        assert_eq!(list(&*store, b""), [], "the key of a lock that was released must be gone");
    }
}

/// The pair stays as that of a plain put: the end of what the lock was held by does not take it along.
pub fn a_key_that_is_left_has_no_owner(fixture: &dyn Fixture) {
    let (store, ttl) = (fixture.open(), fixture.short_ttl());
    let options = LockOptions::new().value("left").ttl(ttl).delete_on_unlock(false);
    let lock = ok(store.new_lock(b"lock", &options), "new_lock");
    let was_released = (0..ATTEMPTS).any(|_| {
        taken(&*lock);
        match lock.unlock() {
            Err(Error::NotHeld) => false,
            unlocked => {
                ok(unlocked, "unlock of a lock that is held");
                true
            }
        }
    });
    assert!(was_released, "a lock must be held for its time to live");
    for _ in 0..2 {
        let pair = ok(store.get(b"lock").optional(), "get");
        let value = pair.map(|pair| pair.value);
        let is_left = value.as_deref() == Some(b"left");
        assert!(is_left, "with delete_on_unlock(false) the pair must stay, but there is {value:?}");
        thread::sleep(ttl * 3 / 2);
    }
    let next = new_lock(&*store, b"lock", "next");
    taken(&*next);
    assert_eq!(get(&*store, b"lock").value, b"next", "a key that was left must be free for the next holder");
}

/// Unlocking is for the holder. One that is none gets an error, and changes nothing.
pub fn unlock_by_a_stranger_is_refused(fixture: &dyn Fixture) {
    let store = fixture.open();
    let (lock, stranger) = (new_lock(&*store, b"lock", "holder"), new_lock(&*store, b"lock", "stranger"));
    assert_refused!(lock.unlock(), Error::NotHeld, "unlock of a lock that was never taken");
    let held = taken(&*lock);
    let before = list(&*store, b"");
    is_taken(&*stranger);
    assert_refused!(stranger.unlock(), Error::NotHeld, "unlock by a stranger");
    drop(stranger);
    assert_eq!(list(&*store, b""), before, "unlock by a stranger must change nothing");
    assert!(held.is_held(), "unlock by a stranger must leave the lock to its holder");
    is_taken(&*new_lock(&*store, b"lock", "other"));
    ok(lock.unlock(), "unlock of a lock that is held");
    assert_refused!(lock.unlock(), Error::NotHeld, "a second unlock");
}

/// A holder that does not learn of its loss goes on beside the next one.
pub fn a_lock_that_was_taken_away_is_lost_and_says_so(fixture: &dyn Fixture) {
    let (store, patience) = (fixture.open(), fixture.patience());
    let lock = new_lock(&*store, b"lock", "holder");
    for how in 0..4 {
        let held = taken(&*lock);
        let current = get(&*store, b"lock");
        match how {
            0 => ok(store.delete(b"lock"), "delete"),
            1 => put(&*store, b"lock", b"an operator's"),
            2 => ok(store.atomic_delete(b"lock", Some(&current)), "atomic_delete of a lock's key"),
            _ => drop(ok(store.atomic_put(b"lock", b"x", Some(&current)), "atomic_put of a lock's key")),
        }
        let after = list(&*store, b"");
        assert!(held.loss().wait(Some(patience)), "the loss of a lock must be reported");
        assert!(!held.is_held(), "a lock that is lost must not be held");
        assert_refused!(lock.unlock(), Error::NotHeld, "unlock of a lock that is lost");
        assert_eq!(list(&*store, b""), after, "a lock that is lost must leave the key as it is");
    }
}

/// A renewal that is no compare-and-swap takes the lock from the next holder, or gives it two.
pub fn a_renewal_does_not_take_a_lock_back(fixture: &dyn Fixture) {
    let (store, ttl, patience) = (fixture.open(), fixture.short_ttl(), fixture.patience());
    let options = LockOptions::new().value("last").ttl(ttl);
    let lock = ok(store.new_lock(b"lock", &options), "new_lock");
    let last = taken(&*lock);
    ok(store.delete(b"lock"), "delete");
    let lock_of_next = new_lock(&*store, b"lock", "next");
    let next = ok(lock_of_next.lock(Some(patience)), "lock of a lock that was taken away");
    assert!(last.loss().wait(Some(patience)), "the loss of a lock must be reported");
    // The last one would renew some times.
    thread::sleep(ttl * 3 / 2);
    assert!(next.is_held() && !last.is_held(), "a renewal must not take a lock back");
    assert_eq!(get(&*store, b"lock").value, b"next", "a renewal must not take a lock's key back");
    assert_refused!(lock.unlock(), Error::NotHeld, "unlock of a lock that the next one holds");
    is_taken(&*lock);
    ok(lock_of_next.unlock(), "unlock of a lock that is held");
}

/// A holder that runs renews its lock, and more than once.
pub fn a_lock_is_held_for_longer_than_its_time_to_live(fixture: &dyn Fixture) {
    let (store, ttl, patience) = (fixture.open(), fixture.short_ttl(), fixture.patience());
    let is_kept = (0..ATTEMPTS).any(|_| {
        let lock = ok(store.new_lock(b"lock", &LockOptions::new().ttl(ttl)), "new_lock");
        let other = new_lock(&*store, b"lock", "other");
        let held = ok(lock.lock(Some(patience)), "lock of a lock that is free");
        thread::sleep(ttl * 5 / 2);
        ok(other.try_lock(), "try_lock").is_none() && held.is_held()
    });
    assert!(is_kept, "a lock must be held for longer than its time to live while its holder runs");
}

/// An aborted wait that goes on keeps its thread, and takes the lock from all others in the end.
pub fn a_stopped_wait_ends_and_no_other(fixture: &dyn Fixture) {
    let (store, patience) = (fixture.open(), fixture.patience());
    let lock = new_lock(&*store, b"lock", "holder");
    let (stopped, other) = (new_lock(&*store, b"lock", "stopped"), new_lock(&*store, b"lock", "other"));
    taken(&*lock);
    thread::scope(|scope| {
        let ends = scope.spawn(|| {
            assert_refused!(stopped.lock(Some(patience)), Error::Stopped, "a wait for a lock that was stopped");
        });
        let goes_on = scope.spawn(|| other.lock(Some(patience)));
        thread::sleep(Duration::from_millis(5));
        let stopper = stopped.stopper();
        stopper.clone().stop();
        ends.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_refused!(stopped.lock(None), Error::Stopped, "lock of a lock that was stopped");
        assert_refused!(stopped.try_lock(), Error::Stopped, "try_lock of a lock that was stopped");
        stopper.stop();
        ok(lock.unlock(), "unlock of a lock that is held");
        let ended = goes_on.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let held = ok(ended, "a wait for a lock beside one that was stopped");
        other.stopper().stop();
        assert!(held.is_held(), "a lock that is held must stay held when its waits are stopped");
        ok(other.unlock(), "unlock of a lock that is held, and whose waits were stopped");
    });
}

/// A wait without a timeout lasts until the lock is free, and not longer.
pub fn unlock_ends_a_wait(fixture: &dyn Fixture) {
    let store = fixture.open();
    let (lock, other) = (new_lock(&*store, b"lock", "one"), new_lock(&*store, b"lock", "other"));
    for round in 0..5 {
        let held = taken(&*lock);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.lock(None));
            thread::sleep(Duration::from_millis(round));
            ok(lock.unlock(), "unlock of a lock that is held");
            let woken = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let next = ok(woken, "lock without a timeout");
            assert!(next.token() > held.token(), "a wait must end with the end of the holder, and not before");
        });
        ok(other.unlock(), "unlock of a lock that was waited for");
    }
}

/// A lock of a closed store is over, and so is a wait for it.
pub fn close_ends_waits_and_locks(fixture: &dyn Fixture) {
    let (store, patience) = (fixture.open(), fixture.patience());
    let (lock, waiting) = (new_lock(&*store, b"lock", "one"), new_lock(&*store, b"lock", "other"));
    let held = taken(&*lock);
    thread::scope(|scope| {
        let ends = scope.spawn(|| {
            assert_refused!(waiting.lock(Some(patience)), Error::Closed, "a wait for a lock of a closed store");
        });
        thread::sleep(Duration::from_millis(5));
        ok(store.close(), "close beside a wait for a lock");
        ends.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(held.loss().wait(Some(patience)), "the loss of a lock of a closed store must be reported");
    assert!(!held.is_held(), "a lock of a closed store must not be held");
    for lock in [lock, waiting] {
        assert_refused!(lock.try_lock(), Error::Closed, "try_lock after close");
        assert_refused!(lock.lock(None), Error::Closed, "lock after close");
        assert_refused!(lock.unlock(), Error::Closed, "unlock after close");
    }
    for key in [&b"lock"[..], b""] {
        let options = LockOptions::new().ttl(Duration::ZERO);
        assert_refused!(store.new_lock(key, &options).map(drop), Error::Closed, "new_lock after close");
    }
}

/// As unlocking does. The drop of one that does not hold the lock does nothing.
pub fn dropping_a_lock_releases_it(fixture: &dyn Fixture) {
    let (store, patience) = (fixture.open(), fixture.patience());
    let (lock, other) = (new_lock(&*store, b"lock", "one"), new_lock(&*store, b"lock", "other"));
    let held = taken(&*lock);
    drop(new_lock(&*store, b"lock", "third"));
    assert!(held.is_held(), "dropping a lock that was not taken must do nothing");
    drop(lock);
    assert!(held.loss().wait(Some(patience)), "the end of a lock that was dropped must be reported");
    let next = ok(other.lock(Some(patience)), "lock of a lock that was dropped");
    assert!(next.is_held(), "a lock that was dropped must be free");
}

/// However many wait.
pub fn threads_take_turns(fixture: &dyn Fixture) {
    take_turns_with(&[fixture.open()], fixture.patience());
}

/// A lock is made without a write, so what it cannot be made for is refused before one.
pub fn new_lock_writes_nothing_and_refuses_what_it_cannot_take(fixture: &dyn Fixture) {
    let store = fixture.open();
    create(&*store, b"lock", b"value");
    let before = list(&*store, b"");
    drop(new_lock(&*store, b"lock", "holder"));
    drop(new_lock(&*store, b"new", "holder"));
    assert_eq!(list(&*store, b""), before, "a lock that was not taken must write nothing");
    let options = LockOptions::new();
    assert_refused!(store.new_lock(b"", &options).map(drop), Error::KeyLength { len: 0, .. }, "a lock on an empty key");
    let result = store.new_lock(b"lock", &options.ttl(Duration::ZERO)).map(drop);
    assert_refused!(result, Error::ZeroTtl, "a lock with a time to live of zero");
    assert_eq!(list(&*store, b""), before, "a lock that is refused must write nothing");
}

/// Threads with a lock each, of these handles, hold it one after another.
pub(super) fn take_turns_with(handles: &[Arc<dyn Store>], patience: Duration) {
    let (effort, is_held, token) = (Effort::new(5), AtomicBool::new(false), AtomicU64::new(0));
    at_once(4, |thread| {
        let lock = new_lock(&*handles[thread % handles.len()], b"lock", "value");
        for _ in effort.rounds() {
            let held = ok(lock.lock(Some(patience)), "lock beside others");
            assert!(!is_held.swap(true, Ordering::SeqCst), "a lock must have one holder at a time");
            let last = token.swap(held.token(), Ordering::SeqCst);
            assert!(held.token() > last, "the token must rise with each holder");
            thread::yield_now();
            is_held.store(false, Ordering::SeqCst);
            ok(lock.unlock(), "unlock of a lock that is held");
            effort.meet();
        }
    });
}

#[track_caller]
pub(super) fn new_lock(store: &dyn Store, key: &[u8], value: &str) -> Box<dyn Lock> {
    ok(store.new_lock(key, &LockOptions::new().value(value)), "new_lock")
}

/// Takes a lock that must be free.
#[track_caller]
pub(super) fn taken(lock: &dyn Lock) -> Held {
    let held = ok(lock.try_lock(), "try_lock");
    held.unwrap_or_else(|| panic!("try_lock must take a lock that is free"))
}

/// Another one must hold it.
#[track_caller]
pub(super) fn is_taken(lock: &dyn Lock) {
    let held = ok(lock.try_lock(), "try_lock");
    assert!(held.is_none(), "try_lock must not take a lock that another one holds");
}
