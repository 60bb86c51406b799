//! Input and output of one open file of the operating system.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapOptions;

#[cfg(target_os = "linux")]
use super::linger::Linger;
#[cfg(target_os = "linux")]
use super::locks;
use super::{attributes, retry_interrupted, stat};
#[cfg(target_os = "linux")]
use crate::disk::WaitingLine;
use crate::disk::{Access, DiskFile, FileAttributes, FileStat, Map, SyncScope};

/// One open file description of the operating system. Rust opens every descriptor close-on-exec.
#[derive(Debug)]
pub(super) struct RealFile {
    /// Dropped before the file is closed.
    #[cfg(target_os = "linux")]
    pub(super) linger: Linger,
    file: File,
    /// Whether a map shows everything that is written to the file, through any description.
    map_is_true: bool,
    /// Offsets below this were within the limit on file sizes at the last check.
    within_limit: AtomicU64,
}

/// The process asks for the limit on file sizes once in this many bytes of growth.
const LIMIT_STEP: u64 = 1 << 20;

/// What the system knows of holes beyond an offset.
enum Sought {
    At(u64),
    /// The offset is at the end of the file, or beyond, or only a hole follows.
    Nothing,
    /// This file system knows no holes, so everything in the file is data.
    NoHoles,
}

impl RealFile {
    /// Makes a file of the description that `open` makes.
    pub(super) fn of(access: Access, open: impl FnOnce() -> io::Result<File>) -> io::Result<RealFile> {
        // Before there is a description that a forked child could share.
        #[cfg(target_os = "linux")]
        let forks = Linger::forks();
        let file = open()?;
        // The first opening for writing copies a file from an overlay's lower layer to its upper layer. A description
        // that was opened for reading before that reads the copy from then on, but its maps still show the original.
        let map_is_true = access == Access::ReadWrite || !is_on_overlay(&file);
        Ok(RealFile {
            #[cfg(target_os = "linux")]
            linger: Linger::new(&file, forks),
            file,
            map_is_true,
            within_limit: AtomicU64::new(0),
        })
    }

