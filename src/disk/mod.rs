//! The seam between the engine and the operating system.
//!
//! The engine does all input and output through two traits: [`Disk`] has the calls on names, and [`DiskFile`] the calls
//! on one open file. [`RealDisk`] is the operating system. Tests put a disk of their own here: they cut its power, make
//! its calls fail, or run several engines on it. The seam sees bytes and names only; nothing in this module knows a record.
//!
//! Calls that a disk can do without have a default, which leaves out a feature or takes more time. So a disk for one test
//! is short. This one keeps its files in memory:
//!
//! ```
//! use std::collections::HashMap;
//! use std::io::{self, ErrorKind};
//! use std::path::{Path, PathBuf};
//! use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
//! use std::sync::{Arc, Mutex};
//!
//! use caskfile::disk::{Access, Disk, DiskFile, FileIdentity, FileStat, SyncScope};
//! use caskfile::{Cask, Config};
//!
//! #[derive(Default)]
//! struct MemoryDisk {
//!     names: Mutex<HashMap<PathBuf, Arc<Inode>>>,
//!     /// Numbers for files and descriptions. 0 is neither.
//!     last: AtomicU64,
//! }
//!
//! struct Inode {
//!     number: u64,
//!     bytes: Mutex<Vec<u8>>,
//!     /// The description that has the lock, or 0.
//!     locked_by: AtomicU64,
//!     names: AtomicU64,
//! }
//!
//! struct MemoryFile {
//!     inode: Arc<Inode>,
//!     description: u64,
//! }
//!
//! impl MemoryDisk {
//!     fn number(&self) -> u64 {
//!         self.last.fetch_add(1, SeqCst) + 1
//!     }
//!
//!     fn find(&self, path: &Path) -> io::Result<Arc<Inode>> {
//!         self.names.lock().unwrap().get(path).cloned().ok_or(ErrorKind::NotFound.into())
//!     }
//! }
//!
//! impl Disk for MemoryDisk {
//!     fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn DiskFile>> {
//!         Ok(Arc::new(MemoryFile { inode: self.find(path)?, description: self.number() }))
//!     }
//!
//!     fn create_new(&self, path: &Path, _mode: u32) -> io::Result<Arc<dyn DiskFile>> {
//!         if self.find(path).is_ok() {
//!             return Err(ErrorKind::AlreadyExists.into());
//!         }
//!         let (bytes, locked_by, names) = Default::default();
//!         let inode = Arc::new(Inode { number: self.number(), bytes, locked_by, names });
//!         inode.names.store(1, SeqCst);
//!         self.names.lock().unwrap().insert(path.to_owned(), inode);
//!         self.open(path, Access::ReadWrite)
//!     }
//!
//!     fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
//!         let mut names = self.names.lock().unwrap();
//!         let inode = names.remove(from).ok_or(ErrorKind::NotFound)?;
//!         if let Some(replaced) = names.insert(to.to_owned(), inode) {
//!             replaced.names.store(0, SeqCst);
//!         }
//!         Ok(())
//!     }
//!
//!     fn remove(&self, path: &Path) -> io::Result<()> {
//!         self.find(path)?.names.store(0, SeqCst);
//!         self.names.lock().unwrap().remove(path);
//!         Ok(())
//!     }
//!
//!     fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
//!         Ok(())
//!     }
//!
//!     fn stat(&self, path: &Path) -> io::Result<FileStat> {
//!         self.open(path, Access::Read)?.stat()
//!     }
//! }
//!
//! impl DiskFile for MemoryFile {
//!     fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
//!         let bytes = self.inode.bytes.lock().unwrap();
//!         let rest = bytes.get(offset as usize..).unwrap_or_default();
//!         let len = rest.len().min(buffer.len());
//!         buffer[..len].copy_from_slice(&rest[..len]);
//!         Ok(len)
//!     }
//!
//!     fn write_at(&self, offset: u64, written: &[u8]) -> io::Result<usize> {
//!         let mut bytes = self.inode.bytes.lock().unwrap();
//!         let end = offset as usize + written.len();
//!         let len = bytes.len().max(end);
//!         bytes.resize(len, 0);
//!         bytes[offset as usize..end].copy_from_slice(written);
//!         Ok(written.len())
//!     }
//!
//!     fn len(&self) -> io::Result<u64> {
//!         Ok(self.inode.bytes.lock().unwrap().len() as u64)
//!     }
//!
//!     fn set_len(&self, len: u64) -> io::Result<()> {
//!         self.inode.bytes.lock().unwrap().resize(len as usize, 0);
//!         Ok(())
//!     }
//!
//!     fn sync(&self, _scope: SyncScope) -> io::Result<()> {
//!         Ok(())
//!     }
//!
//!     fn try_lock(&self) -> io::Result<bool> {
//!         let before = self.inode.locked_by.compare_exchange(0, self.description, SeqCst, SeqCst);
//!         Ok(before.is_ok() || before == Err(self.description))
//!     }
//!
//!     fn unlock(&self) -> io::Result<()> {
//!         let _ = self.inode.locked_by.compare_exchange(self.description, 0, SeqCst, SeqCst);
//!         Ok(())
//!     }
//!
//!     fn stat(&self) -> io::Result<FileStat> {
//!         let identity = FileIdentity { device: 0, inode: self.inode.number };
//!         Ok(FileStat { identity, links: self.inode.names.load(SeqCst), mount_point: false })
//!     }
//! }
//!
//! /// Closing a file gives up its lock.
//! impl Drop for MemoryFile {
//!     fn drop(&mut self) {
//!         let _ = self.unlock();
//!     }
//! }
//!
//! let disk = Arc::new(MemoryDisk::default());
//! let cask = Cask::open_on(disk.clone(), "/store", &Config::new())?;
//! for n in 0..100 {
//!     cask.put("counter", n.to_string())?;
//! }
//! cask.compact()?;
//! cask.close()?;
//! let cask = Cask::open_on(disk, "/store", &Config::new())?;
//! assert_eq!(cask.get("counter")?.value, b"99");
//! # Ok::<(), caskfile::Error>(())
//! ```

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{Limits, Shared};

