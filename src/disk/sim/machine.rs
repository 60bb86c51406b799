//! The machine of a simulated disk: its files, its processes, and how a call is made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::Duration;

use super::choices::Random;
use super::directory::Directory;
use super::faults::Schedule;
use super::inode::{Crash, Inode};
use super::recording::{Change, Recording};
use super::rules::Conduct;
use super::{Choices, Fault, Hook, Pause, SimDisk, Verb};
use crate::disk::{Clock, FileIdentity, FileStat};
use crate::limits::Limits;

/// The disk and the running system around it.
pub(super) struct Machine {
    pub(super) world: World,
    pub(super) power_is_on: bool,
    pub(super) calls: u64,
    pub(super) calls_by_verb: [u64; Verb::COUNT],
    /// Calls that a planned fault has made fail.
    pub(super) failed_by_verb: [u64; Verb::COUNT],
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    /// By process.
    pub(super) bytes_read_under_lock: BTreeMap<u64, u64>,
    /// By process.
    pub(super) syncs_without_lock: BTreeMap<u64, u64>,
    /// The processes that have ever taken a lock.
    pub(super) lockers: BTreeSet<u64>,
    /// What a process has done against the [`rules`](super::rules).
    pub(super) broken_rule: Option<String>,
    pub(super) processes: u64,
    pub(super) killed: BTreeSet<u64>,
    /// The open files, by a number that is never used again.
    pub(super) descriptions: BTreeMap<u64, Description>,
    pub(super) opened: u64,
    /// The places in the waiting lines, by inode and number, and the descriptions that have them.
    pub(super) places: BTreeMap<(u64, u64), u64>,
    /// The descriptions that hold the bytes of owners of sessions, by inode and owner.
    pub(super) owners: BTreeMap<(u64, u64), BTreeSet<u64>>,
    /// The boots that processes find where it is not that of the machine.
    pub(super) boots: BTreeMap<u64, [u8; 16]>,
    pub(super) faults: Schedule<Fault>,
    pub(super) hooks: Schedule<Hook>,
    /// By which engines wait.
    pub(super) engine_clock: Clock,
    pub(super) recording: Option<Recording>,
    /// How many changes of each inode were made, for processes that sleep until there is one.
    pub(super) changes: BTreeMap<u64, u64>,
    pub(super) changed: Arc<Condvar>,
    pub(super) on_pause: Option<Pause>,
}

/// What outlives the processes.
#[derive(Clone)]
pub(super) struct World {
    pub(super) directory: Directory,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) created: u64,
    pub(super) clock: Duration,
    /// How often the power was cut.
    pub(super) reboots: u8,
    pub(super) random: Random,
    pub(super) settings: Settings,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) crash: Crash,
    pub(super) maps: bool,
    pub(super) links: bool,
    pub(super) overlay: bool,
    pub(super) mount_points: bool,
    pub(super) holes: bool,
    pub(super) punches: bool,
    pub(super) waiting_line: bool,
    pub(super) lingering: Option<u32>,
    pub(super) failed_syncs: Choices,
    pub(super) room: Option<u64>,
    pub(super) free_pages: Option<u64>,
    pub(super) default_acl: Option<Vec<u8>>,
    pub(super) limits: &'static Limits,
}

/// An open file description.
pub(super) struct Description {
    pub(super) process: u64,
    pub(super) inode: u64,
    pub(super) writable: bool,
    /// It has made a map. A map outlives its description only in a process that no longer reads from it.
    pub(super) maps: bool,
    /// Its lock lingers: it is released once other descriptions have tried for it as often.
    pub(super) lingers: Option<u32>,
    /// The number of the inode's write errors that it has reported, or that came before it was opened.
    pub(super) errors_reported: u64,
    pub(super) conduct: Conduct,
}

/// A call that has begun: it is counted, and no other call can come in between.
pub(super) struct Turn<'a> {
    pub(super) machine: MutexGuard<'a, Machine>,
    process: u64,
    pub(super) fault: Option<Fault>,
}

impl SimDisk {
    /// Begins a call.
    pub(super) fn turn(&self, verb: Verb) -> io::Result<Turn<'_>> {
        let mut machine = self.hooked(verb);
        machine.expect_rules_kept();
        machine.expect_alive(self.process)?;
        machine.calls += 1;
        machine.calls_by_verb[verb as usize] += 1;
        let fault = machine.faults.due(self.process, verb).into_iter().next();
        machine.failed_by_verb[verb as usize] += u64::from(fault.and_then(Fault::error).is_some());
        Ok(Turn { machine, process: self.process, fault })
    }

    /// Runs the hooks that are due, and locks the machine.
    pub(super) fn hooked(&self, verb: Verb) -> MutexGuard<'_, Machine> {
        let mut machine = self.lock();
        let hooks = machine.hooks.due(self.process, verb);
        if !hooks.is_empty() {
            drop(machine);
            // Finished hooks are dropped here, while the disk is unlocked: they may hold files, which close.
            hooks.into_iter().for_each(|hook| hook(self));
            machine = self.lock();
        }
        machine
    }

    /// Makes a call that has no special ways to fail.
    pub(super) fn call<T>(&self, verb: Verb, act: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        let mut turn = self.turn(verb)?;
        if let Some(error) = turn.fault.and_then(Fault::error) {
            return Err(error);
        }
        let result = act(&mut turn.machine);
        turn.end(result)
    }
}

