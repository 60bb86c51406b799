//! Opening, reopening and closing a store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Engine;
use super::context::Context;
use super::deadline::Patience;
use super::maintain::Maintenance;
use super::read::Reading;
use super::write::Writing;
use crate::config::Config;
use crate::disk::Disk;
use crate::events::event;
use crate::log::path::directory;
use crate::{Error, Result};

impl Engine {
    /// Opens a store. Creates it first if the configuration says so.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, config: &Config) -> Result<Engine> {
        let opened = disk.system().clock().now();
        let path: Arc<Path> = disk.resolve(path).map_err(|e| Error::io("resolve", path, e))?.into();
        let by_path = Arc::clone(&disk);
        // Without a hold on the directory, the path is used.
        let disk = disk.anchor(directory(&path)).ok().flatten().unwrap_or(disk);
        let context = Arc::new(Context::new(disk, by_path, path, config));
        let reading = Arc::new(Reading::new(Arc::clone(&context)));
        let writing = Arc::new(Writing::new(Arc::clone(&reading))?);
        let maintenance = Arc::new(Maintenance::new(Arc::clone(&writing)));
        let (renewal, queues) = Default::default();
        let engine = Engine { reading, writing, maintenance, context, renewal, queues, opened };
        let deadline = engine.context.deadline();
        engine.reading.open(&deadline)?;
        if !config.get_read_only() {
            // The first turn looks at the log's end under the lock, and recovers it.
            engine.writing.solo(deadline, |_turn| Ok(()))?;
        }
        engine.note_opening(opened)?;
        Ok(engine)
    }

    /// Opens the file of this handle once more, after a failure that the handle cannot go on from.
    pub(crate) fn reopen(&self) -> Result<()> {
        let began = self.context.clock.now();
        self.writing.reopen()?;
        self.note_opening(began)?;
        event!(info, "{}: reopened", self.context.path.display());
        Ok(())
    }

    fn note_opening(&self, began: Instant) -> Result<()> {
        let took = self.context.clock.since(began);
        self.context.counters.opening.store(took.as_nanos() as u64, Ordering::Relaxed);
        let view = self.reading.shown()?;
        let (keys, end) = (view.index().len(), view.tail.end);
        event!(debug, "{}: opened: {keys} keys in a log of {end} bytes, in {took:?}", self.context.path.display());
        Ok(())
    }

    /// Closes the store. The file is released even if tidying up fails.
    pub(crate) fn close(&self) -> Result<()> {
        let context = &*self.context;
        if !context.is_this_process() {
            // The file's lock and the background threads are the parent's. What another thread of the parent had locked at
            // the moment of the fork stays locked here for ever, and is left alone.
            context.begin_closing();
            self.reading.try_close();
            return Ok(());
        }
        if self.reading.shown().is_err() {
            return Ok(());
        }
        let patience = Patience::new(context.config.get_connection_timeout());
        // First, so that others do not wait for their ends during a compaction.
        self.renewal.end(&self.writing, &patience);
        self.maintenance.compact_if_overdue(&patience);
        self.maintenance.finish_snapshot(&patience);
        self.maintenance.end();
        self.maintenance.write_snapshot_at_close(&patience);
        let tidied = self.writing.close(&patience);
        self.reading.watchers.wake();
        context.disk.release();
        event!(debug, "{}: closed", context.path.display());
        match tidied {
            // Another thread has closed it meanwhile, or this handle did not get the lock in time. The next handle that
            // closes shortens the file.
            Err(Error::Closed | Error::LockTimeout { .. }) => Ok(()),
            result => result,
        }
    }
}