mod attributes;
mod bad_blocks;
mod clock;
mod map;
mod os;
#[cfg(test)]
pub(crate) mod scratch;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
mod sleeper;
#[cfg(test)]
mod tests;

pub use attributes::{Extended, FileAttributes};
pub(crate) use bad_blocks::AroundBadBlocks;
pub use clock::Clock;
pub(crate) use clock::whole_ms;
pub use map::{Map, MappedBytes};
pub use os::{RealDisk, RealSystem};
pub use sleeper::{Doze, Sleeper};

/// The calls on names and directories.
///
/// Every method but [`Disk::resolve`] gets paths that `resolve` has returned, or siblings of such paths.
pub trait Disk: Send + Sync {
    /// Makes `path` absolute and resolves its symlinks, except links that lead elsewhere than their text says. The last
    /// component need not exist, but its directory must.
    ///
    /// By default the path is only made absolute.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::IsADirectory`] if the path ends in a slash, so that it can only be a directory's.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        expect_file_name(path)?;
        std::path::absolute(path)
    }

    /// Opens an existing regular file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for anything else (directory, FIFO, device, socket), which is not opened: opening
    /// a FIFO could block the caller.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file for reading and writing, with exactly the permission bits `mode`, whatever the umask is.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken, even by a dangling symlink.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives the file at `from` the name `to`, if that name is free, in one atomic step. The file keeps the name `from`,
    /// except on file systems without hard links: there it loses it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name `to` is taken. `EPERM`, `EACCES`, `ENOSYS` or `EOPNOTSUPP` if the disk
    /// has no way to do this, which is the default.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    /// Renames `from` to `to`, replacing what is there, in one atomic step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Brings the directory's entries (creations, links, renames, removals) to stable storage.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::PermissionDenied`] if this process may not read the directory.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Returns what `path` names now. A final symlink is not followed.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// Returns the names in a directory that start with `prefix`, in any order.
    ///
    /// The engine looks for leftovers of killed processes with it. By default this is [`io::ErrorKind::Unsupported`], and
    /// only leftovers with the most usual names are found.
    fn list(&self, _directory: &Path, _prefix: &OsString) -> io::Result<Vec<OsString>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns how many more bytes this process may store in files of this directory; `None` if the disk does not say,
    /// which is the default.
    fn room(&self, _directory: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Returns this disk with a hold on one directory: files in it stay within reach when the process gives up the
    /// privileges that the path needs, or gets another root directory. Costs a descriptor. `None`, the default, if the
    /// disk knows no such thing.
    fn anchor(&self, _directory: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(None)
    }

    /// Gives up what [`Disk::anchor`] holds. The disk goes on without it.
    fn release(&self) {}

    /// Returns what a thread sleeps on until a file changes. By default the disk reports no changes.
    fn sleeper(&self) -> Box<dyn Sleeper> {
        Box::new(Doze::default())
    }

    /// Returns the limits of the stores on this disk: the real ones, but for a disk that tests have set small limits for.
    #[cfg(any(test, feature = "testing"))]
    fn limits(&self) -> &'static Limits {
        &Limits::REAL
    }

    /// Returns randomness and time for the engine. By default they are the operating system's.
    fn system(&self) -> &dyn System {
        &RealSystem
    }
}

