//! The engine: where the log meets the index.
//!
//! One [`Engine`] is one open store, shared by all clones of a handle. Who wants to read takes the view
//! ([`view`]); who wants to write takes a place in the queue ([`queue`]), and whoever is first there writes for all
//! who wait ([`commit`]), in a turn ([`turn`]) that has the file's lock.
//!
//! # Locks
//!
//! In the order in which they may be taken together:
//!
//! 1. the *baton* of the queue: one thread at a time writes, syncs in a turn, compacts or closes;
//! 2. the file's lock (`flock`), which keeps other processes from writing;
//! 3. `writer`: what the holder of the baton knows; never contended, it only shows the compiler that there is one;
//! 4. `ingest`: held by whoever reads the log's end and changes the view, so during this process's own appends too, and
//!    by readers who see that something stands behind the end that they know; never during a sync, except that of a
//!    cut;
//! 5. `view`, one value behind several locks ([`spread`]): held for reading during a look-up, for writing while a unit is
//!    taken in; never during a write or a sync of the file.

pub(crate) mod batch;
mod cask;
#[cfg(all(test, any(loom, shuttle)))]
mod interleaved;
mod maintain;
mod mapped;
mod read;
mod reopen;
mod stats;
mod write;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

pub use batch::{Batch, MAX_BATCH_BYTES, MAX_BATCH_OPS};
pub use cask::Cask;
pub use maintain::{Backup, Compaction};
pub use mapped::{Mapped, Slice};
pub use read::by_index::IndexScan;
pub use read::scan::{BucketScans, PairRef, Scan};
pub use stats::Stats;

use crate::config::{Config, Durability};
use crate::disk::{Access, Disk};
use crate::events::event;
use crate::fork::Process;
use crate::log::create::{self, Opening};
use crate::log::recover::directory;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard};
use crate::{Error, Result};

use maintain::automatic::Automatic;
use read::sharded::ShardedLock;
use read::view::View;
use write::commit::{Outcome, Request};
use write::numbering::Writer;
use write::queue::Queue;
use write::sync::{IntervalSync, SyncState};

/// One open store.
pub(crate) struct Engine {
    disk: Arc<dyn Disk>,
    /// The disk without a hold on the store's directory, for copies: they go where their path leads now.
    by_path: Arc<dyn Disk>,
    path: Arc<Path>,
    config: Config,
    /// The process that opened the store: a forked child shares its parent's lock, and what the parent's other threads
    /// had locked stays locked in the child.
    process: Process,
    opened: Instant,
    queue: Queue<Request, Outcome>,
    writer: Mutex<Writer>,
    ingest: Mutex<()>,
    /// `None` once the store is closed.
    view: ShardedLock<Option<View>>,
    syncs: Arc<SyncState>,
    interval: Mutex<Option<IntervalSync>>,
    /// Set when closing begins, so that nobody queues up behind it.
    closing: AtomicBool,
    automatic: Automatic,
    /// For the thread that compacts in the background.
    me: Weak<Engine>,
    counters: Counters,
}

/// What [`Stats`] counts.
#[derive(Default)]
pub(crate) struct Counters {
    groups: AtomicU64,
    /// Bytes.
    written: AtomicU64,
    torn_bytes: AtomicU64,
    compactions: AtomicU64,
    /// In the background.
    failed_compactions: AtomicU64,
    lock_waits: AtomicU64,
    /// Nanoseconds.
    lock_waited: AtomicU64,
    /// Nanoseconds, of the last time.
    opening: AtomicU64,
}

impl Engine {
    /// Opens a store, and makes it first if the configuration says so.
    fn open(disk: Arc<dyn Disk>, path: &Path, config: &Config) -> Result<Arc<Engine>> {
        let opened = Instant::now();
        let path: Arc<Path> = disk.resolve(path).map_err(|e| Error::io("resolve", path, e))?.into();
        // Without a hold on the directory the path has to do.
        let by_path = Arc::clone(&disk);
        let disk = disk.anchor(directory(&path)).ok().flatten().unwrap_or(disk);
        let syncs = Arc::<SyncState>::default();
        let interval = match config.get_durability() {
            Durability::Interval(interval) if !config.get_read_only() => Some(
                IntervalSync::start(interval, Arc::clone(&syncs))
                    .map_err(|e| Error::io("start the sync thread", &path, e))?,
            ),
            _ => None,
        };
        let queue = match config.get_durability() {
            Durability::Sync => Queue::default(),
            Durability::Interval(_) | Durability::Os => Queue::of_short_turns(),
        };
        let engine = Arc::new_cyclic(|me| Engine {
            disk,
            by_path,
            path,
            config: config.clone(),
            process: Process::this(),
            opened,
            queue,
            writer: Mutex::default(),
            ingest: Mutex::default(),
            view: ShardedLock::new(None),
            syncs,
            interval: Mutex::new(interval),
            closing: AtomicBool::new(false),
            automatic: Automatic::default(),
            me: Weak::clone(me),
            counters: Counters::default(),
        });
        let deadline = engine.deadline();
        let log = create::open(&*engine.disk, &engine.path, engine.opening(), || engine.wait_a_moment(&deadline))?;
        let log = Arc::new(log);
        let view = engine.read_log(log, 1)?;
        *engine.view.write() = Some(view);
        if !config.get_read_only() {
            // The first turn looks at the log's end under the lock, and mends it.
            engine.solo(deadline, |_turn| Ok(()))?;
        }
        engine.opened_anew(opened)?;
        Ok(engine)
    }

    /// Notes how long opening took, and tells of it.
    fn opened_anew(&self, began: Instant) -> Result<()> {
        let took = began.elapsed();
        self.counters.opening.store(took.as_nanos() as u64, Ordering::Relaxed);
        let view = self.shown()?;
        let (keys, end) = (view.index.len(), view.tail.end);
        event!(debug, "{}: opened: {keys} keys in a log of {end} bytes, in {took:?}", self.path.display());
        Ok(())
    }

    fn opening(&self) -> Opening {
        let read_only = self.config.get_read_only();
        Opening {
            access: if read_only { Access::Read } else { Access::ReadWrite },
            create: self.config.get_create() && !read_only,
            mode: self.config.get_file_mode(),
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.process.is_this() { Ok(()) } else { Err(self.forked()) }
    }

    /// The error of a call in a forked child.
    #[cold]
    fn forked(&self) -> Error {
        if self.closing.load(Ordering::Acquire) {
            return Error::Closed;
        }
        Error::Forked { path: self.path.to_path_buf() }
    }
}

// A panic while one of these is held leaves nothing half done behind them that matters: the view is changed by whole
// units, and a turn that ends in a panic poisons the handle. So the std locks' own poisoning is passed over.

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
