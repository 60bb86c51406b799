//! The seam between the engine and the operating system.
//!
//! All input and output of the engine goes through two small traits: [`Disk`], what is asked of directories, and
//! [`DiskFile`], what is asked of one open file. [`RealDisk`] is the operating system; tests put a disk of their own
//! here and cut its power, fail its calls or run several engines on it at once. The seam sees bytes and names only:
//! nothing in this module knows a record.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod attributes;
mod bad_blocks;
mod map;
mod os;
#[cfg(test)]
pub(crate) mod scratch;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
#[cfg(test)]
mod tests;

pub use attributes::{Extended, FileAttributes};
pub(crate) use bad_blocks::AroundBadBlocks;
pub use map::{Map, MappedBytes};
pub use os::RealDisk;

/// What is asked of directories, of randomness and of time.
///
/// Paths are absolute after [`Disk::resolve`]; every other method gets resolved paths only.
pub trait Disk: Send + Sync {
    /// Makes `path` absolute and resolves every symlink in it, unless a link leads elsewhere than its text says. The last
    /// component need not exist, but its directory must. A path that can only be a directory's, as it ends in a slash, is an
    /// [`io::ErrorKind::IsADirectory`].
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;

    /// Opens an existing regular file; anything else (directory, FIFO, device, socket) is an
    /// [`io::ErrorKind::InvalidInput`] and is not opened, so that a FIFO cannot block the caller.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file that must not exist, not even as a dangling symlink, for reading and writing, with exactly the
    /// permission bits `mode` (whatever the umask is).
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives the file at `from` the second name `to`; [`io::ErrorKind::AlreadyExists`] if that name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames `from` to `to`, replacing what is there, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames `from` to `to` unless that name is taken, which is an [`io::ErrorKind::AlreadyExists`]. A disk or file system
    /// that cannot do this atomically answers [`io::ErrorKind::Unsupported`] and does nothing.
    fn rename_new(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Brings the directory's entries (creations, links, renames, removals) to stable storage. An
    /// [`io::ErrorKind::PermissionDenied`] if this process may not read the directory.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// What `path` names at this moment; a final symlink is not followed.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// This disk with a hold on one directory: the files in it stay within reach when this process gives up the privileges
    /// that the path needs, or gets another root directory. `None` if the disk has nothing of the kind. Costs a descriptor.
    fn anchor(&self, _directory: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(None)
    }

    /// Gives up what [`Disk::anchor`] holds. The disk goes on as without it.
    fn release(&self) {}

    /// The names in a directory that start with `prefix`, in no particular order.
    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>>;

    /// How many more bytes this process may store in files of this directory, if the file system says so.
    fn room(&self, _directory: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Fills `bytes` from the system's random source.
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// Seconds since the Unix epoch.
    fn unix_time(&self) -> u64;

    /// The id of the process that has the lock on a file, if the system tells: of one in another PID namespace it does not.
    /// Asked for only when a caller has waited for the lock in vain.
    fn lock_holder(&self, _file: &FileIdentity) -> Option<u32> {
        None
    }

    /// Sleeps: the engine waits this long before it tries a busy lock again.
    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Refuses a path that has `/` or `/.` behind its last name, which [`Path::file_name`] passes over: no file has it.
fn expect_file_name(path: &Path) -> io::Result<()> {
    let ends_in_a_slash = || [&b"/"[..], b"/."].iter().any(|end| path.as_os_str().as_bytes().ends_with(end));
    if path.file_name().is_some() && ends_in_a_slash() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "a path that ends in a slash is that of a directory"));
    }
    Ok(())
}

/// The places in the line for a file's lock have numbers below this. They do not run out: a line that is empty begins again at 0.
pub(crate) const PLACES: u64 = (libc::off_t::MAX / 2) as u64;

