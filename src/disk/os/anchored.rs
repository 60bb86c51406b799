//! A directory that stays within reach when its path no longer leads there.
//!
//! A program opens its store, and then gives up its privileges (`setuid`) or gets another root directory (`chroot`). Open
//! files go on working, and paths do not: the process may not search a directory on the way, or the path means another
//! place. So an [`AnchoredDisk`] keeps a descriptor of the store's directory.
//!
//! One operation must not be split over two directories: a compaction that makes its file in one of them and marks the
//! store's file in the other loses what is written afterwards. So every call that changes a name is made through the
//! descriptor, and only where that is the directory of the store's path:
//!
//! - In a process with another root it always is, from the first call that notices the root. Path names are of another
//!   place there.
//! - It is while the path leads to the directory that is held, and while the process may not follow the path.
//! - Otherwise the directory was moved or replaced. New files are made in the directory that has the path now, which is
//!   held from then on. Calls on the names of files that were made before are refused.
//!
//! What only looks at a name goes by the path as long as that can be followed, as in all other processes: a store that was
//! moved away together with its directory is not the one that the path names.

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::RealFile;
use super::names::{OPEN_FLAGS, explain_lease, or_rename, rename_new};
use super::stat::{PERMISSION_BITS, expect_regular, identity};
use crate::disk::{Access, Disk, DiskFile, FileIdentity, FileStat, RealDisk, RealSystem, System};

/// The operating system's files, of which those in one directory are reached without its path if need be.
pub(super) struct AnchoredDisk {
    path: PathBuf,
    /// `None` once it was released.
    directory: Mutex<Option<Arc<Anchor>>>,
    /// The root directory of the process when the directory was opened.
    root: FileIdentity,
    /// The process was seen with another root. It stays so, whatever root it gets next.
    root_has_changed: AtomicBool,
    /// What the last look by a path has found. To find something else is a reason to look at the root: so a store that is
    /// looked at again and again costs one system call each time.
    found_last: Mutex<Option<FileIdentity>>,
}

struct Anchor {
    directory: File,
    identity: FileIdentity,
    /// It is open for reading, which a sync needs and a search does not.
    readable: bool,
}

impl AnchoredDisk {
    pub(super) fn new(path: &Path) -> io::Result<AnchoredDisk> {
        let root = identity_of(Path::new("/"))?;
        let directory = Mutex::new(Some(Arc::new(Anchor::open(path)?)));
        let (root_has_changed, found_last) = (AtomicBool::new(false), Mutex::new(None));
        Ok(AnchoredDisk { path: path.to_owned(), directory, root, root_has_changed, found_last })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Anchor>>> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<Arc<Anchor>> {
        self.lock().clone()
    }

    fn has_another_root(&self) -> bool {
        if !self.root_has_changed.load(Ordering::Relaxed) {
            let changed = identity_of(Path::new("/")).is_ok_and(|root| root != self.root);
            self.root_has_changed.fetch_or(changed, Ordering::Relaxed);
        }
        self.root_has_changed.load(Ordering::Relaxed)
    }

    /// Holds the directory that has the path now, if it is another one: a handle that was opened again has its file there.
    fn follow(&self) -> io::Result<()> {
        let mut anchor = self.lock();
        let Some(held) = &*anchor else { return Ok(()) };
        if identity_of(&self.path).is_ok_and(|now| now != held.identity) {
            let now = Anchor::open(&self.path)?;
            // Asked for last: what a changed root has at this path is not held.
            if !self.has_another_root() {
                *anchor = Some(Arc::new(now));
            }
        }
        Ok(())
    }

    /// The directory that is held, and a name in it. `None` for a file that is elsewhere.
    fn held_for(&self, path: &Path) -> io::Result<Option<(Arc<Anchor>, CString)>> {
        match (self.held(), path.file_name()) {
            (Some(anchor), Some(name)) if path.parent() == Some(&self.path) => {
                Ok(Some((anchor, CString::new(name.as_bytes())?)))
            }
            _ => Ok(None),
        }
    }

    /// Makes a call that looks at a name: by the path, or in the directory that is held if the path cannot be followed or
    /// `is_elsewhere` says of what was found that it may be in another root.
    fn look<T>(
        &self,
        path: &Path,
        by_path: impl FnOnce() -> io::Result<T>,
        is_elsewhere: impl FnOnce(&T) -> bool,
        in_directory: impl FnOnce(libc::c_int, &CStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some((anchor, name)) = self.held_for(path)? else { return by_path() };
        let in_directory = || in_directory(anchor.directory.as_raw_fd(), &name);
        if self.root_has_changed.load(Ordering::Relaxed) {
            return in_directory();
        }
        let found = by_path();
        let held_is_meant = match &found {
            Ok(found) => is_elsewhere(found) && self.has_another_root(),
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied => true,
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.has_another_root(),
                _ => false,
            },
        };
        if held_is_meant { in_directory() } else { found }
    }

    /// Makes a call that changes a name: in the directory that is held, never by a path that may lead elsewhere.
    ///
    /// # Errors
    ///
    /// An [`io::ErrorKind::NotFound`] if another directory has the path, or none.
    fn change<T>(
        &self,
        path: &Path,
        by_path: impl FnOnce() -> io::Result<T>,
        in_directory: impl FnOnce(libc::c_int, &CStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some((anchor, name)) = self.held_for(path)? else { return by_path() };
        if !self.has_another_root() {
            match identity_of(&self.path) {
                Ok(now) if now == anchor.identity => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Ok(_) => return Err(io::Error::new(io::ErrorKind::NotFound, "the directory was replaced")),
                Err(error) => return Err(error),
            }
        }
        in_directory(anchor.directory.as_raw_fd(), &name)
    }
}

impl Anchor {
    fn open(path: &Path) -> io::Result<Anchor> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | flags).open(path);
        let (directory, readable) = match open(0) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (open(libc::O_PATH)?, false),
            opened => (opened?, true),
        };
        let identity = identity(&directory.metadata()?);
        Ok(Anchor { directory, identity, readable })
    }
}

