//! The state file on SQLite: see `../state.rs`, which does the same.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Seen {
    len: u64,
    modified: u128,
}

/// All files below a directory.
fn walk(directory: &Path, found: &mut HashMap<String, Seen>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
            found.insert(entry.path().display().to_string(), Seen { len: metadata.len(), modified });
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, directory] = &arguments[..] else { return Err("usage: state-sqlite STORE DIRECTORY".into()) };
    let mut connection = Connection::open(store)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What a power cut takes, the next run finds again.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, seen BLOB NOT NULL) WITHOUT ROWID")?;
    let mut found = HashMap::new();
    walk(Path::new(directory), &mut found)?;

    let report = |what: &str, path: &str| println!("{what} {path}");
    // The other run waits until this one has ended.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = transaction
        .prepare("SELECT path, seen FROM files WHERE substr(path, 1, length(?1)) = ?1 ORDER BY path")?
        .query_map([directory], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    {
        let mut put = transaction.prepare("INSERT OR REPLACE INTO files VALUES (?, ?)")?;
        let mut delete = transaction.prepare("DELETE FROM files WHERE path = ?")?;
        for (path, before) in known {
            let before: Seen = serde_json::from_slice(&before)?;
            match found.remove(&path) {
                Some(now) if now == before => {}
                Some(now) => {
                    report("changed", &path);
                    put.execute(params![path, serde_json::to_vec(&now)?])?;
                }
                None => {
                    report("gone", &path);
                    delete.execute([path])?;
                }
            }
        }
        for (path, now) in &found {
            report("new", path);
            put.execute(params![path, serde_json::to_vec(now)?])?;
        }
    }
    transaction.commit()?;
    let files: i64 = connection.query_row("SELECT count(*) FROM files", [], |row| row.get(0))?;
    eprintln!("{files} files");
    connection.close().map_err(|(_, error)| error.into())
}