/// The calls on one open file. One value is one open file description, with its own lock.
///
/// Dropping the last reference closes the file, which gives up its lock.
#[allow(clippy::len_without_is_empty, reason = "a length is a system call, and the engine never asks for less than it")]
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` into `buffer` and returns the number of bytes read. It is less than the buffer's length only
    /// after a short read or at the end of the file, and 0 only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes `bytes` at `offset` in one call and returns the number of bytes written, which may be less.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Returns the file's length in bytes. Does not ask for the file's times: that would make the next write slower.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it sparsely.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes a range read as zeros, gives its space back, and leaves the file's length as it is.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] if the disk or file system cannot do it, which is the default. After any other error
    /// a part of the range may be zeros.
    fn punch(&self, _range: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Brings what was written to stable storage.
    ///
    /// # Errors
    ///
    /// After an error, what was written since the last sync may be lost, whatever later syncs return.
    /// [`io::ErrorKind::Unsupported`] if the disk does not know [`SyncScope::FileSystem`].
    fn sync(&self, scope: SyncScope) -> io::Result<()>;

    /// Begins to write a range to stable storage and does not wait for it. This promises nothing; it only leaves less
    /// work to the next sync. Before it begins, it waits for all writing that was begun before the offset `wait_before`;
    /// 0 waits for nothing.
    ///
    /// By default this does nothing.
    ///
    /// # Errors
    ///
    /// The caller must treat an error like that of a sync. A disk reports a failed write once, here or from a sync, so
    /// the next sync may succeed without the bytes.
    fn write_back(&self, _range: Range<u64>, _wait_before: u64) -> io::Result<()> {
        Ok(())
    }

    /// Returns the first offset at or after `offset` that is not in a hole; `None` if only a hole follows, or the end of
    /// the file. By default the disk knows no holes, and everything in the file is data.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.len()?).then_some(offset))
    }

    /// Returns the end of the data that `offset` lies in: where a hole or the end of the file follows. An offset that lies in a
    /// hole, or beyond the file, has no data, and is returned. By default the disk knows no holes.
    fn data_end(&self, offset: u64) -> io::Result<u64> {
        Ok(self.len()?.max(offset))
    }

    /// Takes the exclusive advisory lock and returns `true`, unless another description has it.
    fn try_lock(&self) -> io::Result<bool>;

    /// Gives up the lock.
    fn unlock(&self) -> io::Result<()>;

    /// Gives up the lock after about a tenth of a millisecond, or later on a busy machine, unless [`DiskFile::take_lock_back`] takes it back before. Waits for
    /// nothing. The disk gives it up before a `fork`, and at once when the description is closed or [`DiskFile::unlock`] is called.
    ///
    /// By default the lock is given up at once.
    fn unlock_soon(&self) -> io::Result<()> {
        self.unlock()
    }

    /// Takes the lock back after [`DiskFile::unlock_soon`], and returns `true`, if it was not given up since: then no other
    /// description has had it. Returns `false`, the default, if it was given up, or was not to be given up.
    fn take_lock_back(&self) -> bool {
        false
    }

    /// Returns whether another description may have a lock that [`DiskFile::unlock_soon`] is to give up. A caller that tries
    /// only once then tries for a moment.
    fn locks_linger(&self) -> bool {
        false
    }

    /// Returns the line in which descriptions wait for the lock. By default there is none, and chance decides which
    /// waiting description gets the lock.
    fn waiting_line(&self) -> Option<&dyn WaitingLine> {
        None
    }

    /// Returns one of the lines in which descriptions wait for a lock that the store keeps in its log. By default there is none.
    fn lock_line(&self, _line: u32) -> Option<Box<dyn WaitingLine + '_>> {
        None
    }

    /// Holds the byte of an owner of sessions. Any number of descriptions can hold it. It is given up by
    /// [`DiskFile::release_owner`], and when the description is closed, however the process ends. `owner` is at most 2^61 - 1.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`], the default, if the disk knows no such locks. Then other processes wait for the deadlines of
    /// this owner's sessions.
    fn hold_owner(&self, _owner: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives up the byte of an owner.
    fn release_owner(&self, _owner: u64) {}

    /// Returns whether another description of this file holds the byte of an owner.
    ///
    /// # Errors
    ///
    /// As [`DiskFile::hold_owner`].
    fn is_owner_held(&self, _owner: u64) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the file's identity and its number of names.
    fn stat(&self) -> io::Result<FileStat>;

    /// Returns the file's owner, permissions and extended attributes. By default every file has the same ones.
    fn attributes(&self) -> io::Result<FileAttributes> {
        Ok(FileAttributes { mode: 0o600, uid: 0, gid: 0, extended: Extended::new() })
    }

    /// Gives the file these attributes and removes all others. At no moment may more users open the file than could
    /// before or can afterwards; after an error at most its owner may. By default this does nothing.
    ///
    /// # Errors
    ///
    /// Any attribute that cannot be set or removed is an error.
    fn set_attributes(&self, _like: &FileAttributes) -> io::Result<()> {
        Ok(())
    }

    /// Returns a read-only shared map of the first `len` bytes, which may reach beyond the end of the file.
    ///
    /// Returns `None`, the default, if the disk does not map, or if a map might not show what is written to the file later.
    /// Then the engine reads everything with [`DiskFile::read_at`].
    fn map(&self, _len: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }

    /// Returns whether another open description of this file has ever made a map, or a map of a closed one still exists.
    /// A disk that does not know says `true`, the default.
    fn is_mapped_elsewhere(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Returns the file's descriptor. By default it has none that the system knows.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns the limits of the file's disk.
    #[cfg(any(test, feature = "testing"))]
    fn limits(&self) -> &'static Limits {
        &Limits::REAL
    }
}

