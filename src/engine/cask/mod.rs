//! [`Cask`]: the handle that users hold. This file describes it; its calls have files of their own.

// rustdoc shows the calls in this order; rustfmt sorts what no empty line separates.
mod whole;

mod reads;

mod writes;

mod conditional;

mod updates;

mod copies;

pub use updates::Update;

use std::any::Any;
use std::sync::Arc;

use super::Engine;
use crate::Result;
#[cfg(doc)]
use crate::config::Config;
use crate::engine::watch::{KeyFeed, TreeFeed};
#[cfg(doc)]
use crate::error::Error;
use crate::events::event;
use crate::store::{Feed, KvPair, Lock, LockOptions, PutOptions, Store, TreeEvent};

/// An open store, seen through one of its buckets.
///
/// A clone is cheap, and so is another [bucket](Cask::bucket): they share one open file, one index and one queue of
/// writers. Any number of threads may use a handle. Other processes, and other handles of this process, may have the same
/// file open at the same time.
///
/// # Durability
///
/// [`Config::durability`] sets when a write returns. By default it returns when the write is on stable storage. Threads that
/// write at the same time share one write and one sync.
///
/// # Cost
///
/// A read makes no system call while nothing is appended, and takes no lock that is held during a sync. A read that
/// starts while this process writes may wait for that write, but not for its sync. A read that finds new records in the
/// file reads them.
///
/// A write costs one `pwrite`, locking and unlocking the file in [`LockMode::PerWrite`](crate::LockMode::PerWrite), and
/// a sync in [`Durability::Sync`](crate::Durability::Sync). The first write after opening costs one more sync.
///
/// # Errors
///
/// [`Error`] lists what every call can return; the methods list what is special to them.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-cask-{}", std::process::id()));
/// use caskfile::Cask;
///
/// let cask = Cask::open(&path)?;
/// let last_index = cask.put("config/port", "8080")?;
/// cask.put_if("config/port", "9090", last_index)?;
/// assert_eq!(cask.list("config/")?.len(), 1);
/// cask.close()?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct Cask {
    pub(super) engine: Arc<Handle>,
    /// The bytes with which all full keys of this bucket start.
    pub(super) bucket: Arc<[u8]>,
}

/// Closes the store when the last handle is gone.
pub(super) struct Handle(Engine);

// A caller's closure that panics inside a call leaves the engine as it was: it is called without a lock, or the work is settled
// with an error when the panic passes by. A lock that a panic has poisoned is taken all the same. The disk is a trait object,
// so the compiler cannot see this.
impl std::panic::RefUnwindSafe for Handle {}

impl std::ops::Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // No caller can get this error. Acknowledged writes are as durable as was promised, also if closing fails.
        if let Err(error) = self.0.close() {
            event!(warn, "{}: closing: {error:#}", self.0.context.path.display());
        }
    }
}

impl std::fmt::Debug for Cask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cask")
            .field("path", &self.engine.context.path)
            .field("bucket", &String::from_utf8_lossy(&self.bucket[1..]))
            .finish_non_exhaustive()
    }
}

impl Store for Cask {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Cask::put(self, key, value).map(drop)
    }

    fn get(&self, key: &[u8]) -> Result<KvPair> {
        Cask::get(self, key)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Cask::exists(self, key)
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
        Cask::list(self, prefix)
    }

    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
        Cask::atomic_put(self, key, value, previous)
    }

    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
        Cask::atomic_delete(self, key, previous)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Cask::delete(self, key)
    }

    fn put_with(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
        Cask::put_with(self, key, value, options)
    }

    fn delete_tree(&self, prefix: &[u8]) -> Result<u64> {
        Cask::delete_prefix(self, prefix)
    }

    fn watch(&self, key: &[u8]) -> Result<Box<dyn Feed<Option<KvPair>>>> {
        Ok(Box::new(KeyFeed::new(self, key)?))
    }

    fn watch_tree(&self, prefix: &[u8]) -> Result<Box<dyn Feed<TreeEvent>>> {
        Ok(Box::new(TreeFeed::new(self, prefix)?))
    }

    fn new_lock(&self, key: &[u8], options: &LockOptions) -> Result<Box<dyn Lock>> {
        Ok(Box::new(Cask::lock(self, key, options)?))
    }

    fn close(&self) -> Result<()> {
        Cask::close(self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
