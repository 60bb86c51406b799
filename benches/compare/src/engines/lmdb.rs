//! LMDB, through heed. A transaction for each call; values are lent from the map.

use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, RwTxn};

use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[
    Kind {
        name: "lmdb",
        role: Role::Peer,
        open: |path, mode| open(path, mode, EnvFlags::empty()),
        unsynced: "MDB_NOSYNC: a power cut may destroy the whole file",
        durable: "its default: fdatasync at each commit",
    },
    Kind {
        name: "lmdb-writemap",
        role: Role::Peer,
        open: |path, mode| open(path, mode, EnvFlags::WRITE_MAP),
        unsynced: "MDB_WRITEMAP, MDB_NOSYNC: a power cut may destroy the whole file",
        durable: "MDB_WRITEMAP: msync at each commit",
    },
];

/// Address space only, and what the sparse file may grow to.
const MAP_BYTES: usize = 64 << 30;

struct Lmdb {
    env: Env,
    pairs: Database<Bytes, Bytes>,
    directory: PathBuf,
}

fn open(path: &Path, mode: Mode, flags: EnvFlags) -> Result<Box<dyn Engine>> {
    let flags = match mode {
        Mode::Unsynced => flags | EnvFlags::NO_SYNC,
        Mode::Durable => flags,
    };
    // SAFETY: only this process knows the directory, and the machine is not expected to lose its power.
    let env = unsafe { EnvOpenOptions::new().map_size(MAP_BYTES).flags(flags).open(path)? };
    let mut transaction = env.write_txn()?;
    let pairs = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(Box::new(Lmdb { env, pairs, directory: path.to_owned() }))
}

impl Lmdb {
    fn write<T>(&self, change: impl FnOnce(&mut RwTxn) -> heed::Result<T>) -> Result<T> {
        let mut transaction = self.env.write_txn()?;
        let done = change(&mut transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|transaction| self.pairs.put(transaction, key, value))
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        Ok(self.pairs.get(&transaction, key)?.map(seen).is_some())
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        Ok(self.pairs.get(&transaction, key)?.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|transaction| self.pairs.delete(transaction, key))?;
        Ok(())
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        self.write(|transaction| {
            let is_old = self.pairs.get(transaction, key)? == Some(old);
            if is_old {
                self.pairs.put(transaction, key, new)?;
            }
            Ok(is_old)
        })
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        self.write(|transaction| pairs.iter().try_for_each(|(key, value)| self.pairs.put(transaction, key, value)))
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let transaction = self.env.read_txn()?;
        for pair in self.pairs.prefix_iter(&transaction, prefix)? {
            let (key, value) = pair?;
            seen(key, value);
        }
        Ok(())
    }

    /// LMDB compacts by copying: the copy takes the original's place.
    fn compact(self: Box<Self>, _: usize) -> Result<()> {
        let copy = self.directory.join("copy.mdb");
        self.env.copy_to_path(&copy, CompactionOption::Enabled)?.sync_all()?;
        let original = self.directory.join("data.mdb");
        self.close()?;
        Ok(std::fs::rename(copy, original)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
