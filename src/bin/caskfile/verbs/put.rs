//! `put`.

use std::ffi::OsString;

use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::format::{Filling, check_value};
use crate::open::{Bucket, Missing, Ttl, WriteTo};
use crate::session::Session;
use crate::value::Value;

/// Set the value of a key
#[derive(clap::Args)]
#[command(override_usage = "caskfile put [OPTIONS] <STORE> <KEY> <VALUE | - | --file PATH>")]
pub struct Put {
    #[command(flatten)]
    to: WriteTo,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    ttl: Ttl,
    /// The key
    key: OsString,
    #[command(flatten)]
    value: Value,
}

impl Put {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let (value, options) = (self.value.read(session)?, self.ttl.options());
        // Checked before a store is created.
        Filling::new(&bucket)
            .go_to(None, &key)
            .and_then(|()| check_value(&value, options.is_some()))
            .map_err(Failure::input)?;
        let cask = self.to.open(session, Missing::Create)?;
        let in_bucket = cask.bucket(bucket)?;
        let last_index = match options {
            Some(options) => in_bucket.put_with(key, value, &options)?.last_index,
            None => in_bucket.put(key, value)?,
        };
        self.to.close(&cask)?;
        if session.json {
            session.write_json(&json!({ "last_index": last_index }))?;
        }
        Ok(Exit::Done)
    }
}
