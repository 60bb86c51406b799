//! SQLite in WAL mode, one table without row ids. One connection writes, since SQLite lets one write at a time and makes
//! others poll; readers take connections from a pool.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::{CACHE_BYTES, after_prefix};
use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[Kind {
    name: "sqlite",
    role: Role::Peer,
    open,
    unsynced: "WAL, synchronous=OFF",
    durable: "WAL, synchronous=FULL",
}];

const GET: &str = "SELECT value FROM pairs WHERE key = ?1";
const PUT: &str = "INSERT OR REPLACE INTO pairs VALUES (?1, ?2)";
const SWAP: &str = "UPDATE pairs SET value = ?3 WHERE key = ?1 AND value = ?2";
const DELETE: &str = "DELETE FROM pairs WHERE key = ?1";
// Two statements, because SQLite searches for an upper bound only if the bound is always there.
const LIST: &str = "SELECT key, value FROM pairs WHERE key >= ?1 AND key < ?2 ORDER BY key";
const LIST_TO_THE_END: &str = "SELECT key, value FROM pairs WHERE key >= ?1 ORDER BY key";

struct Sqlite {
    path: PathBuf,
    synchronous: &'static str,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

fn open(path: &Path, mode: Mode) -> Result<Box<dyn Engine>> {
    let synchronous = match mode {
        Mode::Unsynced => "OFF",
        Mode::Durable => "FULL",
    };
    let path = path.join("store");
    let writer = connect(&path, synchronous)?;
    writer.execute("CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID", [])?;
    Ok(Box::new(Sqlite { path, synchronous, writer: Mutex::new(writer), readers: Mutex::default() }))
}

fn connect(path: &Path, synchronous: &str) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Negative: in KiB, not in pages.
    connection.pragma_update(None, "cache_size", -(CACHE_BYTES as i64 / 1024))?;
    Ok(connection)
}

impl Sqlite {
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.path, self.synchronous)?,
        };
        let done = query(&connection)?;
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(done)
    }
}

impl Engine for Sqlite {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.writer().prepare_cached(PUT)?.execute([key, value])?;
        Ok(())
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(GET)?;
            let mut rows = statement.query([key])?;
            let Some(row) = rows.next()? else { return Ok(false) };
            seen(row.get_ref(0)?.as_blob()?);
            Ok(true)
        })
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        let found = self.read(|connection| {
            connection.prepare_cached("SELECT 1 FROM pairs WHERE key = ?1")?.query_row([key], |_| Ok(())).optional()
        })?;
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.writer().prepare_cached(DELETE)?.execute([key])?;
        Ok(())
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        Ok(self.writer().prepare_cached(SWAP)?.execute([key, old, new])? == 1)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        let mut writer = self.writer();
        let transaction = writer.transaction()?;
        {
            let mut statement = transaction.prepare_cached(PUT)?;
            for (key, value) in pairs.iter() {
                statement.execute([key, value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let end = match after_prefix(prefix) {
            std::ops::Bound::Excluded(end) => Some(end),
            _ => None,
        };
        self.read(|connection| {
            let mut statement = connection.prepare_cached(if end.is_some() { LIST } else { LIST_TO_THE_END })?;
            let mut rows = match end {
                Some(end) => statement.query(params![prefix, end])?,
                None => statement.query(params![prefix])?,
            };
            while let Some(row) = rows.next()? {
                seen(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            }
            Ok(())
        })
    }

    fn compact(self: Box<Self>, _: usize) -> Result<()> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.writer().execute_batch("VACUUM")?;
        self.close()
    }

    /// The last connection to close moves the WAL into the database.
    fn close(self: Box<Self>) -> Result<()> {
        let Sqlite { writer, readers, .. } = *self;
        drop(readers);
        writer.into_inner().unwrap_or_else(PoisonError::into_inner).close().map_err(|(_, error)| error.into())
    }
}
