//! The contract, over every backend there is and over one that knows no disk.

mod gallery;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use caskfile::conformance::{self, Call, Fixture, Outcome, Promise};
use caskfile::{Cask, Config, Durability, LockMode, ReadMode, Store, new_store};

use crate::common::TempDir;
use memory::whole::Whole;
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

/// Long enough for the thread that renews, also beside other tests.
const SHORT_TTL: Duration = Duration::from_millis(300);

/// With all calls.
#[derive(Default)]
struct WholeInMemory(Arc<Memory>);

impl Fixture for WholeInMemory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(Whole(MemoryStore::open(&self.0)))
    }

    fn short_ttl(&self) -> Duration {
        SHORT_TTL
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
        let store: &'static Whole = Box::leak(Box::new(Whole(MemoryStore::open(&self.0))));
        // Through a box as well: each pointer passes every call on.
        let boxed: Box<dyn Store> = Box::new(store);
        Arc::new(boxed)
    }

    fn short_ttl(&self) -> Duration {
        SHORT_TTL
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

    fn short_ttl(&self) -> Duration {
        SHORT_TTL
    }

    fn neighbours(&self) -> Vec<Arc<dyn Store>> {
        let own = self.config.get_bucket();
        if !self.shared() {
            return Vec::new();
        }
        // What comes right before the own bucket and right after it, as far as names go, and the first and the last one that there is.
        let names = [vec![], vec![0xff; 255], [own, b"\0"].concat(), [own, b"\xff"].concat(), vec![0], vec![0xff; 254]];
        let others = names.into_iter().filter(|name| name != own && name.len() <= 255);
        let open = |name: Vec<u8>| {
            let config = self.config.clone().bucket(name);
            new_store("caskfile", self.directory.join(InFile::NAME), &config).unwrap()
        };
        others.map(open).collect()
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

/// Runs the suite on a backend that has every call.
fn keeps_all<F: Fixture>(fresh: impl FnMut() -> F) -> Outcome {
    let outcome = conformance::run(fresh);
    assert_eq!(outcome.not_supported, []);
    outcome
}

#[test]
fn a_small_store_in_memory_keeps_the_contract() {
    keeps_all(WholeInMemory::default);
}

/// The calls that a store need not have are left out, and named, and nothing else is.
#[test]
fn a_store_with_the_old_calls_keeps_the_contract() {
    let outcome = conformance::run(InMemory::default);
    assert_eq!(outcome.not_supported, [Call::PutWith, Call::DeleteTree, Call::Watch, Call::WatchTree, Call::NewLock]);
    let fixture = InMemory::default();
    let applies = |promise: &&Promise| promise.call.is_none() && promise.applies_to(&fixture);
    let required = conformance::PROMISES.iter().filter(applies).count();
    assert_eq!(outcome.kept, required);
}

#[test]
fn a_reference_to_a_store_keeps_the_contract() {
    keeps_all(ByReference::default);
}

#[test]
fn caskfile_as_configured_by_default_keeps_the_contract() {
    keeps_all(|| InFile::new(&Config::new()));
}

#[test]
fn an_exclusive_unsynced_store_without_maps_keeps_the_contract() {
    let config = Config::new().read_mode(ReadMode::Pread).durability(Durability::Os).lock_mode(LockMode::Exclusive);
    keeps_all(|| InFile::new(&config));
}

#[test]
fn a_bucket_with_background_syncs_keeps_the_contract() {
    let config = Config::new().bucket("a bucket").durability(Durability::Interval(Duration::from_millis(1)));
    keeps_all(|| InFile::new(&config.clone().verify_on_read(false)));
}

/// The last name that there is, and so the last keys.
#[test]
fn the_bucket_after_all_others_keeps_the_contract() {
    let config = Config::new().bucket([0xff; 255]).durability(Durability::Os);
    keeps_all(|| InFile::new(&config));
}
