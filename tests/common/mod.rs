//! What several test programs need.

// Each test program compiles its own copy and uses a part of it.
#![allow(dead_code, unused_imports, unused_macros)]

pub mod counted_memory;
pub mod dice;
pub mod files;
pub mod held;
pub mod history;
pub mod hooked;
pub mod ops;
pub mod patience;
pub mod player;
pub mod process;
pub mod refusal;
pub mod small_history;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of the test's own under the system's temporary directory, removed with everything in it on drop.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        TempDir::under(&std::env::temp_dir())
    }

    /// One where a sync does not wait for a disk: in `/dev/shm`, if it has room, unless `CASKFILE_REAL_DISK` is set.
    ///
    /// For tests with hundreds of syncs that would be the same on any disk, such as those that kill a process at each call.
    pub fn without_waits() -> TempDir {
        let shared_memory = Path::new("/dev/shm");
        // A container may have as little as 64 MiB there, and a map of a full tmpfs ends a process.
        let has_room = fs2::available_space(shared_memory).is_ok_and(|bytes| bytes >= 1 << 30);
        if has_room && std::env::var_os("CASKFILE_REAL_DISK").is_none() {
            TempDir::under(shared_memory)
        } else {
            TempDir::new()
        }
    }

    fn under(parent: &Path) -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("caskfile-test-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return TempDir(path),
                // A killed process with this number has left it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A directory that cannot be removed is no reason to fail, or to abort while a panic is under way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
