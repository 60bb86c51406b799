//! [`HookedDisk`]: the real disk, with something of the test's own before every call.

// Every test program compiles its own copy and uses a part of it.
#![allow(dead_code)]

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use caskfile::disk::{Access, Disk, DiskFile, FileStat, Map, RealDisk};

/// Called before every call with its name, as the traits name it. An error takes the call's place.
type Hook = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

pub struct HookedDisk {
    hook: Hook,
    /// What all random bytes are, if they are to be known beforehand.
    pub random: Option<u8>,
    /// Each write is made in two halves, with a call of the hook in between under the name [`HALFWAY`].
    pub halve_writes: bool,
    /// Every file that is opened or created, which is never closed then: as if a child had been forked at any moment.
    pub never_closed: Option<Mutex<Vec<Arc<dyn DiskFile>>>>,
}

/// What the hook is called with in the middle of a write.
pub const HALFWAY: &str = "halfway through write_at";

impl HookedDisk {
    pub fn new(hook: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> HookedDisk {
        HookedDisk { hook: Arc::new(hook), random: None, halve_writes: false, never_closed: None }
    }

    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let file = file?;
        if let Some(never_closed) = &self.never_closed {
            never_closed.lock().unwrap().push(Arc::clone(&file));
        }
        Ok(Arc::new(HookedFile { file, hook: Arc::clone(&self.hook), halve_writes: self.halve_writes }))
    }
}

struct HookedFile {
    file: Arc<dyn DiskFile>,
    hook: Hook,
    halve_writes: bool,
}

impl Disk for HookedDisk {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        (self.hook)("resolve")?;
        RealDisk.resolve(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)("open")?;
        self.file(RealDisk.open(path, access))
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)("create_new")?;
        self.file(RealDisk.create_new(path, mode))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)("link")?;
        RealDisk.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)("rename")?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.hook)("remove")?;
        RealDisk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        (self.hook)("sync_dir")?;
        RealDisk.sync_dir(directory)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        (self.hook)("stat")?;
        RealDisk.stat(path)
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        (self.hook)("list")?;
        RealDisk.list(directory, prefix)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        (self.hook)("fill_random")?;
        match self.random {
            Some(byte) => bytes.fill(byte),
            None => RealDisk.fill_random(bytes)?,
        }
        Ok(())
    }

    fn unix_time(&self) -> u64 {
        RealDisk.unix_time()
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (self.hook)("read_at")?;
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        (self.hook)("write_at")?;
        if !self.halve_writes {
            return self.file.write_at(offset, bytes);
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let written = self.file.write_at(offset, first)?;
        (self.hook)(HALFWAY)?;
        Ok(written + self.file.write_at(offset + written as u64, second)?)
    }

    fn len(&self) -> io::Result<u64> {
        (self.hook)("len")?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.hook)("set_len")?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hook)("sync_data")?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        (self.hook)("sync_all")?;
        self.file.sync_all()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        (self.hook)("next_data")?;
        self.file.next_data(offset)
    }

    fn try_lock(&self) -> io::Result<bool> {
        (self.hook)("try_lock")?;
        self.file.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        (self.hook)("unlock")?;
        self.file.unlock()
    }

    fn stat(&self) -> io::Result<FileStat> {
        (self.hook)("stat")?;
        self.file.stat()
    }

    fn set_owner_and_mode(&self, like: &FileStat) -> io::Result<()> {
        (self.hook)("set_owner_and_mode")?;
        self.file.set_owner_and_mode(like)
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        (self.hook)("map")?;
        self.file.map(len)
    }
}
