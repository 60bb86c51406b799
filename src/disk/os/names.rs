//! Names and directories of the operating system.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(target_os = "linux")]
use super::anchored::AnchoredDisk;
use super::file::RealFile;
#[cfg(target_os = "linux")]
use super::sleeper::RealSleeper;
use super::stat::{self, PERMISSION_BITS, expect_regular};
#[cfg(target_os = "linux")]
use crate::disk::Sleeper;
use crate::disk::{Access, Disk, DiskFile, FileStat, cannot_link, expect_file_name};

/// How many dangling symlinks in a row [`RealDisk::resolve`] follows: as many as Linux follows in one path.
const MAX_LINK_HOPS: usize = 40;

/// The reason to refuse a link whose text does not say where it leads, as in `/proc/PID/fd`.
const LEADS_ELSEWHERE: &str = "the link leads to a file that has another path, or none; name the file by its own path";

/// A name may get another file between two looks, but not every time.
const LOOKS: usize = 10;

/// The operating system's files and directories.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINK_HOPS {
            expect_file_name(&path)?;
            let Some(name) = path.file_name() else { return fs::canonicalize(&path) };
            let directory = resolve_directory(&path, name)?;
            let candidate = directory.join(name);
            match fs::read_link(&candidate) {
                Ok(target) => path = directory.join(target),
                // The name is free.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(candidate),
                // EINVAL: not a symlink.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(candidate),
                Err(error) => return Err(error),
            }
            if !lead_to_the_same(|path| fs::metadata(path), &candidate, &path) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, LEADS_ELSEWHERE));
            }
        }
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        // Check the type before opening, since opening a device can have effects (a tape rewinds), and again
        // afterwards, since the name may mean another file by then.
        expect_regular(&fs::symlink_metadata(path)?)?;
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite).custom_flags(OPEN_FLAGS);
        let file = RealFile::of(access, || {
            let file = options.open(path).map_err(explain_lease)?;
            expect_regular(&file.metadata()?)?;
            Ok(file)
        })?;
        Ok(Arc::new(file))
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        // The owner's bits only, until the mode is set: at no moment may others do more than the caller asked for.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode & 0o600);
        let file = RealFile::of(Access::ReadWrite, || {
            let file = options.open(path)?;
            // `open` has applied the umask; fchmod does not.
            if let Err(error) = file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS)) {
                // The caller gets an error and no file to clean up, so the name must go.
                let _ = fs::remove_file(path);
                return Err(error);
            }
            Ok(file)
        })?;
        Ok(Arc::new(file))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
        or_rename(fs::hard_link(from, to), || rename_new(libc::AT_FDCWD, &name(from)?, &name(to)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        // O_DIRECTORY: if a FIFO has taken the name, the call must not hang.
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn anchor(&self, directory: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(Some(Arc::new(AnchoredDisk::new(directory)?)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        stat::of_path(path).map(|found| found.stat)
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name.as_bytes().starts_with(prefix.as_bytes()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn room(&self, directory: &Path) -> io::Result<Option<u64>> {
        let said = fs2::statvfs(directory)?;
        // A file system without a size reports zero for everything.
        let room = if may_use_reserved_blocks() { said.free_space() } else { said.available_space() };
        Ok((said.total_space() > 0).then_some(room))
    }

    #[cfg(target_os = "linux")]
    fn sleeper(&self) -> Box<dyn Sleeper> {
        Box::new(RealSleeper::default())
    }
}

/// Returns the directory of a file with this name, without symlinks as far as a path can express that.
///
/// Some links of `/proc` lead elsewhere than their text says. `/proc/PID/root`, for example, belongs to a process that
/// may have another root and other mounts. A path through such a link stays as it is, and the system follows it in
/// every call.
fn resolve_directory(path: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let resolved = match fs::canonicalize(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound || fs::metadata(directory).is_err() => return Err(error),
        resolved => resolved.unwrap_or_default(),
    };
    let same = lead_to_the_same(|path| fs::metadata(path), directory, &resolved)
        && lead_to_the_same(|path| fs::symlink_metadata(path), &directory.join(name), &resolved.join(name));
    if same { Ok(resolved) } else { std::path::absolute(directory) }
}

/// Returns whether two paths lead to the same file, or neither leads to one.
fn lead_to_the_same(look: impl Fn(&Path) -> io::Result<Metadata>, one: &Path, other: &Path) -> bool {
    (0..LOOKS).any(|_| match (look(one), look(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Err(one), Err(other)) => one.kind() == other.kind(),
        _ => false,
    })
}

/// O_NONBLOCK: if a FIFO has taken the name, the call must not hang; among regular files it matters only for those with
/// a lease. O_NOFOLLOW: paths are resolved, so a symlink here was planted since.
pub(super) const OPEN_FLAGS: libc::c_int = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;

/// Says what "resource temporarily unavailable" means for a regular file.
pub(super) fn explain_lease(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::WouldBlock {
        return error;
    }
    let reason = "another process has a lease on the file, as file servers take them, and has not given it up yet";
    io::Error::new(io::ErrorKind::WouldBlock, reason)
}

/// Renames after a link that failed because files here can have no links. Returns the link's error if there is no such
/// rename.
pub(super) fn or_rename(linked: io::Result<()>, rename_new: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Err(refused) = linked else { return Ok(()) };
    if !cannot_link(&refused) {
        return Err(refused);
    }
    match rename_new() {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(refused),
        renamed => renamed,
    }
}

/// Renames if the new name is free.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`] where the system or the file system cannot do that.
#[cfg(target_os = "linux")]
pub(super) fn rename_new(directory: libc::c_int, from: &CStr, to: &CStr) -> io::Result<()> {
    let (from, to) = (from.as_ptr(), to.as_ptr());
    // SAFETY: both names end with a zero byte and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_renameat2, directory, from, directory, to, libc::RENAME_NOREPLACE) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_new(_: libc::c_int, _: &CStr, _: &CStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns whether this process may use the blocks that a file system reserves for the superuser: one in twenty on
/// ext4.
fn may_use_reserved_blocks() -> bool {
    // SAFETY: it takes nothing and cannot fail.
    let is_superuser = unsafe { libc::geteuid() } == 0;
    // To the file system, the superuser of a user namespace may be any other user.
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    is_superuser && ids.split_whitespace().take(2).eq(["0", "0"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_links_is_renamed() {
        let os = |number| Err(io::Error::from_raw_os_error(number));
        for refusal in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP] {
            or_rename(os(refusal), || Ok(())).unwrap();
            let error = or_rename(os(refusal), || Err(io::ErrorKind::Unsupported.into())).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(refusal));
            let error = or_rename(os(refusal), || os(libc::EEXIST)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(or_rename(os(libc::EEXIST), || panic!("not tried")).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        or_rename(Ok(()), || panic!("not tried")).unwrap();
    }
}
