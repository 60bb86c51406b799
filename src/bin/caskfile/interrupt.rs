//! Ctrl-C, SIGTERM and SIGHUP for verbs that run long: the first signal makes them stop in good order.
//!
//! A signal ends the other verbs like any program. The store is whole in both cases.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use caskfile::{Error, Progress};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::exit::Exit;
use crate::failure::{Failure, Result, io_failure};

/// Whether a signal to stop has come.
#[derive(Clone)]
pub struct Interrupt {
    received: Arc<AtomicUsize>,
    /// The first one is readable once a signal has come. Without the second one it would be, if all signals are ignored.
    pipe: Arc<(UnixStream, UnixStream)>,
}

impl Interrupt {
    /// From here on, the first signal is only recorded, and the second one ends the process at once.
    pub fn watch() -> Result<Interrupt> {
        let (received, again) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let pipe = UnixStream::pair().map_err(|e| io_failure("signal handler", e))?;
        for (signal, exit) in SIGNALS.into_iter().filter(|&(signal, _)| !is_ignored(signal)) {
            // In this order, so that the signal that sets the flag does not count as the second one.
            flag::register_conditional_shutdown(signal, exit.code().into(), Arc::clone(&again))
                .and_then(|_| flag::register(signal, Arc::clone(&again)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&received), usize::from(exit.code())))
                // Last, so that the exit is known to a process that this wakes.
                .and_then(|_| pipe::register(signal, pipe.1.try_clone()?))
                .map_err(|e| io_failure("signal handler", e))?;
        }
        Ok(Interrupt { received, pipe: Arc::new(pipe) })
    }

    /// The exit of the signal that has come.
    pub fn received(&self) -> Option<Exit> {
        let code = self.received.load(Ordering::Relaxed);
        SIGNALS.into_iter().map(|(_, exit)| exit).find(|exit| usize::from(exit.code()) == code)
    }

    /// Readable once a signal has come, for a process that waits for something else as well.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }
}

const SIGNALS: [(i32, Exit); 3] = [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated), (SIGHUP, Exit::HungUp)];

/// Whether the process was started with the signal ignored, as `nohup` does. It stays ignored then.
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Makes a copy that a signal can cancel. Before there is anything to remove, while the source is read, a signal ends the
/// process as usual.
pub fn stoppable<T>(
    copy: impl FnOnce(&mut dyn FnMut(Progress) -> ControlFlow<()>) -> caskfile::Result<T>,
) -> Result<T> {
    let mut watched: Option<Result<Interrupt>> = None;
    let copied = copy(&mut |_| match watched.get_or_insert_with(Interrupt::watch) {
        Ok(interrupt) if interrupt.received().is_none() => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    match (copied, watched.transpose()?.and_then(|interrupt| interrupt.received())) {
        (Err(error @ Error::CopyCancelled { .. }), Some(exit)) => Err(stopped(&error, exit)),
        (copied, _) => Ok(copied?),
    }
}

/// The failure of work that a signal has cancelled.
pub fn stopped(error: &Error, exit: Exit) -> Failure {
    Failure::new(exit, format!("stopped by {}: {error:#}", exit.cause()))
}
