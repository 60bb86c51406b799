//! The queue on SQLite: see `../queue.rs`, which does the same.

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_millis(500);

fn now() -> Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64)
}

struct Queue(Connection);

impl Queue {
    fn open(path: &str) -> Result<Queue> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS jobs (
                 number INTEGER PRIMARY KEY, state TEXT NOT NULL, deadline INTEGER NOT NULL, taken INTEGER NOT NULL);
             CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);",
        )?;
        Ok(Queue(connection))
    }

    fn add(&mut self, count: i64) -> Result<()> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare("INSERT INTO jobs VALUES (?, 'waiting', 0, 0)")?;
            for number in 0..count {
                insert.execute([number])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Takes the first job that waits. Returns its number, and how often it was taken.
    fn take(&self) -> Result<Option<(i64, i64)>> {
        let mut take = self.0.prepare_cached(
            "UPDATE jobs SET state = 'running', deadline = ?, taken = taken + 1
             WHERE number = (SELECT number FROM jobs WHERE state = 'waiting' ORDER BY number LIMIT 1)
             RETURNING number, taken",
        )?;
        let deadline = now()? + PATIENCE.as_millis() as i64;
        Ok(take.query_row([deadline], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    /// Notes a job as done, if its worker still has it.
    fn done(&self, number: i64, taken: i64) -> Result<bool> {
        let mut done = self
            .0
            .prepare_cached("UPDATE jobs SET state = 'done' WHERE number = ? AND taken = ? AND state = 'running'")?;
        Ok(done.execute(params![number, taken])? == 1)
    }

    fn put_back_what_is_late(&self) -> Result<()> {
        let mut put_back =
            self.0.prepare_cached("UPDATE jobs SET state = 'waiting' WHERE state = 'running' AND deadline < ?")?;
        put_back.execute([now()?])?;
        Ok(())
    }

    fn work(&self) -> Result<()> {
        loop {
            match self.take()? {
                Some((number, taken)) => {
                    sleep(Duration::from_millis(1)); // the work
                    if !self.done(number, taken)? {
                        eprintln!("job {number} took too long: another worker has it");
                    }
                }
                None => {
                    let left: i64 =
                        self.0.query_row("SELECT count(*) FROM jobs WHERE state <> 'done'", [], |row| row.get(0))?;
                    if left == 0 {
                        return Ok(());
                    }
                    sleep(PATIENCE / 10);
                    self.put_back_what_is_late()?;
                }
            }
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [store, verb, count] if verb == "add" => Queue::open(store)?.add(count.parse()?),
        [store, verb] if verb == "work" => Queue::open(store)?.work(),
        _ => Err("usage: queue-sqlite STORE add COUNT | queue-sqlite STORE work".into()),
    }
}
