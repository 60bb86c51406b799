//! The rules of the protocol between processes, checked at every call.
//!
//! Locks are advisory: a disk lets every process write to every file, and a store may look right for a long time. So the
//! simulated disk watches the files whose lock was ever taken, and the processes that have ever taken one. A call that
//! breaks a rule panics, and so does every later call: the thread that broke it may be one that no test waits for.

use std::fmt::Display;
use std::path::PathBuf;
use std::thread;

use super::machine::{Description, Machine};
use super::{SimDisk, Verb};

/// What a description has done, as far as the rules ask for it.
#[derive(Default)]
pub(super) struct Conduct {
    pub(super) has_locked: bool,
    /// A sync of this description is under way.
    is_syncing: bool,
    /// A sync or a write-back of this description has failed, and its error was reported.
    sync_failed: bool,
    locked_since_failure: bool,
}

impl SimDisk {
    /// Returns the files whose lock this process has, by their names or, without one, by their numbers. A handle that takes
    /// the lock for each write has none between two calls, whatever has failed.
    pub fn locks(&self) -> Vec<PathBuf> {
        let machine = self.lock();
        let owned = |&(_, owner): &(u64, u64)| machine.is_of(owner, self.process);
        let locks = machine.world.inodes.iter().filter_map(|(&number, inode)| Some((number, inode.locked_by?)));
        locks.filter(owned).map(|(number, _)| machine.world.directory.name_of(number)).collect()
    }

    /// Returns the number of open file descriptions of this process. A call that fails leaves none open.
    pub fn open_files(&self) -> usize {
        self.lock().descriptions.values().filter(|description| description.process == self.process).count()
    }

    /// Returns how often this process has synced a file without having its lock.
    pub fn syncs_without_lock(&self) -> u64 {
        self.lock().syncs_without_lock.get(&self.process).copied().unwrap_or(0)
    }

    /// Begins a sync. Its end is the drop of what this returns.
    pub(super) fn begin_sync(&self, number: u64) -> Syncing<'_> {
        let mut machine = self.lock();
        let Some(description) = machine.descriptions.get_mut(&number) else { return Syncing { disk: self, number } };
        let (was_syncing, inode) = (std::mem::replace(&mut description.conduct.is_syncing, true), description.inode);
        let again = description.conduct.sync_failed && description.conduct.has_locked;
        let has_locked = description.conduct.has_locked;
        if has_locked && !machine.has_lock_of(inode, self.process) {
            *machine.syncs_without_lock.entry(self.process).or_default() += 1;
        }
        if was_syncing {
            machine.broken(self.process, "syncs, while another sync of the same description is under way,", inode);
        }
        if again {
            machine.broken(self.process, "syncs once more, after a sync that failed,", inode);
        }
        Syncing { disk: self, number }
    }
}

/// A sync that is under way.
pub(super) struct Syncing<'d> {
    disk: &'d SimDisk,
    number: u64,
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        if let Some(description) = self.disk.lock().descriptions.get_mut(&self.number) {
            description.conduct.is_syncing = false;
        }
    }
}

impl Description {
    /// Notes that a sync or a write-back has reported an error.
    pub(super) fn note_failed_sync(&mut self) {
        self.conduct.sync_failed = true;
        self.conduct.locked_since_failure = false;
    }

    pub(super) fn note_lock(&mut self) {
        self.conduct.has_locked = true;
        self.conduct.locked_since_failure = self.conduct.sync_failed;
    }
}

impl Machine {
    /// Whether this is an open description of the process.
    fn is_of(&self, description: u64, process: u64) -> bool {
        self.descriptions.get(&description).is_some_and(|description| description.process == process)
    }

    fn has_lock_of(&self, inode: u64, process: u64) -> bool {
        self.world.inodes.get(&inode).and_then(|inode| inode.locked_by).is_some_and(|owner| self.is_of(owner, process))
    }

    /// Whether the rules ask for a lock: of a file that was ever locked, from a process that has ever locked one. Tests
    /// damage stores from a process that has not.
    fn rules_apply(&self, inode: u64, process: u64) -> bool {
        self.world.inodes.get(&inode).is_some_and(|inode| inode.was_locked) && self.lockers.contains(&process)
    }

    /// A description changes its file.
    pub(super) fn expect_right_to_change(&mut self, number: u64, verb: Verb) {
        let Some(description) = self.descriptions.get(&number) else { return };
        let (process, inode) = (description.process, description.inode);
        if !self.rules_apply(inode, process) {
            return;
        }
        let conduct = &description.conduct;
        let does = match verb {
            Verb::SetLen => "changes the length, without the lock,",
            Verb::Punch => "punches a hole, without the lock,",
            _ => "writes, without the lock,",
        };
        let after_failure = conduct.sync_failed && conduct.locked_since_failure;
        // A reopened handle that keeps its lock keeps it with the older description.
        let is_substitute = !conduct.has_locked;
        let owner = self.world.inodes.get(&inode).and_then(|inode| inode.locked_by);
        // A lock that lingers may be gone at any moment.
        let lingers = |owner| self.descriptions.get(&owner).is_some_and(|owner| owner.lingers.is_some());
        let may = |owner| owner == number || is_substitute && self.is_of(owner, process);
        let has_lock = owner.is_some_and(|owner| may(owner) && !lingers(owner));
        if !has_lock {
            self.broken(process, does, inode);
        } else if after_failure {
            self.broken(process, "changes the file in a turn that began after a failed sync,", inode);
        }
    }

    /// A process gives a file's name to another file, or takes a name away.
    pub(super) fn expect_right_to_replace(&mut self, process: u64, inode: u64, does: &str) {
        if self.rules_apply(inode, process) && !self.has_lock_of(inode, process) {
            self.broken(process, does, inode);
        }
    }

    /// As above, for a name that is removed: that of a file that another process is at work on.
    pub(super) fn expect_right_to_remove(&mut self, process: u64, inode: u64) {
        let owner = self.world.inodes.get(&inode).and_then(|inode| inode.locked_by);
        if self.lockers.contains(&process) && owner.is_some_and(|owner| !self.is_of(owner, process)) {
            self.broken(process, "removes the name of a file that another process has locked,", inode);
        }
    }

    fn broken(&mut self, process: u64, does: impl Display, inode: u64) {
        let name = self.world.directory.name_of(inode);
        let message = format!("a rule between processes is broken: process {process} {does} {}", name.display());
        self.broken_rule.get_or_insert(message);
        self.expect_rules_kept();
    }

    /// # Panics
    ///
    /// If any process has broken a rule, unless this thread panics already.
    pub(super) fn expect_rules_kept(&self) {
        if let Some(message) = self.broken_rule.as_ref().filter(|_| !thread::panicking()) {
            panic!("{message}");
        }
    }
}
