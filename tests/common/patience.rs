//! Tests that must come to an end.

// The unit tests use a part of this.
#![allow(dead_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// No test takes this long, even on a busy machine, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(120);

thread_local! {
    static HAS_DEADLINE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test in a thread of its own, and fails if that does not end in time: the test also checks that no thread
/// waits for ever.
pub fn in_finite_time(test: impl FnOnce() + Send + 'static) {
    let (done, waiting) = sync_channel(1);
    let name = thread::current().name().unwrap_or("the test").to_owned();
    let body = move || {
        HAS_DEADLINE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let _ = done.send(());
        outcome
    };
    let running = thread::Builder::new().name(name.clone()).spawn(body).unwrap();
    // A thread that hangs is left alone. The test program ends without it.
    assert!(waiting.recv_timeout(PATIENCE).is_ok(), "{name} waits for ever: it has not ended after {PATIENCE:?}");
    if let Ok(Err(panic)) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The first line of a test that waits for threads, processes or channels, called with the test itself:
///
/// ```ignore
/// let Some(()) = with_a_deadline(name_of_the_test) else { return };
/// ```
///
/// It runs the test once more, in a thread of its own, and fails if that does not end in time. It returns `Some` in that
/// thread.
pub fn with_a_deadline(test: fn()) -> Option<()> {
    if HAS_DEADLINE.get() {
        return Some(());
    }
    in_finite_time(test);
    None
}
