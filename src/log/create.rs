//! Making and opening files, so that nobody ever sees an unfinished one.
//!
//! A store is made under a temporary name, synced, and linked into place, which fails if the name is taken. So a
//! crash leaves no short file, and of two creators one wins and the other opens the winner's file.

use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::LogFile;
use super::recover::{PRIVATE, TEMPORARY, directory, first_siblings, is_sibling_suffix, sibling, sibling_prefix};
use crate::disk::{Access, Disk, DiskFile, FileIdentity, SyncScope, cannot_link};
use crate::events::event;
use crate::fork::Process;
use crate::format::{END_MARK_LEN, FileHeader, MAJOR_VERSION, MINOR_VERSION};
use crate::{Error, Result};

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) access: Access,
    /// Make the file if it is missing or empty; never with [`Access::Read`].
    pub(crate) create: bool,
    /// Permission bits of a new file.
    pub(crate) mode: u32,
}

/// Opening is tried again when another process creates, replaces or cleans up at the same moment. Each round trip
/// means that somebody else has got further, so this bound is reached only if something else removes our files.
const ATTEMPTS: u32 = 1000;

/// Why an empty file stays empty that is mounted by itself.
const MOUNTED_EMPTY: &str = "the empty file is mounted by itself, so that no store can take its place; \
    mount its directory instead, or make the store before the file is mounted";

/// Opens the store at `path`, which is resolved, and makes it first if that was asked for.
///
/// `wait` is called while another process has the lock of an empty file, or a lease on the file that keeps others from
/// opening it. It pauses or gives up.
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
                // Another file has taken its place meanwhile.
                _ => continue,
            }
        }
        return Ok(log);
    }
    Err(Error::io("create", path, io::Error::other("the file kept disappearing while it was created")))
}

/// The header of a new file, with an identity of its own.
pub(crate) fn new_header(disk: &dyn Disk, base_seq: u64) -> io::Result<FileHeader> {
    let mut file_id = [0; 16];
    disk.system().fill_random(&mut file_id)?;
    Ok(FileHeader { major: MAJOR_VERSION, minor: MINOR_VERSION, file_id, base_seq, created: disk.system().unix_time() })
}

/// A new file under a temporary name beside `path`, locked by its maker from the start, with a header and nothing
/// else.
pub(crate) struct TempFile<'d> {
    disk: &'d dyn Disk,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: FileHeader,
    /// A forked child has a copy of this, and must leave the file alone.
    maker: Process,
    identity: FileIdentity,
    done: bool,
}

