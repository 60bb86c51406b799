//! What a file has besides its bytes: owner, permissions, and the extended attributes, of which an ACL is one.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;

/// Extended attributes by name.
pub type Extended = BTreeMap<CString, Vec<u8>>;

/// A file's owner and permissions, and what else is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileAttributes {
    /// Permission bits, without the file type. Of a file with an ACL, the group's bits are the ACL's mask.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Extended attributes, without those that belong to one file's bytes.
    pub extended: Extended,
}

/// The attribute that holds a POSIX access ACL, in the form in which Linux takes and gives it.
pub(crate) const ACL: &CStr = c"system.posix_acl_access";

impl FileAttributes {
    /// Whether the permission bits do not say all: read without the ACL, they would give its mask to the owning group.
    pub fn has_acl(&self) -> bool {
        self.extended.contains_key(ACL)
    }

    /// Owner and permission bits alone.
    #[must_use]
    pub fn without_extended(self) -> FileAttributes {
        FileAttributes { extended: Extended::new(), ..self }
    }

    /// What a file must have that is to be as usable as one with these, by the same users.
    pub(crate) fn required(&self) -> FileAttributes {
        let mut required = self.clone();
        required.extended.retain(|name, _| !is_label(name));
        required
    }
}

/// Whether the system's policy gives every file this attribute, SELinux for example. A process may not be allowed to set
/// another one, so this is tried, and a failure is passed over.
pub(crate) fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.")
}

/// Whether this speaks of one file's bytes: checksums of them, and what a program may do that is started from them.
#[cfg(target_os = "linux")]
fn is_of_one_file(name: &CStr) -> bool {
    [c"security.capability", c"security.evm", c"security.ima"].contains(&name)
}

#[cfg(target_os = "linux")]
pub(crate) fn extended(file: &File) -> io::Result<Extended> {
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
pub(crate) fn set(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed; `name` ends with a zero byte, `value` has the length given.
    let set = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if set == 0 { Ok(()) } else { Err(about(name, "set", io::Error::last_os_error())) }
}

#[cfg(target_os = "linux")]
pub(crate) fn remove(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed, and `name` ends with a zero byte.
    if unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if has_none(&error) { Ok(()) } else { Err(about(name, "removed", error)) }
}

/// Whether the file has no such attribute, or the file system or the sandbox does not know attributes.
#[cfg(target_os = "linux")]
fn has_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Calls with no buffer, to learn how long it has to be, and then with one; again if it has become longer meanwhile.
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

// Elsewhere files have no attributes that this knows.

#[cfg(not(target_os = "linux"))]
pub(crate) fn extended(_: &std::fs::File) -> io::Result<Extended> {
    Ok(Extended::new())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_: &std::fs::File, _: &CStr, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn remove(_: &std::fs::File, _: &CStr) -> io::Result<()> {
    Ok(())
}
