//! Feeds: the changes of a range from a list on, kept up by a task that watches it.
//!
//! The task begins after a list at revision *R* and watches from *R* + 1, so nothing is lost in between. When its stream breaks off, it goes on
//! after the last event, at another member. If the cluster has compacted what lies in between, it lists again.
//!
//! # How far a feed is
//!
//! [`Feed::try_next`] may return `None` only if the feed has everything that this handle has seen. The stream alone does not say how far it is:
//! it is silent about writes elsewhere, and servers of before 3.4.25 and 3.5.8 answer a request for progress ahead of events that are on
//! their way. So a feed that lags asks for the range itself: how many keys there are, and whether one is newer than the last event.
//! If the feed has counted as many, and none is newer, it has all. Otherwise there are events that it waits for. Only a
//! key that is created and deleted again while its events are on the way is not noticed.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caskfile::{Change, Error, Feed, KvPair, Result, Stopper, TreeEvent};
use etcd_client::{Event, EventType, GetOptions, WatchOptions, WatchStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::EtcdError;
use crate::cluster::{Cluster, by};
use crate::error::{Failure, Verdict, verdict};
use crate::keys::{Keyspace, Range};
use crate::store::{Inner, lock};

/// What a feed keeps for a reader that is slow. Then it stops reading, and the server keeps the rest.
const MAX_BYTES: usize = 16 << 20;
const MAX_ITEMS: usize = 4_096;

/// The pause before a broken stream is opened again, once all members were tried.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a member may take to open a stream, its connection included.
const OPENING: Duration = Duration::from_secs(5);

/// What comes next, before it has the type of its feed.
#[derive(Debug)]
enum Item {
    /// The range at one revision.
    List(Vec<KvPair>),
    /// All that one revision has changed in the range.
    Changes(Vec<Change>),
}

impl Item {
    fn bytes(&self) -> usize {
        let of = |key: &[u8], value: &[u8]| 100 + key.len() + value.len();
        match self {
            Item::List(pairs) => pairs.iter().map(|pair| of(&pair.key, &pair.value)).sum(),
            Item::Changes(changes) => {
                changes.iter().map(|change| of(change.key(), change.value().unwrap_or(b""))).sum()
            }
        }
    }
}

/// Why a feed is over.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Stopped,
    Closed,
    Failed(EtcdError),
}

/// What a feed, its task and its stopper share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// For the reader: an item has come, or the end.
    changed: Condvar,
    /// For the task: an item was taken.
    room: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// The revision of the last event or list.
    received: i64,
    /// Up to where the streams have sent everything: the last event, list or progress. A new stream goes on after it.
    sent: i64,
    /// How many keys the range has, by the events up to there.
    count: i64,
    /// The revision up to which the reader has everything. A read can raise it above `sent`, while events are on their way.
    complete: i64,
    end: Option<End>,
    task: Option<AbortHandle>,
    /// For event loops: a byte is on its way while there may be something to return.
    signal: Option<UnixStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends the feed. The first end counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        self.notify(&state);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.abort();
        }
    }

    fn notify(&self, state: &State) {
        self.changed.notify_all();
        if let Some(mut signal) = state.signal.as_ref() {
            // If it is full, its other end is readable already.
            let _ = signal.write(&[1]);
        }
    }

    /// Adds an item and says how far the feed is with it.
    fn push(&self, item: Option<Item>, received: i64, count: impl FnOnce(i64) -> i64) {
        let mut state = self.state();
        state.received = received;
        state.sent = state.sent.max(received);
        state.count = count(state.count);
        state.complete = state.complete.max(received);
        if let Some(item) = item {
            state.bytes += item.bytes();
            state.items.push_back(item);
        }
        self.notify(&state);
    }

    /// Waits until the reader has taken enough.
    async fn have_room(&self) {
        while {
            let state = self.state();
            state.bytes > MAX_BYTES || state.items.len() > MAX_ITEMS
        } {
            self.room.notified().await;
        }
    }
}

/// A feed of any kind.
struct Reader {
    store: Arc<Inner>,
    shared: Arc<Shared>,
    range: Range,
    /// The other end of the signal.
    descriptor: Option<UnixStream>,
}

