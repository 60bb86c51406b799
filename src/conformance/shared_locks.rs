//! Promises about locks of a store that several handles are open on.

use std::thread;
use std::time::Duration;

use super::locks::{is_taken, new_lock, take_turns_with, taken};
use super::{Fixture, get, ok};
use crate::Error;

/// A lock belongs to the store, not to the handle that it was made with.
pub fn a_lock_keeps_out_every_handle(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    let (lock, stranger) = (new_lock(&*one, b"lock", "one"), new_lock(&*other, b"lock", "other"));
    let held = taken(&*lock);
    is_taken(&*stranger);
    assert_eq!(get(&*other, b"lock").value, b"one", "the value of a lock's holder must be seen through every handle");
    assert_refused!(stranger.unlock(), Error::NotHeld, "unlock by a stranger of another handle");
    ok(other.close(), "close of another handle");
    assert!(held.is_held(), "closing one handle must leave the locks of another one");
    ok(lock.unlock(), "unlock of a lock that is held");
}

/// The loss is found out although another handle has caused it.
pub fn the_loss_of_a_lock_is_reported_to_another_handle(fixture: &dyn Fixture) {
    let patience = fixture.patience();
    let (one, other) = (fixture.open(), fixture.open());
    let lock = new_lock(&*one, b"lock", "one");
    let held = taken(&*lock);
    ok(other.delete(b"lock"), "delete");
    let next = new_lock(&*other, b"lock", "other");
    let held_by_next = ok(next.lock(Some(patience)), "lock of a lock that was taken away");
    assert!(held_by_next.token() > held.token(), "the token must rise with each holder");
    assert!(held.loss().wait(Some(patience)), "the loss of a lock must be reported, whichever handle has caused it");
    assert_refused!(lock.unlock(), Error::NotHeld, "unlock of a lock that another handle has taken");
    assert!(held_by_next.is_held(), "unlock of a lost lock must leave it to the next holder");
}

/// The next one need not wait for the end of the time to live.
pub fn closing_a_handle_frees_its_locks(fixture: &dyn Fixture) {
    let patience = fixture.patience();
    let (one, other) = (fixture.open(), fixture.open());
    let (lock, next) = (new_lock(&*one, b"lock", "one"), new_lock(&*other, b"lock", "other"));
    let held = taken(&*lock);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| next.lock(Some(patience)));
        thread::sleep(Duration::from_millis(5));
        ok(one.close(), "close of a handle with a lock");
        let ended = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let taken = ok(ended, "a wait for a lock whose holder's handle is closed");
        assert!(taken.token() > held.token(), "a lock must have one holder at a time");
    });
    assert!(!held.is_held(), "a lock of a closed handle must not be held");
}

/// However many wait, and through whichever handle.
pub fn threads_of_several_handles_take_turns(fixture: &dyn Fixture) {
    take_turns_with(&[fixture.open(), fixture.open()], fixture.patience());
}
