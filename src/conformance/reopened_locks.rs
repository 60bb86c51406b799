//! Promises about locks of a store that is closed and opened again.

use super::locks::{new_lock, taken};
use super::{Fixture, list, ok};

/// A lock ends with its handle, but the token goes on rising.
pub fn a_lock_is_free_after_reopening_and_its_token_rises(fixture: &dyn Fixture) {
    let mut highest = 0;
    for _ in 0..3 {
        let store = fixture.open();
        assert_eq!(list(&*store, b""), [], "the key of a lock must be gone once its handle was closed");
        let lock = new_lock(&*store, b"lock", "value");
        let token = taken(&*lock).token();
        assert!(token > highest, "the token must rise across reopening, but {highest} was followed by {token}");
        highest = token;
        ok(store.close(), "close of a handle with a lock");
    }
}
