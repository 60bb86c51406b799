//! Where a damaged file is put for a test: on the simulated disk, which is quick, or on the real one.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::disk::{Disk, RealDisk};

use crate::common::TempDir;
use crate::common::files::anatomy::STORE;

pub trait Place {
    /// Makes this the store's bytes, and the store the only file.
    fn lay_out(&self, bytes: &[u8]);
    fn disk(&self) -> Arc<dyn Disk>;
    fn path(&self) -> PathBuf;
    fn holds(&self, bytes: &[u8]) -> bool;
    fn names(&self) -> usize;
}

/// A simulated disk that is new for every file: it remembers what was removed, in case a power cut brings it back.
pub struct Simulated {
    disk: RefCell<SimDisk>,
    maps: bool,
    holes: bool,
}

impl Simulated {
    pub fn new() -> Simulated {
        Simulated { disk: RefCell::default(), maps: true, holes: true }
    }

    pub fn without_maps_and_holes() -> Simulated {
        Simulated { maps: false, holes: false, ..Simulated::new() }
    }
}

impl Place for Simulated {
    fn lay_out(&self, bytes: &[u8]) {
        let disk = SimDisk::new();
        disk.set_maps(self.maps);
        disk.set_holes(self.holes);
        disk.set_contents(STORE, bytes.to_vec());
        self.disk.replace(disk);
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.borrow().process())
    }

    fn path(&self) -> PathBuf {
        STORE.into()
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        self.disk.borrow().contents(STORE).unwrap() == bytes
    }

    fn names(&self) -> usize {
        self.disk.borrow().paths().len()
    }
}

impl Place for TempDir {
    fn lay_out(&self, bytes: &[u8]) {
        for entry in TempDir::path(self).read_dir().unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        std::fs::write(Place::path(self), bytes).unwrap();
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn path(&self) -> PathBuf {
        self.join("store")
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        std::fs::read(Place::path(self)).unwrap() == bytes
    }

    fn names(&self) -> usize {
        TempDir::path(self).read_dir().unwrap().count()
    }
}
