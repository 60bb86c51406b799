//! The trait through which every engine is measured.

use std::path::Path;

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What a returned write survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// The death of the process, as far as the engine offers that without a sync.
    Unsynced,
    /// A power cut.
    Durable,
}

/// An open store. An engine leaves out what it does not have, or has only with other promises, and the row says so.
pub trait Engine: Send + Sync {
    fn put(&self, _key: &[u8], _value: &[u8]) -> Result<()> {
        lacks("put")
    }

    /// Shows the value to `seen` in the engine's quickest way: lent, or read into `buffer`.
    fn get(&self, _key: &[u8], _buffer: &mut Vec<u8>, _seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        lacks("get")
    }

    fn exists(&self, _key: &[u8]) -> Result<bool> {
        lacks("exists")
    }

    fn delete(&self, _key: &[u8]) -> Result<()> {
        lacks("delete")
    }

    /// Sets the value if it is `old`. No other write can come in between.
    fn swap(&self, _key: &[u8], _old: &[u8], _new: &[u8]) -> Result<bool> {
        lacks("compare-and-swap")
    }

    /// Writes all pairs at once, in the engine's kind of batch or transaction.
    fn load(&self, pairs: &Pairs) -> Result<()>;

    /// Visits all pairs under a prefix, in key order.
    fn list(&self, _prefix: &[u8], _seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        lacks("listing in key order")
    }

    /// Frees the space of overwritten and deleted pairs, and closes. Floors need the number of keys in the store.
    fn compact(self: Box<Self>, _keys: usize) -> Result<()> {
        lacks("compaction on demand")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub fn lacks<T>(what: &str) -> Result<T> {
    Err(format!("no {what}").into())
}

/// Keys and values for [`Engine::load`], in one piece of memory.
#[derive(Default)]
pub struct Pairs {
    bytes: Vec<u8>,
    /// Where each key and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Pairs {
    pub fn push(&mut self, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(key);
        let end = self.bytes.len();
        value(&mut self.bytes);
        self.ends.push((end, self.bytes.len()));
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        starts.zip(&self.ends).map(|(start, &(middle, end))| (&self.bytes[start..middle], &self.bytes[middle..end]))
    }
}

/// One way to open one engine.
pub struct Kind {
    pub name: &'static str,
    pub role: Role,
    /// Opens, or creates, what is in the directory.
    pub open: fn(&Path, Mode) -> Result<Box<dyn Engine>>,
    /// The names of the two modes in the engine's own words.
    pub unsynced: &'static str,
    pub durable: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Ours,
    Peer,
    /// The least that any program must do for the same purpose.
    Floor,
}
