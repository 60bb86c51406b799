//! sled. It writes from a buffer of its own, in the background every half second; its `flush` waits for
//! `sync_file_range`, after which neither the medium's cache nor the file's length is safe: it has no durable mode.

use std::path::Path;

use sled::{Batch, Db};

use super::CACHE_BYTES;
use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role, lacks};

pub const KINDS: &[Kind] = &[Kind {
    name: "sled",
    role: Role::Peer,
    open,
    unsynced: "its default: half a second may be lost with the process",
    durable: "none: flush is sync_file_range",
}];

struct Sled(Db);

fn open(path: &Path, mode: Mode) -> Result<Box<dyn Engine>> {
    if mode == Mode::Durable {
        return lacks("durable mode");
    }
    Ok(Box::new(Sled(sled::Config::new().path(path.join("store")).cache_capacity(CACHE_BYTES as u64).open()?)))
}

impl Engine for Sled {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key, value)?;
        Ok(())
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| seen(&value)).is_some())
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.0.contains_key(key)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.remove(key)?;
        Ok(())
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        Ok(self.0.compare_and_swap(key, Some(old), Some(new))?.is_ok())
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in pairs.iter() {
            batch.insert(key, value);
        }
        Ok(self.0.apply_batch(batch)?)
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for pair in self.0.scan_prefix(prefix) {
            let (key, value) = pair?;
            seen(&key, &value);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.flush()?;
        Ok(())
    }
}
