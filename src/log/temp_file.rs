//! Files that are being made.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{TEMPORARY, first_siblings, sibling};
use super::path::{directory, too_little_room};
use crate::disk::{Disk, DiskFile, FileIdentity, SyncScope};
use crate::fork::Process;
use crate::format::{END_MARK_LEN, FileHeader, MAJOR_VERSION, MINOR_VERSION, Root, roots_header};
use crate::{Error, Result};

/// The header of a new file, with a new identity.
pub(crate) fn new_header(disk: &dyn Disk, base_seq: u64) -> io::Result<FileHeader> {
    let mut file_id = [0; 16];
    disk.system().fill_random(&mut file_id)?;
    Ok(FileHeader {
        major: MAJOR_VERSION,
        minor: MINOR_VERSION,
        has_roots: true,
        file_id,
        base_seq,
        created: disk.system().unix_time(),
        complete_after: 0,
    })
}

/// The bytes of a new file before its log: the header, and `ROOTS` with empty slots.
pub(crate) fn head(header: &FileHeader) -> Vec<u8> {
    let mut bytes = [&header.encode()[..], &roots_header(header.seed()).encode()].concat();
    bytes.resize(header.log_start() as usize, 0);
    bytes
}

/// A new file under a temporary name beside a store. The maker holds its lock from the start. At first it has a header
/// and no records.
pub(crate) struct TempFile<'d> {
    disk: &'d dyn Disk,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: FileHeader,
    /// A forked child has a copy of this value, and must leave the file alone.
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
                // A killed process left it, or a living one uses it. [`leftovers`](super::leftovers) finds out.
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
        // From here on this process may remove the name, unless another process has the lock.
        let temp = TempFile { disk, path, file, header, identity, maker: Process::this(), done: !locked };
        if !locked || !temp.has_its_name().map_err(|e| temp.io("stat", e))? {
            // Another process took the file for a leftover. It removes the name, or has removed it, and a third process
            // may have taken the name.
            return Err(temp.io("lock", io::ErrorKind::WouldBlock.into()));
        }
        temp.write(0, &head(&temp.header))?;
        Ok(temp)
    }

    /// Makes sure that the file system has room for this many bytes, as far as it says. A copy that fills the disk
    /// makes all other writers fail.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with [`io::ErrorKind::StorageFull`].
    pub(crate) fn expect_room(&self, bytes: u64) -> Result<()> {
        let directory = directory(&self.path);
        let Some(room) = too_little_room(self.disk, directory, bytes) else { return Ok(()) };
        let reason = format!(
            "{bytes} bytes are needed, and there is room for {room}; make room, or copy to another file system"
        );
        Err(Error::io("make a copy", directory, io::Error::new(io::ErrorKind::StorageFull, reason)))
    }

    /// Writes the file header again with another `base_seq` and its floor: a compaction learns them at its end.
    pub(crate) fn set_seqs(&mut self, base_seq: u64, floor: u64) -> Result<()> {
        self.header = FileHeader { base_seq, ..self.header }.with_floor(floor);
        self.write(0, &self.header.encode())
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all(offset, bytes).map_err(|e| self.io("write", e))
    }

    /// Starts write-back of a range, so that the sync at the end has less to do.
    pub(crate) fn write_back(&self, range: Range<u64>) -> Result<()> {
        self.file.write_back(range.clone(), range.start).map_err(|e| self.io("write back", e))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync(SyncScope::File).map_err(|e| self.io("sync", e))
    }

    /// Whether the temporary name still names this file. While the file is locked, only a foreign program changes that.
    /// Then the name may belong to another maker's file, which must be neither removed nor installed.
    fn has_its_name(&self) -> io::Result<bool> {
        match self.disk.stat(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|stat| stat.identity == self.identity),
        }
    }

    fn expect_its_name(&self) -> io::Result<()> {
        if self.has_its_name()? { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Gives the file the store's name, and replaces the file that has it.
    pub(crate) fn rename_to(&mut self, path: &Path) -> io::Result<()> {
        self.expect_its_name()?;
        self.disk.rename(&self.path, path)?;
        self.done = true;
        Ok(())
    }

    /// Gives the finished file the name `path`, removes the temporary name and releases the lock.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken. An error that [`cannot_link`](crate::disk::cannot_link)
    /// recognises if the disk can only replace a name.
    pub(crate) fn link_to(self, path: &Path) -> io::Result<()> {
        self.expect_its_name()?;
        self.disk.link(&self.path, path)
    }

    pub(crate) fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::io(operation, &self.path, source)
    }

    /// Lets the file state that everything before `synced_to` is on stable storage, which is true after the sync that
    /// follows. Until then the file has no name that a reader looks for.
    pub(crate) fn write_root(&self, synced_to: u64) -> Result<()> {
        let root = Root::after(None, synced_to);
        self.write(root.offset(), &root.encode(self.header.seed()))
    }

    pub(super) fn finish_empty(&self) -> Result<()> {
        self.write(self.header.log_start(), &[0; END_MARK_LEN as usize])?;
        self.sync()
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.done && self.maker.is_this() {
            if !matches!(self.has_its_name(), Ok(false)) {
                // If this fails, the next writer to open the store removes the leftover.
                let _ = self.disk.remove(&self.path);
            }
            // Closing the file might not release the lock: a child that another thread forks meanwhile has the
            // description too, until it executes its program.
            let _ = self.file.unlock();
        }
    }
}
