//! What the system says about a file, without its times.

use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::disk::{FileIdentity, FileStat};

/// The part of a file's mode that is permissions; the rest is its type.
pub(super) const PERMISSION_BITS: u32 = 0o7777;

/// What the system knows about an inode, except its times.
pub(super) struct Inode {
    pub(super) stat: FileStat,
    /// Permission bits, without the file type.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Asks what a path names. A final symlink is not followed.
pub(super) fn of_path(path: &Path) -> io::Result<Inode> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    statx(libc::AT_FDCWD, &name)?.map_or_else(|| fs::symlink_metadata(path).map(|found| inode(&found)), Ok)
}

/// Asks about an open file.
pub(super) fn of_file(file: &File) -> io::Result<Inode> {
    statx(file.as_raw_fd(), c"")?.map_or_else(|| file.metadata().map(|found| inode(&found)), Ok)
}

/// Asks without the file's times, which std always asks for. After a process has asked for them, the next write has to
/// give the file new ones, which made a synced put half as slow again. An empty path means the descriptor's own file.
///
/// Returns `None` where the system has no such call, and if it fails for another reason than a missing file: an old kernel or a
/// sandbox may not know it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn statx(descriptor: libc::c_int, path: &CStr) -> io::Result<Option<Inode>> {
    let wanted = libc::STATX_BASIC_STATS & !(libc::STATX_ATIME | libc::STATX_MTIME | libc::STATX_CTIME);
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: all fields are numbers, of which zero is one.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `found` is ours to be written to; both outlive the call.
    if unsafe { libc::statx(descriptor, path.as_ptr(), flags, wanted, &mut found) } != 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::NotFound { Err(error) } else { Ok(None) };
    }
    let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
    Ok(Some(Inode {
        stat: FileStat {
            identity: FileIdentity { device, inode: found.stx_ino },
            links: found.stx_nlink.into(),
            mount_point: !path.is_empty() && found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
        },
        mode: u32::from(found.stx_mode) & PERMISSION_BITS,
        uid: found.stx_uid,
        gid: found.stx_gid,
    }))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn statx(_: libc::c_int, _: &CStr) -> io::Result<Option<Inode>> {
    Ok(None)
}

fn inode(metadata: &Metadata) -> Inode {
    Inode {
        stat: FileStat { identity: identity(metadata), links: metadata.nlink(), mount_point: false },
        mode: metadata.mode() & PERMISSION_BITS,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }
}

pub(super) fn identity(metadata: &Metadata) -> FileIdentity {
    FileIdentity { device: metadata.dev(), inode: metadata.ino() }
}

/// Refuses anything but a regular file, and says what it is.
pub(super) fn expect_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "something else"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("expected a regular file, found {what}")))
}