impl Reader {
    fn new(store: &Arc<Inner>, range: Range) -> Result<Reader> {
        let of_list = range.clone();
        let list = store.read(move |cluster| async move { cluster.list(&of_list).await })?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), room: Notify::new() });
        let single = range.end.is_empty();
        let newest = list.found.iter().map(|found| found.mod_revision()).max();
        shared.push(Some(Item::List(list.pairs(&store.keys))), list.revision, |_| list.found.len() as i64);
        let task = Task {
            cluster: Arc::clone(&store.cluster),
            keys: store.keys.clone(),
            range: range.clone(),
            shared: Arc::clone(&shared),
            last: single.then_some(newest),
        };
        // A panic of the task ends the feed.
        let guard = EndOnDrop(Arc::clone(&shared));
        let handle = store.tasks.spawn(async move {
            let guard = guard;
            let end = task.run().await;
            guard.0.end(end);
        });
        shared.state().task = Some(handle);
        store.add_feed(&shared);
        Ok(Reader { store: Arc::clone(store), shared, range, descriptor: None })
    }

    /// What to return at once: an item, the end, or nothing.
    fn take(&self, state: &mut State) -> Result<Option<Item>> {
        match &state.end {
            Some(End::Stopped) => return Err(Error::Stopped),
            Some(End::Closed) => return Err(Error::Closed),
            _ => {}
        }
        if let Some(item) = state.items.pop_front() {
            state.bytes -= item.bytes();
            self.shared.room.notify_one();
            return Ok(Some(item));
        }
        match &state.end {
            Some(End::Failed(error)) => Err(Error::other(error.clone())),
            _ => Ok(None),
        }
    }

    fn try_next(&mut self) -> Result<Option<Item>> {
        if !self.store.tasks.are_here() {
            return self.store.check().map(|()| None);
        }
        let target = self.store.cluster.seen_revision();
        let until = self.store.cluster.deadline();
        loop {
            let received = {
                let mut state = self.shared.state();
                if let Some(mut descriptor) = self.descriptor.as_ref() {
                    // Before looking: what comes after that is signalled again.
                    while descriptor.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
                }
                if let Some(item) = self.take(&mut state)? {
                    if !state.items.is_empty() {
                        self.shared.notify(&state);
                    }
                    return Ok(Some(item));
                }
                if state.complete >= target {
                    return Ok(None);
                }
                state.received
            };
            let range = self.range.clone();
            let found = self.store.read(move |cluster| async move {
                let options = GetOptions::new().with_min_mod_revision(received + 1).with_keys_only().with_limit(1);
                by(until, cluster.read(&range, options)).await
            })?;
            let mut state = self.shared.state();
            if state.received != received || !state.items.is_empty() || state.end.is_some() {
                continue;
            }
            let newest = found.header().map_or(0, |header| header.revision());
            if found.kvs().is_empty() && found.count() == state.count {
                state.complete = state.complete.max(newest);
                continue;
            }
            // The events are on their way.
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let last = "the watch lags".to_owned();
                let waited = self.store.cluster.timeout().unwrap_or_default();
                return Err(Error::other(EtcdError::Unavailable { waited, last }));
            }
            drop(wait(&self.shared.changed, state, left));
        }
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<Item>> {
        if !self.store.tasks.are_here() {
            return self.store.check().map(|()| None);
        }
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.shared.state();
        loop {
            if let Some(item) = self.take(&mut state)? {
                return Ok(Some(item));
            }
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            state = wait(&self.shared.changed, state, left);
        }
    }

    fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        if self.descriptor.is_none() {
            let (reader, writer) = signal().map_err(|source| Error::Io {
                operation: "make the descriptor of a feed",
                path: "etcd".into(),
                source: Arc::new(source),
            })?;
            self.descriptor = Some(reader);
            let mut state = self.shared.state();
            state.signal = Some(writer);
            self.shared.notify(&state);
        }
        Ok(self.descriptor.as_ref().expect("it was made above").as_fd())
    }

    fn stopper(&self) -> Stopper {
        let shared = Arc::clone(&self.shared);
        Stopper::new(move || shared.end(End::Stopped))
    }
}

fn signal() -> std::io::Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader, writer))
}

impl Drop for Reader {
    fn drop(&mut self) {
        // In a forked child, a thread of the parent may have had the state when the child was made.
        if self.store.tasks.are_here() {
            self.shared.end(End::Stopped);
        }
    }
}

fn wait<'a>(changed: &Condvar, state: MutexGuard<'a, State>, left: Duration) -> MutexGuard<'a, State> {
    // Some systems do not take a time without an end.
    let left = left.min(Duration::from_secs(3_600));
    changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
}

/// Ends the feed when its task does, in a panic too.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(End::Failed(EtcdError::Panicked));
    }
}

/// The feed of one key.
pub(crate) struct KeyFeed(Reader);

/// The feed of a prefix.
pub(crate) struct TreeFeed(Reader);

impl KeyFeed {
    pub(crate) fn new(store: &Arc<Inner>, range: Range) -> Result<KeyFeed> {
        Reader::new(store, range).map(KeyFeed)
    }

