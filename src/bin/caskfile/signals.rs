//! [`Signals`]: signals for a verb that runs a command and passes them on to it.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::failure::{Result, io_failure};
use crate::interrupt::is_ignored;

/// Those that are passed on, and the one that says that a child has ended.
const CAUGHT: [i32; 7] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD];

/// The signals that have come since they were last taken.
pub struct Signals {
    came: Vec<(i32, Arc<AtomicBool>)>,
    /// The first one is readable once a signal has come.
    pipe: (UnixStream, UnixStream),
}

impl Signals {
    /// From here on, these signals are only noted. Those that were ignored when the process was started stay ignored.
    pub fn catch() -> Result<Signals> {
        let failure = |e| io_failure("signal handler", e);
        let pipe = UnixStream::pair().map_err(failure)?;
        pipe.0.set_nonblocking(true).map_err(failure)?;
        let mut came = Vec::new();
        for signal in CAUGHT.into_iter().filter(|&signal| !is_ignored(signal) || signal == SIGCHLD) {
            let flag = Arc::<AtomicBool>::default();
            let registered = flag::register(signal, Arc::clone(&flag));
            // After the flag, so that it is set when this wakes.
            registered.and_then(|_| pipe::register(signal, pipe.1.try_clone()?)).map_err(failure)?;
            came.push((signal, flag));
        }
        Ok(Signals { came, pipe })
    }

    /// The signals that have come, without the end of a child. Each comes once.
    pub fn take(&self) -> Vec<i32> {
        // Before the flags: a signal that comes after this wakes again.
        while (&self.pipe.0).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        let came = self.came.iter().filter(|(_, came)| came.swap(false, Ordering::AcqRel));
        came.map(|&(signal, _)| signal).filter(|&signal| signal != SIGCHLD).collect()
    }

    /// Readable once a signal has come that was not taken, or a child has ended.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }
}