    /// Returns `end`, or the limit on file sizes (`RLIMIT_FSIZE`) if that is lower.
    ///
    /// A write beyond the limit sends the signal `SIGXFSZ`, which ends a process that does not handle it. A library
    /// must not cause that.
    fn limited(&self, end: u64) -> u64 {
        if end <= self.within_limit.load(Ordering::Relaxed) {
            return end;
        }
        let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limits` is ours to be written to.
        let asked = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits) };
        #[allow(clippy::unnecessary_cast, reason = "the type differs between systems")]
        let limit = match limits.rlim_cur {
            limit if asked == 0 && limit != libc::RLIM_INFINITY => limit as u64,
            _ => u64::MAX,
        };
        self.within_limit.store(limit.min(end.saturating_add(LIMIT_STEP)), Ordering::Relaxed);
        end.min(limit)
    }

    /// The first offset at or after this one where data (`SEEK_DATA`) or a hole (`SEEK_HOLE`) begins.
    fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<Sought> {
        // An offset that the system's type cannot hold is beyond the end of every file.
        let Ok(from) = libc::off_t::try_from(offset) else { return Ok(Sought::Nothing) };
        // SAFETY: lseek takes no pointer, and the descriptor is open while `self.file` lives. It moves the
        // description's position, on which nothing here depends.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), from, whence) };
        if let Ok(found) = u64::try_from(found) {
            return Ok(Sought::At(found));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(Sought::Nothing),
            Some(libc::EINVAL) => Ok(Sought::NoHoles),
            _ => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| self.file.read_at(buffer, offset))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let end = offset + bytes.len() as u64;
        let room = self.limited(end).saturating_sub(offset);
        if room == 0 && !bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        // As the system does, write the part that fits.
        let bytes = &bytes[..bytes.len().min(room as usize)];
        retry_interrupted(|| self.file.write_at(bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        // Not fstat, which asks for the file's mtime: after that, the next write sets a new one and dirties the inode,
        // and costs twice as much. The seek moves the description's position, which no call here uses.
        (&self.file).seek(SeekFrom::End(0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.limited(len) < len && len > self.len()? {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        // std repeats an interrupted call.
        self.file.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let number = |n| libc::off_t::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
        let (start, len) = (number(range.start)?, number(range.end - range.start)?);
        const HOW: libc::c_int = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: it takes no pointer, and the descriptor is open while `self.file` lives.
        retry_interrupted(|| match unsafe { libc::fallocate(self.file.as_raw_fd(), HOW, start, len) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    }

    // A failed sync is not tried again: the kernel may have dropped the bytes that it could not write, and the second sync
    // would succeed without them. (std repeats a call that a signal interrupted, but local file systems do not let a
    // signal interrupt a sync.)
    fn sync(&self, scope: SyncScope) -> io::Result<()> {
        match scope {
            SyncScope::Data => self.file.sync_data(),
            SyncScope::File => self.file.sync_all(),
            SyncScope::FileSystem => sync_file_system(&self.file),
        }
    }

    #[cfg(target_os = "linux")]
    fn write_back(&self, range: Range<u64>, wait_before: u64) -> io::Result<()> {
        // In this order, since the range's first page may hold the end of the bytes before it.
        let waited = sync_file_range(&self.file, 0..wait_before, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
        match waited.and_then(|()| sync_file_range(&self.file, range, libc::SYNC_FILE_RANGE_WRITE)) {
            Err(error) if is_no_such_call(&error) && wait_before == 0 => Ok(()),
            Err(error) if is_no_such_call(&error) => self.file.sync_data(),
            done_or_failed => done_or_failed,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn write_back(&self, _range: Range<u64>, wait_before: u64) -> io::Result<()> {
        if wait_before == 0 { Ok(()) } else { self.file.sync_data() }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match self.seek(offset, libc::SEEK_DATA)? {
            Sought::At(found) => Ok(Some(found)),
            Sought::Nothing => Ok(None),
            Sought::NoHoles => Ok((offset < self.len()?).then_some(offset)),
        }
    }

    fn data_end(&self, offset: u64) -> io::Result<u64> {
        match self.seek(offset, libc::SEEK_HOLE)? {
            Sought::At(found) => Ok(found),
            Sought::Nothing => Ok(offset),
            Sought::NoHoles => Ok(self.len()?.max(offset)),
        }
    }

    // By full path, here and in `unlock`: since Rust 1.89 `File` has its own methods with these names, which would win.

    fn try_lock(&self) -> io::Result<bool> {
        // It would succeed while the lock lingers, and the helper would release it under a turn.
        #[cfg(target_os = "linux")]
        self.linger.take_back();
        match retry_interrupted(|| fs2::FileExt::try_lock_exclusive(&self.file)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        self.linger.take_back();
        retry_interrupted(|| fs2::FileExt::unlock(&self.file))
    }

    #[cfg(target_os = "linux")]
    fn unlock_soon(&self) -> io::Result<()> {
        if self.linger.begin(&self.file) { Ok(()) } else { self.unlock() }
    }

    #[cfg(target_os = "linux")]
    fn take_lock_back(&self) -> bool {
        self.linger.take_back()
    }

    #[cfg(target_os = "linux")]
    fn locks_linger(&self) -> bool {
        true
    }

    #[cfg(target_os = "linux")]
    fn waiting_line(&self) -> Option<&dyn WaitingLine> {
        Some(self)
    }

    #[cfg(target_os = "linux")]
    fn lock_line(&self, line: u32) -> Option<Box<dyn WaitingLine + '_>> {
        Some(Box::new(locks::Line::of_lock(&self.file, line)))
    }

    #[cfg(target_os = "linux")]
    fn hold_owner(&self, owner: u64) -> io::Result<()> {
        locks::hold_owner(&self.file, owner)
    }

    #[cfg(target_os = "linux")]
    fn release_owner(&self, owner: u64) {
        locks::release_owner(&self.file, owner);
    }

    #[cfg(target_os = "linux")]
    fn is_owner_held(&self, owner: u64) -> io::Result<bool> {
        locks::is_owner_held(&self.file, owner)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn stat(&self) -> io::Result<FileStat> {
        stat::of_file(&self.file).map(|found| found.stat)
    }

    fn attributes(&self) -> io::Result<FileAttributes> {
        attributes::read(&self.file)
    }

    fn set_attributes(&self, like: &FileAttributes) -> io::Result<()> {
        attributes::set(&self.file, like)
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        if !self.map_is_true {
            return Ok(None);
        }
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "the file is larger than the address space"))?;
        // Before the map exists, so that a map without this lock never exists.
        #[cfg(target_os = "linux")]
        locks::note_map(&self.file);
        let memory = MmapOptions::new().len(len).map_raw_read_only(&self.file)?;
        Ok(Some(Map::from_mmap(memory)))
    }

    #[cfg(target_os = "linux")]
    fn is_mapped_elsewhere(&self) -> io::Result<bool> {
        locks::is_mapped_elsewhere(&self.file)
    }
}

#[cfg(target_os = "linux")]
impl WaitingLine for RealFile {
    fn try_place(&self, place: u64) -> io::Result<bool> {
        locks::Line::of_file(&self.file).try_place(place)
    }

    fn leave_place(&self, place: u64) {
        locks::Line::of_file(&self.file).leave_place(place);
    }

    fn place_of_another(&self, among: Range<u64>) -> Option<u64> {
        locks::Line::of_file(&self.file).place_of_another(among)
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(file: &File) -> io::Result<()> {
    // SAFETY: it takes no pointer, and the descriptor is open while `file` is borrowed.
    match unsafe { libc::syncfs(file.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns whether the system does not know `sync_file_range`, or only some forms of it, as in sandboxes and emulated
/// kernels. All other errors come from the disk.
#[cfg(target_os = "linux")]
fn is_no_such_call(error: &io::Error) -> bool {
    const ANSWERS: [libc::c_int; 5] = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ESPIPE, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|number| ANSWERS.contains(&number))
}

#[cfg(target_os = "linux")]
fn sync_file_range(file: &File, range: Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    if range.is_empty() {
        // For the system, a length of 0 means the rest of the file.
        return Ok(());
    }
    let number = |n| libc::off64_t::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (start, len) = (number(range.start)?, number(range.end - range.start)?);
    // SAFETY: it takes no pointer, and the descriptor is open while `file` is borrowed.
    retry_interrupted(|| match unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    })
}

#[cfg(target_os = "linux")]
fn is_on_overlay(file: &File) -> bool {
    /// `OVERLAYFS_SUPER_MAGIC`.
    const OVERLAY: u64 = 0x794c_7630;
    // SAFETY: all fields are numbers, of which zero is one.
    let mut found: libc::statfs64 = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open while `file` is borrowed, and `found` is ours to be written to.
    let asked = unsafe { libc::fstatfs64(file.as_raw_fd(), &mut found) };
    #[allow(clippy::unnecessary_cast, reason = "the type differs between systems")]
    let kind = found.f_type as u64 & 0xffff_ffff;
    asked == 0 && kind == OVERLAY
}

#[cfg(not(target_os = "linux"))]
fn is_on_overlay(_: &File) -> bool {
    false
}
