//! [`MemoryStore`]: the contract in its smallest form, so that the trait is not shaped by one engine alone.

pub mod locks;
pub mod whole;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use caskfile::{Change, Error, KvPair, Result, Store};

/// A handle on pairs in memory. Every handle that [`MemoryStore::open`] makes of the same [`Memory`] sees the same pairs.
///
/// It has the calls that every store has. [`whole::Whole`] has the others too.
pub struct MemoryStore {
    pub memory: Arc<Memory>,
    pub closed: Arc<AtomicBool>,
}

/// What outlives the handles.
#[derive(Default)]
pub struct Memory(pub Mutex<Pairs>);

#[derive(Default)]
pub struct Pairs {
    /// Values and the index of the write that set each.
    pub values: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    pub last_index: u64,
    /// When pairs are over that do not stay.
    pub ends: BTreeMap<Vec<u8>, Instant>,
    /// The locks that are held.
    pub owners: BTreeMap<Vec<u8>, locks::Owner>,
    /// Every change there ever was, for feeds.
    pub changes: Vec<Change>,
    /// Notified when something was changed, closed or stopped.
    pub news: Arc<Condvar>,
}

impl MemoryStore {
    /// Far below the engine's limit, so that the suite does not take that one for granted.
    pub const MAX_KEY_LEN: usize = 1000;

    /// Less for a long key, as of a server whose requests have both.
    pub const MAX_PAIR_LEN: usize = 3 << 19;

    pub fn open(memory: &Arc<Memory>) -> MemoryStore {
        MemoryStore { memory: Arc::clone(memory), closed: Arc::default() }
    }

    pub fn pairs(&self) -> Result<MutexGuard<'_, Pairs>> {
        let mut pairs = self.memory.0.lock().expect("no call panics while it holds the lock");
        pairs.remove_what_is_over();
        // Looked at under the lock: once close has returned, no call is still on its way in.
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(pairs) }
    }

    pub fn pairs_for(&self, key: &[u8]) -> Result<MutexGuard<'_, Pairs>> {
        let pairs = self.pairs()?;
        match key.len() {
            1..=MemoryStore::MAX_KEY_LEN => Ok(pairs),
            len => Err(Error::KeyLength { len, max: MemoryStore::MAX_KEY_LEN }),
        }
    }
}

/// Looks at the length of a value.
pub fn check_value(key: &[u8], value: &[u8]) -> Result<()> {
    let (len, max) = (value.len(), MemoryStore::MAX_PAIR_LEN - key.len());
    if len > max { Err(Error::ValueTooLong { len, max }) } else { Ok(()) }
}

impl Pairs {
    pub fn get(&self, key: &[u8]) -> Result<KvPair> {
        let (value, last_index) = self.values.get(key).ok_or(Error::KeyNotFound)?;
        Ok(KvPair::new(key, &value[..], *last_index))
    }

    pub fn set(&mut self, key: &[u8], value: &[u8]) -> KvPair {
        self.last_index += 1;
        self.values.insert(key.to_vec(), (value.to_vec(), self.last_index));
        self.ends.remove(key);
        self.owners.remove(key);
        let pair = KvPair::new(key, value, self.last_index);
        self.changes.push(Change::Put(pair.clone()));
        self.news.notify_all();
        pair
    }

    /// The index stays where it is: it must not fall back when the key that had it goes.
    pub fn remove(&mut self, key: &[u8]) {
        self.ends.remove(key);
        self.owners.remove(key);
        if self.values.remove(key).is_some() {
            self.last_index += 1;
            self.changes.push(Change::Delete { key: key.to_vec(), last_index: self.last_index });
            self.news.notify_all();
        }
    }

    fn remove_what_is_over(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let now = Instant::now();
        let over: Vec<Vec<u8>> = self.ends.iter().filter(|(_, end)| **end <= now).map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| self.remove(key));
    }

    pub fn expect_unmodified(&self, key: &[u8], previous: &KvPair) -> Result<()> {
        match self.values.get(key) {
            None => Err(Error::KeyNotFound),
            Some((_, last_index)) if *last_index != previous.last_index => Err(Error::KeyModified),
            Some(_) => Ok(()),
        }
    }
}

impl Store for MemoryStore {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut pairs = self.pairs_for(key)?;
        check_value(key, value)?;
        pairs.set(key, value);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<KvPair> {
        self.pairs_for(key)?.get(key)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.pairs_for(key)?.values.contains_key(key))
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
        let pairs = self.pairs()?;
        let from_prefix = pairs.values.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let with_prefix = from_prefix.take_while(|(key, _)| key.starts_with(prefix));
        Ok(with_prefix.map(|(key, (value, last_index))| KvPair::new(&key[..], &value[..], *last_index)).collect())
    }

    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
        let mut pairs = self.pairs_for(key)?;
        check_value(key, value)?;
        match previous {
            Some(previous) => pairs.expect_unmodified(key, previous)?,
            None if pairs.values.contains_key(key) => return Err(Error::KeyExists),
            None => {}
        }
        Ok(pairs.set(key, value))
    }

    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
        let mut pairs = self.pairs_for(key)?;
        pairs.expect_unmodified(key, previous.ok_or(Error::PreviousNotSpecified)?)?;
        pairs.remove(key);
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.pairs_for(key)?.remove(key);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        match self.pairs() {
            Ok(mut open) => {
                open.end_locks(&self.closed);
                self.closed.store(true, Ordering::Relaxed);
                open.news.notify_all();
            }
            Err(_closed_already) => {}
        }
        Ok(())
    }
}
