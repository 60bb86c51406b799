//! A disk in memory that knows what was synced, for tests that cut the power.
//!
//! [`SimDisk`] is a [`Disk`](super::Disk) like the real one, with a control panel. What it adds to memory is doubt:
//! every write, change of length and change of a name is remembered until it is synced, and [`SimDisk::reboot`] returns
//! the disk as it may be found after a power cut, with any subset of what was not synced. [`Choices`] picks the subset.
//!
//! Several processes can use one disk: [`SimDisk::process`] starts another, [`SimDisk::kill`] ends one. Calls are
//! counted, and at the n-th one something can be made to happen: a fault, the end of the power or of the process
//! ([`SimDisk::fail`]), or a closure of the test ([`SimDisk::before`]), in which another process may step in between
//! two calls of this one, or the test may try out a power cut at this very moment.
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
//! The disk is a pessimist where systems differ: a name is durable only when its directory was synced, no change to
//! one file says anything of another's, and what a failed sync dropped is not written again for a neighbour's sake.
//! It has no symlinks and no directories of its own: every parent of a path is taken to exist.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod calls;
mod choices;
mod contents;
mod directory;
mod faults;
mod file;
mod inode;

pub use choices::Choices;
pub use faults::{Fault, Repeat, Verb, When};

use calls::attributes_of_new;
use choices::Random;
use directory::Directory;
use faults::Schedule;
use inode::{Crash, Inode};

/// The size of the sectors that survive a power cut whole or not at all, unless a test asks for another.
pub const SECTOR: u64 = 512;

/// When the simulated clock starts, in seconds of Unix time.
const CLOCK_START: u64 = 1_800_000_000;

/// One process's handle to a simulated disk. Clones are the same process.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    process: u64,
}

type Hook = Arc<dyn Fn(&SimDisk) + Send + Sync>;

/// The disk and the running system around it.
struct Machine {
    world: World,
    power_is_on: bool,
    calls: u64,
    calls_by_verb: [u64; Verb::COUNT],
    bytes_read: u64,
    /// By process.
    bytes_read_under_lock: BTreeMap<u64, u64>,
    processes: u64,
    killed: BTreeSet<u64>,
    /// The open files, by a number that is never used again.
    descriptions: BTreeMap<u64, Description>,
    opened: u64,
    faults: Schedule<Fault>,
    hooks: Schedule<Hook>,
}

/// What outlives the processes.
#[derive(Clone)]
struct World {
    directory: Directory,
    inodes: BTreeMap<u64, Inode>,
    created: u64,
    clock: Duration,
    random: Random,
    settings: Settings,
}

#[derive(Clone)]
struct Settings {
    crash: Crash,
    maps: bool,
    links: bool,
    overlay: bool,
    mount_points: bool,
    holes: bool,
    punches: bool,
    failed_syncs: Choices,
    room: Option<u64>,
    free_pages: Option<u64>,
    default_acl: Option<Vec<u8>>,
}

