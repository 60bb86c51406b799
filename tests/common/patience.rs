//! Tests that must come to an end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// Runs a test in a thread of its own, and fails if that does not end in time: the test also checks that no thread
/// waits for ever.
pub fn in_finite_time(test: impl FnOnce() + Send + 'static) {
    let (done, waiting) = sync_channel(1);
    let running = thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let _ = done.send(());
        outcome
    });
    waiting.recv_timeout(Duration::from_secs(60)).expect("a thread waits for ever");
    if let Ok(Err(panic)) = running.join() {
        std::panic::resume_unwind(panic);
    }
}
