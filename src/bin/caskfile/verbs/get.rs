//! `get`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::SystemTime;

use caskfile::{Cask, KvPair};

use crate::escape::{as_text, escape_into, escaped};
use crate::exit::Exit;
use crate::failure::{Failure, Result, shell_word};
use crate::json_line::Line;
use crate::numbers::plural;
use crate::open::{Bucket, ReadFrom};
use crate::session::{Output, Session, stdout_failure};

/// Write the value of a key to stdout: its bytes unchanged, or readable on a terminal
#[derive(clap::Args)]
pub struct Get {
    #[command(flatten)]
    from: ReadFrom,
    #[command(flatten)]
    bucket: Bucket,
    /// The key
    key: OsString,
    /// Write the pair's last_index, for a compare-and-swap, on its own line before the value
    #[arg(short, long)]
    last_index: bool,
}

impl Get {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let cask = self.from.open(session)?.bucket(bucket)?;
        let found = if session.json { read(&cask, &key) } else { cask.get(&key).map(|pair| (pair, None)) };
        let found = match found {
            Err(caskfile::Error::KeyNotFound) => {
                let (path, shown) = (self.from.store.display(), escaped(&key));
                let message = format!("{path}: no key `{shown}` in {}", self.bucket.shown());
                let (store, options) = (shell_word(self.from.store.as_os_str()), self.bucket.option());
                let escapes = if options.is_empty() { "" } else { session.escaped_option() };
                return Err(Failure::new(Exit::NotFound, message).hint(format!(
                    "`caskfile list{escapes}{options} {store}` and `caskfile buckets {store}` show the keys and buckets"
                )));
            }
            found => found?,
        };
        write_pair(&found, self.last_index, session)?;
        Ok(Exit::Done)
    }
}

/// A pair, and when it expires.
pub type Found = (KvPair, Option<SystemTime>);

/// Reads a pair and when it expires, both of one record.
pub fn read(cask: &Cask, key: &[u8]) -> caskfile::Result<Found> {
    // A scan of the one key would do, but a handle's first scan sorts all keys.
    // Both times into one buffer: the value may be large.
    let mut value = Vec::new();
    let mut before = cask.get_into(key, &mut value)?;
    loop {
        let expires_at = cask.expires_at(key)?;
        let last_index = cask.get_into(key, &mut value)?;
        // No number is assigned twice: with the same one before and after, nothing has changed in between.
        if last_index == before {
            return Ok((KvPair { key: key.to_vec(), value, last_index }, expires_at));
        }
        before = last_index;
    }
}

/// Writes the value of a pair to stdout, and its `last_index` on a line before it if that is wanted. With `--json`, all of the pair.
pub fn write_pair(found: &Found, with_last_index: bool, session: &Session) -> Result<()> {
    write(found, with_last_index, session, session.output()?).map_err(stdout_failure)
}

fn write(found: &Found, with_last_index: bool, session: &Session, mut output: Output) -> io::Result<()> {
    let (pair, expires_at) = found;
    if session.json {
        let line = Line::begin(&mut output).bytes("key", &pair.key).bytes("value", &pair.value);
        line.number("last_index", pair.last_index).expiry(*expires_at).end()?;
        return output.flush();
    }
    if with_last_index {
        writeln!(output, "{}", pair.last_index)?;
    }
    if !session.to_terminal {
        output.write_all(&pair.value)?;
    } else if let Some(text) = as_text(&pair.value) {
        // The prompt starts on a new line.
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(output, "{text}{end}")?;
    } else {
        escape_into(&pair.value, None, &mut output)?;
        output.write_all(b"\n")?;
        output.flush()?;
        let len = plural(pair.value.len() as u64, "byte");
        session.note(format!("({len}, shown with escapes; a pipe or a file gets them unchanged)"));
    }
    output.flush()
}
