//! The engine: one open store.
//!
//! An [`Engine`] has three parts, each with its own fields and locks. [`read`] shows the log's current view and catches up
//! with what other processes write. [`write`](mod@write) queues requests, takes the file's lock and appends. [`maintain`]
//! compacts and copies. Reading never uses writing, and writing never uses maintenance; [`open`] joins the three, and [`cask`]
//! is the handle over them.
//!
//! # Locks
//!
//! In the order in which one thread may take them:
//!
//! 1. leadership of the [queue](write::queue): one thread at a time writes, syncs in a turn, compacts or closes;
//! 2. the file's lock (`flock`), which keeps other processes from writing;
//! 3. [`Writer`](write::writer::Writer): what the leader knows; never contended. A thread that is about to sleep tries for it,
//!    to release a lock that lingers;
//! 4. `rescanning` of [`Reading`]: held while the whole log is read for the keys that a snapshot lacks;
//! 5. `ingest` of [`Reading`]: held while the log's end is read and the view is changed, so during this
//!    process's own appends too; never during a sync, except that of a cut;
//! 6. the view of [`Reading`], a [sharded lock](read::sharded): held for reading during a look-up, for writing
//!    while a unit is replayed into the index; never during a write or a sync of the file;
//! 7. the list of watches, and the file of each; the sessions of the handle, and the threads that wait for its locks: for a
//!    moment, with nothing locked after it.

mod applied;
pub(crate) mod batch;
mod cask;
pub(crate) mod context;
pub(crate) mod deadline;
#[cfg(all(test, any(loom, shuttle)))]
mod interleaved;
pub(crate) mod maintain;
mod mapped;
mod open;
mod put_options;
pub(crate) mod read;
mod session;
mod stats;
mod watch;
pub(crate) mod write;

use std::sync::Arc;
use std::time::Instant;

pub use applied::Applied;
pub use batch::{Batch, MAX_BATCH_BYTES, MAX_BATCH_OPS};
pub use cask::{Cask, Update};
pub use maintain::{Backup, Compaction};
pub use mapped::{Mapped, Slice};
pub use read::by_index::IndexScan;
pub use read::keys::Keys;
pub use read::scan::{BucketScans, PairRef, Scan};
pub use session::{CaskLock, Session, SessionKey, SessionState, SessionStatus};
pub use stats::Stats;
pub use watch::{ChangeRef, Unit, Watch, WatchFrom, WatchOptions};

use context::Context;
use maintain::Maintenance;
use read::Reading;
use session::{Queues, Renewal};
use write::Writing;
use write::outcome::Outcome;
use write::request::Request;

/// One open store, shared by all clones of a handle.
pub(crate) struct Engine {
    pub(crate) reading: Arc<Reading>,
    pub(crate) writing: Arc<Writing>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) context: Arc<Context>,
    /// The thread that renews sessions.
    renewal: Renewal,
    /// The threads that wait for locks.
    queues: Queues,
    opened: Instant,
}

impl Engine {
    /// Commits a request, together with those of other threads if there are any, and compacts the log if it is time.
    pub(crate) fn commit(&self, request: Request<'_>) -> Outcome {
        let log_bytes = request.log_bytes;
        let (outcome, had_turn) = self.writing.commit(request);
        if had_turn {
            self.maintenance.begin_if_due();
        }
        self.maintenance.throttle(&outcome, log_bytes);
        outcome
    }
}
