//! `cas`: compare-and-swap.

use std::ffi::OsString;
use std::io::Write;

use caskfile::KvPair;
use serde_json::json;

use crate::conflict::conflict;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::format::{Filling, check_value};
use crate::open::{Bucket, Missing, Ttl, WriteTo};
use crate::session::{Session, stdout_failure};
use crate::value::Value;

/// Set a value only if the key has not changed meanwhile, and print its new last_index
#[derive(clap::Args)]
#[command(
    override_usage = "caskfile cas [OPTIONS] <--if-last-index INDEX | --if-absent> <STORE> <KEY> <VALUE | - | --file PATH>"
)]
pub struct Cas {
    #[command(flatten)]
    to: WriteTo,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    ttl: Ttl,
    /// The key
    key: OsString,
    #[command(flatten)]
    value: Value,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Condition {
    /// Only if the key has this last_index, as `get --last-index` shows it
    #[arg(long, value_name = "INDEX")]
    if_last_index: Option<u64>,
    /// Only if the key is not there
    #[arg(long)]
    if_absent: bool,
}

impl Cas {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let (value, options) = (self.value.read(session)?, self.ttl.options());
        let checked = Filling::new(&bucket).go_to(None, &key).and_then(|()| check_value(&value, options.is_some()));
        checked.map_err(Failure::input)?;
        let previous = self.condition.if_last_index;
        let missing = if previous.is_some() { Missing::Refuse } else { Missing::Create };
        let cask = self.to.open(session, missing)?;
        let in_bucket = cask.bucket(bucket)?;
        let written = match (previous, options) {
            (previous, Some(options)) => {
                // A condition is about the last_index alone.
                let previous = previous.map(|last_index| KvPair::new(&key[..], "", last_index));
                in_bucket.atomic_put_with(&key, value, previous.as_ref(), &options).map(|pair| pair.last_index)
            }
            (Some(last_index), None) => in_bucket.put_if(key, value, last_index),
            (None, None) => in_bucket.put_new(key, value),
        };
        let last_index = written.map_err(|error| conflict(session, &self.to, &self.bucket, &self.key, error))?;
        self.to.close(&cask)?;
        if session.json {
            session.write_json(&json!({ "last_index": last_index }))?;
        } else {
            let mut output = session.output()?;
            writeln!(output, "{last_index}").and_then(|()| output.flush()).map_err(stdout_failure)?;
        }
        Ok(Exit::Done)
    }
}
