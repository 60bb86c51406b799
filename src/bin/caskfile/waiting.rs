//! [`Waiting`]: how the verbs that follow a store wait for its next change.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use caskfile::Watch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit::Exit;
use crate::failure::{Failure, Result, io_failure};
use crate::interrupt::Interrupt;

/// How often a watch without a descriptor looks by itself: on other systems than Linux, or if there are no descriptors left.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Everything that can end a wait, in one call of the system.
pub struct Waiting<'i> {
    interrupt: &'i Interrupt,
    /// Readable when the watch may have something.
    changes: Option<OwnedFd>,
}

impl<'i> Waiting<'i> {
    pub fn new(interrupt: &'i Interrupt, watch: &mut Watch) -> Waiting<'i> {
        let changes = watch.descriptor().ok().and_then(|descriptor| descriptor.try_clone_to_owned().ok());
        Waiting { interrupt, changes }
    }

    /// Waits until the watch, whose `try_next` has returned `None`, may have something. Returns the exit of a signal that has
    /// come. It is [`Failure::ClosedPipe`] if the reader of `output` is gone, also while nothing changes.
    pub fn wait(&self, output: Option<&File>) -> Result<Option<Exit>> {
        let mut polled = vec![PollFd::from_borrowed_fd(self.interrupt.descriptor(), PollFlags::IN)];
        // No events: only an error or a hang-up ends the wait.
        polled.extend(output.map(|output| PollFd::new(output, PollFlags::empty())));
        polled.extend(self.changes.as_ref().map(|changes| PollFd::from_borrowed_fd(changes.as_fd(), PollFlags::IN)));
        let timeout = self.changes.is_none().then_some(&LOOK_UP);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io_failure("waiting for a change", error.into())),
        }
        if let Some(exit) = self.interrupt.received() {
            return Ok(Some(exit));
        }
        // The reader of the pipe is gone, or the terminal.
        if output.is_some() && !polled[1].revents().is_empty() {
            return Err(Failure::ClosedPipe);
        }
        Ok(None)
    }
}