/// Of a directory. The path of one may be a link, as `/proc/PID/root` is.
fn identity_of(directory: &Path) -> io::Result<FileIdentity> {
    fs::metadata(directory).map(|metadata| identity(&metadata))
}

/// The name of `to`, which is in the same directory as the name that a call is about.
fn second_name(to: &Path) -> io::Result<CString> {
    Ok(CString::new(to.file_name().unwrap_or_default().as_bytes())?)
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open_in(directory: libc::c_int, name: &CStr, flags: libc::c_int, mode: libc::mode_t) -> io::Result<File> {
    // SAFETY: `name` ends with a zero byte and outlives the call.
    let opened = unsafe { libc::openat64(directory, name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nothing else.
    Ok(unsafe { File::from_raw_fd(opened) })
}

/// Also returns whether it is a regular file.
#[allow(clippy::useless_conversion, reason = "the types of some fields differ between systems")]
fn stat_in(directory: libc::c_int, name: &CStr) -> io::Result<(FileStat, bool)> {
    // SAFETY: all fields are numbers, of which zero is one.
    let mut found: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `name` ends with a zero byte and `found` is ours to be written to; both outlive the call.
    checked(unsafe { libc::fstatat64(directory, name.as_ptr(), &mut found, libc::AT_SYMLINK_NOFOLLOW) })?;
    let identity = FileIdentity { device: found.st_dev, inode: found.st_ino };
    let stat = FileStat { identity, links: found.st_nlink.into(), mount_point: false };
    Ok((stat, found.st_mode & libc::S_IFMT == libc::S_IFREG))
}

fn remove_in(directory: libc::c_int, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with a zero byte and outlives the call.
    checked(unsafe { libc::unlinkat(directory, name.as_ptr(), 0) })
}

// All of them: a default would be a disk that knows less than the system does.
#[deny(clippy::missing_trait_methods)]
impl Disk for AnchoredDisk {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        RealDisk.resolve(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let by_path = || RealDisk.open(path, access);
        self.look(
            path,
            by_path,
            |_| true,
            |directory, name| {
                if !stat_in(directory, name)?.1 {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"));
                }
                let access_flags = if access == Access::ReadWrite { libc::O_RDWR } else { libc::O_RDONLY };
                let file = open_in(directory, name, access_flags | OPEN_FLAGS, 0).map_err(explain_lease)?;
                expect_regular(&file.metadata()?)?;
                Ok(Arc::new(RealFile::new(file, access)))
            },
        )
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        if path.parent() == Some(&self.path) {
            self.follow()?;
        }
        self.change(
            path,
            || RealDisk.create_new(path, mode),
            |directory, name| {
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                let file = open_in(directory, name, flags, mode & 0o600)?;
                if let Err(error) = file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS)) {
                    let _ = remove_in(directory, name);
                    return Err(error);
                }
                Ok(Arc::new(RealFile::new(file, Access::ReadWrite)))
            },
        )
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(
            from,
            || RealDisk.link(from, to),
            |directory, from| {
                let to = second_name(to)?;
                // SAFETY: both names end with a zero byte and outlive the call.
                let linked = checked(unsafe { libc::linkat(directory, from.as_ptr(), directory, to.as_ptr(), 0) });
                or_rename(linked, || rename_new(directory, from, &to))
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(
            from,
            || RealDisk.rename(from, to),
            |directory, from| {
                let to = second_name(to)?;
                // SAFETY: both names end with a zero byte and outlive the call.
                checked(unsafe { libc::renameat(directory, from.as_ptr(), directory, to.as_ptr()) })
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(path, || RealDisk.remove(path), remove_in)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        if directory != self.path {
            return RealDisk.sync_dir(directory);
        }
        let before = self.held();
        self.follow()?;
        let held = self.held();
        if let (Some(before), Some(held)) = (&before, &held)
            && before.identity != held.identity
            && before.readable
        {
            // What was renamed may be here.
            before.directory.sync_all()?;
        }
        match held {
            // No other descriptor is needed, of which there may be none left.
            Some(anchor) if anchor.readable => anchor.directory.sync_all(),
            Some(_) if self.has_another_root() => Err(io::ErrorKind::PermissionDenied.into()),
            _ => RealDisk.sync_dir(directory),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let is_new = |found: &FileStat| {
            let mut last = self.found_last.lock().unwrap_or_else(PoisonError::into_inner);
            last.replace(found.identity) != Some(found.identity)
        };
        self.look(path, || RealDisk.stat(path), is_new, |directory, name| Ok(stat_in(directory, name)?.0))
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        if directory == self.path && self.has_another_root() {
            return Err(io::ErrorKind::NotFound.into());
        }
        RealDisk.list(directory, prefix)
    }

    fn room(&self, directory: &Path) -> io::Result<Option<u64>> {
        if directory == self.path && self.has_another_root() {
            return Ok(None);
        }
        RealDisk.room(directory)
    }

    /// There is a hold already.
    fn anchor(&self, _: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(None)
    }

    fn release(&self) {
        self.lock().take();
    }

    fn system(&self) -> &dyn System {
        &RealSystem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::scratch::Scratch;

    /// A handle that is opened again after its directory was replaced has its file in the new one.
    #[test]
    fn the_directory_that_is_synced_is_the_one_that_has_the_path() {
        let scratch = Scratch::new();
        let path = scratch.0.join("data");
        fs::create_dir(&path).unwrap();
        let disk = AnchoredDisk::new(&path).unwrap();
        let held = || disk.held().unwrap().identity;
        let named = || RealDisk.stat(&path).unwrap().identity;
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), named());

        fs::rename(&path, scratch.0.join("moved")).unwrap();
        let moved = held();
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), moved, "nothing else has the path");
        fs::create_dir(&path).unwrap();
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), named());
        assert_ne!(held(), moved);
    }

    /// A link is what leads to the directory, as it is in paths through `/proc/PID/root`.
    #[test]
    fn a_file_is_not_renamed_in_another_directory_than_the_one_it_was_made_in() {
        let scratch = Scratch::new();
        let [path, moved, other] = ["data", "moved", "other"].map(|name| scratch.0.join(name));
        for directory in [&moved, &other] {
            fs::create_dir(directory).unwrap();
        }
        let lead_to = |directory: &Path| {
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(directory, &path).unwrap();
        };
        let [new, store] = ["new", "store"].map(|name| path.join(name));
        lead_to(&moved);
        let disk = AnchoredDisk::new(&path).unwrap();
        disk.create_new(&new, 0o600).unwrap();
        lead_to(&other);
        for name in ["new", "store"] {
            fs::write(other.join(name), "another").unwrap();
        }
        let refused = |done: io::Result<()>| assert_eq!(done.unwrap_err().kind(), io::ErrorKind::NotFound);
        refused(disk.rename(&new, &store));
        refused(disk.link(&new, &path.join("free")));
        refused(disk.remove(&new));
        assert_eq!(disk.list(&path, &OsString::new()).unwrap().len(), 2);
        assert_eq!(fs::read(&store).unwrap(), b"another");
        lead_to(&moved);
        disk.rename(&new, &store).unwrap();
        assert_eq!(fs::read_dir(&moved).unwrap().count(), 1);
        assert_eq!(fs::read(&store).unwrap(), b"");

        lead_to(&other);
        // A file that is made in the new directory is the beginning of something that goes on there.
        let newer = path.join("newer");
        disk.create_new(&newer, 0o600).unwrap();
        disk.rename(&newer, &store).unwrap();
        assert_eq!(fs::read(other.join("store")).unwrap(), b"");
    }
}
