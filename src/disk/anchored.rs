//! A directory that stays within reach when its path no longer leads there.
//!
//! A program opens its store, and then gives up its privileges (`setuid`) or gets another root directory (`chroot`). Open
//! files go on working, and paths do not: the process may not search a directory on the way, or the path means another
//! place. So an [`AnchoredDisk`] keeps a descriptor of the store's directory, and uses it where the path fails for one of
//! these two reasons. Otherwise the path decides, as it does for all other processes: a store that was moved away together
//! with its directory is not the one that the path names.

use std::ffi::{CStr, CString, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file::{OPEN_FLAGS, PERMISSION_BITS, RealFile, expect_regular, explain_lease, renameat2};
use super::{Access, Disk, DiskFile, FileIdentity, FileStat, RealDisk};

/// The operating system's files, of which those in one directory are reached without its path if need be.
pub(super) struct AnchoredDisk {
    path: PathBuf,
    /// `None` once it was released.
    directory: Mutex<Option<Arc<Anchor>>>,
    /// The root directory of the process when the directory was opened.
    root: FileIdentity,
}

struct Anchor {
    directory: File,
    identity: FileIdentity,
    /// It is open for reading, which a sync needs and a search does not.
    readable: bool,
}

impl AnchoredDisk {
    pub(super) fn new(path: &Path) -> io::Result<AnchoredDisk> {
        let root = RealDisk.stat(Path::new("/"))?.identity;
        let directory = Mutex::new(Some(Arc::new(Anchor::open(path)?)));
        Ok(AnchoredDisk { path: path.to_owned(), directory, root })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Anchor>>> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<Arc<Anchor>> {
        self.lock().clone()
    }

    fn has_another_root(&self) -> bool {
        RealDisk.stat(Path::new("/")).is_ok_and(|root| root.identity != self.root)
    }

    /// Holds the directory that has the path now, if it is another one: a handle that was opened again has its file there.
    fn follow(&self) -> io::Result<()> {
        let mut anchor = self.lock();
        let Some(held) = &*anchor else { return Ok(()) };
        let moved = RealDisk.stat(&self.path).is_ok_and(|now| now.identity != held.identity);
        if moved && !self.has_another_root() {
            *anchor = Some(Arc::new(Anchor::open(&self.path)?));
        }
        Ok(())
    }

    /// What a call by the path has returned, or what the same call in the directory returns if the path cannot be followed.
    fn or_in_directory<T>(
        &self,
        path: &Path,
        by_path: io::Result<T>,
        in_directory: impl FnOnce(libc::c_int, &CStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let error = match by_path {
            Err(error) if self.is_out_of_reach(&error) => error,
            done_or_failed => return done_or_failed,
        };
        match (self.held(), path.file_name()) {
            (Some(anchor), Some(name)) if path.parent() == Some(&self.path) => {
                in_directory(anchor.directory.as_raw_fd(), &CString::new(name.as_bytes())?)
            }
            _ => Err(error),
        }
    }

    fn is_out_of_reach(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::PermissionDenied => true,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.has_another_root(),
            _ => false,
        }
    }
}

impl Anchor {
    fn open(path: &Path) -> io::Result<Anchor> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | flags).open(path);
        let (directory, readable) = match open(0) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (open(libc::O_PATH)?, false),
            opened => (opened?, true),
        };
        let metadata = directory.metadata()?;
        let identity = FileIdentity { device: metadata.dev(), inode: metadata.ino() };
        Ok(Anchor { directory, identity, readable })
    }
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

#[allow(clippy::useless_conversion, reason = "the types of some fields differ between systems")]
fn stat_in(directory: libc::c_int, name: &CStr) -> io::Result<FileStat> {
    // SAFETY: all fields are numbers, of which zero is one.
    let mut found: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `name` ends with a zero byte and `found` is ours to be written to; both outlive the call.
    checked(unsafe { libc::fstatat64(directory, name.as_ptr(), &mut found, libc::AT_SYMLINK_NOFOLLOW) })?;
    Ok(FileStat {
        identity: FileIdentity { device: found.st_dev, inode: found.st_ino },
        regular: found.st_mode & libc::S_IFMT == libc::S_IFREG,
        links: found.st_nlink.into(),
        mode: found.st_mode & PERMISSION_BITS,
        uid: found.st_uid,
        gid: found.st_gid,
        mount_point: false,
    })
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
        self.or_in_directory(path, RealDisk.open(path, access), |directory, name| {
            if !stat_in(directory, name)?.regular {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"));
            }
            let access_flags = if access == Access::ReadWrite { libc::O_RDWR } else { libc::O_RDONLY };
            let file = open_in(directory, name, access_flags | OPEN_FLAGS, 0).map_err(explain_lease)?;
            expect_regular(&file.metadata()?)?;
            Ok(Arc::new(RealFile::new(file, access)))
        })
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.or_in_directory(path, RealDisk.create_new(path, mode), |directory, name| {
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
            let file = open_in(directory, name, flags, mode & 0o600)?;
            if let Err(error) = file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS)) {
                let _ = remove_in(directory, name);
                return Err(error);
            }
            Ok(Arc::new(RealFile::new(file, Access::ReadWrite)))
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.or_in_directory(from, RealDisk.link(from, to), |directory, from| {
            let to = second_name(to)?;
            // SAFETY: both names end with a zero byte and outlive the call.
            checked(unsafe { libc::linkat(directory, from.as_ptr(), directory, to.as_ptr(), 0) })
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.or_in_directory(from, RealDisk.rename(from, to), |directory, from| {
            let to = second_name(to)?;
            // SAFETY: both names end with a zero byte and outlive the call.
            checked(unsafe { libc::renameat(directory, from.as_ptr(), directory, to.as_ptr()) })
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.or_in_directory(from, RealDisk.rename_new(from, to), |directory, from| {
            renameat2(directory, from, &second_name(to)?)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.or_in_directory(path, RealDisk.remove(path), remove_in)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.follow()?;
        match self.held() {
            // No other descriptor is needed, of which there may be none left.
            Some(anchor) if anchor.readable && directory == self.path => anchor.directory.sync_all(),
            _ => RealDisk.sync_dir(directory),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.or_in_directory(path, RealDisk.stat(path), stat_in)
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        RealDisk.list(directory, prefix)
    }

    fn room(&self, directory: &Path) -> io::Result<Option<u64>> {
        RealDisk.room(directory)
    }

    /// There is a hold already.
    fn anchor(&self, _: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(None)
    }

    fn release(&self) {
        self.lock().take();
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        RealDisk.fill_random(bytes)
    }

    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        RealDisk.lock_holder(file)
    }

    fn unix_time(&self) -> u64 {
        RealDisk.unix_time()
    }

    fn pause(&self, duration: Duration) {
        RealDisk.pause(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    /// A handle that is opened again after its directory was replaced has its file in the new one.
    #[test]
    fn the_directory_that_is_synced_is_the_one_that_has_the_path() {
        let scratch = Scratch::new();
        let path = scratch.0.join("data");
        std::fs::create_dir(&path).unwrap();
        let disk = AnchoredDisk::new(&path).unwrap();
        let held = || disk.held().unwrap().identity;
        let named = || RealDisk.stat(&path).unwrap().identity;
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), named());

        std::fs::rename(&path, scratch.0.join("moved")).unwrap();
        let moved = held();
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), moved, "nothing else has the path");
        std::fs::create_dir(&path).unwrap();
        disk.sync_dir(&path).unwrap();
        assert_eq!(held(), named());
        assert_ne!(held(), moved);
    }
}
