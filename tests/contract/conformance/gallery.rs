//! A gallery of wrong backends: each does one thing wrong, and the promise of the suite that looks at this thing must refuse it,
//! with a message that says what is wrong. A promise that refuses none of them proves nothing.

mod beside;
mod expiring;
mod feeds;
mod handles;
mod keys;
mod lists;
mod locks;
mod races;
mod swaps;
mod trees;
mod values;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskfile::conformance::{self, Fixture, PROMISES};
use caskfile::{Feed, KvPair, Lock, LockOptions, PutOptions, Result, Store, TreeEvent};

use super::memory::{Memory, MemoryStore, locks as right_locks, whole};

/// A wrong backend.
pub struct Fault {
    /// What it does.
    does: &'static str,
    /// The promise that refuses it.
    refused_by: &'static str,
    /// What the message says. Where threads race, one of several things, with `|` between them.
    says: &'static str,
    calls: Calls,
}

pub type KeyFeed = Box<dyn Feed<Option<KvPair>>>;
pub type TreeFeed = Box<dyn Feed<TreeEvent>>;
pub type Locked = Result<Box<dyn Lock>>;
type AtomicPut = fn(&Handle, &[u8], &[u8], Option<&KvPair>) -> Result<KvPair>;

/// What a backend does for each call of the contract.
#[derive(Clone, Copy)]
pub struct Calls {
    pub open: fn(&House),
    pub put: fn(&Handle, &[u8], &[u8]) -> Result<()>,
    pub get: fn(&Handle, &[u8]) -> Result<KvPair>,
    pub exists: fn(&Handle, &[u8]) -> Result<bool>,
    pub list: fn(&Handle, &[u8]) -> Result<Vec<KvPair>>,
    pub atomic_put: AtomicPut,
    pub atomic_delete: fn(&Handle, &[u8], Option<&KvPair>) -> Result<()>,
    pub delete: fn(&Handle, &[u8]) -> Result<()>,
    pub put_with: fn(&Handle, &[u8], &[u8], &PutOptions) -> Result<KvPair>,
    pub delete_tree: fn(&Handle, &[u8]) -> Result<u64>,
    pub watch: fn(&Handle, &[u8]) -> Result<KeyFeed>,
    pub watch_tree: fn(&Handle, &[u8]) -> Result<TreeFeed>,
    pub new_lock: fn(&Handle, &[u8], &LockOptions) -> Locked,
    pub close: fn(&Handle) -> Result<()>,
    pub drop: fn(&Handle),
}

/// The backend without a fault.
pub const RIGHT: Calls = Calls {
    open: |_| {},
    put: |handle, key, value| handle.right.put(key, value),
    get: |handle, key| handle.right.get(key),
    exists: |handle, key| handle.right.exists(key),
    list: |handle, prefix| handle.right.list(prefix),
    atomic_put: |handle, key, value, previous| handle.right.atomic_put(key, value, previous),
    atomic_delete: |handle, key, previous| handle.right.atomic_delete(key, previous),
    delete: |handle, key| handle.right.delete(key),
    put_with: |handle, key, value, options| whole::put_with(&handle.right, key, value, options),
    delete_tree: |handle, prefix| whole::delete_tree(&handle.right, prefix),
    watch: |handle, key| whole::watch(&handle.right, key),
    watch_tree: |handle, prefix| whole::watch_tree(&handle.right, prefix),
    new_lock: |handle, key, options| Ok(Box::new(right_locks::new_lock(&handle.right, key, options)?)),
    close: |handle| handle.right.close(),
    drop: |_| {},
};

/// How long a promise about locks waits for what a wrong backend never does.
const PATIENCE_WITH_FAULTS: Duration = Duration::from_secs(1);

/// What a fault remembers between calls.
#[derive(Default)]
pub struct Notes {
    pub count: AtomicU64,
    pub pairs: Mutex<BTreeMap<Vec<u8>, KvPair>>,
    pub listing: Mutex<Option<Vec<KvPair>>>,
    pub lock: Mutex<()>,
}

/// One store.
#[derive(Default)]
pub struct House {
    pub memory: Arc<Memory>,
    /// The store beside.
    pub beside: Arc<Memory>,
    pub notes: Notes,
}

/// One handle of it.
pub struct Handle {
    pub right: MemoryStore,
    pub own: Notes,
    pub house: Arc<House>,
    calls: Calls,
}

