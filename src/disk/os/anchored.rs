//! A directory that stays within reach when its path no longer leads to it.
//!
//! A program can open its store and then give up its privileges (`setuid`) or change its root directory (`chroot`). Its
//! open files go on working, but paths do not: the process may not search a directory of the path, or the path means
//! another place. So an [`AnchoredDisk`] keeps a descriptor of the store's directory.
//!
//! An operation must not use two directories: a compaction that makes its file in one and marks the store's file in the
//! other loses what is written afterwards. So every call that changes a name goes through the descriptor, and only
//! while that is the directory of the store's path:
//!
//! - In a process with another root, it always counts as that directory. Path names mean other places there.
//! - It is that directory while the path leads to it, and while the process may not follow the path.
//! - Otherwise the directory was moved or replaced. New files are made in the directory that has the path now, and the
//!   descriptor changes to that directory. Calls on the names of older files are refused.
//!
//! Calls that only look at a name use the path while the process can follow it. So a store that was moved together with
//! its directory is no longer the store at the path, as in every other process.

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
use crate::disk::{Access, Disk, DiskFile, FileIdentity, FileStat, RealDisk, RealSystem, Sleeper, System};
#[cfg(any(test, feature = "testing"))]
use crate::limits::Limits;

/// The operating system's files. Those in one directory stay within reach without its path.
pub(super) struct AnchoredDisk {
    path: PathBuf,
    /// `None` after the release.
    directory: Mutex<Option<Arc<Anchor>>>,
    /// The root directory of the process when the directory was opened.
    root: FileIdentity,
    /// The process has had another root. Then this stays `true`.
    root_has_changed: AtomicBool,
    /// What the last look by a path found. Only another result is a reason to look at the root, so most looks cost one
    /// system call.
    found_last: Mutex<Option<FileIdentity>>,
}

struct Anchor {
    directory: File,
    identity: FileIdentity,
    /// Whether it is open for reading. A sync needs that, a search does not.
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

    /// Takes hold of the directory that has the path now, if it is another one. A handle that was opened again has its
    /// file there.
    fn follow(&self) -> io::Result<()> {
        let mut anchor = self.lock();
        let Some(held) = &*anchor else { return Ok(()) };
        if identity_of(&self.path).is_ok_and(|now| now != held.identity) {
            let now = Anchor::open(&self.path)?;
            // Checked last: in another root, this path leads to a foreign directory.
            if !self.has_another_root() {
                *anchor = Some(Arc::new(now));
            }
        }
        Ok(())
    }

    /// Returns the held directory and the file's name in it; `None` for a file that is elsewhere.
    fn held_for(&self, path: &Path) -> io::Result<Option<(Arc<Anchor>, CString)>> {
        match (self.held(), path.file_name()) {
            (Some(anchor), Some(name)) if path.parent() == Some(&self.path) => {
                Ok(Some((anchor, CString::new(name.as_bytes())?)))
            }
            _ => Ok(None),
        }
    }

    /// Makes a call that looks at a name. It goes by the path, or through the held directory if the process cannot
    /// follow the path, or if `is_elsewhere` says that the result may come from another root.
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

    /// Makes a call that changes a name. It goes through the held directory, never by a path that may lead elsewhere.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if another directory has the path, or none.
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

/// Returns the identity of a directory. Its path may be a link, as `/proc/PID/root` is.
fn identity_of(directory: &Path) -> io::Result<FileIdentity> {
    fs::metadata(directory).map(|metadata| identity(&metadata))
}

/// Returns the name of `to`, which is in the same directory as the first name of the call.
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

/// Returns what is known about a name in a directory, and whether it is a regular file.
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

// A default would be a disk that can do less than the system.
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
                let file = RealFile::of(access, || {
                    let file = open_in(directory, name, access_flags | OPEN_FLAGS, 0).map_err(explain_lease)?;
                    expect_regular(&file.metadata()?)?;
                    Ok(file)
                })?;
                Ok(Arc::new(file))
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
                let file = RealFile::of(Access::ReadWrite, || {
                    let file = open_in(directory, name, flags, mode & 0o600)?;
                    if let Err(error) = file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS)) {
                        let _ = remove_in(directory, name);
                        return Err(error);
                    }
                    Ok(file)
                })?;
                Ok(Arc::new(file))
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
            // A renamed file may be in this directory.
            before.directory.sync_all()?;
        }
        match held {
            // The process may have no descriptor left to open it again.
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

    #[cfg(any(test, feature = "testing"))]
    fn limits(&self) -> &'static Limits {
        RealDisk.limits()
    }

    fn sleeper(&self) -> Box<dyn Sleeper> {
        RealDisk.sleeper()
    }

    fn system(&self) -> &dyn System {
        &RealSystem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::scratch::Scratch;

    #[test]
    fn a_sync_is_of_the_directory_at_the_path() {
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
        assert_eq!(held(), moved, "no other directory has the path");
        fs::create_dir(&path).unwrap();
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), named());
        assert_ne!(held(), moved);
    }

    /// A link leads to the directory, as in paths through `/proc/PID/root`.
    #[test]
    fn files_are_not_renamed_in_a_replaced_directory() {
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
        // A new file begins an operation in the new directory.
        let newer = path.join("newer");
        disk.create_new(&newer, 0o600).unwrap();
        disk.rename(&newer, &store).unwrap();
        assert_eq!(fs::read(other.join("store")).unwrap(), b"");
    }
}
