//! caskfile, through its own calls: `get_into` copies the value into the caller's buffer and verifies its checksum there,
//! `visit` lends pairs.

use std::ops::ControlFlow;
use std::path::Path;

use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Error, LockMode, Mapped};

use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[
    kind("caskfile", |path, mode| open(path, mode, &manual())),
    kind("caskfile-exclusive", |path, mode| open(path, mode, &manual().lock_mode(LockMode::Exclusive))),
    kind("caskfile-mapped", |path, mode| lending(path, mode, &manual())),
    kind("caskfile-unverified", |path, mode| lending(path, mode, &manual().verify_on_read(false))),
    kind("caskfile-automatic", |path, mode| open(path, mode, &Config::new().compaction(CompactionPolicy::default()))),
];

const fn kind(name: &'static str, open: fn(&Path, Mode) -> Result<Box<dyn Engine>>) -> Kind {
    Kind { name, role: Role::Ours, open, unsynced: "Durability::Os", durable: "Durability::Sync" }
}

/// Compaction has its own rows and must not disturb the others.
fn manual() -> Config {
    Config::new().compaction(CompactionPolicy::Manual)
}

fn cask(path: &Path, mode: Mode, config: &Config) -> Result<Cask> {
    let durability = match mode {
        Mode::Unsynced => Durability::Os,
        Mode::Durable => Durability::Sync,
    };
    Ok(Cask::open_with(path.join("store"), &config.clone().durability(durability))?)
}

fn open(path: &Path, mode: Mode, config: &Config) -> Result<Box<dyn Engine>> {
    Ok(Box::new(Copying(cask(path, mode, config)?)))
}

fn lending(path: &Path, mode: Mode, config: &Config) -> Result<Box<dyn Engine>> {
    let cask = cask(path, mode, config)?;
    // SAFETY: only this process knows the directory.
    let mapped = unsafe { cask.mapped() };
    Ok(Box::new(Lending { cask, mapped }))
}

struct Copying(Cask);

impl Engine for Copying {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.put(key, value)?;
        Ok(())
    }

    fn get(&self, key: &[u8], buffer: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        match self.0.get_into(key, buffer) {
            Ok(_) => {
                seen(buffer);
                Ok(true)
            }
            Err(Error::KeyNotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.0.exists(key)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.0.delete(key)?)
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        let pair = self.0.get(key)?;
        if pair.value != old {
            return Ok(false);
        }
        match self.0.put_if(key, new, pair.last_index) {
            Ok(_) => Ok(true),
            Err(Error::KeyModified | Error::KeyNotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        let mut batch = Batch::new();
        for (key, value) in pairs.iter() {
            batch.put(key, value);
        }
        self.0.write(&batch)?;
        Ok(())
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.0.visit(prefix, |pair| {
            seen(pair.key, pair.value);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn compact(self: Box<Self>, _: usize) -> Result<()> {
        self.0.compact()?;
        self.close()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

/// Reads through [`Mapped`]: nothing is copied.
struct Lending {
    cask: Cask,
    mapped: Mapped,
}

impl Engine for Lending {
    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        match self.mapped.get(key) {
            Ok(slice) => {
                seen(&slice);
                Ok(true)
            }
            Err(Error::KeyNotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.cask.put(key, value)?;
        Ok(())
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        Copying(self.cask.clone()).load(pairs)
    }
}