impl Store for Handle {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        (self.calls.put)(self, key, value)
    }

    fn get(&self, key: &[u8]) -> Result<KvPair> {
        (self.calls.get)(self, key)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        (self.calls.exists)(self, key)
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
        (self.calls.list)(self, prefix)
    }

    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
        (self.calls.atomic_put)(self, key, value, previous)
    }

    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
        (self.calls.atomic_delete)(self, key, previous)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        (self.calls.delete)(self, key)
    }

    fn put_with(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
        (self.calls.put_with)(self, key, value, options)
    }

    fn delete_tree(&self, prefix: &[u8]) -> Result<u64> {
        (self.calls.delete_tree)(self, prefix)
    }

    fn watch(&self, key: &[u8]) -> Result<KeyFeed> {
        (self.calls.watch)(self, key)
    }

    fn watch_tree(&self, prefix: &[u8]) -> Result<TreeFeed> {
        (self.calls.watch_tree)(self, prefix)
    }

    fn new_lock(&self, key: &[u8], options: &LockOptions) -> Locked {
        (self.calls.new_lock)(self, key, options)
    }

    fn close(&self) -> Result<()> {
        (self.calls.close)(self)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        (self.calls.drop)(self);
    }
}

struct Room {
    house: Arc<House>,
    calls: Calls,
    patience: Duration,
}

impl Room {
    fn new(calls: Calls, patience: Duration) -> Room {
        Room { house: Arc::default(), calls, patience }
    }
}

impl Fixture for Room {
    fn open(&self) -> Arc<dyn Store> {
        (self.calls.open)(&self.house);
        let right = MemoryStore::open(&self.house.memory);
        Arc::new(Handle { right, own: Notes::default(), house: Arc::clone(&self.house), calls: self.calls })
    }

    fn neighbours(&self) -> Vec<Arc<dyn Store>> {
        vec![Arc::new(whole::Whole(MemoryStore::open(&self.house.beside)))]
    }

    fn short_ttl(&self) -> Duration {
        Duration::from_millis(60)
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn persistent(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        true
    }
}

/// All of the gallery.
fn gallery() -> impl Iterator<Item = &'static Fault> {
    let rooms: [&[Fault]; 11] = [
        values::FAULTS,
        keys::FAULTS,
        lists::FAULTS,
        swaps::FAULTS,
        handles::FAULTS,
        races::FAULTS,
        expiring::FAULTS,
        trees::FAULTS,
        feeds::FAULTS,
        locks::FAULTS,
        beside::FAULTS,
    ];
    rooms.into_iter().flatten()
}

fn promise(name: &str) -> &'static conformance::Promise {
    PROMISES.iter().find(|promise| promise.name == name).unwrap_or_else(|| panic!("there is no promise {name}"))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// Shows each wrong backend to its promise.
fn assert_refused(faults: &[Fault]) {
    let mut wrong = Vec::new();
    for Fault { does, refused_by, says, calls } in faults {
        let room = Room::new(*calls, PATIENCE_WITH_FAULTS);
        match catch_unwind(AssertUnwindSafe(|| (promise(refused_by).check)(&room))) {
            Ok(()) => wrong.push(format!("{does}: {refused_by} takes it for right")),
            Err(panic) => {
                let message = message(&*panic);
                if !says.split('|').any(|says| message.contains(says)) {
                    wrong.push(format!("{does}: {refused_by} must say \"{says}\", but says \"{message}\""));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "wrong backends that are not refused by name:\n{}", wrong.join("\n"));
}

#[test]
fn the_backend_without_a_fault_keeps_every_promise() {
    conformance::run(|| Room::new(RIGHT, Duration::from_secs(30)));
}

#[test]
fn every_promise_refuses_a_wrong_backend_of_the_gallery() {
    let refusing: BTreeSet<&str> = gallery().map(|fault| fault.refused_by).collect();
    let never: Vec<&str> =
        PROMISES.iter().map(|promise| promise.name).filter(|name| !refusing.contains(name)).collect();
    assert!(never.is_empty(), "promises that were never shown a fault: {never:#?}");
    let names: BTreeSet<&str> = gallery().map(|fault| fault.does).collect();
    assert_eq!(names.len(), gallery().count(), "two wrong backends have one name");
}

#[test]
fn backends_with_wrong_values_and_numbers_are_refused() {
    assert_refused(values::FAULTS);
}

#[test]
fn backends_that_mistake_keys_are_refused() {
    assert_refused(keys::FAULTS);
}

#[test]
fn backends_with_wrong_listings_are_refused() {
    assert_refused(lists::FAULTS);
}

#[test]
fn backends_with_wrong_swaps_are_refused() {
    assert_refused(swaps::FAULTS);
}

#[test]
fn backends_that_mistake_closing_and_reopening_are_refused() {
    assert_refused(handles::FAULTS);
}

#[test]
fn backends_that_mistake_the_time_of_pairs_are_refused() {
    assert_refused(expiring::FAULTS);
}

#[test]
fn backends_that_delete_other_trees_are_refused() {
    assert_refused(trees::FAULTS);
}

#[test]
fn backends_with_wrong_feeds_are_refused() {
    assert_refused(feeds::FAULTS);
}

#[test]
fn backends_that_reach_into_a_store_beside_are_refused() {
    assert_refused(beside::FAULTS);
}

#[test]
fn backends_with_wrong_locks_are_refused() {
    assert_refused(locks::FAULTS);
}

#[test]
fn backends_whose_threads_or_handles_disturb_each_other_are_refused() {
    assert_refused(races::FAULTS);
}
