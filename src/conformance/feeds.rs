//! Promises about feeds of one key. Most are about faults that watches of libkv's backends have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::effort::{Effort, OnDrop, at_once};
use super::{Fixture, PATIENCE, create, get, ok, put};
use crate::{Error, Feed, KvPair, OptionalExt, Store};

/// The first item is the state of now: a pair, an empty value, or `None`.
pub fn a_watch_begins_with_the_present_state(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"full", b"value");
    put(&*store, b"empty", b"");
    put(&*store, b"gone", b"value");
    ok(store.delete(b"gone"), "delete");
    for key in [&b"full"[..], b"empty", b"gone", b"never", b"ful", b"full\0"] {
        let state = next(&mut *watch(&*store, key));
        let present = ok(store.get(key).optional(), "get");
        assert_eq!(state, present, "a watch of \"{}\" must begin with what get returns", key.escape_ascii());
    }
}

/// Each write is an item, with the `last_index` that it got, also if the value is the same again.
pub fn a_watch_reports_each_change_of_its_key_in_order(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut feed = watch(&*store, b"key");
    let mut expected = vec![None];
    for value in [&b"1"[..], b"2", b"2", b""] {
        put(&*store, b"key", value);
        expected.push(Some(get(&*store, b"key")));
    }
    let current = get(&*store, b"key");
    expected.push(Some(ok(store.atomic_put(b"key", b"3", Some(&current)), "atomic_put")));
    ok(store.delete(b"key"), "delete");
    expected.push(None);
    expected.push(Some(create(&*store, b"key", b"4")));
    for (number, expected) in expected.into_iter().enumerate() {
        assert_eq!(next(&mut *feed), expected, "a watch must report each change in order; item {number} is another");
    }
    nothing_more(&mut *feed);
}

/// An absent key is `None`. It is not a pair with an empty value, and the other way round.
pub fn a_deleted_key_is_absent_and_no_empty_value(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut feed = watch(&*store, b"key");
    assert_eq!(next(&mut *feed), None, "a key that was never there must be absent");
    let empty = create(&*store, b"key", b"");
    assert_eq!(next(&mut *feed), Some(empty), "an empty value must be a pair and no deletion");
    ok(store.delete(b"key"), "delete");
    assert_eq!(next(&mut *feed), None, "a deleted key must be absent and no pair with an empty value");
}

/// A watch is of a key and not of a prefix.
pub fn a_watch_reports_no_other_key(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key/below", b"value");
    let mut feed = watch(&*store, b"key");
    assert_eq!(next(&mut *feed), None, "a watch must not begin with another key");
    for other in [&b"key/below"[..], b"keys", b"key\0", b"ke", b"KEY", b"other"] {
        put(&*store, other, b"value");
        ok(store.delete(other), "delete");
    }
    nothing_more(&mut *feed);
    let pair = create(&*store, b"key", b"value");
    assert_eq!(next(&mut *feed), Some(pair), "a watch must report its own key and no other");
}

/// A watch that reads the key and then begins to listen loses what is written in between.
pub fn no_change_is_lost_between_the_first_state_and_the_watch(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"0");
    let (effort, ended) = (Effort::new(20), AtomicBool::new(false));
    at_once(2, |thread| {
        if thread == 0 {
            let mut count = 0_u64;
            while !ended.load(Ordering::SeqCst) {
                count += 1;
                put(&*store, b"key", count.to_string().as_bytes());
            }
            return;
        }
        let _end = OnDrop(|| ended.store(true, Ordering::SeqCst));
        for _ in effort.rounds() {
            let mut feed = watch(&*store, b"key");
            let first = number(next(&mut *feed));
            for later in 1..4 {
                let state = number(next(&mut *feed));
                assert_eq!(state, first + later, "no change may be lost between the first state and the watch");
            }
            effort.meet();
        }
    });
}

/// Without a change there is no item, however often the feed is asked.
pub fn a_watch_reports_nothing_while_nothing_changes(fixture: &dyn Fixture) {
    let store = fixture.open();
    put(&*store, b"key", b"value");
    let mut feed = watch(&*store, b"key");
    assert!(next(&mut *feed).is_some());
    for _ in 0..3 {
        nothing_more(&mut *feed);
    }
    ok(store.exists(b"key"), "exists");
    store.atomic_put(b"key", b"x", None).expect_err("creating a key that exists must be refused");
    ok(store.delete(b"absent"), "delete");
    nothing_more(&mut *feed);
}

