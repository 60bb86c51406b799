//! [`EtcdStore`].

use std::any::Any;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use caskfile::{Config, Error, Feed, KvPair, Lock, LockMode, LockOptions, PutOptions, Result, Store, TreeEvent};
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::sync::watch;

use crate::cluster::{Api, Cluster, Kind, by};
use crate::error::Failure;
use crate::feed::{self, KeyFeed, TreeFeed};
use crate::keys::Keyspace;
use crate::lock::{EtcdLock, Holding};
use crate::tasks::Tasks;
use crate::{EtcdConfig, EtcdError};

/// The longest lease that etcd grants, in seconds: 285 years. A longer time to live is as good as none.
pub(crate) const MAX_LEASE: u64 = 9_000_000_000;

/// How long `close` and the drop of a lock try to give locks back.
pub(crate) const GIVING_BACK: Duration = Duration::from_secs(1);

/// A store in an etcd cluster. Clones are the same handle.
///
/// ```no_run
/// use caskfile::{Config, Store};
/// use caskfile_etcd::EtcdConfig;
///
/// let store = EtcdConfig::new(["127.0.0.1:2379"]).open(&Config::new())?;
/// let pair = store.atomic_put(b"leader", b"anna", None)?;
/// store.atomic_put(b"leader", b"ben", Some(&pair))?;
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct EtcdStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub tasks: Tasks,
    pub cluster: Arc<Cluster>,
    pub keys: Keyspace,
    /// For errors that name the store.
    address: PathBuf,
    read_only: bool,
    /// Whether the store is closed, for callers and tasks that wait.
    pub closed: watch::Sender<bool>,
    /// Everything that ends when the store is closed.
    feeds: Mutex<Vec<Weak<feed::Shared>>>,
    locks: Mutex<Vec<Weak<Holding>>>,
}

impl EtcdStore {
    pub(crate) fn open(etcd: &EtcdConfig, config: &Config) -> Result<EtcdStore> {
        if config.get_lock_mode() == LockMode::Exclusive {
            return Err(Error::CallNotSupported { call: "LockMode::Exclusive" });
        }
        let user_len = etcd.user.as_ref().map_or(0, |(name, _)| name.len());
        let keys = Keyspace::new(&etcd.root, config.get_bucket(), user_len)?;
        let cluster = Arc::new(Cluster::new(etcd, config)?);
        let tasks = Tasks::new().map_err(Error::other)?;
        let store = EtcdStore(Arc::new(Inner {
            tasks,
            cluster,
            keys,
            address: etcd.endpoints.join(",").into(),
            read_only: config.get_read_only(),
            closed: watch::Sender::new(false),
            feeds: Mutex::default(),
            locks: Mutex::default(),
        }));
        let range = store.0.keys.tree(b"");
        store.0.read(move |cluster| async move {
            cluster.read(&range, GetOptions::new().with_limit(1).with_keys_only()).await.map(drop)
        })?;
        Ok(store)
    }
}

impl EtcdStore {
    /// The pairs without a lease, and how many have one.
    pub(crate) fn lasting(&self, prefix: &[u8]) -> Result<(Vec<KvPair>, u64)> {
        self.0.check()?;
        let range = self.0.keys.tree(prefix);
        let mut list = self.0.read(|cluster| async move { cluster.list(&range).await })?;
        let all = list.found.len();
        list.found.retain(|found| found.lease() == 0);
        Ok((list.pairs(&self.0.keys), (all - list.found.len()) as u64))
    }
}

impl Inner {
    /// Fails if the handle cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        // First: in a forked child, a thread of the parent may have had a lock when the child was made.
        if !self.tasks.are_here() {
            return Err(Error::Forked { path: self.address.clone() });
        }
        if *self.closed.borrow() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// As `check`, for calls that write.
    fn check_writable(&self) -> Result<()> {
        self.check()?;
        match self.read_only {
            true => Err(Error::ReadOnly { path: self.address.clone() }),
            false => Ok(()),
        }
    }

