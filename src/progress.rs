//! [`Progress`]: how a long operation reports how far it is, and how it is cancelled.

use std::ops::ControlFlow;
use std::path::Path;

use crate::fork::Process;
use crate::{Error, Result};

/// How far a long operation is: the argument of the closure that [`salvage_with`](crate::salvage_with),
/// [`Cask::compact_with`](crate::Cask::compact_with) and [`Cask::backup_with`](crate::Cask::backup_with) call.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-progress-{}", std::process::id()));
/// use std::ops::ControlFlow;
///
/// use caskfile::{Cask, Error, Progress};
///
/// let cask = Cask::open(&path)?;
/// cask.put("key", "value")?;
/// // Cancels at the first call.
/// let result = cask.compact_with(|Progress { done, total, .. }| {
///     assert!(done <= total);
///     ControlFlow::Break(())
/// });
/// assert!(matches!(result, Err(Error::CompactionCancelled { .. })));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many bytes are written.
    pub done: u64,
    /// How many bytes there are in all, as far as is known. In a compaction it grows with what is written to the store
    /// meanwhile.
    pub total: u64,
}

/// A closure that gets the progress and may cancel the operation.
pub(crate) type Watch<'w> = dyn FnMut(Progress) -> ControlFlow<()> + 'w;

/// The path of a new copy, and the closure that watches while it is made.
pub(crate) struct Copying<'c, 'w> {
    /// Resolved.
    pub(crate) to: &'c Path,
    /// The copy's length in bytes, as far as is known.
    pub(crate) total: u64,
    watch: &'c mut Watch<'w>,
    process: Process,
}

impl<'c, 'w> Copying<'c, 'w> {
    pub(crate) fn new(to: &'c Path, total: u64, watch: &'c mut Watch<'w>) -> Copying<'c, 'w> {
        Copying { to, total, watch, process: Process::this() }
    }

    /// Reports that `done` bytes are written.
    ///
    /// # Errors
    ///
    /// [`Error::CopyCancelled`] if the closure breaks, [`Error::Forked`] if it returns in a forked child.
    pub(crate) fn tell(&mut self, done: u64) -> Result<()> {
        self.total = self.total.max(done);
        match (self.watch)(Progress { done, total: self.total }) {
            _ if !self.process.is_this() => Err(Error::Forked { path: self.to.to_owned() }),
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::CopyCancelled { path: self.to.to_owned() }),
        }
    }

    /// Reports that all bytes are written. This is the last time at which the closure can cancel.
    pub(crate) fn tell_all(&mut self) -> Result<()> {
        self.tell(self.total)
    }
}
