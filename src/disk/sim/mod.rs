//! A disk in memory that knows what was synced, for tests that cut the power.
//!
//! [`SimDisk`] is a [`Disk`](super::Disk) with controls for a test. It remembers every write, change of length and
//! change of a name until that is synced. [`SimDisk::reboot`] returns the disk as it may be after a power cut, with any
//! subset of what was not synced; [`Choices`] picks the subset.
//!
//! Several processes can use one disk: [`SimDisk::process`] starts another, [`SimDisk::kill`] ends one. The disk counts
//! calls, and at the n-th call it can fail, cut the power, kill the process ([`SimDisk::fail`]), or run a closure of
//! the test ([`SimDisk::before`]). The closure may make calls of another process, or look at a power cut at this
//! moment.
//!
//! [`SimDisk::record`] records what a process changes. [`SimDisk::play`] does it again on a copy of the disk, as far as a
//! test wants, up to any byte of a write: the test's own process then meets the half of a write.
//!
//! ```text
//! calls ──> faults.rs: does this one fail? ──> directory.rs: names │ durable names │ unsynced changes
//!                                              inode.rs:     cache │ durable bytes │ unsynced changes
//! reboot(choices): durable + some of the unsynced changes
//! ```
//!
//! ```
//! use caskfile::disk::{Disk, SyncScope};
//! use caskfile::disk::sim::{Choices, SimDisk};
//!
//! let disk = SimDisk::new();
//! let file = disk.create_new("/file".as_ref(), 0o600)?;
//! disk.sync_dir("/".as_ref())?;
//! file.write_at(0, b"hello")?;
//! assert_eq!(disk.reboot(&mut Choices::keep_nothing()).contents("/file").unwrap(), b"");
//! assert_eq!(disk.reboot(&mut Choices::keep_all()).contents("/file").unwrap(), b"hello");
//! file.sync(SyncScope::Data)?;
//! assert_eq!(disk.reboot(&mut Choices::keep_nothing()).contents("/file").unwrap(), b"hello");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Where systems differ, the disk does the worst: a name is durable only after a sync of its directory, changes to one
//! file say nothing about another file, and bytes that a failed sync dropped are never written by a sync of something
//! else. It has no symlinks and no directories of its own: every parent of a path exists.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod choices;
mod contents;
mod directory;
mod faults;
mod file;
mod inode;
mod machine;
mod names;
mod recording;
mod rules;
mod settings;
mod sleeper;

pub use choices::Choices;
pub use faults::{Fault, Repeat, Verb, When};
pub use recording::{Cue, Recording};

use super::Clock;
use choices::Random;
use directory::Directory;
use faults::Schedule;
use inode::{Crash, Inode};
use machine::{Machine, Settings, World};
use names::attributes_of_new;

use crate::limits::Limits;

/// The default size of a sector. A sector survives a power cut whole or not at all.
pub const SECTOR: u64 = 512;

/// When the simulated clock starts, in seconds of Unix time.
const CLOCK_START: u64 = 1_800_000_000;

/// A process's handle to a simulated disk. Clones are the same process.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    process: u64,
}

type Hook = Arc<dyn Fn(&SimDisk) + Send + Sync>;

