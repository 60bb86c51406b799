//! `put`.

use std::ffi::OsString;

use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::format::{Filling, check_value};
use crate::open::{Bucket, Missing, WriteTo};
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
    /// The key
    key: OsString,
    #[command(flatten)]
    value: Value,
}

impl Put {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let value = self.value.read(session)?;
        // Checked before a store is created.
        Filling::new(&bucket).go_to(None, &key).and_then(|()| check_value(&value)).map_err(Failure::input)?;
        let cask = self.to.open(session, Missing::Create)?;
        let last_index = cask.bucket(bucket)?.put(key, value)?;
        self.to.close(&cask)?;
        if session.json {
            session.write_json(&json!({ "last_index": last_index }))?;
        }
        Ok(Exit::Done)
    }
}
