//! Reading and setting owner, permissions and extended attributes.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use super::stat::{self, Inode, PERMISSION_BITS};
use crate::disk::attributes::{ACL, is_label};
use crate::disk::{Extended, FileAttributes};

pub(super) fn read(file: &File) -> io::Result<FileAttributes> {
    let Inode { mode, uid, gid, .. } = stat::of_file(file)?;
    Ok(FileAttributes { mode, uid, gid, extended: extended(file)? })
}

pub(super) fn set(file: &File, like: &FileAttributes) -> io::Result<()> {
    let own = read(file)?;
    if own == *like {
        return Ok(());
    }
    let set = change(file, &own, like);
    if set.is_err() {
        let _ = set_mode(file, own.mode & 0o700);
    }
    set
}

fn change(file: &File, own: &FileAttributes, like: &FileAttributes) -> io::Result<()> {
    // The bits of the group and of others come last: before that they would apply to another group or another ACL. With
    // an ACL, this clears its mask, so that its entries allow nothing.
    if own.mode & !0o700 != 0 {
        set_mode(file, own.mode & 0o700)?;
    }
    for name in own.extended.keys().filter(|&name| !like.extended.contains_key(name) && !is_label(name)) {
        remove(file, name)?;
    }
    let uid = (own.uid != like.uid).then_some(like.uid);
    let gid = (own.gid != like.gid).then_some(like.gid);
    // An unprivileged process may not even set the owner that the file has, so only a difference is set.
    if uid.is_some() || gid.is_some() {
        std::os::unix::fs::fchown(file, uid, gid)?;
    }
    let missing = like.extended.iter().filter(|&(name, value)| own.extended.get(name) != Some(value));
    let (acl, others): (Vec<_>, Vec<_>) = missing.partition(|(name, _)| name.as_c_str() == ACL);
    // The ACL comes last: it may forbid the owner to write, and then the other attributes could not be set.
    for (name, value) in others.into_iter().chain(acl) {
        match set_one(file, name, value) {
            Err(_) if is_label(name) => {}
            set => set?,
        }
    }
    // After the owner, since a change of owner clears the set-user-ID and set-group-ID bits.
    set_mode(file, like.mode)?;
    // Linux drops a set-group-ID bit that the caller may not give, and reports success.
    if read(file)?.required() == like.required() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "not all of them are as they were set"))
    }
}

fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS))
}

/// Returns whether the attribute belongs to one file's bytes: checksums of them, and the capabilities of a program.
#[cfg(target_os = "linux")]
fn is_of_one_file(name: &CStr) -> bool {
    [c"security.capability", c"security.evm", c"security.ima"].contains(&name)
}

#[cfg(target_os = "linux")]
fn extended(file: &File) -> io::Result<Extended> {
    // SAFETY: the descriptor is open while `file` is borrowed, and the system writes no more than the buffer's length.
    let listed = sized(|buffer, len| unsafe { libc::flistxattr(file.as_raw_fd(), buffer.cast(), len) });
    let listed = match listed {
        Err(error) if has_none(&error) => return Ok(Extended::new()),
        listed => listed?,
    };
    let mut found = Extended::new();
    // Not every file system lists the ACL.
    let names = listed.split_inclusive(|&byte| byte == 0).chain([ACL.to_bytes_with_nul()]);
    for name in names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        if is_of_one_file(name) || found.contains_key(name) {
            continue;
        }
        let descriptor = file.as_raw_fd();
        // SAFETY: as above; `name` ends with a zero byte.
        match sized(|buffer, len| unsafe { libc::fgetxattr(descriptor, name.as_ptr(), buffer.cast(), len) }) {
            Ok(value) => drop(found.insert(name.to_owned(), value)),
            // Removed since it was listed, or the ACL that is not there.
            Err(error) if has_none(&error) => {}
            Err(error) => return Err(about(name, "read", error)),
        }
    }
    Ok(found)
}

#[cfg(target_os = "linux")]
fn set_one(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed; `name` ends with a zero byte, `value` has the length given.
    let set = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if set == 0 { Ok(()) } else { Err(about(name, "set", io::Error::last_os_error())) }
}

#[cfg(target_os = "linux")]
fn remove(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed, and `name` ends with a zero byte.
    if unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if has_none(&error) { Ok(()) } else { Err(about(name, "removed", error)) }
}

/// Returns whether the file has no such attribute, or the file system or the sandbox does not know attributes.
#[cfg(target_os = "linux")]
fn has_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Calls without a buffer to learn its length, then with one. Repeats that if the value has become longer meanwhile.
#[cfg(target_os = "linux")]
fn sized(mut call: impl FnMut(*mut u8, usize) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    loop {
        let len = usize::try_from(call(std::ptr::null_mut(), 0)).map_err(|_| io::Error::last_os_error())?;
        let mut buffer = vec![0; len];
        if len == 0 {
            return Ok(buffer);
        }
        match usize::try_from(call(buffer.as_mut_ptr(), len)).map_err(|_| io::Error::last_os_error()) {
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
            Err(error) => return Err(error),
            Ok(got) => {
                buffer.truncate(got);
                return Ok(buffer);
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn about(name: &CStr, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the attribute {} cannot be {what}: {error}", name.to_string_lossy()))
}

// On other systems files have no attributes that this crate knows.

#[cfg(not(target_os = "linux"))]
fn extended(_: &File) -> io::Result<Extended> {
    Ok(Extended::new())
}

#[cfg(not(target_os = "linux"))]
fn set_one(_: &File, _: &CStr, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn remove(_: &File, _: &CStr) -> io::Result<()> {
    Ok(())
}