impl<'d> TempFile<'d> {
    pub(crate) fn new(disk: &'d dyn Disk, store: &Path, mode: u32, base_seq: u64) -> Result<TempFile<'d>> {
        let header = new_header(disk, base_seq).map_err(|e| Error::io("create", store, e))?;
        let mut taken = Error::io("create", store, io::ErrorKind::AlreadyExists.into());
        let random = std::iter::once_with(|| sibling(disk, store, TEMPORARY));
        for path in first_siblings(store, TEMPORARY).map(Ok).chain(random) {
            let path = path?;
            match disk.create_new(&path, mode) {
                Ok(file) => return TempFile::begin(disk, path, file, header),
                // Left by a killed process, or in use by a living one. The process that removes leftovers finds that out.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => taken = Error::io("create", &path, e),
                Err(e) => return Err(Error::io("create", &path, e)),
            }
        }
        Err(taken)
    }

    fn begin(disk: &'d dyn Disk, path: PathBuf, file: Arc<dyn DiskFile>, header: FileHeader) -> Result<TempFile<'d>> {
        let locked = file.try_lock().and_then(|locked| Ok((locked, file.stat()?.identity)));
        let (locked, identity) = locked.map_err(|e| {
            let _ = disk.remove(&path);
            Error::io("lock", &path, e)
        })?;
        // From here on the name is ours to remove, unless another process has the lock.
        let temp = TempFile { disk, path, file, header, identity, maker: Process::this(), done: !locked };
        if !locked || !temp.has_its_name().map_err(|e| temp.io("stat", e))? {
            // A process that cleans up took it for a leftover in the moment before; it removes the name, or has done so. A
            // third process may have taken the name since.
            return Err(temp.io("lock", io::ErrorKind::WouldBlock.into()));
        }
        temp.write(0, &header.encode())?;
        Ok(temp)
    }

    /// Makes sure that there is room for so many bytes, as far as the file system says: a copy that fills the disk before
    /// it fails makes all others fail who write to it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with [`io::ErrorKind::StorageFull`].
    pub(crate) fn expect_room(&self, bytes: u64) -> Result<()> {
        let directory = directory(&self.path);
        match self.disk.room(directory) {
            Ok(Some(room)) if room < bytes => {
                let reason = format!(
                    "{bytes} bytes are needed, and there is room for {room}; make room, or copy to another file system"
                );
                Err(Error::io("make a copy", directory, io::Error::new(io::ErrorKind::StorageFull, reason)))
            }
            _ => Ok(()),
        }
    }

    /// Writes the file header anew, with another `base_seq`: what the highest index is, compaction knows only at its
    /// end.
    pub(crate) fn set_base_seq(&mut self, base_seq: u64) -> Result<()> {
        self.header.base_seq = base_seq;
        self.write(0, &self.header.encode())
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all(offset, bytes).map_err(|e| self.io("write", e))
    }

    /// Has the disk at work on what was written at a place, so that the sync at the end has less to do.
    pub(crate) fn write_back(&self, range: Range<u64>) -> Result<()> {
        self.file.write_back(range.clone(), range.start).map_err(|e| self.io("write back", e))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync(SyncScope::File).map_err(|e| self.io("sync", e))
    }

    /// Whether the temporary name still names this file. While the file is locked only a foreign program changes that;
    /// the name may be another maker's then, whose file must be neither removed nor shown.
    fn has_its_name(&self) -> io::Result<bool> {
        match self.disk.stat(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|stat| stat.identity == self.identity),
        }
    }

    fn expect_its_name(&self) -> io::Result<()> {
        if self.has_its_name()? { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Gives the file the store's name, whatever has it.
    pub(crate) fn rename_to(&mut self, path: &Path) -> io::Result<()> {
        self.expect_its_name()?;
        self.disk.rename(&self.path, path)?;
        self.done = true;
        Ok(())
    }

    /// Gives the finished file the name `path`, removes the temporary one, and gives up the lock.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken. An error that [`cannot_link`] knows if the disk can give a name
    /// only by replacing what has it.
    pub(crate) fn link_to(self, path: &Path) -> io::Result<()> {
        self.expect_its_name()?;
        self.disk.link(&self.path, path)
    }

    pub(crate) fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::io(operation, &self.path, source)
    }

    fn finish_empty(&self) -> Result<()> {
        self.write(crate::format::FILE_HEADER_LEN as u64, &[0; END_MARK_LEN as usize])?;
        self.sync()
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.done && self.maker.is_this() {
            if !matches!(self.has_its_name(), Ok(false)) {
                // A leftover, if this fails: the next writer to open the store removes it.
                let _ = self.disk.remove(&self.path);
            }
            // Not left to the file's being closed: a child that was forked meanwhile, by any thread of this process,
            // has the description too until it executes its program, and with it the lock on what may be the store
            // by now.
            let _ = self.file.unlock();
        }
    }
}

/// Makes the store, or finds that somebody else has just made it.
fn create(disk: &dyn Disk, path: &Path, mode: u32) -> Result<()> {
    let temp = match TempFile::new(disk, path, mode, 0) {
        Err(Error::Io { operation: "lock", source, .. }) if source.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        other => other?,
    };
    temp.finish_empty()?;
    let file = Arc::clone(&temp.file);
    match temp.link_to(path) {
        // Taken: the winner's file is there to be opened. Gone: somebody took ours for a leftover.
        Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
        // An empty file takes the name, which decides between several creators. Then it is filled as any empty file.
        Err(e) if cannot_link(&e) => match disk.create_new(path, mode) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create", path, e)),
            _ => Ok(()),
        },
        Err(e) => Err(Error::io("create", path, e)),
        Ok(()) => sync_name(disk, path, &*file).map_err(|e| Error::io("sync the directory", path, e)),
    }
}

/// Puts a new store in the place of an empty file whose lock the caller has, unless somebody else has just done so.
///
/// The lock decides between several who try: whoever has it and still finds the file empty, and under this path,
/// renames a finished store over it.
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

/// Brings the name of a file to stable storage.
///
/// A directory that may be searched and not read cannot be opened to be synced. Then the whole file system is synced, which
/// takes longer and keeps the same promise.
pub(crate) fn sync_name(disk: &dyn Disk, path: &Path, file: &dyn DiskFile) -> io::Result<()> {
    match disk.sync_dir(directory(path)) {
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => match file.sync(SyncScope::FileSystem) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(refused),
            synced_or_failed => synced_or_failed,
        },
        synced_or_failed => synced_or_failed,
    }
}

