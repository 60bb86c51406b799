//! The simulated disk behind the seam: how a call is made, and the calls that name paths.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::file::SimFile;
use super::inode::Inode;
use super::{Description, Fault, Machine, SimDisk, Verb, World};
use crate::disk::attributes::ACL;
use crate::disk::{Access, Disk, DiskFile, Extended, FileAttributes, FileIdentity, FileStat, System, expect_file_name};

/// A call that has begun: it was counted, and nobody else's can come in between.
pub(super) struct Turn<'a> {
    pub(super) machine: MutexGuard<'a, Machine>,
    process: u64,
    pub(super) fault: Option<Fault>,
}

impl SimDisk {
    /// Begins a call.
    pub(super) fn turn(&self, verb: Verb) -> io::Result<Turn<'_>> {
        let mut machine = self.lock();
        let hooks = machine.hooks.due(self.process, verb);
        if !hooks.is_empty() {
            drop(machine);
            // A hook that is over goes here, while the disk is free: it may hold files, which close.
            hooks.into_iter().for_each(|hook| hook(self));
            machine = self.lock();
        }
        machine.expect_alive(self.process)?;
        machine.calls += 1;
        machine.calls_by_verb[verb as usize] += 1;
        let fault = machine.faults.due(self.process, verb).into_iter().next();
        Ok(Turn { machine, process: self.process, fault })
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
    /// Ends the call, and with it the process or the power if that was planned; then nobody learns the result.
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
    fn expect_alive(&self, process: u64) -> io::Result<()> {
        if !self.power_is_on {
            Err(io::Error::other("power is off"))
        } else if self.killed.contains(&process) {
            Err(io::Error::other("the process was killed"))
        } else {
            Ok(())
        }
    }

    fn open(&mut self, process: u64, inode: u64, writable: bool) -> u64 {
        let heard_errors = self.world.inode(inode).errors_before_opening();
        self.opened += 1;
        self.descriptions.insert(self.opened, Description { process, inode, writable, maps: false, heard_errors });
        self.opened
    }
}

impl World {
    /// Whether `path` is a directory that something is in, or the root.
    fn is_directory(&self, path: &Path) -> bool {
        path.parent().is_none() || self.directory.names().any(|name| name != path && name.starts_with(path))
    }

    /// A file, and how many pages are free, if that is limited.
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

    /// As Linux has it of a path at which a single file is mounted.
    fn expect_no_mount(&self, path: &Path) -> io::Result<()> {
        if self.directory.is_mount_point(path) { Err(io::Error::from_raw_os_error(libc::EBUSY)) } else { Ok(()) }
    }
}

/// What a new file has in a directory without a default ACL.
pub(super) fn attributes_of_new(mode: u32) -> FileAttributes {
    FileAttributes { mode: mode & 0o7777, uid: 0, gid: 0, extended: Extended::new() }
}

/// No name on the disk is longer, in bytes.
const NAME_MAX: usize = 255;

fn expect_short_name(path: &Path) -> io::Result<()> {
    let is_short = path.file_name().is_none_or(|name| name.len() <= NAME_MAX);
    if is_short { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)) }
}

impl Disk for SimDisk {
    fn room(&self, _directory: &Path) -> io::Result<Option<u64>> {
        Ok(self.lock().world.settings.room)
    }

    /// Resolves by the letters of the path alone, from `/`: there are no symlinks.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.call(Verb::Resolve, |_| {
            if path.as_os_str().is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            expect_file_name(path)?;
            let mut resolved = PathBuf::from("/");
            for component in path.components() {
                match component {
                    Component::Normal(name) => resolved.push(name),
                    Component::ParentDir => {
                        resolved.pop();
                    }
                    Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                }
            }
            Ok(resolved)
        })
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let description = self.call(Verb::Open, |machine| {
            if machine.world.is_directory(path) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file, found a directory"));
            }
            let inode = machine.world.named(path)?;
            Ok(machine.open(self.process, inode, access == Access::ReadWrite))
        })?;
        Ok(Arc::new(SimFile::new(self.clone(), description)))
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let description = self.call(Verb::CreateNew, |machine| {
            if machine.world.directory.get(path).is_some() || machine.world.is_directory(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            expect_short_name(path)?;
            let mut attributes = attributes_of_new(mode);
            if let Some(acl) = machine.world.settings.default_acl.clone() {
                attributes.extended.insert(ACL.to_owned(), acl);
            }
            let inode = machine.world.add_inode(Inode::new(attributes));
            machine.world.directory.add(path.to_path_buf(), inode);
            Ok(machine.open(self.process, inode, true))
        })?;
        Ok(Arc::new(SimFile::new(self.clone(), description)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Verb::Link, |machine| {
            let inode = machine.world.named(from)?;
            if machine.world.directory.get(to).is_some() || machine.world.is_directory(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            expect_short_name(to)?;
            if machine.world.settings.links {
                machine.world.directory.add(to.to_path_buf(), inode);
            } else {
                machine.world.directory.rename(from.to_path_buf(), to.to_path_buf(), inode);
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Verb::Rename, |machine| {
            let inode = machine.world.named(from)?;
            if machine.world.is_directory(to) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            machine.world.expect_no_mount(from)?;
            machine.world.expect_no_mount(to)?;
            expect_short_name(to)?;
            machine.world.directory.rename(from.to_path_buf(), to.to_path_buf(), inode);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Verb::Remove, |machine| {
            machine.world.named(path)?;
            machine.world.expect_no_mount(path)?;
            machine.world.directory.remove(path.to_path_buf());
            Ok(())
        })
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut turn = self.turn(Verb::SyncDir)?;
        if let Some(error) = turn.fault.and_then(Fault::error) {
            return Err(error);
        }
        if !turn.fault.is_some_and(Fault::ends_the_caller) {
            turn.machine.world.directory.sync(directory);
        }
        turn.end(Ok(()))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.call(Verb::Stat, |machine| {
            if machine.world.is_directory(path) {
                let identity = FileIdentity { device: 1, inode: 0 };
                return Ok(FileStat { identity, links: 2, mount_point: false });
            }
            let mount_point = machine.world.settings.mount_points && machine.world.directory.is_mount_point(path);
            machine.world.named(path).map(|inode| FileStat { mount_point, ..machine.world.stat(inode) })
        })
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        self.call(Verb::List, |machine| {
            let here = machine.world.directory.names().filter(|name| name.parent() == Some(directory));
            let names = here.filter_map(Path::file_name);
            Ok(names.filter(|name| name.as_bytes().starts_with(prefix.as_bytes())).map(OsString::from).collect())
        })
    }

    fn system(&self) -> &dyn System {
        self
    }
}

impl System for SimDisk {
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.call(Verb::FillRandom, |machine| {
            machine.world.random.fill(bytes);
            Ok(())
        })
    }

    /// The number of the process on this disk.
    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        let machine = self.lock();
        let owner = machine.world.inodes.get(&file.inode)?.locked_by?;
        machine.descriptions.get(&owner).and_then(|owner| u32::try_from(owner.process).ok())
    }

    /// The time on the disk's own clock, which only [`System::pause`] moves.
    fn unix_time(&self) -> u64 {
        // Without power there is nobody to look at the clock.
        self.call(Verb::UnixTime, |machine| Ok(machine.world.clock.as_secs())).unwrap_or_default()
    }

    /// Moves the disk's clock on and lets other threads run, without waiting for real.
    fn pause(&self, duration: Duration) {
        // A pause has no way to fail; the call that follows it will.
        let _ = self.call(Verb::Pause, |machine| {
            machine.world.clock += duration;
            Ok(())
        });
        std::thread::yield_now();
    }
}