impl dyn Disk + '_ {
    /// The limits of the stores on this disk.
    pub(crate) fn limits_kept(&self) -> Shared {
        #[cfg(any(test, feature = "testing"))]
        return self.limits();
        #[cfg(not(any(test, feature = "testing")))]
        Limits::REAL
    }
}

impl dyn DiskFile + '_ {
    /// The limits of the file's disk.
    pub(crate) fn limits_kept(&self) -> Shared {
        #[cfg(any(test, feature = "testing"))]
        return self.limits();
        #[cfg(not(any(test, feature = "testing")))]
        Limits::REAL
    }

    /// Writes all of these bytes at `offset`, in as many calls as it takes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WriteZero`] if a call writes nothing. After an error, a part may be written.
    pub fn write_all(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(offset, bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => (offset, bytes) = (offset + n as u64, &bytes[n..]),
            }
        }
        Ok(())
    }

    /// Reads until the buffer is full or the file ends, and returns the number of bytes read.
    ///
    /// # Errors
    ///
    /// The first error of a read; what was read before it is in the buffer.
    pub fn read_up_to(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(offset + filled as u64, &mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }
}

/// The line in which file descriptions wait for the lock of one file. Places have numbers, and the lowest is next.
///
/// A courtesy between waiting processes. It protects nothing.
pub trait WaitingLine: Send + Sync {
    /// Takes a place and returns `true`, unless another description has it.
    fn try_place(&self, place: u64) -> io::Result<bool>;