    fn state(item: Item) -> Option<KvPair> {
        match item {
            Item::List(mut pairs) => pairs.pop(),
            Item::Changes(mut changes) => match changes.pop() {
                Some(Change::Put(pair)) => Some(pair),
                _ => None,
            },
        }
    }
}

impl TreeFeed {
    pub(crate) fn new(store: &Arc<Inner>, range: Range) -> Result<TreeFeed> {
        Reader::new(store, range).map(TreeFeed)
    }

    fn event(item: Item) -> TreeEvent {
        match item {
            Item::List(pairs) => TreeEvent::List(pairs),
            Item::Changes(changes) => TreeEvent::Changes(changes),
        }
    }
}

macro_rules! feed {
    ($feed:ty, $item:ty, $convert:path) => {
        impl Feed<$item> for $feed {
            fn try_next(&mut self) -> Result<Option<$item>> {
                Ok(self.0.try_next()?.map($convert))
            }

            fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<$item>> {
                Ok(self.0.next_timeout(timeout)?.map($convert))
            }

            fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
                self.0.descriptor()
            }

            fn stopper(&self) -> Stopper {
                self.0.stopper()
            }
        }
    };
}

feed!(KeyFeed, Option<KvPair>, KeyFeed::state);
feed!(TreeFeed, TreeEvent, TreeFeed::event);

/// Why a stream is over.
enum Broken {
    /// Try again, at another member.
    Off,
    /// History is gone.
    Compacted,
    /// The member says that this may not be watched. It says so of an expired token too.
    Denied(EtcdError),
    /// There is no use in trying again.
    For(EtcdError),
}

/// What keeps a feed up.
struct Task {
    cluster: Arc<Cluster>,
    keys: Keyspace,
    range: Range,
    shared: Arc<Shared>,
    /// Of the feed of one key: its newest `last_index`, if it is there.
    last: Option<Option<i64>>,
}

