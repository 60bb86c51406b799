//! Promises about feeds of a store that several handles write to.

use super::{Fixture, tree_feeds};

/// A feed belongs to the store, not to the handle that it was made with.
pub fn a_tree_feed_reports_what_another_handle_writes(fixture: &dyn Fixture) {
    tree_feeds::across_handles(fixture);
}
