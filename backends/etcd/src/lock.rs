//! Locks: a lease each.
//!
//! The lock's key belongs to the holder as long as it has the holder's lease and is the holder's write. So a lock is taken by a transaction, "the
//! key has no lease: put it with mine", and its token is the revision of that. A task renews the lease, and watches the key. The lock is lost
//! at the sending of the last renewal that was answered, plus the time to live: the server counts from a later moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caskfile::{Error, Held, Lock, LockLoss, LockOptions, LossSender, Result, Stopper};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use tokio::sync::{Notify, watch};

use crate::EtcdError;
use crate::cluster::{Cluster, by};
use crate::error::Failure;
use crate::feed::changed_after;
use crate::keys::Range;
use crate::store::{GIVING_BACK, Inner, MAX_LEASE, else_look, lock, whole_seconds};

/// The shortest time to live. etcd makes shorter leases longer.
const SHORTEST_TTL: u64 = 2;

/// How long a renewal that has failed waits before the next try.
const AGAIN: Duration = Duration::from_millis(100);

/// A lock that was taken, for all that can end it.
pub(crate) struct Holding {
    pub lease: i64,
    token: u64,
    /// When it is over, unless it is renewed.
    until: Mutex<Instant>,
    lost: AtomicBool,
    /// Dropped with the loss.
    sender: Mutex<Option<LossSender>>,
    /// Ends the task that renews.
    ended: watch::Sender<bool>,
}

impl Holding {
    fn is_live(&self) -> bool {
        !self.lost.load(Ordering::Acquire) && Instant::now() < *lock(&self.until)
    }

    /// Ends it for its holder. Returns whether it was held until now.
    pub(crate) fn lose(&self) -> bool {
        let was_live = self.is_live();
        let first = !self.lost.swap(true, Ordering::AcqRel);
        drop(lock(&self.sender).take());
        self.ended.send_replace(true);
        first && was_live
    }
}

/// The lock of a key, through one value.
pub(crate) struct EtcdLock {
    store: Arc<Inner>,
    shared: Arc<Way>,
    held: Mutex<Option<Arc<Holding>>>,
    /// Whether its waits are stopped.
    stopped: Arc<watch::Sender<bool>>,
}

/// What taking the lock needs.
struct Way {
    key: Vec<u8>,
    value: Vec<u8>,
    seconds: i64,
    delete_on_unlock: bool,
}

/// What a try has found.
enum Tried {
    Taken {
        lease: i64,
        token: u64,
        sent: Instant,
    },
    /// Another holder has it at this revision.
    Busy(i64),
}

