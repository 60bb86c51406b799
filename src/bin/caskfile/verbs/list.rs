//! `list`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::Bound;

use caskfile::{Cask, PairRef, Scan};

use crate::delimited::Delimited;
use crate::exit::Exit;
use crate::failure::Result;
use crate::json_line::Line;
use crate::moment::{milliseconds, utc};
use crate::open::{Bucket, ReadFrom};
use crate::session::{Output, Session, stdout_failure};

/// List keys and values in the order of the keys
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    from: ReadFrom,
    #[command(flatten)]
    bucket: Bucket,
    /// Only keys that start with this
    prefix: Option<OsString>,
    /// Only keys from this one on
    #[arg(long = "from", value_name = "KEY")]
    start: Option<OsString>,
    /// Only keys before this one
    #[arg(long = "to", value_name = "KEY")]
    end: Option<OsString>,
    /// At most this many
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// From the last key to the first
    #[arg(short, long)]
    reverse: bool,
    /// Keys alone
    #[arg(short, long)]
    keys: bool,
    /// Values alone
    #[arg(short, long, conflicts_with = "keys")]
    values: bool,
    /// The last_index of each pair first
    #[arg(short, long)]
    last_index: bool,
    /// When each pair expires, before the key, in UTC; nothing if it stays
    #[arg(long)]
    expires_at: bool,
}

impl List {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let cask = self.from.open(session)?.bucket(self.bucket.name(session)?)?;
        let mut pairs = self.pairs(&cask, session)?;
        let mut output = session.output()?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let next = if self.reverse { pairs.next_back_ref() } else { pairs.next_ref() };
            let Some(pair) = next else { break };
            self.write(pair?, session.json, &mut output).map_err(stdout_failure)?;
            left -= 1;
        }
        output.flush().map_err(stdout_failure)?;
        Ok(Exit::Done)
    }

    fn pairs(&self, cask: &Cask, session: &Session) -> Result<Scan> {
        let argument = |argument: &Option<OsString>| argument.as_deref().map(|text| session.bytes(text)).transpose();
        let (prefix, start, end) = (argument(&self.prefix)?, argument(&self.start)?, argument(&self.end)?);
        let prefix = prefix.unwrap_or_default();
        if start.is_none() && end.is_none() {
            return Ok(cask.scan(prefix)?);
        }
        // Prefix and range both apply: the later start and the earlier end.
        let end = [end, after_prefix(&prefix)].into_iter().flatten().min();
        let start = Bound::Included(start.unwrap_or_default().max(prefix));
        Ok(cask.range((start, end.map_or(Bound::Unbounded, Bound::Excluded)))?)
    }

    fn write(&self, pair: PairRef<'_>, json: bool, out: &mut Output) -> io::Result<()> {
        if json {
            let mut line = Line::begin(out);
            if !self.values {
                line = line.bytes("key", pair.key);
            }
            if !self.keys {
                line = line.bytes("value", pair.value);
            }
            return line.number("last_index", pair.last_index).expiry(pair.expires_at).end();
        }
        let last_index = pair.last_index.to_string();
        let expires_at = pair.expires_at.map_or_else(String::new, |moment| utc(milliseconds(moment)));
        let mut fields = Vec::with_capacity(4);
        if self.last_index {
            fields.push(last_index.as_bytes());
        }
        if self.expires_at {
            fields.push(expires_at.as_bytes());
        }
        if !self.values {
            fields.push(pair.key);
        }
        if !self.keys {
            fields.push(pair.value);
        }
        Delimited::PLAIN.write(&fields, out)
    }
}

/// The lowest key after all keys that start with `prefix`; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}
