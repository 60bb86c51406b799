//! [`Progress`]: how long operations tell how far they are, and how they are told to stop.

use std::ops::ControlFlow;
use std::path::Path;

use crate::fork::Process;
use crate::{Error, Result};

/// How far a long operation has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all, as far as that is known: of a compaction it grows with what is written to the store meanwhile.
    pub total: u64,
}

/// Is told how far it is, and may break it off.
pub(crate) type Watch<'w> = dyn FnMut(Progress) -> ControlFlow<()> + 'w;

/// Where a copy is to be, and who watches while it is made.
pub(crate) struct Copying<'c, 'w> {
    /// Resolved.
    pub(crate) to: &'c Path,
    /// Bytes that it will have, as far as that is known.
    pub(crate) total: u64,
    watch: &'c mut Watch<'w>,
    process: Process,
}

impl<'c, 'w> Copying<'c, 'w> {
    pub(crate) fn new(to: &'c Path, total: u64, watch: &'c mut Watch<'w>) -> Copying<'c, 'w> {
        Copying { to, total, watch, process: Process::this() }
    }

    /// Tells that so many bytes are written.
    ///
    /// # Errors
    ///
    /// [`Error::CopyCancelled`] if it is to stop, and [`Error::Forked`] if the closure that watches has come back in a
    /// forked child.
    pub(crate) fn tell(&mut self, done: u64) -> Result<()> {
        self.total = self.total.max(done);
        match (self.watch)(Progress { done, total: self.total }) {
            _ if !self.process.is_this() => Err(Error::Forked { path: self.to.to_owned() }),
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::CopyCancelled { path: self.to.to_owned() }),
        }
    }

    /// The same, when all of them are, for the last time at which it can stop.
    pub(crate) fn tell_all(&mut self) -> Result<()> {
        self.tell(self.total)
    }
}
