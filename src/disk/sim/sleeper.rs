//! Sleeping until a process changes something on the simulated disk.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::{SimDisk, Verb};
use crate::disk::{DiskFile, Sleeper};

/// Reports every change of the file that it is armed for, and of no other.
pub(super) struct SimSleeper {
    disk: SimDisk,
    /// The file's inode, and how many changes of it were made when this was armed.
    armed: Mutex<Option<(u64, u64)>>,
    is_woken: AtomicBool,
}

impl SimSleeper {
    pub(super) fn new(disk: SimDisk) -> SimSleeper {
        SimSleeper { disk, armed: Mutex::default(), is_woken: AtomicBool::new(false) }
    }

    fn wait(&self, most: Duration, for_changes: bool) -> bool {
        let began = Instant::now();
        let armed = *self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut machine = self.disk.lock();
        let changed = std::sync::Arc::clone(&machine.changed);
        loop {
            let is_told = for_changes && armed.is_some_and(|(inode, before)| machine.changes_of(inode) != before);
            let left = most.saturating_sub(began.elapsed());
            if is_told || self.is_woken.load(Ordering::SeqCst) || left.is_zero() {
                return is_told;
            }
            machine = changed.wait_timeout(machine, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Machine {
    /// A change that the system reports: a write, a length, attributes, or a name.
    pub(super) fn note_change(&mut self, inode: u64) {
        *self.changes.entry(inode).or_default() += 1;
        self.changed.notify_all();
    }

    fn changes_of(&self, inode: u64) -> u64 {
        self.changes.get(&inode).copied().unwrap_or(0)
    }
}

impl Sleeper for SimSleeper {
    fn arm(&self, file: &dyn DiskFile) -> bool {
        let Ok(stat) = file.stat() else { return false };
        let inode = stat.identity.inode;
        let armed = self.disk.call(Verb::Arm, |machine| Ok((inode, machine.changes_of(inode)))).ok();
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = armed;
        armed.is_some()
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

    fn forget(&self) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set_timer(&self, _after: Duration) {}
}
