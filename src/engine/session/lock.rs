//! [`CaskLock`]: a lock that all processes with the store share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::claim::CaskClaim;
use super::{Released, end, end_dropped, keep};
use crate::engine::cask::Cask;
use crate::engine::deadline::Deadline;
use crate::engine::write::line::Line;
use crate::engine::write::request::Condition;
use crate::format::{FullKey, MAX_EXPIRING_VALUE_LEN};
use crate::log::LogFile;
use crate::store::{Claim, Held, KvPair, Lock, LockOptions, Stopper};
use crate::sync::{AtomicBool, Mutex, lock};
use crate::{Error, Result};

/// A lock that all processes with the store share: see [`Cask::lock`].
///
/// It can be taken again after it was released or lost. Dropping it releases it.
pub struct CaskLock {
    cask: Cask,
    key: FullKey,
    options: LockOptions,
    is_stopped: Arc<AtomicBool>,
    current: Mutex<Option<Arc<CaskClaim>>>,
    /// Since when [`CaskLock::try_lock`] has seen that the lock is free and that others stand in line.
    passed_over: Mutex<Option<Instant>>,
}

/// How often the first in line looks, at first and later.
const SHORT_LOOK: Duration = Duration::from_millis(1);
const LONG_LOOK: Duration = Duration::from_millis(5);
const SOON: Duration = Duration::from_millis(50);

/// How often the others look.
const LATER_LOOK: Duration = Duration::from_millis(10);

/// How long a lock may be free before those that are not first take it: the first may have been stopped.
const COURTESY: Duration = Duration::from_millis(200);

/// How long a try to take the lock waits for the file's lock.
const PATIENCE_OF_TRY: Duration = Duration::from_secs(1);

/// How often a turn is taken to judge a session whose deadline cannot be compared.
const JUDGE: Duration = Duration::from_millis(100);

/// What a look without the file's lock says about a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    Free,
    Held,
    /// Only a turn can say more.
    Unknown,
}

impl Cask {
    /// Returns a lock on a key, which is not taken yet. All processes that use the same key of the same store, and the same bucket, share
    /// it.
    ///
    /// While the lock is held, the key has the [value](LockOptions::value) of its holder, and other processes see it. Plain writes do
    /// not respect the lock: a put or a delete of the key takes the lock away from its holder. What is at the key while the lock is
    /// free is replaced.
    ///
    /// # What is promised
    ///
    /// The lock is never given to another while its holder's session lives. But the holder may be stopped at any moment, and go on after it
    /// has lost the lock. So
    ///
    /// - a batch with [`Batch::expect_held`](crate::Batch::expect_held) is refused from the moment on at which the lock is lost, however
    ///   late it comes;
    /// - the [token](Held::token) rises with each holder, for programs that check it elsewhere;
    /// - everything else that a holder does outside of the store is not protected.
    ///
    /// The next holder comes within some milliseconds after the death of a process, if it and its forked children have ended; otherwise at
    /// the end of the [time to live](LockOptions::ttl).
    ///
    /// # Errors
    ///
    /// - [`Error::KeyLength`], [`Error::ValueTooLong`], [`Error::ZeroTtl`].
    /// - [`Error::Closed`], [`Error::Forked`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-cask-lock-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{Batch, LockOptions};
    ///
    /// let lock = cask.lock("leader", &LockOptions::new().value("node-1"))?;
    /// let held = lock.lock(None)?;
    /// assert_eq!(cask.get("leader")?.value, b"node-1");
    /// cask.write(Batch::new().expect_held(&held).put("config", "set by the leader"))?;
    /// lock.unlock()?;
    /// assert!(!cask.exists("leader")?);
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn lock(&self, key: impl AsRef<[u8]>, options: &LockOptions) -> Result<CaskLock> {
        self.check_open()?;
        let key = FullKey::new(&self.bucket, key.as_ref())?;
        if options.get_ttl().is_zero() {
            return Err(Error::ZeroTtl);
        }
        let len = options.get_value().len();
        if len > MAX_EXPIRING_VALUE_LEN {
            return Err(Error::ValueTooLong { len, max: MAX_EXPIRING_VALUE_LEN });
        }
        Ok(CaskLock {
            cask: self.clone(),
            key,
            options: options.clone(),
            is_stopped: Arc::new(AtomicBool::new(false)),
            current: Mutex::default(),
            passed_over: Mutex::default(),
        })
    }
}

