//! The calls of the simulated disk on names, and its randomness and time.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::SimFile;
use super::inode::Inode;
use super::recording::Change;
use super::sleeper::SimSleeper;
use super::{Fault, SimDisk, Verb};
use crate::disk::attributes::ACL;
use crate::disk::{
    Access, Boot, Clock, Disk, DiskFile, Extended, FileAttributes, FileIdentity, FileStat, Sleeper, System,
    expect_file_name,
};
use crate::limits::Limits;

/// Returns the attributes of a new file in a directory without a default ACL.
pub(super) fn attributes_of_new(mode: u32) -> FileAttributes {
    FileAttributes { mode: mode & 0o7777, uid: 0, gid: 0, extended: Extended::new() }
}

/// The length of the longest name, in bytes.
const NAME_MAX: usize = 255;

fn expect_short_name(path: &Path) -> io::Result<()> {
    let is_short = path.file_name().is_none_or(|name| name.len() <= NAME_MAX);
    if is_short { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)) }
}

impl Disk for SimDisk {
    fn room(&self, _directory: &Path) -> io::Result<Option<u64>> {
        Ok(self.lock().world.settings.room)
    }

    /// Resolves the text of the path alone, from `/`: there are no symlinks.
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
            let inode = machine.world.add_inode(Inode::new(attributes.clone()));
            machine.world.directory.add(path.to_path_buf(), inode);
            machine.record(self.process, || Change::Create { path: path.to_path_buf(), inode, attributes });
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
            machine.expect_right_to_replace(self.process, inode, "links, without its lock,");
            machine.world.inode(inode).is_new = false;
            if machine.world.settings.links {
                machine.world.directory.add(to.to_path_buf(), inode);
            } else {
                machine.world.directory.rename(from.to_path_buf(), to.to_path_buf(), inode);
            }
            let (from, to, links) = (from.to_path_buf(), to.to_path_buf(), machine.world.settings.links);
            machine
                .record(self.process, || if links { Change::Link { from, to } } else { Change::Rename { from, to } });
            machine.note_change(inode);
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
            machine.expect_right_to_replace(self.process, inode, "renames, without its lock,");
            machine.world.inode(inode).is_new = false;
            if let Some(replaced) = machine.world.directory.get(to) {
                machine.expect_right_to_replace(self.process, replaced, "renames a file, without the lock, over");
                machine.note_change(replaced);
            }
            let (from, to) = (from.to_path_buf(), to.to_path_buf());
            machine.world.directory.rename(from.clone(), to.clone(), inode);
            machine.record(self.process, || Change::Rename { from, to });
            machine.note_change(inode);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Verb::Remove, |machine| {
            let inode = machine.world.named(path)?;
            machine.world.expect_no_mount(path)?;
            machine.expect_right_to_remove(self.process, inode);
            machine.world.directory.remove(path.to_path_buf());
            machine.record(self.process, || Change::Remove { path: path.to_path_buf() });
            machine.note_change(inode);
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

    fn limits(&self) -> &'static Limits {
        self.lock().world.settings.limits
    }

    fn sleeper(&self) -> Box<dyn Sleeper> {
        Box::new(SimSleeper::new(self.clone()))
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

    /// Returns the number of the process on this disk.
    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        let machine = self.lock();
        let owner = machine.world.inodes.get(&file.inode)?.locked_by?;
        machine.descriptions.get(&owner).and_then(|owner| u32::try_from(owner.process).ok())
    }

    /// Returns the time on the disk's own clock, which only [`System::pause`] moves.
    fn unix_time(&self) -> u64 {
        // Without power no process asks for the time.
        self.call(Verb::UnixTime, |machine| Ok(machine.world.clock.as_secs())).unwrap_or_default()
    }

    fn clock(&self) -> Clock {
        self.lock().engine_clock.clone()
    }

    fn boot(&self) -> io::Result<Boot> {
        let machine = self.lock();
        let of_machine = [machine.world.reboots + 1; 16];
        Ok(Boot { id: machine.boots.get(&self.process).copied().unwrap_or(of_machine), offset: 0 })
    }

    /// Moves the disk's clock and lets other threads run, without sleeping.
    fn pause(&self, duration: Duration) {
        // A pause cannot fail; the next call will.
        let paused = self.call(Verb::Pause, |machine| {
            machine.world.clock += duration;
            Ok(machine.on_pause.clone())
        });
        if let Ok(Some(pause)) = paused {
            return pause(self, duration);
        }
        let has_passed = self.lock().engine_clock.pass(duration);
        // On a clock that stands still, the time is over.
        if !has_passed {
            std::thread::yield_now();
        }
    }
}