/// An open file description.
struct Description {
    process: u64,
    inode: u64,
    writable: bool,
    /// It has made a map. A map outlives its description only in a process that reads no more from it.
    maps: bool,
    /// How many of the inode's write errors it has reported, or was opened after.
    heard_errors: u64,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk::from_seed(0)
    }

    /// An empty disk whose random bytes depend on `seed`.
    pub fn from_seed(seed: u64) -> SimDisk {
        SimDisk::boot(World {
            directory: Directory::default(),
            inodes: BTreeMap::new(),
            created: 0,
            clock: Duration::from_secs(CLOCK_START),
            random: Random::from_seed(seed),
            settings: Settings {
                crash: Crash { sector: SECTOR, garbage: false },
                maps: true,
                links: true,
                overlay: false,
                mount_points: true,
                holes: true,
                punches: true,
                failed_syncs: Choices::keep_nothing(),
                room: None,
                free_pages: None,
                default_acl: None,
            },
        })
    }

    fn boot(mut world: World) -> SimDisk {
        world.inodes.retain(|&number, _| world.directory.mentions(number));
        for inode in world.inodes.values_mut() {
            inode.locked_by = None;
        }
        let machine = Machine {
            world,
            power_is_on: true,
            calls: 0,
            calls_by_verb: [0; Verb::COUNT],
            bytes_read: 0,
            bytes_read_under_lock: BTreeMap::new(),
            processes: 1,
            killed: BTreeSet::new(),
            descriptions: BTreeMap::new(),
            opened: 0,
            faults: Schedule::default(),
            hooks: Schedule::default(),
        };
        SimDisk { machine: Arc::new(Mutex::new(machine)), process: 1 }
    }

    /// Starts another process on the same disk.
    pub fn process(&self) -> SimDisk {
        let mut machine = self.lock();
        machine.processes += 1;
        SimDisk { machine: Arc::clone(&self.machine), process: machine.processes }
    }

    /// Kills this handle's process (SIGKILL): its files are closed, which frees its locks, and all its later calls
    /// fail. What it wrote stays in the cache, for others to see.
    pub fn kill(&self) {
        self.lock().kill(self.process);
    }

    /// An independent copy of the disk at this moment, as if every process had been killed: nothing is open or locked,
    /// no faults are planned, and calls are counted from zero. What was not synced still is not.
    pub fn fork(&self) -> SimDisk {
        SimDisk::boot(self.lock().world.clone())
    }

    /// The disk as it may be found if the power goes out at this moment, or went out before: an independent copy, on
    /// which nothing is in doubt. This disk stays as it is, so many outcomes of one cut can be looked at.
    pub fn reboot(&self, choices: &mut Choices) -> SimDisk {
        let mut world = self.lock().world.clone();
        world.directory = world.directory.crashed(choices);
        world.inodes.retain(|&number, _| world.directory.mentions(number));
        let crash = world.settings.crash;
        for inode in world.inodes.values_mut() {
            *inode = inode.crashed(choices, crash);
        }
        SimDisk::boot(world)
    }

    /// Cuts the power now: every later call of every process fails.
    pub fn cut(&self) {
        self.lock().power_is_on = false;
    }

    /// Cuts the power in the middle of the `n`-th call from now on, whoever makes it; 1 is the next call.
    pub fn cut_at(&self, n: u64) {
        self.fail(When::nth(n), Fault::PowerCut, Repeat::Once);
    }

    /// Whether the power is still on.
    pub fn power_is_on(&self) -> bool {
        self.lock().power_is_on
    }

    /// Plans a fault. Where several are due at one call, the one that was planned first happens.
    pub fn fail(&self, when: When, fault: Fault, repeat: Repeat) {
        self.lock().faults.add(when, repeat, fault);
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Runs `hook` right before a call, with the handle of the process that makes the call. The disk is not locked
    /// meanwhile, so the hook may use it; if the calls that it makes are meant by `when` themselves, it is run for
    /// them too.
    ///
    /// With [`Repeat::Forever`] and [`SimDisk::reboot`], one run of a program shows the power cuts at all its calls: a
    /// cut within a call leaves what a cut before the next one leaves, and within a sync what a cut before it leaves.
    pub fn before(&self, when: When, repeat: Repeat, hook: impl Fn(&SimDisk) + Send + Sync + 'static) {
        self.lock().hooks.add(when, repeat, Arc::new(hook));
    }

    /// Forgets all hooks.
    pub fn clear_hooks(&self) {
        self.lock().hooks.clear();
    }

    /// How many calls were made, by all processes.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How many calls of one kind were made, by all processes.
    pub fn calls_of(&self, verb: Verb) -> u64 {
        self.lock().calls_by_verb[verb as usize]
    }

    /// How many bytes were read, by all processes, through maps too: work that does not depend on the machine's speed.
    pub fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }

    /// How many bytes this process has read, through maps too, while it had a file's lock: what all others had to wait for.
    pub fn bytes_read_under_lock(&self) -> u64 {
        self.lock().bytes_read_under_lock.get(&self.process).copied().unwrap_or(0)
    }

    /// Sets the size of the pieces that survive a power cut whole or not at all: 1 tears at any byte.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0.
    pub fn set_sector(&self, bytes: u64) {
        assert!(bytes > 0, "a sector has at least one byte");
        self.lock().world.settings.crash.sector = bytes;
    }

    /// Says whether a sector that a file grew by, and that a power cut took, can hold garbage instead of zeros, as on
    /// file systems that do not order a file's length after its data.
    pub fn set_garbage(&self, garbage: bool) {
        self.lock().world.settings.crash.garbage = garbage;
    }

    /// Says whether files can be mapped; without, `map` returns `None`.
    pub fn set_maps(&self, maps: bool) {
        self.lock().world.settings.maps = maps;
    }

    /// Says whether files can have several names; without, `link` moves the file to its new name, as on FAT.
    pub fn set_links(&self, links: bool) {
        self.lock().world.settings.links = links;
    }

    /// Says whether the system tells which paths are mount points, as Linux does since 5.8.
    pub fn set_mount_points(&self, told: bool) {
        self.lock().world.settings.mount_points = told;
    }

    /// Says whether files are on an overlay: then a map might go stale of a file that is open for reading only, and there is
    /// none.
    pub fn set_overlay(&self, overlay: bool) {
        self.lock().world.settings.overlay = overlay;
    }

    /// Says whether the file system knows holes; without, everything in a file is data.
    pub fn set_holes(&self, holes: bool) {
        self.lock().world.settings.holes = holes;
    }

    /// Says whether the file system can punch holes.
    pub fn set_punches(&self, punches: bool) {
        self.lock().world.settings.punches = punches;
    }

    /// Says what had reached the disk when a sync fails: nothing, unless this is called. What had not is lost to the
    /// disk for good, but for a new write.
    pub fn set_failed_syncs(&self, keep: Choices) {
        self.lock().world.settings.failed_syncs = keep;
    }

    /// What the disk says when it is asked for how many bytes it has room. It says nothing unless this is called, and does
    /// not run full by this.
    pub fn set_room(&self, bytes: u64) {
        self.lock().world.settings.room = Some(bytes);
    }

    /// From now on there is space for this many more pages of 4,096 bytes; `None`, as at first, for any number. A write takes
    /// space for each page that had none, ends before the first for which there is none, and fails where it begins there:
    /// ENOSPC. So does a read through a map, as on tmpfs, and where there is no space it panics, as a signal would end a
    /// process. Shortening a file and punching holes give space back; removing a file does not.
    pub fn set_free_pages(&self, pages: Option<u64>) {
        self.lock().world.settings.free_pages = pages;
    }

    /// Gives every file that is created from now on an ACL, as a directory's default ACL does.
    pub fn set_default_acl(&self, acl: &[u8]) {
        self.lock().world.settings.default_acl = Some(acl.to_vec());
    }

    /// The kernel writes back on its own, and fails: what is not synced of this file is dropped, as by a sync that
    /// fails, and nobody is told yet. Whoever has the file open hears of it at the next sync, and if none of them has
    /// synced by then, so does whoever opens it next. Does nothing if there is no such file.
    pub fn fail_writeback(&self, path: impl AsRef<Path>) {
        let mut machine = self.lock();
        let world = &mut machine.world;
        if let Some(number) = world.directory.get(path.as_ref()) {
            let inode = world.inodes.get_mut(&number).expect("a name has an inode");
            inode.fail_sync(&mut world.settings.failed_syncs, world.settings.crash);
        }
    }

    /// Mounts the file that has `path` now at another path too, as `mount --bind` does with a single file: `at` leads to it
    /// until the power goes out, whatever takes its names away, and can be neither renamed nor removed. It is no name: it
    /// does not count as a link.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn bind(&self, path: impl AsRef<Path>, at: impl Into<PathBuf>) {
        let world = &mut self.lock().world;
        let inode = world.directory.get(path.as_ref()).expect("a file to be mounted");
        world.directory.mount(at.into(), inode);
    }

    /// From now on the disk cannot read the page of 4,096 bytes in which `offset` lies: EIO, and a read that begins before
    /// it ends where it begins. Maps still show it. Does nothing if there is no such file.
    pub fn spoil(&self, path: impl AsRef<Path>, offset: u64) {
        let world = &mut self.lock().world;
        if let Some(number) = world.directory.get(path.as_ref()) {
            world.inodes.get_mut(&number).expect("a name has an inode").spoil(offset / inode::PAGE);
        }
    }

    /// At most how many outcomes [`Choices::exhaustive`] has to go through for a power cut now.
    pub fn outcomes(&self) -> u64 {
        let world = &self.lock().world;
        let files = world.inodes.iter().filter(|&(&number, _)| world.directory.mentions(number));
        let files = files.map(|(_, inode)| inode.outcomes(world.settings.crash));
        files.fold(world.directory.outcomes(), u64::saturating_mul)
    }

    /// A number for everything that processes and power cuts could find on the disk: names, contents and attributes,
    /// durable and not, whatever the numbers of the inodes are. Two disks with different contents have different
    /// numbers, as far as 64 bits go.
    pub fn fingerprint(&self) -> u64 {
        let machine = self.lock();
        let mut hasher = DefaultHasher::new();
        machine.world.directory.fingerprint(&mut hasher, |number, hasher| {
            machine.world.inodes[&number].fingerprint(hasher);
        });
        hasher.finish()
    }

    /// Begins the disk's random bytes anew, from another seed.
    pub fn reseed(&self, seed: u64) {
        self.lock().world.random = Random::from_seed(seed);
    }

    /// Drops clean pages from the cache: what a failed sync lost is no longer read from there.
    pub fn drop_caches(&self) {
        self.lock().world.inodes.values_mut().for_each(Inode::drop_cache);
    }

    /// What a process would read at `path`; `None` if there is no such file.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let machine = self.lock();
        let inode = machine.world.directory.get(path.as_ref())?;
        Some(machine.world.inodes[&inode].contents().to_vec())
    }

    /// Puts `contents` into the file at `path` and onto the disk, at once and durably. Creates the file if need be, and
    /// then its name is durable too.
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

    /// All names, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().world.directory.names().map(Path::to_path_buf).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A test's panic elsewhere leaves the machine whole: nothing panics half-way through a change.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Machine {
    fn kill(&mut self, process: u64) {
        self.killed.insert(process);
        let open = self.descriptions.iter().filter(|(_, description)| description.process == process);
        for number in open.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.close(number);
        }
    }

    fn close(&mut self, number: u64) {
        if let Some(description) = self.descriptions.remove(&number) {
            let inode = self.world.inode(description.inode);
            if inode.locked_by == Some(number) {
                inode.locked_by = None;
            }
        }
    }
}

impl World {
    /// The inode with this number, which a name, a description or a map holds.
    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("inodes stay until the next reboot")
    }

    fn add_inode(&mut self, inode: Inode) -> u64 {
        self.created += 1;
        self.inodes.insert(self.created, inode);
        self.created
    }

    fn named(&self, path: &Path) -> io::Result<u64> {
        self.directory.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests;