/// What is asked of one open file. One value is one open file description: it has its own lock.
///
/// Dropping the last reference closes the file and with it gives up its lock.
#[allow(clippy::len_without_is_empty, reason = "a length is a system call, and the engine never asks for less than it")]
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` into `buffer` and returns how many bytes were read: fewer than asked, or 0, at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes `bytes` at `offset` in one call and returns how many were written, which may be fewer.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// The file's length in bytes. Does not touch the file's times: asking for those makes the next write slower.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file or extends it sparsely.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes a range read as zeros, gives its space back, and leaves the file's length as it is.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] if this disk or file system cannot do it; any other error may leave a part done.
    fn punch(&self, _range: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Brings the file's bytes, and what of its metadata is needed to read them back, to stable storage (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], all metadata included (`fsync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Brings the names of all files of this file's file system to stable storage, and whatever else is not there yet. Needs
    /// no permission on a directory, and takes as long as the file system has to write.
    fn sync_file_system(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Begins to write a range to stable storage, and does not wait for it. It promises nothing that a sync does; it only
    /// leaves less to the next one. A disk that does not know it does nothing.
    ///
    /// But an error must be heeded: what could not be begun with may be told of here only.
    fn begin_write_back(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// As [`DiskFile::begin_write_back`], once the disk has all that was begun before this range.
    ///
    /// An error must be heeded here too: a write that has failed is told of once, here or by a sync, and the sync that comes
    /// after this one succeeds without it.
    fn write_back(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// The first offset at or after `offset` that is not in a hole; `None` if only a hole follows. A file system
    /// that does not know holes answers `offset` itself while that is inside the file.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Takes the exclusive advisory lock if nobody has it; `false` if another description has.
    fn try_lock(&self) -> io::Result<bool>;

    /// Gives the lock up.
    fn unlock(&self) -> io::Result<()>;

    /// Takes a place in the line of descriptions that wait for the lock, unless another description has it; `true` if it is
    /// taken now. The one in the lowest place is next. A courtesy between those that wait, which protects nothing. A disk that
    /// does not know it lets every description be next.
    fn try_place(&self, _place: u64) -> io::Result<bool> {
        Ok(true)
    }

    /// Gives a place up.
    fn leave_place(&self, _place: u64) {}

    /// A place among these that another description has, any of them; `None` if there is none.
    fn place_of_another(&self, _among: Range<u64>) -> Option<u64> {
        None
    }

    /// The file's identity, owner, mode and number of names.
    fn stat(&self) -> io::Result<FileStat>;

    /// The file's owner, permissions and extended attributes.
    fn attributes(&self) -> io::Result<FileAttributes>;

    /// Gives the file these attributes and takes away all others; an error if any of them cannot be had. At no moment may
    /// more users open the file than could before or can afterwards, and after an error no more than its owner.
    fn set_attributes(&self, like: &FileAttributes) -> io::Result<()>;

    /// A read-only shared map of the first `len` bytes, which may reach beyond the end of the file; `None` if this
    /// disk does not map, or if a map might not show what is written to the file later. Then everything is read with
    /// [`DiskFile::read_at`].
    fn map(&self, len: u64) -> io::Result<Option<Map>>;

    /// Whether another description of this file has ever made a map and is still open, or its map still exists. A disk
    /// that does not know says yes.
    fn is_mapped_elsewhere(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading; works on a read-only file system.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// What a file system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Which file this is, whatever it is called.
    pub identity: FileIdentity,
    /// Whether it is a regular file.
    pub regular: bool,
    /// How many names (hard links) it has. A file without one can still be open, and a mount of its own can lead to it.
    pub links: u64,
    /// Permission bits, without the file type.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Whether the path ends at a mount, as that of a single file that a container was given does: nothing can be renamed
    /// to such a path. `false` where the system does not say, and for what is asked of an open file.
    pub mount_point: bool,
}

/// Device and inode: the same for two paths if and only if they name the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The file system's device number.
    pub device: u64,
    /// The inode number within the device.
    pub inode: u64,
}
