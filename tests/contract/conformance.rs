//! The contract, over every backend there is and over one that knows no disk.

mod gallery;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use caskfile::conformance::{self, Fixture};
use caskfile::{Cask, Config, Durability, LockMode, ReadMode, Store, new_store};

use crate::common::TempDir;
use memory::{Memory, MemoryStore};

#[derive(Default)]
struct InMemory(Arc<Memory>);

impl Fixture for InMemory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::open(&self.0))
    }

    fn persistent(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        true
    }
}

/// Handles that are references to stores, as a generic caller may pass them on.
#[derive(Default)]
struct ByReference(Arc<Memory>);

impl Fixture for ByReference {
    fn open(&self) -> Arc<dyn Store> {
        let store: &'static MemoryStore = Box::leak(Box::new(MemoryStore::open(&self.0)));
        Arc::new(store)
    }

    fn persistent(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        true
    }
}

struct InFile {
    directory: TempDir,
    config: Config,
}

impl InFile {
    const NAME: &'static str = "store";

    fn new(config: &Config) -> InFile {
        InFile { directory: TempDir::without_waits(), config: config.clone() }
    }
}

impl Fixture for InFile {
    fn open(&self) -> Arc<dyn Store> {
        new_store("caskfile", self.directory.join(InFile::NAME), &self.config).unwrap()
    }

    fn persistent(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        self.config.get_lock_mode() != LockMode::Exclusive
    }

    fn check(&self) {
        let store = Cask::open_with(self.directory.join(InFile::NAME), &self.config.clone().read_only(true)).unwrap();
        store.verify().unwrap();
        store.close().unwrap();
        drop(store);
        let names: Vec<_> = self.directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [InFile::NAME], "nothing may be left beside the store's file");
    }
}

#[test]
fn a_small_store_in_memory_keeps_the_contract() {
    conformance::run(InMemory::default);
}

#[test]
fn a_reference_to_a_store_keeps_the_contract() {
    conformance::run(ByReference::default);
}

#[test]
fn caskfile_as_configured_by_default_keeps_the_contract() {
    conformance::run(|| InFile::new(&Config::new()));
}

#[test]
fn an_exclusive_unsynced_store_without_maps_keeps_the_contract() {
    let config = Config::new().read_mode(ReadMode::Pread).durability(Durability::Os).lock_mode(LockMode::Exclusive);
    conformance::run(|| InFile::new(&config));
}

#[test]
fn a_bucket_with_background_syncs_keeps_the_contract() {
    let config = Config::new().bucket("a bucket").durability(Durability::Interval(Duration::from_millis(1)));
    conformance::run(|| InFile::new(&config.clone().verify_on_read(false)));
}
