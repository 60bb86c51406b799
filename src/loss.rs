//! [`LockLoss`]: how a program learns that a lock or a session is lost, and [`LossSender`], by which a backend says it.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::fork::Process;
use crate::sync::{AtomicBool, Condvar, Mutex, lock};

/// The loss of a lock or of a session: a signal that comes once and stays.
///
/// Clones are the same signal. The descriptor of [`AsFd`] is readable for ever once the loss has come, so that an event loop can wait
/// for it; nothing may be read from it. In a forked child it says nothing: the sessions are the parent's.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-lock-loss-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use std::time::Duration;
///
/// let session = cask.session(Duration::from_secs(20))?;
/// let loss = session.loss().clone();
/// assert!(!loss.is_lost() && !loss.wait(Some(Duration::ZERO)));
/// session.end()?;
/// assert!(loss.wait(None));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct LockLoss(Arc<Shared>);

struct Shared {
    is_lost: AtomicBool,
    guard: Mutex<()>,
    signal: Condvar,
    reader: UnixStream,
    writer: UnixStream,
    /// A forked child shares the descriptors, and must not wake the parent's threads.
    process: Process,
}

/// The end that sends a [`LockLoss`], for a backend with locks: see [`LockLoss::channel`].
///
/// Dropping it sends the loss too. So a task that renews a lock owns the sender, and a task that ends in a panic loses the lock.
///
/// ```
/// use caskfile::LockLoss;
///
/// let (sender, loss) = LockLoss::channel()?;
/// let waiting = std::thread::spawn(move || loss.wait(None));
/// sender.lose();
/// assert!(waiting.join().unwrap());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct LossSender(LockLoss);

impl LockLoss {
    /// Returns a sender and its signal, for a backend with locks: its [`Held`](crate::Held) has the signal, and what renews the lock
    /// has the sender.
    ///
    /// Cost: two descriptors.
    ///
    /// # Errors
    ///
    /// The system has no descriptors left.
    ///
    /// ```
    /// use caskfile::LockLoss;
    ///
    /// let (sender, loss) = LockLoss::channel()?;
    /// assert!(!loss.is_lost());
    /// drop(sender); // the task that renewed the lock has ended
    /// assert!(loss.is_lost());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn channel() -> io::Result<(LossSender, LockLoss)> {
        let (reader, writer) = UnixStream::pair()?;
        let (is_lost, guard, signal) = (AtomicBool::new(false), Mutex::new(()), Condvar::new());
        let loss = LockLoss(Arc::new(Shared { is_lost, guard, signal, reader, writer, process: Process::this() }));
        Ok((LossSender(loss.clone()), loss))
    }

    /// Returns whether the caller runs in the process that made it.
    pub(crate) fn is_here(&self) -> bool {
        self.0.process.is_this()
    }

    /// Returns whether the loss has come. A lock that is lost can be found out later than it happens: see
    /// [`Held::is_held`](crate::Held::is_held).
    pub fn is_lost(&self) -> bool {
        self.0.is_lost.load(Ordering::Acquire)
    }

    /// Waits for the loss, at most this long; with `None` for ever. Returns whether it has come.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        // A time that no clock reaches is for ever.
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut guard = lock(&self.0.guard);
        while !self.is_lost() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            guard = match left {
                Some(Duration::ZERO) => break,
                Some(left) => self.0.signal.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.0.signal.wait(guard).unwrap_or_else(PoisonError::into_inner),
            };
        }
        drop(guard);
        self.is_lost()
    }
}

impl LossSender {
    /// Returns the signal. See [`LossSender`] for an example.
    pub fn loss(&self) -> &LockLoss {
        &self.0
    }

    /// Sends the loss. Once is enough. Does nothing in a forked child. See [`LossSender`] for an example.
    pub fn lose(&self) {
        let shared = &*self.0.0;
        if !self.0.is_here() {
            return;
        }
        let guard = lock(&shared.guard);
        if !shared.is_lost.swap(true, Ordering::AcqRel) {
            // Not a close: a forked child may have the descriptor too.
            let _ = shared.writer.shutdown(Shutdown::Write);
            shared.signal.notify_all();
        }
        drop(guard);
    }
}

impl Drop for LossSender {
    fn drop(&mut self) {
        self.lose();
    }
}

impl std::fmt::Debug for LossSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LossSender").field(&self.0).finish()
    }
}

impl AsFd for LockLoss {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }
}

impl std::fmt::Debug for LockLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockLoss").field("is_lost", &self.is_lost()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_loss_wakes_the_waiting_threads_and_stays() {
        let (sender, loss) = LockLoss::channel().unwrap();
        assert!(!loss.wait(Some(Duration::ZERO)) && !loss.is_lost());
        loss.0.reader.set_nonblocking(true).unwrap();
        let poll = || (&loss.0.reader).read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(poll(), Err(io::ErrorKind::WouldBlock));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| loss.wait(None));
            sender.lose();
            assert!(waiting.join().unwrap());
        });
        sender.lose();
        assert!(loss.clone().wait(Some(Duration::MAX)) && loss.is_lost());
        assert_eq!((poll(), poll()), (Ok(0), Ok(0)));
    }

    #[test]
    fn a_sender_that_is_dropped_sends_the_loss() {
        let (sender, loss) = LockLoss::channel().unwrap();
        let waiting = std::thread::spawn(move || loss.wait(None));
        drop(sender);
        assert!(waiting.join().unwrap());
    }
}
