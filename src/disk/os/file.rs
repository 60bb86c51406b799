//! The operating system behind the seam.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use memmap2::MmapOptions;

#[cfg(target_os = "linux")]
use super::anchored::AnchoredDisk;
use crate::disk::attributes::{self, ACL, is_label};
use crate::disk::{Access, Disk, DiskFile, FileAttributes, FileIdentity, FileStat, Map, PLACES, expect_file_name};

/// How many dangling symlinks in a row [`RealDisk::resolve`] follows: as many as Linux follows in one path.
const MAX_LINK_HOPS: usize = 40;

/// Why a link is not followed whose text does not say where it leads, as those in `/proc/PID/fd`.
const LEADS_ELSEWHERE: &str = "the link leads to a file that has another path, or none; name the file by its own path";

/// What has a name may be replaced between two looks at it. Not each time, though.
const LOOKS: usize = 10;

/// What of a file's mode is permissions; the rest is its type.
pub(super) const PERMISSION_BITS: u32 = 0o7777;

/// The operating system's files and directories.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINK_HOPS {
            expect_file_name(&path)?;
            let Some(name) = path.file_name() else { return fs::canonicalize(&path) };
            let directory = resolve_directory(&path, name)?;
            let candidate = directory.join(name);
            match fs::read_link(&candidate) {
                Ok(target) => path = directory.join(target),
                // Nothing is there: the name is free.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(candidate),
                // EINVAL: not a symlink.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(candidate),
                Err(error) => return Err(error),
            }
            if !lead_to_the_same(|path| fs::metadata(path), &candidate, &path) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, LEADS_ELSEWHERE));
            }
        }
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        // Looked at before it is opened, since merely opening a device can have effects (a tape rewinds), and again
        // once it is open, since the name may mean another file by then.
        expect_regular(&fs::symlink_metadata(path)?)?;
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(OPEN_FLAGS)
            .open(path)
            .map_err(explain_lease)?;
        expect_regular(&file.metadata()?)?;
        Ok(Arc::new(RealFile::new(file, access)))
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            // The owner's bits only, until the mode is set: what others may do is never more than was asked for.
            .mode(mode & 0o600)
            .open(path)?;
        // The umask has had its say in `open`; fchmod does not ask it.
        if let Err(error) = file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS)) {
            // A caller that gets an error has no file to clean up, so none may stay; the first error is the one to tell.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(RealFile::new(file, Access::ReadWrite)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    #[cfg(target_os = "linux")]
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
        renameat2(libc::AT_FDCWD, &name(from)?, &name(to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        // O_DIRECTORY: whatever else has the name by now, a FIFO say, must not hang the call.
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn anchor(&self, directory: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(Some(Arc::new(AnchoredDisk::new(directory)?)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        match statx(libc::AT_FDCWD, &name) {
            Some(found) => Ok(found),
            None => fs::symlink_metadata(path).map(|metadata| file_stat(&metadata)),
        }
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name.as_bytes().starts_with(prefix.as_bytes()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn room(&self, directory: &Path) -> io::Result<Option<u64>> {
        let said = fs2::statvfs(directory)?;
        // A file system that has no size to tell says zero of everything.
        let room = if may_use_reserved_blocks() { said.free_space() } else { said.available_space() };
        Ok((said.total_space() > 0).then_some(room))
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(error),
        })
    }

    #[cfg(target_os = "linux")]
    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        holder_in(&fs::read_to_string("/proc/locks").ok()?, file)
    }

    fn unix_time(&self) -> u64 {
        // A clock set before 1970 is no reason to fail: nothing but a creation time is made of this.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// The process that has the `flock` on a file, as `/proc/locks` says it:
///
/// ```text
/// 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1312081 0 EOF
/// ```
///
/// The device is in hexadecimal. Lines with `->` are of processes that wait. A process that cannot be seen from here is 0.
#[cfg(target_os = "linux")]
fn holder_in(locks: &str, file: &FileIdentity) -> Option<u32> {
    let (major, minor) = (libc::major(file.device), libc::minor(file.device));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.inode);
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_lock = ["FLOCK", "ADVISORY", "WRITE"].iter().all(|&field| fields.next() == Some(field));
        let process = fields.next()?.parse().ok().filter(|&process| process > 0)?;
        (is_lock && fields.next() == Some(wanted.as_str())).then_some(process)
    })
}

/// The directory of a file of this name without symlinks, as far as a path can say where that is.
///
/// Some links of `/proc` lead where their text does not, `/proc/PID/root` for example: that process may have another root
/// and other mounts. The path through such a link stays as it is, for the system to follow in every call.
fn resolve_directory(path: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let resolved = match fs::canonicalize(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound || fs::metadata(directory).is_err() => return Err(error),
        resolved => resolved.unwrap_or_default(),
    };
    let same = lead_to_the_same(|path| fs::metadata(path), directory, &resolved)
        && lead_to_the_same(|path| fs::symlink_metadata(path), &directory.join(name), &resolved.join(name));
    if same { Ok(resolved) } else { std::path::absolute(directory) }
}

/// Whether two paths lead to the same file, or neither leads to one.
fn lead_to_the_same(look: impl Fn(&Path) -> io::Result<Metadata>, one: &Path, other: &Path) -> bool {
    (0..LOOKS).any(|_| match (look(one), look(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Err(one), Err(other)) => one.kind() == other.kind(),
        _ => false,
    })
}

/// One open file description of the operating system. Rust opens every descriptor close-on-exec.
#[derive(Debug)]
pub(super) struct RealFile {
    file: File,
    /// A map shows what is written to the file, through whatever description.
    map_is_true: bool,
    /// Everything below this offset was within the limit on file sizes when that was asked for last.
    within_limit: AtomicU64,
}

/// The limit on file sizes is asked for once in so many bytes of growth.
const LIMIT_STEP: u64 = 1 << 20;

impl RealFile {
    pub(super) fn new(file: File, access: Access) -> RealFile {
        // The first opening for writing copies a file of an overlay's lower layer to the upper one. A description that was
        // opened for reading before that reads the copy from then on, and its maps go on showing the original.
        let map_is_true = access == Access::ReadWrite || !is_on_overlay(&file);
        RealFile { file, map_is_true, within_limit: AtomicU64::new(0) }
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode & PERMISSION_BITS))
    }

    fn change_attributes(&self, own: &FileAttributes, like: &FileAttributes) -> io::Result<()> {
        // The group's and the others' bits come last: before that they would speak of another group or another ACL. With
        // an ACL, this takes away its mask, and with that what all its entries allow.
        if own.mode & !0o700 != 0 {
            self.set_mode(own.mode & 0o700)?;
        }
        for name in own.extended.keys().filter(|&name| !like.extended.contains_key(name) && !is_label(name)) {
            attributes::remove(&self.file, name)?;
        }
        let uid = (own.uid != like.uid).then_some(like.uid);
        let gid = (own.gid != like.gid).then_some(like.gid);
        // Without the privilege even a change to what is already there may be refused, so only a difference is asked for.
        if uid.is_some() || gid.is_some() {
            std::os::unix::fs::fchown(&self.file, uid, gid)?;
        }
        let missing = like.extended.iter().filter(|&(name, value)| own.extended.get(name) != Some(value));
        let (acl, others): (Vec<_>, Vec<_>) = missing.partition(|(name, _)| name.as_c_str() == ACL);
        // The ACL comes last: it may forbid the owner to write, and then the other attributes could not be set.
        for (name, value) in others.into_iter().chain(acl) {
            match attributes::set(&self.file, name, value) {
                Err(_) if is_label(name) => {}
                set => set?,
            }
        }
        // After the owner, since a change of owner clears the set-user-ID and set-group-ID bits.
        self.set_mode(like.mode)?;
        // Linux drops a set-group-ID bit that the caller may not give, and reports success.
        if self.attributes()?.required() == like.required() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "not all of them are as they were set"))
        }
    }

    /// How much of what ends at `end` is within the limit on file sizes (`RLIMIT_FSIZE`).
    ///
    /// Whoever goes beyond it is sent a signal (`SIGXFSZ`) that ends the process, if nobody has taken care: a library has
    /// no say in that, so it does not go there.
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
        // As the system does: what fits is written.
        let bytes = &bytes[..bytes.len().min(room as usize)];
        retry_interrupted(|| self.file.write_at(bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        // Not fstat: once somebody asked for a file's mtime, the next write gives it a new one and dirties the inode,
        // which doubles the price of that write. The position that this moves is nobody's: all reads and writes here
        // state their offset.
        (&self.file).seek(SeekFrom::End(0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.limited(len) < len && len > self.len()? {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        // std tries again by itself when it is interrupted.
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

    // A failed sync is reported as it is and not tried again: the kernel may have dropped what it could not write, and
    // the second attempt would succeed without having written it. (std repeats one that a signal interrupted; local
    // file systems do not let a signal interrupt a sync.)

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn sync_file_system(&self) -> io::Result<()> {
        // SAFETY: it takes no pointer, and the descriptor is open while `self.file` lives.
        match unsafe { libc::syncfs(self.file.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(target_os = "linux")]
    fn begin_write_back(&self, range: Range<u64>) -> io::Result<()> {
        match sync_file_range(&self.file, range, libc::SYNC_FILE_RANGE_WRITE) {
            Err(error) if is_no_such_call(&error) => Ok(()),
            done_or_failed => done_or_failed,
        }
    }

    #[cfg(target_os = "linux")]
    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        // In this order: the page in which the range begins may hold the end of what came before it.
        let waited = sync_file_range(&self.file, 0..range.start, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
        match waited.and_then(|()| sync_file_range(&self.file, range, libc::SYNC_FILE_RANGE_WRITE)) {
            Err(error) if is_no_such_call(&error) => self.sync_data(),
            done_or_failed => done_or_failed,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn write_back(&self, _range: Range<u64>) -> io::Result<()> {
        self.sync_data()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // An offset that the system's type cannot hold is beyond the end of every file.
        let Ok(from) = libc::off_t::try_from(offset) else { return Ok(None) };
        // SAFETY: lseek takes no pointer, and the descriptor is open while `self.file` lives. It moves the
        // description's position, on which nothing here depends.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), from, libc::SEEK_DATA) };
        if let Ok(found) = u64::try_from(found) {
            return Ok(Some(found));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(None),
            // This file system does not know holes, so everything in the file is data.
            Some(libc::EINVAL) => Ok((offset < self.len()?).then_some(offset)),
            _ => Err(error),
        }
    }

    // By full path, here and in `unlock`: since Rust 1.89 `File` has methods of the same names, which would win.

    fn try_lock(&self) -> io::Result<bool> {
        match retry_interrupted(|| fs2::FileExt::try_lock_exclusive(&self.file)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        retry_interrupted(|| fs2::FileExt::unlock(&self.file))
    }

    #[cfg(target_os = "linux")]
    fn try_place(&self, place: u64) -> io::Result<bool> {
        match places(&self.file, libc::F_OFD_SETLK, libc::F_WRLCK, place..place + 1) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn leave_place(&self, place: u64) {
        // What cannot be given up goes with the file description.
        let _ = places(&self.file, libc::F_OFD_SETLK, libc::F_UNLCK, place..place + 1);
    }

    #[cfg(target_os = "linux")]
    fn place_of_another(&self, among: Range<u64>) -> Option<u64> {
        if among.is_empty() {
            // To the system a length of 0 means everything from there on.
            return None;
        }
        places(&self.file, libc::F_OFD_GETLK, libc::F_WRLCK, among).ok()?
    }

    fn stat(&self) -> io::Result<FileStat> {
        match statx(self.file.as_raw_fd(), c"") {
            Some(found) => Ok(found),
            None => self.file.metadata().map(|metadata| file_stat(&metadata)),
        }
    }

    fn attributes(&self) -> io::Result<FileAttributes> {
        let FileStat { mode, uid, gid, .. } = self.stat()?;
        Ok(FileAttributes { mode, uid, gid, extended: attributes::extended(&self.file)? })
    }

    fn set_attributes(&self, like: &FileAttributes) -> io::Result<()> {
        let own = self.attributes()?;
        if own == *like {
            return Ok(());
        }
        let set = self.change_attributes(&own, like);
        if set.is_err() {
            let _ = self.set_mode(own.mode & 0o700);
        }
        set
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        if !self.map_is_true {
            return Ok(None);
        }
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "the file is larger than the address space"))?;
        // Before there is a map, so that a description without the lock has none. Where the system does not know such
        // locks, `is_mapped_elsewhere` always says yes.
        #[cfg(target_os = "linux")]
        let _ = byte_lock(&self.file, libc::F_OFD_SETLK, libc::F_RDLCK, MAPPED, 1);
        let memory = MmapOptions::new().len(len).map_raw_read_only(&self.file)?;
        Ok(Some(Map::from_mmap(memory)))
    }

    #[cfg(target_os = "linux")]
    fn is_mapped_elsewhere(&self) -> io::Result<bool> {
        let found = byte_lock(&self.file, libc::F_OFD_GETLK, libc::F_WRLCK, MAPPED, 1)?;
        Ok(found.l_type != libc::F_UNLCK as libc::c_short)
    }
}

/// Descriptions that map their file have a read lock on this byte, far beyond the end of every file. The lock goes when
/// the description is closed and its last map is gone, however the process ends.
#[cfg(target_os = "linux")]
const MAPPED: libc::off_t = libc::off_t::MAX / 2;

/// Whether this is what sandboxes and emulated kernels answer that do not know `sync_file_range`, or only some forms of it.
/// All other errors are the disk's own.
#[cfg(target_os = "linux")]
fn is_no_such_call(error: &io::Error) -> bool {
    const ANSWERS: [libc::c_int; 5] = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ESPIPE, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|number| ANSWERS.contains(&number))
}

#[cfg(target_os = "linux")]
fn sync_file_range(file: &File, range: Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    if range.is_empty() {
        // To the system a length of 0 means all the rest of the file.
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

/// Locks, unlocks or asks for the bytes, far beyond the end of every file, whose locks say who stands where in the line.
/// They belong to the open file description, as `flock`'s does, and go with it. Returns a place that another description has,
/// if that was the question and there is one: any of them.
#[cfg(target_os = "linux")]
fn places(file: &File, command: libc::c_int, kind: libc::c_int, which: Range<u64>) -> io::Result<Option<u64>> {
    const FIRST: libc::off_t = libc::off_t::MAX - PLACES as libc::off_t;
    let (start, len) = (FIRST + which.start as libc::off_t, (which.end - which.start) as libc::off_t);
    let lock = byte_lock(file, command, kind, start, len)?;
    let found = command == libc::F_OFD_GETLK && lock.l_type != libc::F_UNLCK as libc::c_short;
    // A foreign program's lock on more than one place, the whole file for example, says nothing about the line.
    let is_place = lock.l_start >= FIRST && lock.l_len == 1;
    Ok((found && is_place).then(|| (lock.l_start - FIRST) as u64))
}

/// Locks, unlocks or asks for a range of bytes, for the open file description. Returns what the system has made of the
/// question.
#[cfg(target_os = "linux")]
fn byte_lock(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    start: libc::off_t,
    len: libc::off_t,
) -> io::Result<libc::flock> {
    // SAFETY: all fields are numbers, of which zero is one.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (start, len);
    // SAFETY: the descriptor is open while `file` is borrowed, and `lock` is ours to be written to.
    retry_interrupted(|| match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    })?;
    Ok(lock)
}

/// O_NONBLOCK: a FIFO that took the name meanwhile must not hang the call; of regular files only those with a lease heed it.
/// O_NOFOLLOW: paths are resolved, so a symlink there was planted since.
pub(super) const OPEN_FLAGS: libc::c_int = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;

/// Says what "resource temporarily unavailable" means of a regular file.
pub(super) fn explain_lease(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::WouldBlock {
        return error;
    }
    let reason = "another process has a lease on the file, as file servers take them, and has not given it up yet";
    io::Error::new(io::ErrorKind::WouldBlock, reason)
}

/// Renames unless the new name is taken; [`io::ErrorKind::Unsupported`] where the system or the file system cannot.
#[cfg(target_os = "linux")]
pub(super) fn renameat2(directory: libc::c_int, from: &CStr, to: &CStr) -> io::Result<()> {
    let (from, to) = (from.as_ptr(), to.as_ptr());
    // SAFETY: both names end with a zero byte and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_renameat2, directory, from, directory, to, libc::RENAME_NOREPLACE) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(error),
    }
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

/// Whether this process may use the blocks that a file system keeps for the superuser: on ext4 one in twenty.
fn may_use_reserved_blocks() -> bool {
    // SAFETY: it takes nothing and cannot fail.
    let is_superuser = unsafe { libc::geteuid() } == 0;
    // In a user namespace of its own the superuser may be any other user to the file system.
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    is_superuser && ids.split_whitespace().take(2).eq(["0", "0"])
}

/// Refuses what is not a regular file, and says what it is.
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

/// Asks what a file is, and not for its times (see [`RealFile::len`]), which std always does: a handle asks between any
/// two synced writes, and each of them took half as long again (158 us instead of 109 on ext4, Linux 6.18). `None` if
/// that fails, or where the system cannot be asked like that. An empty path means the descriptor's own file.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn statx(descriptor: libc::c_int, path: &CStr) -> Option<FileStat> {
    let wanted = libc::STATX_BASIC_STATS & !(libc::STATX_ATIME | libc::STATX_MTIME | libc::STATX_CTIME);
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: all fields are numbers, of which zero is one.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `found` is ours to be written to; both outlive the call.
    if unsafe { libc::statx(descriptor, path.as_ptr(), flags, wanted, &mut found) } != 0 {
        // A file that is not there, or an old kernel, or a sandbox that does not know the call: std tells them apart.
        return None;
    }
    let mode = u32::from(found.stx_mode);
    Some(FileStat {
        identity: FileIdentity {
            device: libc::makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        },
        regular: mode & libc::S_IFMT == libc::S_IFREG,
        links: found.stx_nlink.into(),
        mode: mode & PERMISSION_BITS,
        uid: found.stx_uid,
        gid: found.stx_gid,
        mount_point: !path.is_empty() && found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn statx(_: libc::c_int, _: &CStr) -> Option<FileStat> {
    None
}

fn file_stat(metadata: &Metadata) -> FileStat {
    FileStat {
        identity: FileIdentity { device: metadata.dev(), inode: metadata.ino() },
        regular: metadata.is_file(),
        links: metadata.nlink(),
        mode: metadata.mode() & PERMISSION_BITS,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mount_point: false,
    }
}

/// Repeats a call that a signal interrupted before it did anything.
fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_among_the_locks_of_the_system() {
        let file = FileIdentity { device: libc::makedev(0xfe, 1), inode: 77 };
        let lines = [
            "1: FLOCK  ADVISORY  WRITE 11 fe:01:7 0 EOF",
            "2: FLOCK  ADVISORY  WRITE 12 fe:02:77 0 EOF",
            "3: POSIX  ADVISORY  WRITE 13 fe:01:77 0 EOF",
            "4: OFDLCK ADVISORY  WRITE -1 fe:01:77 0 0",
            "5: FLOCK  ADVISORY  WRITE 0 fe:01:77 0 EOF",
            "6: -> FLOCK  ADVISORY  WRITE 16 fe:01:77 0 EOF",
            "7: FLOCK",
        ];
        assert_eq!(holder_in(&lines.join("\n"), &file), None);
        let found = "8: FLOCK  ADVISORY  WRITE 18 fe:01:77 0 EOF";
        assert_eq!(holder_in(&format!("{}\n{found}\n", lines.join("\n")), &file), Some(18));
    }
}
