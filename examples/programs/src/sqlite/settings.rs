//! The settings service on SQLite: see `../settings.rs`, which does the same.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

enum Failure {
    Missing,
    Conflict,
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Database(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Failure::Missing => StatusCode::NOT_FOUND.into_response(),
            Failure::Conflict => StatusCode::PRECONDITION_FAILED.into_response(),
            Failure::Database(error) => match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
            },
        }
    }
}

#[derive(Clone)]
struct Store {
    path: String,
    writer: Arc<Mutex<Connection>>,
    // A connection is for one thread at a time, so readers have some of their own.
    readers: Arc<Mutex<Vec<Connection>>>,
}

fn connect(path: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

impl Store {
    fn open(path: &str) -> rusqlite::Result<Store> {
        let connection = connect(path)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS settings (key BLOB PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS versions (last INTEGER NOT NULL);
             INSERT INTO versions SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM versions);",
        )?;
        Ok(Store { path: path.into(), writer: Arc::new(Mutex::new(connection)), readers: Arc::default() })
    }

    /// Runs a query on a connection of its own, off the threads of the runtime.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = self.clone();
        let work = move || {
            let idle = store.readers.lock().unwrap().pop();
            let connection = idle.map_or_else(|| connect(&store.path), Ok)?;
            let result = query(&connection);
            store.readers.lock().unwrap().push(connection);
            result
        };
        tokio::task::spawn_blocking(work).await.expect("the query does not panic")
    }

    /// Changes a key in a transaction that has the version before and gives the version after.
    async fn write(&self, key: String, expected: Expected, value: Option<Bytes>) -> Result<i64, Failure> {
        let writer = Arc::clone(&self.writer);
        let work = move || {
            let mut connection = writer.lock().unwrap();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: Option<i64> = transaction
                .prepare_cached("SELECT version FROM settings WHERE key = ?")?
                .query_row([key.as_bytes()], |row| row.get(0))
                .optional()?;
            match (expected, version) {
                (Expected::Anything, _) | (Expected::Nothing, None) => {}
                (Expected::Version(expected), Some(version)) if expected == version => {}
                (Expected::Version(_), None) => return Err(Failure::Missing),
                _ => return Err(Failure::Conflict),
            }
            let next = transaction
                .prepare_cached("UPDATE versions SET last = last + 1 RETURNING last")?
                .query_row([], |row| row.get(0))?;
            match value {
                Some(value) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)")?
                    .execute(params![key.as_bytes(), &value[..], next])?,
                None => transaction.prepare_cached("DELETE FROM settings WHERE key = ?")?.execute([key.as_bytes()])?,
            };
            transaction.commit()?;
            Ok(next)
        };
        tokio::task::spawn_blocking(work).await.expect("the transaction does not panic")
    }
}

/// What the client knows of the setting.
enum Expected {
    Anything,
    Nothing,
    Version(i64),
}

impl Expected {
    fn of(headers: &HeaderMap) -> Result<Expected, StatusCode> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim_matches('"'));
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Expected::Anything),
            (None, Some("*")) => Ok(Expected::Nothing),
            (Some(version), None) => {
                version.parse().map(Expected::Version).map_err(|_| StatusCode::PRECONDITION_FAILED)
            }
            _ => Err(StatusCode::BAD_REQUEST),
        }
    }
}

fn etag(version: i64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

async fn read(State(store): State<Store>, Path(key): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    let found = store.read(move |connection| {
        let mut query = connection.prepare_cached("SELECT value, version FROM settings WHERE key = ?")?;
        let found = query.query_row([key.as_bytes()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)));
        Ok(found.optional()?)
    });
    let (value, version) = found.await?.ok_or(Failure::Missing)?;
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| *tag == format!("\"{version}\""));
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, etag(version)).into_response(),
        false => (etag(version), value).into_response(),
    })
}

async fn write(
    State(store): State<Store>,
    Path(key): Path<String>,
    headers: HeaderMap,
    value: Bytes,
) -> Result<Response, Failure> {
    let expected = match Expected::of(&headers) {
        Ok(expected) => expected,
        Err(status) => return Ok(status.into_response()),
    };
    let version = store.write(key, expected, Some(value)).await?;
    Ok((StatusCode::NO_CONTENT, etag(version)).into_response())
}

async fn remove(State(store): State<Store>, Path(key): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    match Expected::of(&headers) {
        Ok(expected @ (Expected::Version(_) | Expected::Anything)) => store.write(key, expected, None).await?,
        _ => return Ok(StatusCode::BAD_REQUEST.into_response()),
    };
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(serde::Deserialize)]
struct Listing {
    #[serde(default)]
    prefix: String,
}

async fn list(State(store): State<Store>, Query(Listing { prefix }): Query<Listing>) -> Result<Response, Failure> {
    let keys = store.read(move |connection| {
        let mut query = connection.prepare_cached(
            "SELECT key FROM settings WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1 ORDER BY key",
        )?;
        let rows = query.query_map([prefix.as_bytes()], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(rows.map(|key| Ok(String::from_utf8_lossy(&key?).into_owned())).collect::<rusqlite::Result<Vec<_>>>()?)
    });
    Ok(Json(keys.await?).into_response())
}

async fn backup(State(store): State<Store>) -> Result<Body, Failure> {
    // A backup goes to a file first, and from there to the connection.
    let copy = format!("{}.backup-{}-{:?}", store.path, std::process::id(), std::time::Instant::now());
    let path = copy.clone();
    store.read(move |connection| Ok(connection.execute("VACUUM INTO ?", [path]).map(drop)?)).await?;
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(&copy);
        let removed = std::fs::remove_file(&copy);
        let send = || -> io::Result<()> {
            let mut file = file?;
            removed?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = io::Read::read(&mut file, &mut buffer)?;
                if read == 0 {
                    return Ok(());
                }
                let sent = sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..read])));
                sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
        };
        send().map_err(|error| sender.blocking_send(Err(error)))
    });
    Ok(Body::from_stream(ReceiverStream::new(receiver)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, address] = &arguments[..] else { return Err("usage: settings-sqlite STORE ADDRESS".into()) };
    let store = Store::open(path)?;
    let one = get(read).put(write).delete(remove);
    let router =
        Router::new().route("/settings/{key}", one).route("/settings", get(list)).route("/backup", get(backup));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router.with_state(store)).await?)
}
