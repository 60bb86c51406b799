//! Opening a store, and making it so that no other process sees an unfinished one.
//!
//! A store is made under a temporary name, synced, and linked into place; the link fails if the name is taken. So a
//! crash leaves no short file, and of two creators one wins and the other opens the winner's file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LogFile;
use super::owner::PRIVATE;
use super::path::{Named, named, sync_name};
use super::temp_file::TempFile;
use crate::disk::{Access, Disk, DiskFile, cannot_link};
use crate::{Error, Result};

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) access: Access,
    /// Make the file if it is missing or empty. Never with [`Access::Read`].
    pub(crate) create: bool,
    /// Permission bits of a new file.
    pub(crate) mode: u32,
}

/// Opening is repeated when another process creates, replaces or cleans up at the same moment. Each repetition means
/// that another process has made progress, so this bound is reached only if a foreign program removes our files.
const ATTEMPTS: u32 = 1000;

/// The reason why an empty file that is mounted by itself stays empty.
const MOUNTED_EMPTY: &str = "the empty file is mounted by itself, so that no store can take its place; \
    mount its directory instead, or make the store before the file is mounted";

/// Opens the store at the resolved `path`, and makes it first if `opening` says so.
///
/// Calls `wait` while another process has the lock of an empty file, or a lease that prevents opening. `wait` pauses or
/// gives up.
pub(crate) fn open(
    disk: &dyn Disk,
    path: &Arc<Path>,
    opening: Opening,
    mut wait: impl FnMut() -> Result<()>,
) -> Result<LogFile> {
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        attempts += 1;
        let file = match disk.open(path, opening.access) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                wait().map_err(|_| Error::io("open", path, e))?;
                attempts = 0;
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && opening.create => {
                create(disk, path, opening.mode)?;
                continue;
            }
            Err(e) => return Err(Error::io("open", path, e)),
        };
        if opening.create && file.len().map_err(|e| Error::io("ask for the length", path, e))? == 0 {
            if file.try_lock().map_err(|e| Error::io("lock", path, e))? {
                fill_empty(disk, path, &*file)?;
            } else {
                wait()?;
                attempts = 0;
            }
            continue;
        }
        let log = LogFile::open(file, path)?;
        if log.links == 0 {
            match named(disk, path, log.identity)? {
                Named::Orphan => return Err(Error::Replaced { path: path.to_path_buf() }),
                // Another file has taken its place.
                _ => continue,
            }
        }
        return Ok(log);
    }
    Err(Error::io("create", path, io::Error::other("the file kept disappearing while it was created")))
}

/// Makes the store, unless another process has just made it.
fn create(disk: &dyn Disk, path: &Path, mode: u32) -> Result<()> {
    let temp = match TempFile::new(disk, path, mode, 0) {
        Err(Error::Io { operation: "lock", source, .. }) if source.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        other => other?,
    };
    temp.finish_empty()?;
    let file = Arc::clone(&temp.file);
    match temp.link_to(path) {
        // The name is taken: the winner's file can be opened. Our file is gone: another process took it for a leftover.
        Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
        // An empty file takes the name, which decides between several creators. It is filled like any empty file.
        Err(e) if cannot_link(&e) => match disk.create_new(path, mode) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create", path, e)),
            _ => Ok(()),
        },
        Err(e) => Err(Error::io("create", path, e)),
        Ok(()) => sync_name(disk, path, &*file).map_err(|e| Error::io("sync the directory", path, e)),
    }
}

/// Replaces an empty file, whose lock the caller has, by a new store, unless another process has done so.
///
/// The lock decides between several processes: the one that has it, and finds the file empty and still named by this
/// path, renames a finished store over it.
fn fill_empty(disk: &dyn Disk, path: &Path, empty: &dyn DiskFile) -> Result<()> {
    let error = |operation| move |e| Error::io(operation, path, e);
    let still_empty = empty.len().map_err(error("ask for the length"))? == 0;
    let stat = empty.stat().map_err(error("stat"))?;
    if !still_empty || named(disk, path, stat.identity)? != Named::This {
        return Ok(());
    }
    let mounted = || error("create")(io::Error::new(io::ErrorKind::ResourceBusy, MOUNTED_EMPTY));
    if disk.stat(path).map_err(error("stat"))?.mount_point {
        return Err(mounted());
    }
    let attributes = empty.attributes().map_err(error("read the attributes"))?;
    let mut temp = TempFile::new(disk, path, PRIVATE, 0)?;
    temp.file.set_attributes(&attributes).map_err(error("keep owner, permissions and attributes"))?;
    temp.finish_empty()?;
    temp.rename_to(path).map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => mounted(),
        _ => error("create")(e),
    })?;
    // As in `TempFile::drop`.
    temp.file.unlock().map_err(error("unlock"))?;
    sync_name(disk, path, &*temp.file).map_err(error("sync the directory"))
}