impl CaskLock {
    /// Takes the lock if it is free and no other waits for it. Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// - [`Error::AlreadyHeld`] if it is held through this value.
    /// - [`Error::SessionOver`] if the process was stopped for longer than the time to live in this call.
    /// - [`Error::NoSessions`], [`Error::Stopped`], and those of every write.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-try-lock-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let (one, other) = (cask.lock("leader", &Default::default())?, cask.lock("leader", &Default::default())?);
    /// let held = one.try_lock()?;
    /// assert!(held.is_some() && other.try_lock()?.is_none());
    /// # drop((one, other));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn try_lock(&self) -> Result<Option<Held>> {
        self.expect_not_held()?;
        let engine = &*self.cask.engine;
        if self.look()? == Looks::Held {
            *lock(&self.passed_over) = None;
            return Ok(None);
        }
        let log = self.log()?;
        let others = log.file.lock_line(self.line_of()?);
        let others_wait = others.is_some_and(|line| line.place_of_another(0..crate::disk::PLACES).is_some());
        if others_wait || engine.queues.has(&self.key) {
            let clock = &engine.context.clock;
            let since = *lock(&self.passed_over).get_or_insert_with(|| clock.now());
            if clock.since(since) < COURTESY {
                return Ok(None);
            }
        }
        *lock(&self.passed_over) = None;
        self.take(&engine.context.deadline())
    }

    /// Waits for the lock in line, and takes it. Waits at most this long; with `None` for ever.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`] if it is held by another one, or others are before this one in line, until the time is over.
    /// - [`Error::LockTimeout`] if it is free, and another writer has the file's lock at that moment.
    /// - [`Error::Stopped`] after [`Stopper::stop`].
    /// - Those of [`CaskLock::try_lock`].
    ///
    /// With a timeout of zero, any write beside it is in the way. [`CaskLock::try_lock`] has the patience of a write, and asks once.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-wait-for-lock-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::Duration;
    ///
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let other = cask.lock("leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// let waiter = std::thread::spawn(move || other.lock(Some(Duration::from_secs(60))).map(|held| held.token()));
    /// lock.unlock()?;
    /// assert!(waiter.join().unwrap()? > held.token());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn lock(&self, timeout: Option<Duration>) -> Result<Held> {
        self.expect_not_held()?;
        let engine = &*self.cask.engine;
        let deadline = Deadline::after(&engine.context.clock, timeout);
        deadline.waited();
        let place = engine.queues.enter(&self.key);
        while !place.wait(&deadline) {
            self.go_on(&deadline)?;
        }
        loop {
            let log = self.log()?;
            if let Some(held) = self.wait_in_line(&log, &deadline)? {
                return Ok(held);
            }
        }
    }

    /// Stands in the line of this file until the lock is taken. Returns `None` once the store goes on in another file.
    fn wait_in_line(&self, log: &Arc<LogFile>, deadline: &Deadline) -> Result<Option<Held>> {
        let context = &self.cask.engine.context;
        let clock = &context.clock;
        let places = log.file.lock_line(self.line_of()?);
        let mut line = Line::of(places.as_deref(), clock);
        let (mut free_since, mut judged) = (None, None::<Instant>);
        loop {
            line.look();
            let is_first = line.ahead.is_none();
            let looks = self.look()?;
            let mut is_in_the_way = false;
            let now = clock.now();
            let may_judge = judged.is_none_or(|last| now.saturating_duration_since(last) >= JUDGE);
            match looks {
                Looks::Held => free_since = None,
                Looks::Free | Looks::Unknown => {
                    let since = *free_since.get_or_insert(now);
                    let is_turn = is_first || now.saturating_duration_since(since) >= COURTESY;
                    if is_turn && (looks == Looks::Free || may_judge) {
                        judged = Some(now);
                        // If the file's lock is not free for so long, there may be something else to look at.
                        match self.take(&deadline.within(PATIENCE_OF_TRY)) {
                            Ok(Some(held)) => return Ok(Some(held)),
                            Ok(None) => free_since = None,
                            Err(Error::LockTimeout { .. }) => {
                                free_since = None;
                                is_in_the_way = looks == Looks::Free;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
            self.go_on(deadline).map_err(|error| match error {
                // Not the lock's holder was in the way.
                Error::TimedOut { .. } if is_in_the_way => context.lock_timeout(None, deadline),
                error => error,
            })?;
            if !Arc::ptr_eq(&self.log()?, log) {
                return Ok(None);
            }
            let is_soon = deadline.waited() < SOON;
            let pause = if !is_first {
                line.pause().max(LATER_LOOK)
            } else if is_soon {
                SHORT_LOOK
            } else {
                LONG_LOOK
            };
            context.disk.system().pause(deadline.left().map_or(pause, |left| left.min(pause)));
        }
    }

    /// Releases the lock. Its key is removed, or stays as that of a plain put: [`LockOptions::delete_on_unlock`]. Afterwards it can be
    /// taken again.
    ///
    /// # Errors
    ///
    /// - [`Error::NotHeld`] if it was not taken, or is lost.
    /// - Those of every write. The lock is not held any more then, and is free at the end of its time to live.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-unlock-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// lock.unlock()?;
    /// assert!(!held.is_held() && matches!(lock.unlock(), Err(caskfile::Error::NotHeld)));
    /// assert!(lock.try_lock()?.is_some());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn unlock(&self) -> Result<()> {
        self.cask.check_open()?;
        let claim = lock(&self.current).take().ok_or(Error::NotHeld)?;
        let deadline = self.cask.engine.context.deadline();
        end(&self.cask, &claim.live, Some(self.released(&claim)), &deadline).map_err(|error| match error {
            Error::SessionOver => Error::NotHeld,
            error => error,
        })
    }

    /// Sets the value of the lock's key to another one. The holder keeps the lock, and the token stays. Returns the new pair.
    ///
    /// # Errors
    ///
    /// - [`Error::NotHeld`], [`Error::SessionOver`].
    /// - Those of [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-lock-set-value-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// lock.set_value("node-1: 40 % done")?;
    /// assert!(held.is_held() && cask.get("leader")?.last_index > held.token());
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn set_value(&self, value: impl AsRef<[u8]>) -> Result<KvPair> {
        self.cask.check_open()?;
        let holding = lock(&self.current).as_ref().ok_or(Error::NotHeld)?.holding();
        let key = &self.key[self.cask.bucket.len()..];
        self.cask.put_owned(&self.key, key, value.as_ref(), holding, Some(Condition::Held(holding)))
    }

    /// Returns what ends a wait for this lock from another thread. All waits return [`Error::Stopped`] from then on.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-lock-stopper-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let lock = cask.lock("leader", &Default::default())?;
    /// lock.stopper().stop();
    /// assert!(matches!(lock.lock(None), Err(caskfile::Error::Stopped)));
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn stopper(&self) -> Stopper {
        let (is_stopped, engine, key) =
            (Arc::clone(&self.is_stopped), Arc::downgrade(&self.cask.engine), self.key.to_vec());
        Stopper::new(move || {
            is_stopped.store(true, Ordering::Release);
            // In a forked child, another thread of the parent may have locked the queue.
            if let Some(engine) = engine.upgrade().filter(|engine| engine.context.is_this_process()) {
                engine.queues.wake(&key);
            }
        })
    }

    fn released<'l>(&'l self, claim: &CaskClaim) -> Released<'l> {
        Released { key: &self.key, acquired: claim.token, keeps_pair: !self.options.get_delete_on_unlock() }
    }

    fn expect_not_held(&self) -> Result<()> {
        self.cask.check_open()?;
        if self.is_stopped.load(Ordering::Acquire) {
            return Err(Error::Stopped);
        }
        let is_held = lock(&self.current).as_ref().is_some_and(|claim| claim.is_held());
        if is_held { Err(Error::AlreadyHeld) } else { Ok(()) }
    }

    /// Whether a wait goes on.
    fn go_on(&self, deadline: &Deadline) -> Result<()> {
        self.cask.check_open()?;
        if self.is_stopped.load(Ordering::Acquire) {
            return Err(Error::Stopped);
        }
        if deadline.is_over() { Err(Error::TimedOut { waited: deadline.waited() }) } else { Ok(()) }
    }

    /// Takes the lock in a turn, if it is free.
    fn take(&self, deadline: &Deadline) -> Result<Option<Held>> {
        let engine = &*self.cask.engine;
        let taken = engine.writing.try_lock(deadline, &self.key, self.options.get_value(), self.options.get_ttl())?;
        let Some((live, token)) = taken else { return Ok(None) };
        keep(&self.cask, &live)?;
        let claim = Arc::new(CaskClaim { key: (*self.key).into(), token, live, context: Arc::clone(&engine.context) });
        let held = claim.held();
        *lock(&self.current) = Some(claim);
        // What was seen before says nothing about the line after this.
        *lock(&self.passed_over) = None;
        Ok(Some(held))
    }

    /// Looks at the lock without the file's lock. The turn that takes it decides.
    fn look(&self) -> Result<Looks> {
        let engine = &*self.cask.engine;
        engine.reading.answer(|view| {
            let lifetimes = &view.keys.lifetimes;
            let Some(position) = view.find(&self.key)? else { return Ok(Looks::Free) };
            let times = engine.context.times();
            let newest = lifetimes.sessions.owner(position).and_then(|owner| lifetimes.sessions.newest(owner.session));
            let Some(newest) = newest.filter(|_| !lifetimes.is_over(position, || times)) else {
                return Ok(Looks::Free);
            };
            let record = &newest.record;
            let log = &view.reader.log;
            let is_own = engine.writing.registry.is_owner(record.owner);
            let is_here = record.base_seq == log.header.base_seq && !is_own;
            if is_here && matches!(log.file.is_owner_held(record.owner), Ok(false)) {
                return Ok(Looks::Free);
            }
            let can_compare = times.machine.is_some_and(|now| now.boot == record.boot);
            Ok(if can_compare || is_own { Looks::Held } else { Looks::Unknown })
        })
    }

    /// The number of the line for this lock, the same for all processes with this file.
    fn line_of(&self) -> Result<u32> {
        let view = self.cask.engine.reading.shown()?;
        Ok(view.index().hash(&self.key) as u32)
    }

    fn log(&self) -> Result<Arc<LogFile>> {
        Ok(Arc::clone(&self.cask.engine.reading.shown()?.reader.log))
    }
}

/// Every call does what that of [`CaskLock`] does.
impl Lock for CaskLock {
    fn try_lock(&self) -> Result<Option<Held>> {
        CaskLock::try_lock(self)
    }

    fn lock(&self, timeout: Option<Duration>) -> Result<Held> {
        CaskLock::lock(self, timeout)
    }

    fn unlock(&self) -> Result<()> {
        CaskLock::unlock(self)
    }

    fn stopper(&self) -> Stopper {
        CaskLock::stopper(self)
    }
}

impl Drop for CaskLock {
    fn drop(&mut self) {
        if !self.cask.engine.context.is_this_process() {
            return;
        }
        let claim = lock(&self.current).take();
        if let Some(claim) = claim {
            end_dropped(&self.cask, &claim.live, Some(self.released(&claim)));
        }
    }
}

impl std::fmt::Debug for CaskLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaskLock").finish_non_exhaustive()
    }
}
