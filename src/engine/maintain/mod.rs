//! Maintenance: compaction, its throttle, backups, and verification of an open store.

pub(crate) mod automatic;
mod backup;
pub(crate) mod compact;
mod compactor;
mod snapshot;
mod throttle;
mod verify;

use std::sync::Arc;

use super::context::Context;
use super::read::Reading;
use super::write::Writing;
use crate::sync::AtomicU64;
use automatic::Automatic;

pub use backup::Backup;
pub use compact::Compaction;

/// The maintaining side of an open store.
pub(crate) struct Maintenance {
    reading: Arc<Reading>,
    writing: Arc<Writing>,
    context: Arc<Context>,
    automatic: Automatic,
    /// The end of the last record of an image that this handle has written.
    last_image: AtomicU64,
}

impl Maintenance {
    pub(crate) fn new(writing: Arc<Writing>) -> Maintenance {
        let (reading, context) = (Arc::clone(&writing.reading), Arc::clone(&writing.context));
        Maintenance { reading, writing, context, automatic: Automatic::default(), last_image: AtomicU64::new(0) }
    }

    /// Stops the compaction in the background. No other begins after that.
    pub(crate) fn end(&self) {
        self.automatic.end();
    }
}
