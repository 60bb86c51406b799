//! Sleeping until a process changes something on the simulated disk.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::{SimDisk, Verb};
use crate::disk::{DiskFile, Sleeper};

/// Reports every change of any file as one of the file that it is armed for.
pub(super) struct SimSleeper {
    disk: SimDisk,
    /// The changes that were made when this was armed.
    armed: AtomicU64,
    is_woken: AtomicBool,
}

impl SimSleeper {
    pub(super) fn new(disk: SimDisk) -> SimSleeper {
        SimSleeper { disk, armed: AtomicU64::new(0), is_woken: AtomicBool::new(false) }
    }

    fn wait(&self, most: Duration, for_changes: bool) -> bool {
        let began = Instant::now();
        let mut machine = self.disk.lock();
        let changed = std::sync::Arc::clone(&machine.changed);
        loop {
            let is_told = for_changes && machine.changes != self.armed.load(Ordering::SeqCst);
            let left = most.saturating_sub(began.elapsed());
            if is_told || self.is_woken.load(Ordering::SeqCst) || left.is_zero() {
                return is_told;
            }
            machine = changed.wait_timeout(machine, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Machine {
    pub(super) fn note_change(&mut self) {
        self.changes += 1;
        self.changed.notify_all();
    }
}

impl Sleeper for SimSleeper {
    fn arm(&self, _file: &dyn DiskFile) -> bool {
        let armed = self.disk.call(Verb::Arm, |machine| {
            self.armed.store(machine.changes, Ordering::SeqCst);
            Ok(())
        });
        armed.is_ok()
    }

    fn sleep(&self, most: Duration) -> bool {
        self.wait(most, true)
    }

    fn rest(&self, most: Duration) {
        self.wait(most, false);
    }

    fn wake(&self) {
        let machine = self.disk.lock();
        self.is_woken.store(true, Ordering::SeqCst);
        machine.changed.notify_all();
    }

    fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_timer(&self, _after: Duration) {}
}
