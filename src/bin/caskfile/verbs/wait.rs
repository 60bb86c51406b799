//! `wait`.

use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

use caskfile::{Cask, ChangeRef, Error, OptionalExt, WatchFrom};
use serde_json::json;

use super::get::{Found, read, write_pair};
use crate::escape::escaped;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::open::{Bucket, Timeout, WaitAt, parse_timeout};
use crate::session::Session;

/// Wait until a key is there, is gone, changes, or has a value, and write its value to stdout
///
/// The value is written as `get` does. Without an option it waits until the key is there, and ends at once if it is. A key
/// that is put and deleted again at once was there: no write is missed. `wait --changed --after N` is for a loop, with N from
/// `get --last-index` or from the `wait --last-index` before: it ends at once if the key has changed since then.
#[derive(clap::Args)]
pub struct Wait {
    #[command(flatten)]
    at: WaitAt,
    #[command(flatten)]
    bucket: Bucket,
    /// The key
    key: OsString,
    /// Until it is not there
    #[arg(short, long, conflicts_with_all = ["changed", "value"])]
    gone: bool,
    /// Until it is put or deleted; if it is gone then, the exit code is 1
    #[arg(short, long, conflicts_with = "value")]
    changed: bool,
    /// Changed since it had this last_index; 0 means that it was not there
    #[arg(short, long, value_name = "N", requires = "changed")]
    after: Option<u64>,
    /// Until it has this value
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    value: Option<OsString>,
    /// How long to wait: seconds, or with a unit (250ms, 2m), or `none` for ever; then the exit code is 11
    #[arg(short, long, value_name = "TIME", default_value = "none", value_parser = parse_timeout)]
    timeout: Timeout,
    /// Write the pair's last_index on its own line before the value
    #[arg(short, long)]
    last_index: bool,
}

/// What is waited for.
enum Goal {
    There,
    Gone,
    /// Another `last_index` than this one, or than the one that was found first.
    ChangedFrom(Option<u64>),
    Value(Vec<u8>),
}

impl Wait {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let deadline = self.timeout.0.and_then(|timeout| Instant::now().checked_add(timeout));
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let mut goal = match &self.value {
            Some(value) => Goal::Value(session.bytes(value)?),
            None if self.gone => Goal::Gone,
            None if self.changed => Goal::ChangedFrom(self.after),
            None => Goal::There,
        };
        let cask = self.at.open(session, false)?.bucket(bucket)?;
        let found = loop {
            match wait(&cask, &key, &mut goal, deadline) {
                // This process was stopped for so long that changes are missing, or a power cut took some back. What is there
                // now tells.
                Err(Error::Compacted { .. } | Error::Undone { .. }) => {}
                found => break found?,
            }
        };
        let what = || format!("{}: the key `{}` in {}", self.at.store.display(), escaped(&key), self.bucket.shown());
        match found {
            Some(Some(found)) => write_pair(&found, self.last_index, session)?,
            Some(None) if !self.gone => return Err(Failure::new(Exit::NotFound, format!("{} is gone", what()))),
            Some(None) if session.json => session.write_json(&json!({ "exists": false }))?,
            Some(None) => {}
            None => {
                let not_so = match goal {
                    Goal::There => "is still not there",
                    Goal::Gone => "is still there",
                    Goal::ChangedFrom(_) => "has not changed",
                    Goal::Value(_) => "does not have this value",
                };
                let waited = self.timeout.0.unwrap_or_default();
                let message = format!("{} {not_so}; waited {}", what(), seconds(waited));
                return Err(Failure::new(Exit::TimedOut, message));
            }
        }
        Ok(Exit::Done)
    }
}

impl Goal {
    /// Whether this state of the key, or `None` if it is not there, is what is waited for.
    fn is(&self, state: Option<&Found>) -> bool {
        match (self, state) {
            (Goal::There, state) => state.is_some(),
            (Goal::Gone, state) => state.is_none(),
            (Goal::ChangedFrom(from), state) => *from != Some(state.map_or(0, |(pair, _)| pair.last_index)),
            (Goal::Value(value), state) => state.is_some_and(|(pair, _)| pair.value == *value),
        }
    }
}

/// Returns the state that was waited for; `None` if the time is over.
fn wait(
    cask: &Cask,
    key: &[u8],
    goal: &mut Goal,
    deadline: Option<Instant>,
) -> caskfile::Result<Option<Option<Found>>> {
    // First the watch, then a look at the key: a write between the two is found by both, and one after the look by the watch.
    let mut watch = cask.changes(key, WatchFrom::Now)?;
    let now = read(cask, key).optional()?;
    let seen = now.as_ref().map_or(0, |(pair, _)| pair.last_index);
    if let Goal::ChangedFrom(from @ None) = goal {
        *from = Some(seen);
    }
    if goal.is(now.as_ref()) {
        return Ok(Some(now));
    }
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A pair that expires is gone before a writer has logged that.
        let expires_at = match cask.expires_at(key) {
            Err(Error::KeyNotFound) if goal.is(None) => return Ok(Some(None)),
            expires_at => expires_at.optional()?.flatten(),
        };
        let lives = expires_at.map(|moment| moment.duration_since(SystemTime::now()).unwrap_or_default());
        let most = [left, lives].into_iter().flatten().min();
        let mut unit = match watch.next_timeout(most)? {
            Some(unit) => unit,
            None if most == left => return Ok(None),
            None => continue,
        };
        let mut last = None;
        while let Some(change) = unit.next_ref() {
            let change = change?;
            // The prefix of the watch admits longer keys.
            if change.key() == key && change.last_index() > seen {
                last = Some(match change {
                    ChangeRef::Put(pair) => Some((pair.to_pair(), pair.expires_at)),
                    ChangeRef::Delete { .. } => None,
                });
            }
        }
        let Some(state) = last else { continue };
        if goal.is(state.as_ref()) {
            return Ok(Some(state));
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}