impl Turn<'_> {
    /// Ends the call, and the process or the power if that was planned; then no caller learns the result.
    pub(super) fn end<T>(mut self, result: io::Result<T>) -> io::Result<T> {
        match self.fault {
            Some(Fault::PowerCut) => self.machine.power_is_on = false,
            Some(Fault::Kill(_)) => self.machine.kill(self.process),
            _ => {}
        }
        self.machine.expect_alive(self.process)?;
        result
    }
}

impl Machine {
    pub(super) fn expect_alive(&self, process: u64) -> io::Result<()> {
        if !self.power_is_on {
            Err(io::Error::other("power is off"))
        } else if self.killed.contains(&process) {
            Err(io::Error::other("the process was killed"))
        } else {
            Ok(())
        }
    }

    pub(super) fn open(&mut self, process: u64, inode: u64, writable: bool) -> u64 {
        let errors_reported = self.world.inode(inode).errors_before_opening();
        self.opened += 1;
        let conduct = Conduct::default();
        let description =
            Description { process, inode, writable, maps: false, lingers: None, errors_reported, conduct };
        self.descriptions.insert(self.opened, description);
        self.opened
    }

    pub(super) fn kill(&mut self, process: u64) {
        self.killed.insert(process);
        let open = self.descriptions.iter().filter(|(_, description)| description.process == process);
        for number in open.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.close(number);
        }
    }

    /// A description gives up its lock.
    pub(super) fn release(&mut self, number: u64) {
        let Some(description) = self.descriptions.get_mut(&number) else { return };
        description.lingers = None;
        let (process, inode) = (description.process, description.inode);
        if self.world.inode(inode).locked_by.take_if(|owner| *owner == number).is_some() {
            self.record(process, || Change::Unlock { inode });
        }
    }

    /// A description tries for a lock that may linger with another one.
    pub(super) fn try_lingering(&mut self, inode: u64, tries: u64) {
        let Some(owner) = self.world.inode(inode).locked_by else { return };
        let Some(description) = self.descriptions.get_mut(&owner) else { return };
        match &mut description.lingers {
            None => {}
            lingers if owner == tries => *lingers = None,
            Some(0) => self.release(owner),
            Some(left) => *left -= 1,
        }
    }

    pub(super) fn close(&mut self, number: u64) {
        if let Some(description) = self.descriptions.remove(&number) {
            self.places.retain(|_, owner| *owner != number);
            self.owners.values_mut().for_each(|holders| _ = holders.remove(&number));
            let inode = description.inode;
            if self.world.inode(inode).locked_by.take_if(|owner| *owner == number).is_some() {
                self.record(description.process, || Change::Unlock { inode });
            }
        }
    }
}

impl World {
    /// Returns the inode with this number, which a name, a description or a map holds.
    pub(super) fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("inodes stay until the next reboot")
    }

    pub(super) fn add_inode(&mut self, inode: Inode) -> u64 {
        self.created += 1;
        self.inodes.insert(self.created, inode);
        self.created
    }

    pub(super) fn named(&self, path: &Path) -> io::Result<u64> {
        self.directory.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns whether `path` is the root, or a directory with something in it.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        path.parent().is_none() || self.directory.names().any(|name| name != path && name.starts_with(path))
    }

    /// Returns a file, and the number of free pages if that is limited.
    pub(super) fn inode_and_space(&mut self, number: u64) -> (&mut Inode, Option<&mut u64>) {
        (self.inodes.get_mut(&number).expect("an open file has an inode"), self.settings.free_pages.as_mut())
    }

    /// Gives back the space of a range of a file.
    pub(super) fn release(&mut self, number: u64, range: Range<u64>) {
        let (inode, free) = self.inode_and_space(number);
        let released = inode.release(range);
        if let Some(free) = free {
            *free += released;
        }
    }

    pub(super) fn stat(&self, number: u64) -> FileStat {
        let identity = FileIdentity { device: 1, inode: number };
        FileStat { identity, links: self.directory.links(number), mount_point: false }
    }

    /// Refuses a path at which a single file is mounted, as Linux does.
    pub(super) fn expect_no_mount(&self, path: &Path) -> io::Result<()> {
        if self.directory.is_mount_point(path) { Err(io::Error::from_raw_os_error(libc::EBUSY)) } else { Ok(()) }
    }
}
