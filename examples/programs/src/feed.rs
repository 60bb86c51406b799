//! The changes of a store as a stream of server-sent events. Each event's id is a position, so a browser that comes back after a
//! broken connection goes on where it was.
//!
//! ```text
//! feed STORE ADDRESS      serves; ADDRESS is such as 127.0.0.1:8080
//! ```
//!
//! `GET /changes?prefix=` begins with all pairs, as one event. Each later event is one write: a batch comes as a whole.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::get;
use caskfile::{Cask, Change, Config, Error, Watch, WatchFrom};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A watch that a task can wait for.
struct Changes {
    watch: Watch,
    ready: AsyncFd<OwnedFd>,
}

/// The changes of one write.
struct Unit {
    is_listing: bool,
    position: u64,
    changes: Vec<Change>,
}

impl Changes {
    fn new(mut watch: Watch) -> io::Result<Changes> {
        let descriptor = watch.descriptor().map_err(io::Error::from)?.try_clone_to_owned()?;
        // SAFETY: it is an open descriptor, and nothing closes it before the `AsyncFd` does.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Changes { watch, ready })
    }

    /// Waits for the next unit. A future that is dropped earlier has lost nothing.
    async fn next(&mut self) -> Result<Unit, Error> {
        loop {
            // Reads what was written since, which needs no lock: the threads of the runtime may do that.
            if let Some(unit) = self.watch.try_next()? {
                let (is_listing, position) = (unit.is_listing(), unit.position());
                return Ok(Unit { is_listing, position, changes: unit.into_changes()? });
            }
            // Now the descriptor becomes readable with the next change.
            let ready = self.ready.readable().await;
            ready.map_err(|e| Error::other(e))?.clear_ready();
        }
    }
}

fn event(unit: &Unit) -> Event {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let changes = unit
        .changes
        .iter()
        .map(|change| (text(change.key()), change.value().map_or(Value::Null, |value| text(value).into())));
    let name = if unit.is_listing { "all" } else { "changed" };
    let data = Value::Object(changes.collect());
    Event::default().event(name).id(unit.position.to_string()).data(data.to_string())
}

/// Sends events until the client is gone.
async fn follow(cask: Cask, prefix: String, mut from: WatchFrom, events: mpsc::Sender<Result<Event, Infallible>>) {
    loop {
        // Making a watch may read the headers of the whole log, and list all keys.
        let (store, keys) = (cask.clone(), prefix.clone());
        let made =
            tokio::task::spawn_blocking(move || store.changes(keys, from)).await.expect("the call does not panic");
        let followed = match made.and_then(|watch| Changes::new(watch).map_err(|e| Error::other(e))) {
            Ok(changes) => send(changes, &events).await,
            Err(error) => Err(error),
        };
        match followed {
            Ok(()) => return,
            // The client slept through a compaction, or a power cut took back what it knew. It gets all pairs again.
            Err(Error::Compacted { .. } | Error::Undone { .. }) => from = WatchFrom::Snapshot,
            Err(error) => {
                let _ = events
                    .send(Ok(Event::default().event("error").data(json!(format!("{error:#}")).to_string())))
                    .await;
                return;
            }
        }
    }
}

async fn send(mut changes: Changes, events: &mpsc::Sender<Result<Event, Infallible>>) -> Result<(), Error> {
    loop {
        let unit = tokio::select! {
            unit = changes.next() => unit?,
            () = events.closed() => return Ok(()),
        };
        if events.send(Ok(event(&unit))).await.is_err() {
            return Ok(());
        }
    }
}

#[derive(serde::Deserialize)]
struct Wanted {
    #[serde(default)]
    prefix: String,
}

async fn changes(
    State(cask): State<Cask>,
    Query(Wanted { prefix }): Query<Wanted>,
    headers: HeaderMap,
) -> Sse<ReceiverStream<Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(follow(cask, prefix, last.map_or(WatchFrom::Snapshot, WatchFrom::After), sender));
    Sse::new(ReceiverStream::new(receiver))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, address] = &arguments[..] else { return Err("usage: feed STORE ADDRESS".into()) };
    let cask = Cask::open_with(store, &Config::new().read_only(true))?;
    let router = Router::new().route("/changes", get(changes));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router.with_state(cask)).await?)
}
