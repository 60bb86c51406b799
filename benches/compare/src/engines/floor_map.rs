//! Floors for what happens in memory: a hash table for look-ups, a tree for listing, each in a lock. Values are lent.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::after_prefix;
use crate::engine::{Engine, Kind, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[
    kind("floor-hash", |_, _| Ok(Box::new(Hash::default()))),
    kind("floor-tree", |_, _| Ok(Box::new(Tree::default()))),
];

const fn kind(name: &'static str, open: fn(&std::path::Path, crate::engine::Mode) -> Result<Box<dyn Engine>>) -> Kind {
    Kind { name, role: Role::Floor, open, unsynced: "memory", durable: "memory" }
}

#[derive(Default)]
struct Hash(RwLock<HashMap<Vec<u8>, Vec<u8>>>);

impl Hash {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Hash {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.read().get(key).map(|value| seen(value)).is_some())
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.read().contains_key(key))
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write().remove(key);
        Ok(())
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        let mut map = self.write();
        let Some(value) = map.get_mut(key).filter(|value| *value == old) else { return Ok(false) };
        new.clone_into(value);
        Ok(true)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        self.write().extend(pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        Ok(())
    }
}

#[derive(Default)]
struct Tree(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Engine for Tree {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.extend(pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        Ok(())
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let end = after_prefix(prefix);
        for (key, value) in map.range::<[u8], _>((Bound::Included(prefix), end.as_ref().map(Vec::as_slice))) {
            seen(key, value);
        }
        Ok(())
    }
}
