//! [`HookedDisk`]: the real disk, with something of the test's own before every call.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskfile::disk::{
    Access, Boot, Clock, Disk, DiskFile, FileAttributes, FileIdentity, FileStat, Map, RealDisk, RealSystem, SyncScope,
    System, WaitingLine,
};

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// As the traits name it. A sync has the name of the system's call, and a write-back that does not wait is
    /// `begin_write_back`.
    pub name: &'static str,
    /// What it is about: a file by the name under which it was opened, or made; of two names the new one.
    pub path: &'c Path,
    /// Where in the file, or how long it is to be.
    pub at: u64,
    /// What is to be written.
    pub bytes: &'c [u8],
}

impl<'c> Call<'c> {
    fn on(name: &'static str, path: &'c Path) -> Call<'c> {
        Call { name, path, at: 0, bytes: &[] }
    }
}

/// Called before every call. An error takes the call's place.
type Hook = Arc<dyn Fn(&Call<'_>) -> io::Result<()> + Send + Sync>;

pub struct HookedDisk {
    hook: Hook,
    /// What all random bytes are, if they are to be known beforehand.
    pub random: Option<u8>,
    /// By which the engine waits, and which a pause moves if it stands still.
    pub clock: Clock,
    /// Each write is made in two halves, with a call of the hook in between under the name [`HALFWAY`].
    pub halve_writes: bool,
    /// Reads and writes handle no more bytes than this. The hook may change it before every call.
    pub most: Arc<AtomicUsize>,
    /// It knows the machine, and has the locks on bytes that owners of sessions and waiters need. The hook is not called for them.
    pub has_sessions: bool,
    /// Every file that is opened or created, which is never closed then: as if a child had been forked at any moment.
    pub never_closed: Option<Mutex<Vec<Arc<dyn DiskFile>>>>,
}

/// What the hook is called with in the middle of a write.
pub const HALFWAY: &str = "halfway through write_at";

impl HookedDisk {
    /// A disk whose hook gets the names of calls.
    pub fn new(hook: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> HookedDisk {
        HookedDisk::watched(move |call| hook(call.name))
    }

    /// A disk whose hook gets the calls with their arguments.
    pub fn watched(hook: impl Fn(&Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> HookedDisk {
        let most = Arc::new(AtomicUsize::new(usize::MAX));
        HookedDisk {
            hook: Arc::new(hook),
            random: None,
            clock: Clock::default(),
            halve_writes: false,
            most,
            has_sessions: false,
            never_closed: None,
        }
    }

    fn file(&self, path: &Path, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let file = file?;
        if let Some(never_closed) = &self.never_closed {
            never_closed.lock().unwrap().push(Arc::clone(&file));
        }
        let (path, hook, most) = (path.to_owned(), Arc::clone(&self.hook), Arc::clone(&self.most));
        let (halve_writes, has_sessions) = (self.halve_writes, self.has_sessions);
        Ok(Arc::new(HookedFile { file, path, hook, halve_writes, has_sessions, most }))
    }
}

struct HookedFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    hook: Hook,
    halve_writes: bool,
    has_sessions: bool,
    most: Arc<AtomicUsize>,
}

impl HookedFile {
    fn limit(&self, asked: usize) -> usize {
        self.most.load(Ordering::SeqCst).min(asked)
    }

    fn before(&self, name: &'static str) -> io::Result<()> {
        (self.hook)(&Call::on(name, &self.path))
    }
}

impl Disk for HookedDisk {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        (self.hook)(&Call::on("resolve", path))?;
        RealDisk.resolve(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(&Call::on("open", path))?;
        self.file(path, RealDisk.open(path, access))
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(&Call::on("create_new", path))?;
        self.file(path, RealDisk.create_new(path, mode))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(&Call::on("link", to))?;
        RealDisk.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(&Call::on("rename", to))?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.hook)(&Call::on("remove", path))?;
        RealDisk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        (self.hook)(&Call::on("sync_dir", directory))?;
        RealDisk.sync_dir(directory)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        (self.hook)(&Call::on("stat", path))?;
        RealDisk.stat(path)
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        (self.hook)(&Call::on("list", directory))?;
        RealDisk.list(directory, prefix)
    }

    fn system(&self) -> &dyn System {
        self
    }
}

impl System for HookedDisk {
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        (self.hook)(&Call::on("fill_random", Path::new("")))?;
        match self.random {
            Some(byte) => bytes.fill(byte),
            None => RealSystem.fill_random(bytes)?,
        }
        Ok(())
    }

    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        (self.hook)(&Call::on("lock_holder", Path::new(""))).ok()?;
        RealSystem.lock_holder(file)
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn unix_time(&self) -> u64 {
        RealSystem.unix_time()
    }

    fn boot(&self) -> io::Result<Boot> {
        if self.has_sessions { RealSystem.boot() } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// The hook may make it longer; it has no way to fail.
    fn pause(&self, duration: Duration) {
        let _ = (self.hook)(&Call::on("pause", Path::new("")));
        if !self.clock.pass(duration) {
            RealSystem.pause(duration);
        }
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (self.hook)(&Call { name: "read_at", path: &self.path, at: offset, bytes: &[] })?;
        let limit = self.limit(buffer.len());
        self.file.read_at(offset, &mut buffer[..limit])
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let call = |name, at, bytes| Call { name, path: &self.path, at, bytes };
        (self.hook)(&call("write_at", offset, bytes))?;
        let bytes = &bytes[..self.limit(bytes.len())];
        if !self.halve_writes {
            return self.file.write_at(offset, bytes);
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let written = self.file.write_at(offset, first)?;
        (self.hook)(&call(HALFWAY, offset + written as u64, second))?;
        Ok(written + self.file.write_at(offset + written as u64, second)?)
    }

    fn len(&self) -> io::Result<u64> {
        self.before("len")?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.hook)(&Call { name: "set_len", path: &self.path, at: len, bytes: &[] })?;
        self.file.set_len(len)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.before("punch")?;
        self.file.punch(range)
    }

    fn sync(&self, scope: SyncScope) -> io::Result<()> {
        self.before(match scope {
            SyncScope::Data => "sync_data",
            SyncScope::File => "sync_all",
            SyncScope::FileSystem => "sync_file_system",
        })?;
        self.file.sync(scope)
    }

    fn write_back(&self, range: Range<u64>, wait_before: u64) -> io::Result<()> {
        self.before(if wait_before == 0 { "begin_write_back" } else { "write_back" })?;
        self.file.write_back(range, wait_before)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.before("next_data")?;
        self.file.next_data(offset)
    }

    fn data_end(&self, offset: u64) -> io::Result<u64> {
        self.before("data_end")?;
        self.file.data_end(offset)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.before("try_lock")?;
        self.file.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.before("unlock")?;
        self.file.unlock()
    }

    fn waiting_line(&self) -> Option<&dyn WaitingLine> {
        self.file.waiting_line().filter(|_| self.has_sessions)
    }

    fn lock_line(&self, line: u32) -> Option<Box<dyn WaitingLine + '_>> {
        self.file.lock_line(line).filter(|_| self.has_sessions)
    }

    fn hold_owner(&self, owner: u64) -> io::Result<()> {
        if self.has_sessions { self.file.hold_owner(owner) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn release_owner(&self, owner: u64) {
        if self.has_sessions {
            self.file.release_owner(owner);
        }
    }

    fn is_owner_held(&self, owner: u64) -> io::Result<bool> {
        if self.has_sessions { self.file.is_owner_held(owner) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.before("stat")?;
        self.file.stat()
    }

    fn attributes(&self) -> io::Result<FileAttributes> {
        self.before("attributes")?;
        self.file.attributes()
    }

    fn set_attributes(&self, like: &FileAttributes) -> io::Result<()> {
        self.before("set_attributes")?;
        self.file.set_attributes(like)
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        self.before("map")?;
        self.file.map(len)
    }

    fn is_mapped_elsewhere(&self) -> io::Result<bool> {
        self.before("is_mapped_elsewhere")?;
        self.file.is_mapped_elsewhere()
    }
}
