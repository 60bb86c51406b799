//! The feeds of the contract: a [`Watch`] that begins again where history was lost.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Unit, Watch, WatchFrom};
use crate::engine::cask::Cask;
use crate::engine::deadline::Deadline;
use crate::engine::{ChangeRef, PairRef};
use crate::format::FullKey;
use crate::memory::copied;
use crate::store::{Change, Feed, KvPair, Stopper, TreeEvent};
use crate::{Error, Result};

/// The states of one key.
pub(crate) struct KeyFeed {
    watch: Watch,
    key: Vec<u8>,
    /// The last item has said that the key is absent. The delete of a pair that was over by then would say it again.
    is_absent: bool,
}

/// The pairs of a prefix, and what changes them.
pub(crate) struct TreeFeed(Watch);

/// How long a call may wait.
enum Wait {
    Not,
    Until(Deadline),
}

impl KeyFeed {
    pub(crate) fn new(cask: &Cask, key: &[u8]) -> Result<KeyFeed> {
        cask.check_open()?;
        FullKey::new(&cask.bucket, key)?;
        // The listing begins with the key itself, if it is there, and is read no further.
        let watch = cask.changes(key, WatchFrom::Snapshot)?;
        Ok(KeyFeed { watch, key: key.to_vec(), is_absent: false })
    }

    fn next(&mut self, wait: &Wait) -> Result<Option<Option<KvPair>>> {
        let KeyFeed { watch, key, is_absent } = self;
        next(watch, wait, |unit| {
            let is_listing = unit.is_listing();
            let Some(state) = state_after(unit, key)? else { return Ok(None) };
            let is_news = is_listing || state.is_some() || !*is_absent;
            *is_absent = state.is_none();
            Ok(is_news.then_some(state))
        })
    }
}

impl TreeFeed {
    pub(crate) fn new(cask: &Cask, prefix: &[u8]) -> Result<TreeFeed> {
        Ok(TreeFeed(cask.changes(prefix, WatchFrom::Snapshot)?))
    }

    fn next(&mut self, wait: &Wait) -> Result<Option<TreeEvent>> {
        next(&mut self.0, wait, |unit| {
            if !unit.is_listing() {
                return Ok(Some(TreeEvent::Changes(unit.into_changes()?)));
            }
            let pair = |change| match change {
                Change::Put(pair) => Some(pair),
                Change::Delete { .. } => None,
            };
            Ok(Some(TreeEvent::List(unit.into_changes()?.into_iter().filter_map(pair).collect())))
        })
    }
}

/// What a unit leaves of the key; `None` if it does not concern the key.
fn state_after(mut unit: Unit<'_>, key: &[u8]) -> Result<Option<Option<KvPair>>> {
    let path = unit.watch.cask.engine.context.path.clone();
    let owned = |PairRef { key, value, last_index, .. }: PairRef<'_>| -> Result<KvPair> {
        let value = copied(value).map_err(|e| Error::io("get memory for a value", &path, e))?;
        Ok(KvPair { key: key.to_vec(), value, last_index })
    };
    if unit.is_listing() {
        let first = unit.next_ref().transpose()?;
        return match first {
            Some(ChangeRef::Put(pair)) if pair.key == key => Ok(Some(Some(owned(pair)?))),
            _ => Ok(Some(None)),
        };
    }
    let mut state = None;
    while let Some(change) = unit.next_ref() {
        match change? {
            ChangeRef::Put(pair) if pair.key == key => state = Some(Some(owned(pair)?)),
            ChangeRef::Delete { key: deleted, .. } if deleted == key => state = Some(None),
            _ => {}
        }
    }
    Ok(state)
}

/// The next item that `read` makes of a unit. Begins again with a listing where history was lost.
fn next<T>(watch: &mut Watch, wait: &Wait, mut read: impl FnMut(Unit<'_>) -> Result<Option<T>>) -> Result<Option<T>> {
    loop {
        let unit = match wait {
            Wait::Not => watch.try_next(),
            Wait::Until(deadline) => watch.next_timeout(deadline.left()),
        };
        let item = match unit {
            Ok(None) => return Ok(None),
            Ok(Some(unit)) => read(unit),
            Err(error) => Err(error),
        };
        match item {
            Ok(Some(item)) => return Ok(Some(item)),
            // It concerned other keys that begin with the same bytes. Once the time is over, what is there is read without waiting.
            Ok(None) => {}
            Err(Error::Compacted { .. } | Error::Undone { .. }) => watch.list_again(),
            Err(error) => return Err(error),
        }
    }
}

impl Watch {
    /// Goes on with a listing of what is there now.
    fn list_again(&mut self) {
        self.lists_again = true;
    }

    fn until(&self, timeout: Option<Duration>) -> Wait {
        Wait::Until(Deadline::after(&self.cask.engine.context.clock, timeout))
    }
}

impl Feed<Option<KvPair>> for KeyFeed {
    fn try_next(&mut self) -> Result<Option<Option<KvPair>>> {
        self.next(&Wait::Not)
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<Option<KvPair>>> {
        let wait = self.watch.until(timeout);
        self.next(&wait)
    }

    fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        self.watch.descriptor()
    }

    fn stopper(&self) -> Stopper {
        self.watch.stopper()
    }
}

impl Feed<TreeEvent> for TreeFeed {
    fn try_next(&mut self) -> Result<Option<TreeEvent>> {
        self.next(&Wait::Not)
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<TreeEvent>> {
        let wait = self.0.until(timeout);
        self.next(&wait)
    }

    fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn stopper(&self) -> Stopper {
        self.0.stopper()
    }
}
