//! Promises about `close`.

use std::sync::Arc;

use super::effort::close_beside;
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
    close_beside(&*store, 4, |thread, round| {
        let key = format!("{thread}/{}", round % 8);
        store.put(key.as_bytes(), b"value")?;
        store.get(key.as_bytes())?;
        let listed = store.list(b"")?;
        assert!(!listed.is_empty(), "a listing that meets a close must not be empty");
        Ok(())
    });
    for (call, result) in calls(&*store, b"key", None) {
        assert_refused!(result, Error::Closed, format_args!("{call} after a close beside calls"));
    }
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
