//! candystore: a hash table in files, without an order and without batches. It compacts in the background only.

use std::path::Path;

use candystore::{CandyStore, Config};

use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[Kind {
    name: "candystore",
    role: Role::Peer,
    open,
    unsynced: "its default: written to the operating system",
    durable: "flush() after each write: fsync of index, data and directory",
}];

struct Candystore {
    store: CandyStore,
    durable: bool,
}

fn open(path: &Path, mode: Mode) -> Result<Box<dyn Engine>> {
    let store = CandyStore::open(path, Config::default())?;
    Ok(Box::new(Candystore { store, durable: mode == Mode::Durable }))
}

impl Candystore {
    fn written(&self) -> Result<()> {
        if self.durable {
            self.store.flush()?;
        }
        Ok(())
    }
}

impl Engine for Candystore {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.store.set(key, value)?;
        self.written()
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.store.get(key)?.map(|value| seen(&value)).is_some())
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.store.contains(key)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.store.remove(key)?;
        self.written()
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        let swapped = self.store.replace(key, new, Some(old))?.was_replaced();
        self.written()?;
        Ok(swapped)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        for (key, value) in pairs.iter() {
            self.store.set(key, value)?;
        }
        self.written()
    }
}
