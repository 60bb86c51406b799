//! A settings service over HTTP. Any number of server processes share one file, and each streams a live backup.
//!
//! ```text
//! settings STORE ADDRESS      serves; ADDRESS is such as 127.0.0.1:8080
//! ```
//!
//! `GET`, `PUT` and `DELETE /settings/{key}`; the ETag is the pair's `last_index`, and `If-Match` and `If-None-Match` work.
//! `GET /settings?prefix=` lists, `GET /backup` is a copy of the store.

use std::io::{self, BufWriter, Write};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use caskfile::{Cask, Config, Error, ErrorKind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::PRECONDITION_FAILED,
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            _ if self.0.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // No error contains a key or a value.
        (status, format!("{:#}\n", self.0)).into_response()
    }
}

/// Runs a call that can wait on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Failure> {
    Ok(tokio::task::spawn_blocking(work).await.expect("the call does not panic")?)
}

/// What the client knows of the setting.
enum Expected {
    Anything,
    Nothing,
    Index(u64),
}

impl Expected {
    fn of(headers: &HeaderMap) -> Result<Expected, StatusCode> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim_matches('"'));
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Expected::Anything),
            (None, Some("*")) => Ok(Expected::Nothing),
            (Some(index), None) => index.parse().map(Expected::Index).map_err(|_| StatusCode::PRECONDITION_FAILED),
            _ => Err(StatusCode::BAD_REQUEST),
        }
    }
}

fn etag(index: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{index}\""))]
}

async fn read(State(cask): State<Cask>, Path(key): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    // A read waits for no lock and no sync, so it may run here.
    let pair = cask.get(&key)?;
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| *tag == format!("\"{}\"", pair.last_index));
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, etag(pair.last_index)).into_response(),
        false => (etag(pair.last_index), pair.value).into_response(),
    })
}

async fn write(
    State(cask): State<Cask>,
    Path(key): Path<String>,
    headers: HeaderMap,
    value: Bytes,
) -> Result<Response, Failure> {
    let expected = match Expected::of(&headers) {
        Ok(expected) => expected,
        Err(status) => return Ok(status.into_response()),
    };
    let index = blocking(move || match expected {
        Expected::Anything => cask.put(key, value),
        Expected::Nothing => cask.put_new(key, value),
        Expected::Index(index) => cask.put_if(key, value, index),
    });
    Ok((StatusCode::NO_CONTENT, etag(index.await?)).into_response())
}

async fn remove(State(cask): State<Cask>, Path(key): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    match Expected::of(&headers) {
        Ok(Expected::Index(index)) => blocking(move || cask.delete_if(key, index)).await?,
        Ok(Expected::Anything) => blocking(move || cask.delete(key)).await?,
        _ => return Ok(StatusCode::BAD_REQUEST.into_response()),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(serde::Deserialize)]
struct Listing {
    #[serde(default)]
    prefix: String,
}

async fn list(State(cask): State<Cask>, Query(Listing { prefix }): Query<Listing>) -> Result<Response, Failure> {
    let keys = blocking(move || {
        cask.keys(prefix)?.map(|key| Ok(String::from_utf8_lossy(&key?).into_owned())).collect::<Result<Vec<_>, Error>>()
    });
    Ok(Json(keys.await?).into_response())
}

/// Sends what is written to it to the connection, and waits while that is full.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn backup(State(cask): State<Cask>) -> Body {
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let mut to = BufWriter::with_capacity(64 << 10, Sender(sender.clone()));
        let copied = cask.backup_to(&mut to).map_err(io::Error::from).and_then(|_| to.flush());
        // The connection breaks off, and the client sees that it does.
        copied.map_err(|error| sender.blocking_send(Err(error)))
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, address] = &arguments[..] else { return Err("usage: settings STORE ADDRESS".into()) };
    let cask = Cask::open_with(store, &Config::new().connection_timeout(std::time::Duration::from_secs(2)))?;
    let one = get(read).put(write).delete(remove);
    let router =
        Router::new().route("/settings/{key}", one).route("/settings", get(list)).route("/backup", get(backup));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router.with_state(cask)).await?)
}
