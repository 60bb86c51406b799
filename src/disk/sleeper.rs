//! Sleeping until a file changes.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::DiskFile;

/// What one thread sleeps on until a file changes, or until another thread wakes it.
///
/// The order of the calls makes that no change is missed: [arm](Sleeper::arm), look whether there is a change, and only then
/// sleep. A change after the first of these steps ends the sleep. A change before it is found by the look.
pub trait Sleeper: Send + Sync {
    /// Forgets the changes that were reported so far, and has the next change of this file reported: a write, a new length, or
    /// the gain or loss of a name. Returns `false` if the system does not report the changes of this file; then the caller must
    /// look by itself now and then.
    ///
    /// After one report there are no others until this is called again, so that a writer pays for a report only while a thread
    /// waits.
    fn arm(&self, file: &dyn DiskFile) -> bool;

    /// Sleeps until a change is reported, or until [`Sleeper::wake`] is called, at most this long. Returns at once if either has
    /// happened already, and may return earlier. Returns whether a change was reported.
    fn sleep(&self, most: Duration) -> bool;

    /// As [`Sleeper::sleep`], but a change does not end it.
    fn rest(&self, most: Duration);

    /// Ends the sleep, and all sleeps after it at once.
    fn wake(&self);

    /// Returns a descriptor that is readable (`POLLIN`) whenever [`Sleeper::sleep`] would return, and when the time of
    /// [`Sleeper::set_timer`] is over. It may be readable without a reason. It stays the same.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] if the system has no such descriptors.
    fn descriptor(&self) -> io::Result<BorrowedFd<'_>>;

    /// Forgets the changes that were reported so far, so that the descriptor is not readable because of them. None is reported
    /// until this is [armed](Sleeper::arm).
    fn forget(&self);

    /// Makes the descriptor readable after this time, until the time is set again.
    fn set_timer(&self, after: Duration);
}

/// A [`Sleeper`] that no change is reported to.
#[derive(Debug, Default)]
pub struct Doze {
    woken: Mutex<bool>,
    signal: Condvar,
}

impl Sleeper for Doze {
    fn arm(&self, _file: &dyn DiskFile) -> bool {
        false
    }

    fn sleep(&self, most: Duration) -> bool {
        self.rest(most);
        false
    }

    fn rest(&self, most: Duration) {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !*woken {
            drop(self.signal.wait_timeout(woken, most));
        }
    }

    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.notify_all();
    }

    fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn forget(&self) {}

    fn set_timer(&self, _after: Duration) {}
}