    /// Reads on the runtime.
    pub(crate) fn read<T, F>(&self, read: impl FnOnce(Arc<Cluster>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    {
        let done = self.tasks.wait(read(Arc::clone(&self.cluster)));
        done.unwrap_or(Err(Failure::NotDone(EtcdError::Panicked))).map_err(Failure::of_read)
    }

    /// Writes on the runtime.
    pub(crate) fn write<T, F>(&self, call: &'static str, write: impl FnOnce(Arc<Cluster>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    {
        let done = self.tasks.wait(write(Arc::clone(&self.cluster)));
        // The request may have left before the panic.
        done.unwrap_or(Err(Failure::Unknown(EtcdError::Panicked))).map_err(|failure| failure.of(call))
    }

    fn txn(&self, call: &'static str, txn: Txn) -> Result<TxnResponse> {
        self.write(call, |cluster| async move { cluster.txn(txn).await })
    }

    pub(crate) fn add_feed(&self, feed: &Arc<feed::Shared>) {
        let mut feeds = lock(&self.feeds);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(feed));
        // A close that came before does not see it.
        if *self.closed.borrow() {
            feed.end(feed::End::Closed);
        }
    }

    pub(crate) fn add_lock(&self, holding: &Arc<Holding>) {
        let mut locks = lock(&self.locks);
        locks.retain(|lock| lock.strong_count() > 0);
        locks.push(Arc::downgrade(holding));
        if *self.closed.borrow() {
            holding.lose();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in these changes in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) async fn txn(&self, txn: Txn) -> std::result::Result<TxnResponse, Failure> {
        self.call(Kind::Write, |mut api: Api| {
            let txn = txn.clone();
            async move { api.kv.txn(txn).await }
        })
        .await
    }

    pub(crate) async fn put(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        lease: Option<i64>,
    ) -> std::result::Result<etcd_client::PutResponse, Failure> {
        let options = lease.map(|lease| etcd_client::PutOptions::new().with_lease(lease));
        self.call(Kind::Write, |mut api: Api| {
            let (key, value, options) = (key.clone(), value.clone(), options.clone());
            async move { api.kv.put(key, value, options).await }
        })
        .await
    }

    /// Asks for a lease of this many seconds. One that is granted without an answer is over by itself, so asking again is no harm.
    pub(crate) async fn grant(&self, seconds: i64) -> std::result::Result<i64, Failure> {
        let grant = |mut api: Api| async move { api.lease.grant(seconds, None).await };
        Ok(self.call(Kind::Read, grant).await?.id())
    }

    /// Ends a lease. Its keys are deleted. A lease that is gone is no error.
    pub(crate) async fn revoke(&self, lease: i64) -> std::result::Result<(), Failure> {
        let revoke = |mut api: Api| async move { api.lease.revoke(lease).await };
        match self.call(Kind::Read, revoke).await {
            Err(failure) if !failure.inner().is_lease_gone() => Err(failure),
            _ => Ok(()),
        }
    }
}

/// The revision at which a write has happened.
fn revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision() as u64)
}

/// The condition that the pair is the one that was read. No pair has the revision -1.
fn is_still(full: &[u8], previous: &KvPair) -> Compare {
    let index = i64::try_from(previous.last_index).ok().filter(|index| *index > 0).unwrap_or(-1);
    Compare::mod_revision(full, CompareOp::Equal, index)
}

/// The read in place of a write whose condition does not hold: whether the key is there.
pub(crate) fn else_look(full: &[u8]) -> [TxnOp; 1] {
    [TxnOp::get(full, Some(GetOptions::new().with_keys_only()))]
}

/// Why the condition [`is_still`] did not hold, from the same transaction. A read after it would tell of another moment.
fn conflict(answer: &TxnResponse) -> Error {
    match &answer.op_responses()[..] {
        [TxnOpResponse::Get(found)] if !found.kvs().is_empty() => Error::KeyModified,
        _ => Error::KeyNotFound,
    }
}

/// The whole seconds of a lease that lasts at least this long; `None` for a pair that stays.
fn seconds(options: &PutOptions) -> Result<Option<i64>> {
    let time = match (options.get_ttl(), options.get_expires_at()) {
        (Some(Duration::ZERO), _) => return Err(Error::ZeroTtl),
        (Some(ttl), _) => ttl,
        (None, Some(at)) => at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO),
        (None, None) => return Ok(None),
    };
    let seconds = whole_seconds(time).max(1);
    Ok((seconds <= MAX_LEASE).then_some(seconds as i64))
}

pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