/// What a path says of a file that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// It names the file.
    This,
    /// It names another file.
    Another,
    /// It names nothing.
    Nothing,
    /// It leads to the file, but no directory has a name for it any more. A mount of this one file (`mount --bind`, or a
    /// single file that a container was given) stays as it is when another file takes the name that was mounted.
    Orphan,
}

/// A rename takes the last link of the file that it replaces a little before the path leads to the new one. `named` waits up
/// to this long for the path to lead to the new file.
const RENAME_LOOKS: u32 = 100;
const RENAME_PAUSE: Duration = Duration::from_millis(1);

/// Compares what `path` names now with an open file of this identity.
pub(crate) fn named(disk: &dyn Disk, path: &Path, identity: FileIdentity) -> Result<Named> {
    for _ in 0..RENAME_LOOKS {
        match disk.stat(path) {
            Ok(now) if now.identity != identity => return Ok(Named::Another),
            Ok(now) if now.links > 0 => return Ok(Named::This),
            Ok(now) if now.mount_point => return Ok(Named::Orphan),
            Ok(_) => disk.system().pause(RENAME_PAUSE),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Named::Nothing),
            Err(e) => return Err(Error::io("stat", path, e)),
        }
    }
    Ok(Named::Orphan)
}

/// How leftovers are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// By looking up the names that makers try first. Only if one is taken, the directory is listed.
    Quick,
    /// By listing the directory, which takes as long as it has files.
    Thorough,
}

/// Removes the files that killed creators and compactions have left. The caller holds the store's lock. Returns whether
/// there is one that a living process is still making.
pub(crate) fn remove_leftovers(disk: &dyn Disk, log: &LogFile, look: Look) -> bool {
    remove_leftovers_of(disk, &log.path, Some(log.identity), look)
}

/// The same for a name that need not be a store's, as `own` is.
///
/// A living maker has its file locked. So only a file whose lock can be had is removed, under that lock, and if the name
/// is still that file's: its maker may have finished it meanwhile, and another one may have taken the name. A second name
/// of the store itself, which its creator did not live to remove, is removed as well. A leftover that cannot be removed
/// harms nothing, so failures are passed over.
pub(crate) fn remove_leftovers_of(disk: &dyn Disk, path: &Path, own: Option<FileIdentity>, look: Look) -> bool {
    let is_there = |path: &PathBuf| !disk.stat(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let mut first = first_siblings(path, TEMPORARY).filter(is_there).peekable();
    if look == Look::Quick && first.peek().is_none() {
        return false;
    }
    let prefix = sibling_prefix(path, TEMPORARY);
    // A directory may be one that can be searched and not listed.
    let candidates = disk
        .list(directory(path), &prefix)
        .unwrap_or_else(|_| first.filter_map(|path| path.file_name().map(Into::into)).collect());
    let mut at_work = false;
    for name in candidates {
        if !is_sibling_suffix(&name.as_bytes()[prefix.len()..]) {
            continue;
        }
        let path = path.with_file_name(name);
        let Ok(stat) = disk.stat(&path) else { continue };
        if Some(stat.identity) == own {
            let _ = disk.remove(&path);
        } else if let Ok(file) = disk.open(&path, Access::ReadWrite) {
            match file.try_lock() {
                Ok(true) => {
                    let is_leftover =
                        file.stat().is_ok_and(|stat| matches!(named(disk, &path, stat.identity), Ok(Named::This)));
                    if is_leftover && disk.remove(&path).is_ok() {
                        event!(info, "{}: removed, the process that was making it was killed", path.display());
                    }
                }
                Ok(false) => at_work = true,
                Err(_) => {}
            }
        }
    }
    at_work
}
