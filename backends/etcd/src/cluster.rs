//! [`Cluster`]: the members, which of them is asked, how long, and what may be repeated.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caskfile::{Config, Error, Result};
use etcd_client::{
    Client, ConnectOptions, DeleteResponse, GetOptions, GetResponse, KvClient, LeaseClient, LeaseGrantResponse,
    LeaseRevokeResponse, PutResponse, ResponseHeader, TxnResponse, WatchClient,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{Failure, Verdict, verdict};
use crate::keys::Range;
use crate::{EtcdConfig, EtcdError};

/// The longest answer. A page of a list is halved until it is shorter; one pair always is.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// What a timeout of zero counts as: a cluster cannot answer in no time.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one member is asked to read something, before the next one is, at most and at least.
const ATTEMPT: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));

/// How long a connection may take, so that a member whose machine is gone does not take all the time of a call.
const CONNECTING: Duration = Duration::from_secs(2);

/// Servers refuse clients that ping more often than every five seconds.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

tokio::task_local! {
    /// The end of what a task does, if that is several calls: see [`by`].
    static DEADLINE: Option<Instant>;
}

/// Makes several calls in the time of one: all of them end by then.
pub(crate) async fn by<T>(until: Option<Instant>, calls: impl Future<Output = T>) -> T {
    DEADLINE.scope(until, calls).await
}

/// A cluster and what is known of it. It does not own the runtime, so that tasks can share it.
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// The member that is asked first.
    current: AtomicUsize,
    options: ConnectOptions,
    timeout: Option<Duration>,
    seen: Mutex<Seen>,
    /// Why no answer counts any more.
    broken: watch::Sender<Option<EtcdError>>,
}

struct Member {
    endpoint: String,
    api: tokio::sync::Mutex<Option<Api>>,
}

/// The clients of one member.
#[derive(Clone)]
pub(crate) struct Api {
    pub kv: KvClient,
    pub lease: LeaseClient,
    pub watch: WatchClient,
}

/// What answers have said of the cluster.
#[derive(Default)]
struct Seen {
    cluster: Option<u64>,
    revision: i64,
}

/// Whether a call may be repeated when it is not known whether it has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// An answer that says which cluster it is of.
pub(crate) trait Answer: Send + 'static {
    /// The header, and whether its revision is that of an agreement of the members.
    fn header(&self) -> (Option<&ResponseHeader>, bool);
}

macro_rules! answers {
    ($($type:ty: $agreed:expr,)*) => {$(
        impl Answer for $type {
            fn header(&self) -> (Option<&ResponseHeader>, bool) {
                (<$type>::header(self), $agreed)
            }
        }
    )*};
}

answers! {
    GetResponse: true,
    PutResponse: true,
    DeleteResponse: true,
    TxnResponse: true,
    // These say how far the member is that has answered.
    LeaseGrantResponse: false,
    LeaseRevokeResponse: false,
}

