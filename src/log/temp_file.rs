//! Files that are being made.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{TEMPORARY, first_siblings, sibling};
use super::path::directory;
use crate::disk::{Disk, DiskFile, FileIdentity, SyncScope};
use crate::fork::Process;
use crate::format::{END_MARK_LEN, FILE_HEADER_LEN, FileHeader, MAJOR_VERSION, MINOR_VERSION};
use crate::{Error, Result};

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
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken. An error that [`cannot_link`](crate::disk::cannot_link) knows if
    /// the disk can give a name only by replacing what has it.
    pub(crate) fn link_to(self, path: &Path) -> io::Result<()> {
        self.expect_its_name()?;
        self.disk.link(&self.path, path)
    }

    pub(crate) fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::io(operation, &self.path, source)
    }

    pub(super) fn finish_empty(&self) -> Result<()> {
        self.write(FILE_HEADER_LEN as u64, &[0; END_MARK_LEN as usize])?;
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