impl Store for EtcdStore {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.check_writable()?;
        let full = self.0.keys.full(key)?;
        self.0.keys.check_value(&full, value)?;
        let value = value.to_vec();
        self.0.write("put", |cluster| async move { cluster.put(full, value, None).await.map(drop) })
    }

    fn get(&self, key: &[u8]) -> Result<KvPair> {
        self.0.check()?;
        let range = self.0.keys.one(key)?;
        let found = self.0.read(|cluster| async move { cluster.read(&range, GetOptions::new()).await })?;
        found.kvs().first().map(|found| self.0.keys.pair(found)).ok_or(Error::KeyNotFound)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        self.0.check()?;
        let range = self.0.keys.one(key)?;
        let options = GetOptions::new().with_count_only();
        Ok(self.0.read(|cluster| async move { cluster.read(&range, options).await })?.count() > 0)
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
        self.0.check()?;
        let range = self.0.keys.tree(prefix);
        let list = self.0.read(|cluster| async move { cluster.list(&range).await })?;
        Ok(list.pairs(&self.0.keys))
    }

    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
        self.0.check_writable()?;
        let full = self.0.keys.full(key)?;
        self.0.keys.check_value(&full, value)?;
        let condition = match previous {
            // The revision at which an absent key was created.
            None => Compare::create_revision(&full[..], CompareOp::Equal, 0),
            Some(previous) => is_still(&full, previous),
        };
        let put = TxnOp::put(&full[..], value, None);
        let answer =
            self.0.txn("atomic_put", Txn::new().when([condition]).and_then([put]).or_else(else_look(&full)))?;
        match (answer.succeeded(), previous) {
            (true, _) => Ok(KvPair::new(key, value, revision(answer.header()))),
            (false, None) => Err(Error::KeyExists),
            (false, Some(_)) => Err(conflict(&answer)),
        }
    }

    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
        self.0.check_writable()?;
        let full = self.0.keys.full(key)?;
        let previous = previous.ok_or(Error::PreviousNotSpecified)?;
        let delete = TxnOp::delete(&full[..], None);
        let txn = Txn::new().when([is_still(&full, previous)]).and_then([delete]).or_else(else_look(&full));
        let answer = self.0.txn("atomic_delete", txn)?;
        if answer.succeeded() { Ok(()) } else { Err(conflict(&answer)) }
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.check_writable()?;
        let full = self.0.keys.full(key)?;
        let delete = move |mut api: Api| {
            let full = full.clone();
            async move { api.kv.delete(full, None).await }
        };
        self.0.write("delete", |cluster| async move { cluster.call(Kind::Write, delete).await.map(drop) })
    }

    /// The time to live is that of a lease, in whole seconds, rounded up. etcd makes it two seconds at least.
    fn put_with(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
        self.0.check_writable()?;
        let full = self.0.keys.full(key)?;
        self.0.keys.check_value(&full, value)?;
        let seconds = seconds(options)?;
        let owned = value.to_vec();
        let answer = self.0.write("put_with", |cluster| async move {
            let Some(seconds) = seconds else { return cluster.put(full, owned, None).await };
            let putting = async {
                loop {
                    let lease = cluster.grant(seconds).await?;
                    match cluster.put(full.clone(), owned.clone(), Some(lease)).await {
                        // The way to the put took longer than the lease. It was not written.
                        Err(failure) if failure.inner().is_lease_gone() => {}
                        result => return result,
                    }
                }
            };
            by(cluster.deadline(), putting).await
        })?;
        Ok(KvPair::new(key, value, revision(answer.header())))
    }

    /// All keys go at one moment, however many there are.
    fn delete_tree(&self, prefix: &[u8]) -> Result<u64> {
        self.0.check_writable()?;
        let range = self.0.keys.tree(prefix);
        let delete = move |mut api: Api| {
            let range = range.clone();
            async move { api.kv.delete(range.key, Some(DeleteOptions::new().with_range(range.end))).await }
        };
        let answer = self.0.write("delete_tree", |cluster| async move { cluster.call(Kind::Write, delete).await })?;
        Ok(answer.deleted() as u64)
    }

    fn watch(&self, key: &[u8]) -> Result<Box<dyn Feed<Option<KvPair>>>> {
        self.0.check()?;
        Ok(Box::new(KeyFeed::new(&self.0, self.0.keys.one(key)?)?))
    }

    fn watch_tree(&self, prefix: &[u8]) -> Result<Box<dyn Feed<TreeEvent>>> {
        self.0.check()?;
        Ok(Box::new(TreeFeed::new(&self.0, self.0.keys.tree(prefix))?))
    }

    fn new_lock(&self, key: &[u8], options: &LockOptions) -> Result<Box<dyn Lock>> {
        self.0.check_writable()?;
        let full = self.0.keys.full(key)?;
        self.0.keys.check_value(&full, options.get_value())?;
        if options.get_ttl().is_zero() {
            return Err(Error::ZeroTtl);
        }
        Ok(Box::new(EtcdLock::new(&self.0, full, options)))
    }

    /// Ends the feeds and the waits for locks, and gives the locks back, for which it tries a second.
    fn close(&self) -> Result<()> {
        if !self.0.tasks.are_here() || self.0.closed.send_replace(true) {
            return Ok(());
        }
        for feed in lock(&self.0.feeds).drain(..).filter_map(|feed| feed.upgrade()) {
            feed.end(feed::End::Closed);
        }
        let leases: Vec<i64> = lock(&self.0.locks)
            .drain(..)
            .filter_map(|lock| lock.upgrade())
            .filter(|holding| holding.lose())
            .map(|holding| holding.lease)
            .collect();
        if !leases.is_empty() {
            let cluster = Arc::clone(&self.0.cluster);
            self.0.tasks.wait(async move {
                let all = async {
                    for lease in leases {
                        // What is not revoked is over at the end of its time to live.
                        let _ = cluster.revoke(lease).await;
                    }
                };
                let _ = tokio::time::timeout(GIVING_BACK, all).await;
            });
        }
        Ok(())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("endpoints", &self.0.address).finish_non_exhaustive()
    }
}