impl Cluster {
    pub(crate) fn new(etcd: &EtcdConfig, config: &Config) -> Result<Cluster> {
        if etcd.endpoints.iter().all(|endpoint| endpoint.trim().is_empty()) {
            return Err(Error::other(EtcdError::Config { what: "there is no endpoint".to_owned() }));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECTING)
            .with_keep_alive(PING.0, PING.1)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        if let Some((name, password)) = &etcd.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &etcd.tls {
            options = options.with_tls(tls.clone());
        }
        let member = |endpoint: &String| Member { endpoint: endpoint.trim().to_owned(), api: Default::default() };
        Ok(Cluster {
            members: etcd.endpoints.iter().map(member).collect(),
            current: AtomicUsize::new(0),
            options,
            timeout: config.get_connection_timeout().map(|time| if time.is_zero() { SHORTEST_TIMEOUT } else { time }),
            seen: Mutex::default(),
            broken: watch::Sender::new(None),
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No panic can leave half a change in it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest revision that an answer had.
    pub(crate) fn seen_revision(&self) -> i64 {
        self.seen().revision
    }

    /// The time of a call.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Fails if the cluster is not the one that it was.
    pub(crate) fn check(&self) -> std::result::Result<(), EtcdError> {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }

    /// Waits until the cluster is found not to be the one that it was, and says why.
    pub(crate) async fn breaks(&self) -> EtcdError {
        let mut broken = self.broken.subscribe();
        let error = broken.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// The end of a call that begins now.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }

    /// Whether calls can still be made: see [`by`].
    pub(crate) fn has_time(&self) -> bool {
        let until = DEADLINE.try_with(|until| *until).ok().flatten();
        self.check().is_ok() && until.is_none_or(|until| until > Instant::now())
    }

    /// The member to ask.
    pub(crate) fn at(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len()
    }

    /// The clients of a member, once it is connected. Bound the time of it: the connection and the user's password may take long.
    pub(crate) async fn api(&self, at: usize) -> std::result::Result<Api, etcd_client::Error> {
        let member = &self.members[at];
        let mut api = member.api.lock().await;
        if let Some(api) = &*api {
            return Ok(api.clone());
        }
        let client = Client::connect([&member.endpoint], Some(self.options.clone())).await?;
        let new = Api {
            kv: client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES),
            lease: client.lease_client(),
            // All that one revision has changed comes in one message.
            watch: client.watch_client().max_decoding_message_size(usize::MAX),
        };
        *api = Some(new.clone());
        Ok(new)
    }

    /// Asks another member next time, if this one is asked now.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Forgets the connection to this member, so that the user is authenticated again.
    async fn forget(&self, at: usize) {
        *self.members[at].api.lock().await = None;
    }

    /// Makes a call, at one member after the other, until it is answered or the time of a call is over.
    ///
    /// A write is repeated only if it certainly was not carried out: there was no connection, or the member said so.
    pub(crate) async fn call<T, C, F>(&self, kind: Kind, call: C) -> std::result::Result<T, Failure>
    where
        T: Answer,
        C: Fn(Api) -> F,
        F: Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        let began = Instant::now();
        let outer = DEADLINE.try_with(|until| *until).ok().flatten();
        let until = self.deadline().into_iter().chain(outer).min();
        let left = || until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        let mut last = "none".to_owned();
        for attempt in 0.. {
            self.check().map_err(Failure::NotDone)?;
            if left().is_zero() {
                return Err(Failure::NotDone(EtcdError::Unavailable { waited: began.elapsed(), last }));
            }
            if attempt > 0 && attempt % self.members.len() == 0 {
                let pause = Duration::from_millis(20 << (attempt / self.members.len()).min(4));
                tokio::time::sleep(pause.min(left())).await;
            }

            // A member that does not answer is left in time to ask another one.
            let share = left() / (self.members.len() as u32).min(3);
            let at = self.at();
            let connecting = timeout(left().min(CONNECTING), self.api(at)).await;
            let api = match connecting {
                Ok(Ok(api)) => api,
                // Nothing has been sent but the password.
                Ok(Err(error)) if verdict(&error) == Verdict::Refused => {
                    return Err(Failure::NotDone(EtcdError::refused(&error)));
                }
                Ok(Err(error)) => {
                    last = text_of(&error);
                    self.leave(at);
                    continue;
                }
                Err(_) => {
                    last = format!("{}: no connection", self.members[at].endpoint);
                    self.leave(at);
                    continue;
                }
            };
            // Connecting may have taken all the time. Nothing was sent.
            if left().is_zero() {
                last = format!("{}: no time was left", self.members[at].endpoint);
                continue;
            }
            let time = if kind == Kind::Read { share.clamp(ATTEMPT.0, ATTEMPT.1).min(left()) } else { left() };
            let before = self.seen_revision();
            let error = match timeout(time, call(api)).await {
                Ok(Ok(answer)) => {
                    return match self.take_in(before, &answer) {
                        Ok(()) => Ok(answer),
                        // It has happened, in a cluster that the caller does not mean.
                        Err(error) if kind == Kind::Write => Err(Failure::Unknown(error)),
                        Err(error) => Err(Failure::NotDone(error)),
                    };
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            match error.as_ref().map_or(Verdict::Unknown, verdict) {
                // The answer was longer than a message may be. A write that has such an answer was carried out.
                Verdict::TooLarge if kind == Kind::Write => {
                    let message = error.as_ref().map(text_of).unwrap_or_default();
                    return Err(Failure::Unknown(EtcdError::Unknown { message }));
                }
                Verdict::Refused | Verdict::TooLarge => {
                    return Err(Failure::NotDone(EtcdError::refused(error.as_ref().expect("refused"))));
                }
                Verdict::Authenticate => self.forget(at).await,
                Verdict::Unknown if kind == Kind::Write => {
                    self.leave(at);
                    return Err(Failure::Unknown(match error {
                        Some(error) => EtcdError::Unknown { message: text_of(&error) },
                        None => EtcdError::NoAnswer { waited: began.elapsed() },
                    }));
                }
                Verdict::Passes | Verdict::Unknown => self.leave(at),
            }
            last = error.map_or_else(|| format!("{}: no answer", self.members[at].endpoint), |error| text_of(&error));
        }
        unreachable!("the attempts do not end")
    }

    /// Compares an answer with those before its call.
    fn take_in(&self, before: i64, answer: &impl Answer) -> std::result::Result<(), EtcdError> {
        let (Some(header), agreed) = answer.header() else { return Ok(()) };
        self.take_in_header(before, header, agreed)
    }

    fn take_in_header(&self, before: i64, header: &ResponseHeader, agreed: bool) -> std::result::Result<(), EtcdError> {
        let mut seen = self.seen();
        let cluster = *seen.cluster.get_or_insert(header.cluster_id());
        let error = if cluster != header.cluster_id() {
            EtcdError::OtherCluster { seen: cluster, found: header.cluster_id() }
        } else if agreed && header.revision() < before {
            EtcdError::RevisionBack { seen: before as u64, found: header.revision() as u64 }
        } else {
            if agreed {
                seen.revision = seen.revision.max(header.revision());
            }
            return Ok(());
        };
        drop(seen);
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert_with(|| error.clone());
            first
        });
        Err(error)
    }

    /// Checks that a watch is one of the same cluster, and remembers the newest revision that it has named.
    pub(crate) fn take_in_watch(
        &self,
        header: Option<&ResponseHeader>,
        reached: i64,
    ) -> std::result::Result<(), EtcdError> {
        header.map_or(Ok(()), |header| self.take_in_header(0, header, false))?;
        let mut seen = self.seen();
        seen.revision = seen.revision.max(reached);
        Ok(())
    }

    /// Reads a range, with the others' agreement that nothing newer is there.
    pub(crate) async fn read(&self, range: &Range, options: GetOptions) -> std::result::Result<GetResponse, Failure> {
        let options = match range.end.is_empty() {
            true => options,
            false => options.with_range(range.end.clone()),
        };
        self.call(Kind::Read, |mut api: Api| {
            let (key, options) = (range.key.clone(), options.clone());
            async move { api.kv.get(key, Some(options)).await }
        })
        .await
    }
}

/// An error with its causes, which the client's library leaves out.
pub(crate) fn text_of(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