impl Task {
    async fn run(mut self) -> End {
        let mut denied = false;
        loop {
            let before = self.shared.state().received;
            let broken = self.follow().await;
            denied &= self.shared.state().received == before;
            match broken {
                Broken::For(error) => return End::Failed(error),
                Broken::Denied(error) if denied => return End::Failed(error),
                Broken::Denied(_) => {
                    denied = true;
                    // It authenticates again if the token has expired.
                    let count = GetOptions::new().with_count_only();
                    if let Err(Failure::NotDone(error @ EtcdError::Refused { .. })) =
                        self.cluster.read(&self.range, count).await
                    {
                        return End::Failed(error);
                    }
                }
                Broken::Compacted => {
                    if let Err(end) = self.list_again().await {
                        return end;
                    }
                }
                Broken::Off => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Lists until there is an answer.
    async fn list_again(&mut self) -> std::result::Result<(), End> {
        loop {
            match self.cluster.list(&self.range).await {
                Ok(list) => {
                    let newest = list.found.iter().map(|found| found.mod_revision()).max();
                    // A key that has its last_index of before was not written. One that is absent still is no item.
                    let same = self.last.is_some_and(|last| last == newest);
                    self.last = self.last.map(|_| newest);
                    let item = (!same).then(|| Item::List(list.pairs(&self.keys)));
                    self.shared.push(item, list.revision, |_| list.found.len() as i64);
                    return Ok(());
                }
                Err(Failure::NotDone(EtcdError::Unavailable { .. })) => tokio::time::sleep(PAUSE).await,
                Err(Failure::NotDone(error) | Failure::Unknown(error)) => return Err(End::Failed(error)),
            }
        }
    }

    /// Watches from the last event on, until the stream breaks off.
    async fn follow(&mut self) -> Broken {
        if let Err(error) = self.cluster.check() {
            return Broken::For(error);
        }
        let from = self.shared.state().sent + 1;
        let mut options = WatchOptions::new().with_start_revision(from).with_progress_notify();
        if !self.range.end.is_empty() {
            options = options.with_range(self.range.end.clone());
        }
        let at = self.cluster.at();
        let cluster = Arc::clone(&self.cluster);
        let off = |error: etcd_client::Error| {
            cluster.leave(at);
            match verdict(&error) {
                Verdict::Refused | Verdict::TooLarge => Broken::For(EtcdError::refused(&error)),
                Verdict::Authenticate => Broken::Denied(EtcdError::refused(&error)),
                _ => Broken::Off,
            }
        };
        let opening = open(&self.cluster, at, self.range.key.clone(), options);
        let mut stream = match tokio::time::timeout(OPENING, opening).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return off(error),
            Err(_) => {
                self.cluster.leave(at);
                return Broken::Off;
            }
        };
        loop {
            self.shared.have_room().await;
            let message = tokio::select! {
                message = stream.message() => message,
                error = self.cluster.breaks() => return Broken::For(error),
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.cluster.leave(at);
                    return Broken::Off;
                }
                Err(error) => return off(error),
            };
            // What an event or a progress names was agreed upon. The header of `created` says how far the member is.
            let is_progress = message.events().is_empty() && !message.created() && !message.canceled();
            let progress = message.header().filter(|_| is_progress).map_or(0, |header| header.revision());
            let reached = message.events().iter().map(revision_of).fold(progress, i64::max);
            if let Err(error) = self.cluster.take_in_watch(message.header(), reached) {
                return Broken::For(error);
            }
            // Before `created`: some servers say both at once, others one after the other.
            if message.canceled() {
                if message.compact_revision() > 0 {
                    return Broken::Compacted;
                }
                let reason = message.cancel_reason();
                if reason.contains("permission denied") || reason.contains("auth token") {
                    let code = "PermissionDenied".to_owned();
                    return Broken::Denied(EtcdError::Refused { code, message: reason.to_owned() });
                }
                self.cluster.leave(at);
                return Broken::Off;
            }
            if message.created() {
                // The member is not as far as the feed. Either it will be, or the cluster has forgotten what the feed has seen, and the watch
                // waits for something else: a read finds out, since the handle has seen all that the feed has.
                if message.header().is_some_and(|header| header.revision() + 1 < from) {
                    let count = GetOptions::new().with_count_only();
                    if self.cluster.read(&self.range, count).await.is_err() {
                        self.cluster.leave(at);
                        return self.cluster.check().map_or_else(Broken::For, |()| Broken::Off);
                    }
                }
                continue;
            }
            if is_progress {
                // Everything up to this revision was sent.
                let mut state = self.shared.state();
                state.sent = state.sent.max(progress);
                state.complete = state.complete.max(progress);
                continue;
            }
            self.take_events(message.events());
        }
    }

    /// Adds an item for each revision. A revision's events come in one message.
    fn take_events(&mut self, events: &[Event]) {
        for events in events.chunk_by(|one, other| revision_of(one) == revision_of(other)) {
            let revision = revision_of(&events[0]);
            let (mut changes, mut more) = (Vec::with_capacity(events.len()), 0);
            for event in events {
                let Some(kv) = event.kv() else { continue };
                match event.event_type() {
                    EventType::Put => {
                        // The first version is a creation.
                        more += i64::from(kv.version() == 1);
                        changes.push(Change::Put(self.keys.pair(kv)));
                    }
                    EventType::Delete => {
                        more -= 1;
                        changes.push(Change::Delete { key: self.keys.short(kv.key()), last_index: revision as u64 });
                    }
                }
            }
            let is_put = matches!(changes.last(), Some(Change::Put(_)));
            self.last = self.last.map(|_| is_put.then_some(revision));
            self.shared.push(Some(Item::Changes(changes)), revision, |count| count + more);
        }
    }
}

fn revision_of(event: &Event) -> i64 {
    event.kv().map_or(0, |kv| kv.mod_revision())
}

/// Opens a stream at this member.
async fn open(
    cluster: &Cluster,
    at: usize,
    key: Vec<u8>,
    options: WatchOptions,
) -> std::result::Result<WatchStream, etcd_client::Error> {
    cluster.api(at).await?.watch.watch(key, Some(options)).await
}

/// Waits until a range may have changed after a revision. Errors of the way to the cluster end the wait too, after a pause: the caller looks
/// again.
pub(crate) async fn changed_after(cluster: &Cluster, range: &Range, revision: i64) {
    let options = WatchOptions::new().with_start_revision(revision + 1);
    let at = cluster.at();
    let wait = async {
        let opening = open(cluster, at, range.key.clone(), options);
        let Ok(stream) = tokio::time::timeout(OPENING, opening).await else {
            cluster.leave(at);
            return Ok(true);
        };
        let mut stream = stream?;
        while let Some(message) = stream.message().await? {
            // A member that lags is one to ask again: see `Task::follow`.
            let lags = message.created() && message.header().is_some_and(|header| header.revision() < revision);
            if message.canceled() || lags || !message.events().is_empty() {
                return Ok(message.canceled() || lags);
            }
        }
        Ok(true)
    };
    let result: std::result::Result<bool, etcd_client::Error> = tokio::select! {
        result = wait => result,
        _ = cluster.breaks() => return,
    };
    match result {
        Ok(false) => return,
        Ok(true) => {}
        Err(_) => cluster.leave(at),
    }
    tokio::time::sleep(PAUSE).await;
}