impl EtcdLock {
    pub(crate) fn new(store: &Arc<Inner>, key: Vec<u8>, options: &LockOptions) -> EtcdLock {
        let seconds = whole_seconds(options.get_ttl()).clamp(SHORTEST_TTL, MAX_LEASE) as i64;
        let way =
            Way { key, value: options.get_value().to_vec(), seconds, delete_on_unlock: options.get_delete_on_unlock() };
        EtcdLock {
            store: Arc::clone(store),
            shared: Arc::new(way),
            held: Mutex::default(),
            stopped: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Fails if the lock cannot be taken through this value.
    fn check(&self) -> Result<()> {
        self.store.check()?;
        if *self.stopped.borrow() {
            return Err(Error::Stopped);
        }
        match &*lock(&self.held) {
            Some(holding) if holding.is_live() => Err(Error::AlreadyHeld),
            _ => Ok(()),
        }
    }

    /// Makes the holder's side of a lock that was taken, and starts what renews it.
    fn hold(&self, lease: i64, token: u64, sent: Instant) -> Result<Held> {
        let (sender, loss) = LockLoss::channel().map_err(|source| {
            self.give_back(lease);
            Error::Io { operation: "make the signal of a lock", path: "etcd".into(), source: Arc::new(source) }
        })?;
        let holding = Arc::new(Holding {
            lease,
            token,
            until: Mutex::new(sent + self.shared.ttl()),
            lost: AtomicBool::new(false),
            sender: Mutex::new(Some(sender)),
            ended: watch::Sender::new(false),
        });
        let (cluster, way) = (Arc::clone(&self.store.cluster), Arc::clone(&self.shared));
        let task = LoseOnDrop(Arc::clone(&holding));
        self.store.tasks.spawn(async move {
            let task = task;
            let mut ended = task.0.ended.subscribe();
            tokio::select! {
                () = renew(&cluster, &way, &task.0) => {}
                () = runs_out(&task.0) => {}
                () = taken_away(&cluster, &way, &task.0) => {}
                _ = ended.wait_for(|ended| *ended) => return,
            }
            // Lost: the key goes with the lease, if it still has it.
            task.0.lose();
            let _ = cluster.revoke(task.0.lease).await;
        });
        self.store.add_lock(&holding);
        if *self.store.closed.borrow() {
            // The close came first, and may not have seen it.
            self.give_back(lease);
            return Err(Error::Closed);
        }
        let check = Arc::clone(&holding);
        let held = Held::with_check(token, loss, move || check.is_live());
        *lock(&self.held) = Some(holding);
        Ok(held)
    }

    /// Ends a lease that is of no use, beside the caller.
    fn give_back(&self, lease: i64) {
        let cluster = Arc::clone(&self.store.cluster);
        self.store.tasks.spawn(async move {
            let _ = cluster.revoke(lease).await;
        });
    }
}

impl Lock for EtcdLock {
    fn try_lock(&self) -> Result<Option<Held>> {
        self.check()?;
        let way = Arc::clone(&self.shared);
        match self.store.write("try_lock", |cluster| async move { way.try_once(&cluster).await })? {
            Tried::Taken { lease, token, sent } => self.hold(lease, token, sent).map(Some),
            Tried::Busy(_) => Ok(None),
        }
    }

    fn lock(&self, timeout: Option<Duration>) -> Result<Held> {
        self.check()?;
        let (way, began) = (Arc::clone(&self.shared), Instant::now());
        let mut stopped = self.stopped.subscribe();
        let mut closed = self.store.closed.subscribe();
        let tried = self.store.write("lock", |cluster| async move {
            let tried_once = Notify::new();
            let taking = async {
                loop {
                    match way.try_once(&cluster).await? {
                        Tried::Busy(revision) => {
                            tried_once.notify_one();
                            changed_after(&cluster, &way.range(), revision).await;
                        }
                        taken => return Ok(taken),
                    }
                }
            };
            // With no time, the lock is tried once. Else the time is that of the first try too.
            let over = async {
                if timeout.is_some_and(|timeout| timeout.is_zero()) {
                    tried_once.notified().await;
                }
                let timeout = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            // A try that is broken off gives its lease back.
            tokio::select! {
                biased;
                result = taking => result.map(Ok),
                _ = stopped.wait_for(|stopped| *stopped) => Ok(Err(Error::Stopped)),
                _ = closed.wait_for(|closed| *closed) => Ok(Err(Error::Closed)),
                () = over => Ok(Err(Error::TimedOut { waited: began.elapsed() })),
            }
        })?;
        match tried? {
            Tried::Taken { lease, token, sent } => self.hold(lease, token, sent),
            Tried::Busy(_) => unreachable!("the loop goes on"),
        }
    }

    fn unlock(&self) -> Result<()> {
        self.store.check()?;
        let holding = lock(&self.held).take().filter(|holding| holding.lose()).ok_or(Error::NotHeld)?;
        let way = Arc::clone(&self.shared);
        let released = self.store.write("unlock", |cluster| async move { way.release(&cluster, &holding).await })?;
        if released { Ok(()) } else { Err(Error::NotHeld) }
    }

    fn stopper(&self) -> Stopper {
        let stopped = Arc::clone(&self.stopped);
        Stopper::new(move || {
            stopped.send_replace(true);
        })
    }
}

impl Drop for EtcdLock {
    /// Releases it, for which it tries a second.
    fn drop(&mut self) {
        if !self.store.tasks.are_here() {
            return;
        }
        let Some(holding) = lock(&self.held).take().filter(|holding| holding.lose()) else { return };
        let (way, cluster) = (Arc::clone(&self.shared), Arc::clone(&self.store.cluster));
        self.store.tasks.wait(async move {
            let _ = tokio::time::timeout(GIVING_BACK, way.release(&cluster, &holding)).await;
        });
    }
}

impl Way {
    fn ttl(&self) -> Duration {
        Duration::from_secs(self.seconds as u64)
    }

    fn range(&self) -> Range {
        Range { key: self.key.clone(), end: Vec::new() }
    }

    /// Tries to take the lock, in the time of one call.
    async fn try_once(&self, cluster: &Arc<Cluster>) -> std::result::Result<Tried, Failure> {
        by(cluster.deadline(), self.try_in_time(cluster)).await
    }

    async fn try_in_time(&self, cluster: &Arc<Cluster>) -> std::result::Result<Tried, Failure> {
        // Most tries of a lock that is held end here, without a lease.
        let found = cluster.read(&self.range(), GetOptions::new().with_keys_only()).await?;
        if found.kvs().first().is_some_and(|found| found.lease() != 0) {
            return Ok(Tried::Busy(found.header().map_or(0, |header| header.revision())));
        }
        let sent = Instant::now();
        // Ended if this is dropped or fails before the lock is taken. A put that comes later finds no lease.
        let lease = Granted::new(cluster, self.seconds).await?;
        // An absent key has the lease 0 in a comparison.
        let is_free = Compare::lease(&self.key[..], CompareOp::Equal, 0);
        let put = TxnOp::put(&self.key[..], &self.value[..], Some(PutOptions::new().with_lease(lease.id)));
        let answer = cluster.txn(Txn::new().when([is_free]).and_then([put]).or_else(else_look(&self.key))).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        match answer.succeeded() {
            true => Ok(Tried::Taken { lease: lease.keep(), token: revision as u64, sent }),
            false => Ok(Tried::Busy(revision)),
        }
    }

    /// Gives the lock back, if the key still has the lease, in the time of one call. Returns whether it had.
    async fn release(&self, cluster: &Cluster, holding: &Holding) -> std::result::Result<bool, Failure> {
        by(cluster.deadline(), self.release_in_time(cluster, holding)).await
    }

    async fn release_in_time(&self, cluster: &Cluster, holding: &Holding) -> std::result::Result<bool, Failure> {
        let is_mine = Compare::lease(&self.key[..], CompareOp::Equal, holding.lease);
        let then = match self.delete_on_unlock {
            true => TxnOp::delete(&self.key[..], None),
            false => TxnOp::put(&self.key[..], &self.value[..], None),
        };
        let answer = cluster.txn(Txn::new().when([is_mine]).and_then([then]).or_else(else_look(&self.key))).await;
        match answer {
            Ok(answer) => {
                // Nothing renews it any more.
                let _ = cluster.revoke(holding.lease).await;
                Ok(answer.succeeded())
            }
            // The end of the lease deletes the key too.
            Err(failure) if self.delete_on_unlock && cluster.has_time() => {
                let revoked = cluster.revoke(holding.lease).await;
                // Without an answer, it may be revoked all the same.
                revoked.map(|()| true).map_err(|_| Failure::Unknown(failure.inner().clone()))
            }
            // The pair is to stay, so its lease is not ended by this. It runs out, as if the holder had died.
            Err(failure) => Err(failure),
        }
    }
}

/// A lease that ends if it is not kept.
struct Granted {
    cluster: Arc<Cluster>,
    id: i64,
    kept: bool,
}

impl Granted {
    async fn new(cluster: &Arc<Cluster>, seconds: i64) -> std::result::Result<Granted, Failure> {
        Ok(Granted { cluster: Arc::clone(cluster), id: cluster.grant(seconds).await?, kept: false })
    }

    fn keep(mut self) -> i64 {
        self.kept = true;
        self.id
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if !self.kept {
            let (cluster, id) = (Arc::clone(&self.cluster), self.id);
            // It is dropped in a task. Without a runtime, the lease runs out.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let _ = cluster.revoke(id).await;
                });
            }
        }
    }
}