    /// Gives up a place.
    fn leave_place(&self, place: u64);

    /// Returns a place in this range that another description has, any of them; `None` if there is none.
    fn place_of_another(&self, among: Range<u64>) -> Option<u64>;
}

/// Places in a [`WaitingLine`] have numbers below this. They do not run out: an empty line begins again at 0.
pub(crate) const PLACES: u64 = (libc::off_t::MAX / 2) as u64;

/// The machine around the disk: its randomness, its time and its processes.
pub trait System: Send + Sync {
    /// Fills `bytes` from the system's random source.
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// Returns the seconds since the Unix epoch.
    fn unix_time(&self) -> u64;

    /// Returns the clock by which the engine waits, and by which keys expire. By default it is the system's.
    fn clock(&self) -> Clock {
        Clock::default()
    }

    /// Returns which boot of which machine the monotonic clock belongs to. Sessions need it: their deadlines are on that clock.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`], the default, if the system does not say. Then no session can be made, and the deadlines of
    /// others' sessions mean nothing here.
    fn boot(&self) -> io::Result<Boot> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sleeps. The engine calls it between two tries for a busy lock.
    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    /// Returns the id of the process that has the lock on a file; `None` if the system does not say, as for a process in
    /// another PID namespace. The engine asks only when a caller's time to wait for the lock is over.
    fn lock_holder(&self, _file: &FileIdentity) -> Option<u32> {
        None
    }
}

/// The clock by which sessions live: `CLOCK_MONOTONIC` less an offset, as long as one boot of one machine lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Which boot of which machine this is.
    pub id: [u8; 16],
    /// How much more the monotonic clock shows in this process's time namespace than in that of the machine, in nanoseconds.
    pub offset: i64,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading; works on a read-only file system.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// What a sync brings to stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncScope {
    /// The file's bytes, and the metadata that is needed to read them back (`fdatasync`).
    Data,
    /// The file's bytes and all its metadata (`fsync`).
    File,
    /// Everything on the file's file system, the names of all files included (`syncfs`). Needs no permission on a
    /// directory, and takes as long as the file system has to write.
    FileSystem,
}

/// What a file system says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Which file this is, whatever its name.
    pub identity: FileIdentity,
    /// How many names (hard links) it has. A file without a name can still be open, and a mount of its own can lead to it.
    pub links: u64,
    /// Whether the path ends at a mount, as for a single file that was mounted into a container: nothing can be renamed to
    /// such a path. `false` where the system does not say, and for an open file.
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

/// Returns whether [`Disk::link`] failed because files here can have no second name: a file system without hard links, or
/// a system that allows none (Android).
pub(crate) fn cannot_link(error: &io::Error) -> bool {
    const ANSWERS: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|number| ANSWERS.contains(&number))
}

/// Refuses a path with `/` or `/.` after its last name. [`Path::file_name`] ignores those, but no file has such a path.
fn expect_file_name(path: &Path) -> io::Result<()> {
    let ends_in_a_slash = || [&b"/"[..], b"/."].iter().any(|end| path.as_os_str().as_bytes().ends_with(end));
    if path.file_name().is_some() && ends_in_a_slash() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "a path that ends in a slash is that of a directory"));
    }
    Ok(())
}