type Pause = Arc<dyn Fn(&SimDisk, Duration) + Send + Sync>;

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// Returns an empty disk.
    pub fn new() -> SimDisk {
        SimDisk::from_seed(0)
    }

    /// Returns an empty disk whose random bytes depend on `seed`.
    pub fn from_seed(seed: u64) -> SimDisk {
        SimDisk::boot(World {
            directory: Directory::default(),
            inodes: BTreeMap::new(),
            created: 0,
            clock: Duration::from_secs(CLOCK_START),
            reboots: 0,
            random: Random::from_seed(seed),
            settings: Settings {
                crash: Crash { sector: SECTOR, garbage: false },
                maps: true,
                links: true,
                overlay: false,
                mount_points: true,
                holes: true,
                punches: true,
                waiting_line: false,
                lingering: None,
                failed_syncs: Choices::keep_nothing(),
                room: None,
                free_pages: None,
                default_acl: None,
                limits: &Limits::WITHOUT_BACKGROUND,
            },
        })
    }

    fn boot(mut world: World) -> SimDisk {
        world.inodes.retain(|&number, _| world.directory.mentions(number));
        for inode in world.inodes.values_mut() {
            inode.locked_by = None;
            inode.was_locked = false;
        }
        let machine = Machine {
            world,
            power_is_on: true,
            calls: 0,
            calls_by_verb: [0; Verb::COUNT],
            failed_by_verb: [0; Verb::COUNT],
            bytes_read: 0,
            bytes_written: 0,
            bytes_read_under_lock: BTreeMap::new(),
            syncs_without_lock: BTreeMap::new(),
            lockers: BTreeSet::new(),
            broken_rule: None,
            processes: 1,
            killed: BTreeSet::new(),
            descriptions: BTreeMap::new(),
            opened: 0,
            places: BTreeMap::new(),
            owners: BTreeMap::new(),
            boots: BTreeMap::new(),
            faults: Schedule::default(),
            hooks: Schedule::default(),
            engine_clock: Clock::default(),
            recording: None,
            changes: BTreeMap::new(),
            changed: Arc::default(),
            on_pause: None,
        };
        SimDisk { machine: Arc::new(Mutex::new(machine)), process: 1 }
    }

    /// Starts another process on the same disk.
    pub fn process(&self) -> SimDisk {
        let mut machine = self.lock();
        machine.processes += 1;
        SimDisk { machine: Arc::clone(&self.machine), process: machine.processes }
    }

    /// Kills this handle's process (SIGKILL). Its files are closed, which frees its locks, and all its later calls
    /// fail. The cache keeps what it wrote, for other processes to see.
    pub fn kill(&self) {
        self.lock().kill(self.process);
    }

    /// Returns whether both are handles of one process on one disk.
    pub fn is_same_process(&self, other: &SimDisk) -> bool {
        Arc::ptr_eq(&self.machine, &other.machine) && self.process == other.process
    }

    /// Returns whether this handle's process can still make calls: it was not killed, and the power is on.
    pub fn is_alive(&self) -> bool {
        self.lock().expect_alive(self.process).is_ok()
    }

    /// Returns an independent copy of the disk now, as if every process had been killed: nothing is open or locked, no
    /// faults are planned, and calls are counted from zero. Bytes that are not synced stay unsynced.
    pub fn fork(&self) -> SimDisk {
        SimDisk::boot(self.lock().world.clone())
    }

    /// Returns the disk as it may be after a power cut now, or at an earlier [`SimDisk::cut`]: an independent copy, on
    /// which everything is synced. This disk stays as it is, so a test can look at many outcomes of one cut.
    pub fn reboot(&self, choices: &mut Choices) -> SimDisk {
        let mut world = self.lock().world.clone();
        world.reboots += 1;
        world.directory = world.directory.crashed(choices);
        world.inodes.retain(|&number, _| world.directory.mentions(number));
        let crash = world.settings.crash;
        for inode in world.inodes.values_mut() {
            *inode = inode.crashed(choices, crash);
        }
        SimDisk::boot(world)
    }

    /// Cuts the power. Every later call of every process fails.
    pub fn cut(&self) {
        self.lock().power_is_on = false;
    }

    /// Cuts the power in the middle of the `n`-th call from now on, by any process. The next call is 1.
    pub fn cut_at(&self, n: u64) {
        self.fail(When::nth(n), Fault::PowerCut, Repeat::Once);
    }

    /// Returns whether the power is still on.
    pub fn power_is_on(&self) -> bool {
        self.lock().power_is_on
    }

    /// Plans a fault. If several are due at one call, the one that was planned first happens.
    pub fn fail(&self, when: When, fault: Fault, repeat: Repeat) {
        self.lock().faults.add(when, repeat, fault);
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Runs `hook` right before a call, with the handle of the calling process. The disk is not locked meanwhile, so
    /// the hook may use it. `when` may match the hook's own calls too; then the hook runs for them as well.
    ///
    /// With [`Repeat::Forever`] and [`SimDisk::reboot`], one run of a program shows the power cuts at all its calls. A
    /// cut within a call leaves the same as a cut before the next call. A cut within a sync leaves the same as a cut
    /// before that sync.
    pub fn before(&self, when: When, repeat: Repeat, hook: impl Fn(&SimDisk) + Send + Sync + 'static) {
        self.lock().hooks.add(when, repeat, Arc::new(hook));
    }

    /// Lets `pause` do what a pause of a process does, instead of moving the clock or yielding.
    pub fn on_pause(&self, pause: impl Fn(&SimDisk, Duration) + Send + Sync + 'static) {
        self.lock().on_pause = Some(Arc::new(pause));
    }

    /// Forgets all hooks.
    pub fn clear_hooks(&self) {
        // Dropped while the disk is unlocked: they may hold files, which close.
        let hooks = std::mem::take(&mut self.lock().hooks);
        drop(hooks);
    }

    /// Returns the number of calls, by all processes.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Returns the number of calls of one kind, by all processes.
    pub fn calls_of(&self, verb: Verb) -> u64 {
        self.lock().calls_by_verb[verb as usize]
    }

    /// Returns the number of calls of one kind that a planned fault has made fail.
    pub fn failed_calls_of(&self, verb: Verb) -> u64 {
        self.lock().failed_by_verb[verb as usize]
    }

    /// Returns the number of bytes that all processes have read, through maps too. This measures work independently of
    /// the machine's speed.
    pub fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }

    /// Returns the number of bytes that all processes have written.
    pub fn bytes_written(&self) -> u64 {
        self.lock().bytes_written
    }

    /// Returns the number of bytes that this process has read, through maps too, while it had a file's lock and all
    /// others had to wait. The lock of a file that has only its first name does not count.
    pub fn bytes_read_under_lock(&self) -> u64 {
        self.lock().bytes_read_under_lock.get(&self.process).copied().unwrap_or(0)
    }

    /// Lets the kernel write back on its own, and fail. What is not synced of this file is lost, as in a sync that
    /// fails, but no process gets an error yet. Each open description reports it at its next sync. If none has synced
    /// by then, the next description that is opened reports it as well. Does nothing if there is no such file.
    pub fn fail_writeback(&self, path: impl AsRef<Path>) {
        let mut machine = self.lock();
        let world = &mut machine.world;
        if let Some(number) = world.directory.get(path.as_ref()) {
            let inode = world.inodes.get_mut(&number).expect("a name has an inode");
            inode.fail_sync(&mut world.settings.failed_syncs, world.settings.crash);
        }
    }

    /// Mounts the file at `path` at another path too, as `mount --bind` does with a single file. `at` leads to the file
    /// until the power goes out, even after its names are gone, and can be neither renamed nor removed. It does not
    /// count as a link.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn bind(&self, path: impl AsRef<Path>, at: impl Into<PathBuf>) {
        let world = &mut self.lock().world;
        let inode = world.directory.get(path.as_ref()).expect("a file to be mounted");
        world.directory.mount(at.into(), inode);
    }

    /// Makes the page of 4,096 bytes at `offset` unreadable. A read that begins in the page fails with EIO. A read that
    /// begins before the page ends where the page begins. Maps still show the page. Does nothing if there is no such
    /// file.
    pub fn spoil(&self, path: impl AsRef<Path>, offset: u64) {
        let world = &mut self.lock().world;
        if let Some(number) = world.directory.get(path.as_ref()) {
            world.inodes.get_mut(&number).expect("a name has an inode").spoil(offset / inode::PAGE);
        }
    }

    /// Returns an upper bound for the number of outcomes that [`Choices::exhaustive`] has for a power cut now.
    pub fn outcomes(&self) -> u64 {
        let world = &self.lock().world;
        let files = world.inodes.iter().filter(|&(&number, _)| world.directory.mentions(number));
        let files = files.map(|(_, inode)| inode.outcomes(world.settings.crash));
        files.fold(world.directory.outcomes(), u64::saturating_mul)
    }

    /// Returns a hash of everything that processes and power cuts could find on the disk: names, contents and
    /// attributes, durable and not. The numbers of inodes do not matter.
    pub fn fingerprint(&self) -> u64 {
        let machine = self.lock();
        let mut hasher = DefaultHasher::new();
        machine.world.directory.fingerprint(&mut hasher, |number, hasher| {
            machine.world.inodes[&number].fingerprint(hasher);
        });
        hasher.finish()
    }

    /// Restarts the disk's random bytes, from another seed.
    pub fn reseed(&self, seed: u64) {
        self.lock().world.random = Random::from_seed(seed);
    }

    /// Drops clean pages from the cache. After that, bytes that a failed sync lost can no longer be read.
    pub fn drop_caches(&self) {
        self.lock().world.inodes.values_mut().for_each(Inode::drop_cache);
    }

    /// Returns what a process would read at `path`; `None` if there is no such file.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let machine = self.lock();
        let inode = machine.world.directory.get(path.as_ref())?;
        Some(machine.world.inodes[&inode].contents().to_vec())
    }

    /// Puts `contents` into the file at `path`, at once and durably. If there is no such file, it is created, with a
    /// durable name.
    pub fn set_contents(&self, path: impl Into<PathBuf>, contents: Vec<u8>) {
        let mut machine = self.lock();
        let path = path.into();
        if let Some(number) = machine.world.directory.get(&path) {
            machine.world.inode(number).replace_contents(contents);
        } else {
            let number =
                machine.world.add_inode(Inode::with_contents(Arc::new(contents.into()), attributes_of_new(0o600)));
            machine.world.directory.add_durable(path, number);
        }
    }

    /// Returns all names, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().world.directory.names().map(Path::to_path_buf).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A panic elsewhere in a test leaves the machine intact: nothing panics in the middle of a change.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("process", &self.process).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