/// Loses the lock when its task ends, in a panic too.
struct LoseOnDrop(Arc<Holding>);

impl Drop for LoseOnDrop {
    fn drop(&mut self) {
        self.0.lose();
    }
}

/// Renews the lease three times in its time to live. Returns when the lock is lost.
async fn renew(cluster: &Cluster, way: &Way, holding: &Holding) {
    let third = way.ttl() / 3;
    let mut next = third;
    loop {
        let until = *lock(&holding.until);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(next.min(left)).await;
        let sent = Instant::now();
        let left = until.saturating_duration_since(sent);
        let at = cluster.at();
        let renewal = async { cluster.api(at).await?.lease.keep_alive(holding.lease).await.map(drop) };
        match tokio::time::timeout(left.min(third), renewal).await {
            Ok(Ok(())) => {
                *lock(&holding.until) = sent + way.ttl();
                next = third;
            }
            Ok(Err(error)) if error.to_string().contains("lease not found") => return,
            _ => {
                cluster.leave(at);
                next = AGAIN;
            }
        }
    }
}

/// Returns when the time of the lock is over, whatever its renewal waits for.
async fn runs_out(holding: &Holding) {
    loop {
        let left = lock(&holding.until).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// Returns when another write has taken the key.
async fn taken_away(cluster: &Cluster, way: &Way, holding: &Holding) {
    let (range, mut revision) = (way.range(), holding.token as i64);
    loop {
        changed_after(cluster, &range, revision).await;
        let options = GetOptions::new().with_keys_only();
        let found = match cluster.read(&range, options).await {
            Ok(found) => found,
            Err(Failure::NotDone(EtcdError::Unavailable { .. })) => continue,
            Err(_) => return,
        };
        if found.kvs().first().is_none_or(|found| found.mod_revision() as u64 != holding.token) {
            return;
        }
        // History before that may be compacted, and is not needed.
        revision = found.header().map_or(revision, |header| header.revision());
    }
}