/// A wait without a timeout lasts until there is an item.
pub fn a_write_ends_a_wait(fixture: &dyn Fixture) {
    let store = fixture.open();
    for round in 0..10 {
        let mut feed = watch(&*store, b"key");
        next(&mut *feed);
        thread::scope(|scope| {
            let waiting = scope.spawn(move || feed.next_timeout(None));
            thread::sleep(Duration::from_millis(round));
            put(&*store, b"key", b"value");
            let woken = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let pair = ok(woken, "next_timeout");
            assert_eq!(pair, Some(Some(get(&*store, b"key"))), "a wait must end with the change, and not before");
        });
    }
}

/// A wait that was aborted ends, and the feed with it. No other feed does.
pub fn a_stopped_watch_ends_and_no_other(fixture: &dyn Fixture) {
    let store = fixture.open();
    let (stopped, other) = (watch(&*store, b"key"), watch(&*store, b"key"));
    ends_by_its_stopper(stopped, other);
    put(&*store, b"key", b"value");
}

/// A watch of a closed store is over.
pub fn close_ends_a_watch(fixture: &dyn Fixture) {
    let store = fixture.open();
    let feed = watch(&*store, b"key");
    ends_by_closing(&*store, feed);
    for key in [&b"key"[..], b""] {
        assert_refused!(store.watch(key).map(drop), Error::Closed, "watch after close");
    }
}

/// A key has a byte at least.
pub fn watch_refuses_an_empty_key(fixture: &dyn Fixture) {
    let store = fixture.open();
    assert_refused!(store.watch(b"").map(drop), Error::KeyLength { len: 0, .. }, "a watch of an empty key");
}

#[track_caller]
fn watch(store: &dyn Store, key: &[u8]) -> Box<dyn Feed<Option<KvPair>>> {
    ok(store.watch(key), "watch")
}

/// The next item, which must come.
#[track_caller]
pub(super) fn next<T>(feed: &mut dyn Feed<T>) -> T {
    let item = ok(feed.next_timeout(Some(PATIENCE)), "next_timeout");
    item.unwrap_or_else(|| panic!("a feed must have an item for each change, but has had none for {PATIENCE:?}"))
}

/// There must be no item.
#[track_caller]
pub(super) fn nothing_more<T: std::fmt::Debug>(feed: &mut dyn Feed<T>) {
    let items = [
        ok(feed.try_next(), "try_next"),
        ok(feed.next_timeout(Some(Duration::from_millis(2))), "next_timeout"),
        ok(feed.try_next(), "try_next"),
    ];
    let item = items.into_iter().flatten().next();
    assert!(item.is_none(), "a feed must have no item without a change, but has {item:?}");
}

/// Stops a feed whose first item was not taken, while a thread waits in it.
pub(super) fn ends_by_its_stopper<T: std::fmt::Debug>(mut stopped: Box<dyn Feed<T>>, mut other: Box<dyn Feed<T>>) {
    next(&mut *stopped);
    next(&mut *other);
    let stopper = stopped.stopper();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            assert_refused!(stopped.next_timeout(Some(PATIENCE)), Error::Stopped, "a wait in a feed that was stopped");
            stopped
        });
        thread::sleep(Duration::from_millis(5));
        stopper.clone().stop();
        let mut stopped = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_refused!(stopped.try_next(), Error::Stopped, "try_next of a feed that was stopped");
        assert_refused!(stopped.next_timeout(None), Error::Stopped, "next_timeout of a feed that was stopped");
        stopper.stop();
    });
    nothing_more(&mut *other);
}

/// Closes the store while a thread waits in a feed whose first item was not taken.
pub(super) fn ends_by_closing<T: std::fmt::Debug>(store: &dyn Store, mut feed: Box<dyn Feed<T>>) {
    next(&mut *feed);
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            assert_refused!(feed.next_timeout(Some(PATIENCE)), Error::Closed, "a wait in a feed of a closed store");
            feed
        });
        thread::sleep(Duration::from_millis(5));
        ok(store.close(), "close beside a wait in a feed");
        let mut feed = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_refused!(feed.try_next(), Error::Closed, "try_next of a feed of a closed store");
    });
}

fn number(state: Option<KvPair>) -> u64 {
    let pair = state.expect("the key is never deleted");
    let text = std::str::from_utf8(&pair.value).expect("the values are numbers");
    text.parse().expect("the values are numbers")
}
