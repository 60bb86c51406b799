//! fjall with plain keyspaces. They have no compare-and-swap, so here a lock is shared by writers and held exclusively by a
//! swap, which is cheaper than its transactions.

use std::path::Path;
use std::sync::{PoisonError, RwLock};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::CACHE_BYTES;
use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[Kind {
    name: "fjall",
    role: Role::Peer,
    open,
    unsynced: "its default: written to the operating system",
    durable: "persist(SyncData) after each write",
}];

struct Fjall {
    database: Database,
    keyspace: Keyspace,
    durable: bool,
    swaps: RwLock<()>,
}

fn open(path: &Path, mode: Mode) -> Result<Box<dyn Engine>> {
    let database = Database::builder(path).cache_size(CACHE_BYTES as u64).open()?;
    let keyspace = database.keyspace("pairs", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, keyspace, durable: mode == Mode::Durable, swaps: RwLock::new(()) }))
}

impl Fjall {
    fn write(&self, change: impl FnOnce() -> fjall::Result<()>) -> Result<()> {
        let _shared = self.swaps.read().unwrap_or_else(PoisonError::into_inner);
        change()?;
        self.persist()
    }

    fn persist(&self) -> Result<()> {
        if self.durable {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|| self.keyspace.insert(key, value))
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.keyspace.get(key)?.map(|value| seen(&value)).is_some())
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.keyspace.contains_key(key)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|| self.keyspace.remove(key))
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        let _alone = self.swaps.write().unwrap_or_else(PoisonError::into_inner);
        if self.keyspace.get(key)?.is_none_or(|value| *value != *old) {
            return Ok(false);
        }
        self.keyspace.insert(key, new)?;
        self.persist()?;
        Ok(true)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        self.write(|| {
            let mut batch = self.database.batch();
            for (key, value) in pairs.iter() {
                batch.insert(&self.keyspace, key, value);
            }
            batch.commit()
        })
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for pair in self.keyspace.prefix(prefix) {
            let (key, value) = pair.into_inner()?;
            seen(&key, &value);
        }
        Ok(())
    }

    fn compact(self: Box<Self>, _: usize) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        self.close()
    }
}
