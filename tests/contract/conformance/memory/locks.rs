//! [`MemoryLock`]: locks over [`MemoryStore`]. They need no renewal, since no holder of theirs can die alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caskfile::{Error, Held, Lock, LockLoss, LockOptions, LossSender, Result, Stopper};

use super::{MemoryStore, Pairs};

/// A lock that is held. It is lost when this is dropped.
pub struct Owner {
    pub token: u64,
    /// That of the holder's handle.
    closed: Arc<AtomicBool>,
    _loss: LossSender,
}

pub struct MemoryLock {
    /// Its own handle, which is closed with the other.
    pub store: MemoryStore,
    pub key: Vec<u8>,
    pub options: LockOptions,
    pub stopped: Arc<AtomicBool>,
    /// The token, while it is held, or was until it was lost.
    pub current: Mutex<Option<u64>>,
}

impl Owner {
    pub fn is_of(&self, handle: &MemoryStore) -> bool {
        Arc::ptr_eq(&self.closed, &handle.closed)
    }
}

impl Pairs {
    pub fn is_owner(&self, key: &[u8], token: u64) -> bool {
        self.owners.get(key).is_some_and(|owner| owner.token == token)
    }

    /// Ends the locks of a handle.
    pub fn end_locks(&mut self, closed: &Arc<AtomicBool>) {
        let owned = self.owners.iter().filter(|(_, owner)| Arc::ptr_eq(&owner.closed, closed));
        let keys: Vec<Vec<u8>> = owned.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.remove(key));
    }
}

pub fn new_lock(store: &MemoryStore, key: &[u8], options: &LockOptions) -> Result<MemoryLock> {
    drop(store.pairs_for(key)?);
    if options.get_ttl().is_zero() {
        return Err(Error::ZeroTtl);
    }
    let store = MemoryStore { memory: Arc::clone(&store.memory), closed: Arc::clone(&store.closed) };
    let (key, options) = (key.to_vec(), options.clone());
    Ok(MemoryLock { store, key, options, stopped: Arc::default(), current: Mutex::default() })
}

impl MemoryLock {
    /// Takes the lock, also from a holder.
    pub fn take(&self, pairs: &mut Pairs) -> Held {
        let token = pairs.set(&self.key, self.options.get_value()).last_index;
        let (sender, loss) = LockLoss::channel().unwrap();
        let owner = Owner { token, closed: Arc::clone(&self.store.closed), _loss: sender };
        pairs.owners.insert(self.key.clone(), owner);
        *self.current.lock().unwrap() = Some(token);
        Held::new(token, loss)
    }
}

impl Lock for MemoryLock {
    fn try_lock(&self) -> Result<Option<Held>> {
        let mut pairs = self.store.pairs()?;
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let current = *self.current.lock().unwrap();
        if current.is_some_and(|token| pairs.is_owner(&self.key, token)) {
            return Err(Error::AlreadyHeld);
        }
        Ok((!pairs.owners.contains_key(&self.key)).then(|| self.take(&mut pairs)))
    }

    fn lock(&self, timeout: Option<Duration>) -> Result<Held> {
        let began = Instant::now();
        loop {
            if let Some(held) = self.try_lock()? {
                return Ok(held);
            }
            let waited = began.elapsed();
            let left = timeout.map(|timeout| timeout.saturating_sub(waited));
            if left == Some(Duration::ZERO) {
                return Err(Error::TimedOut { waited });
            }
            let pairs = self.store.pairs()?;
            let news = Arc::clone(&pairs.news);
            drop(news.wait_timeout(pairs, left.unwrap_or(Duration::MAX).min(Duration::from_millis(1))));
        }
    }

    fn unlock(&self) -> Result<()> {
        let mut pairs = self.store.pairs()?;
        let token = self.current.lock().unwrap().take().filter(|token| pairs.is_owner(&self.key, *token));
        token.ok_or(Error::NotHeld)?;
        if self.options.get_delete_on_unlock() {
            pairs.remove(&self.key);
        } else {
            pairs.owners.remove(&self.key);
        }
        Ok(())
    }

    fn stopper(&self) -> Stopper {
        let stopped = Arc::clone(&self.stopped);
        Stopper::new(move || stopped.store(true, Ordering::Relaxed))
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let _not_held = self.unlock();
    }
}
