//! Maintenance: compaction, its throttle, backups, and verification of an open store.

pub(crate) mod automatic;
mod backup;
pub(crate) mod compact;
mod compactor;
mod throttle;
mod verify;

use std::sync::Arc;

use super::context::Context;
use super::read::Reading;
use super::write::Writing;
use automatic::Automatic;

pub use backup::Backup;
pub use compact::Compaction;

/// The maintaining side of an open store.
pub(crate) struct Maintenance {
    reading: Arc<Reading>,
    writing: Arc<Writing>,
    context: Arc<Context>,
    automatic: Automatic,
}

impl Maintenance {
    pub(crate) fn new(writing: Arc<Writing>) -> Maintenance {
        let (reading, context) = (Arc::clone(&writing.reading), Arc::clone(&writing.context));
        Maintenance { reading, writing, context, automatic: Automatic::default() }
    }

    /// Stops the compaction in the background. No other begins after that.
    pub(crate) fn end(&self) {
        self.automatic.end();
    }
}
