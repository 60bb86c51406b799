//! Promises about `close`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::effort::at_once;
use super::{Fixture, create, ok};
use crate::{Error, KvPair, Result, Store};

/// A second close has nothing to do and returns `Ok`.
pub fn closing_twice_is_ok(fixture: &dyn Fixture) {
    let store = fixture.open();
    ok(store.close(), "close");
    ok(store.close(), "a second close");
    ok(store.close(), "a third close");
}

/// Reads and writes, of present and absent keys.
pub fn every_call_after_close_is_closed(fixture: &dyn Fixture) {
    let store = fixture.open();
    let pair = create(&*store, b"key", b"value");
    ok(store.close(), "close");
    for key in [&b"key"[..], b"new"] {
        for (call, result) in calls(&*store, key, Some(&pair)) {
            assert_refused!(result, Error::Closed, format_args!("{call} after close"));
        }
    }
}

/// `Closed` is the error even if the arguments are wrong.
pub fn closed_comes_before_every_other_error(fixture: &dyn Fixture) {
    let store = fixture.open();
    ok(store.close(), "close");
    for (call, result) in calls(&*store, b"", None) {
        assert_refused!(result, Error::Closed, format_args!("{call} with an empty key after close"));
    }
}

/// Clones of a handle are one handle; so are references to it.
pub fn close_closes_every_clone_of_the_handle(fixture: &dyn Fixture) {
    let store = fixture.open();
    let clone = Arc::clone(&store);
    let pair = create(&*clone, b"key", b"value");
    let reference: &dyn Store = &store.as_ref();
    ok(reference.close(), "close through a reference");
    for (call, result) in calls(&*clone, b"key", Some(&pair)) {
        assert_refused!(result, Error::Closed, format_args!("{call} on a clone after close"));
    }
    ok(clone.close(), "closing a clone of a closed handle");
}

/// Calls that meet a close succeed or are `Closed`; none starts after it.
pub fn a_close_beside_calls_ends_them(fixture: &dyn Fixture) {
    let store = fixture.open();
    let started = AtomicU64::new(0);
    at_once(3, |thread| {
        if thread == 0 {
            while started.load(Ordering::SeqCst) < 4 {
                std::thread::yield_now();
            }
            ok(store.close(), "close beside calls");
            for (call, result) in calls(&*store, b"key", None) {
                assert_refused!(result, Error::Closed, format_args!("{call} after a close beside calls"));
            }
            return;
        }
        for round in 0u64.. {
            let key = format!("{thread}/{}", round % 8);
            let done = store.put(key.as_bytes(), b"value").and_then(|()| store.get(key.as_bytes()));
            started.fetch_add(1, Ordering::SeqCst);
            match done.and_then(|_| store.list(b"")) {
                Ok(listed) => assert!(!listed.is_empty(), "a listing that meets a close must not be empty"),
                Err(Error::Closed) => break,
                Err(error) => {
                    started.store(4, Ordering::SeqCst);
                    panic!("a call that meets a close must succeed or be Err(Closed), but gave {error:?}");
                }
            }
        }
    });
}

/// Every call but `close`.
fn calls(store: &dyn Store, key: &[u8], previous: Option<&KvPair>) -> [(&'static str, Result<()>); 8] {
    [
        ("put", store.put(key, b"value")),
        ("get", store.get(key).map(drop)),
        ("exists", store.exists(key).map(drop)),
        ("list", store.list(key).map(drop)),
        ("atomic_put that creates", store.atomic_put(key, b"value", None).map(drop)),
        ("atomic_put that replaces", store.atomic_put(key, b"value", previous).map(drop)),
        ("atomic_delete", store.atomic_delete(key, previous)),
        ("delete", store.delete(key)),
    ]
}
