//! [`Scratch`]: a directory for unit tests that need files of the operating system.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Disk, RealDisk};

/// A directory that the test removes at its end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("caskfile-unit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("create a scratch directory");
        Scratch(RealDisk.resolve(&path).expect("resolve the scratch directory"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover in the temporary directory is no reason to fail a test.
        let _ = fs::remove_dir_all(&self.0);
    }
}
