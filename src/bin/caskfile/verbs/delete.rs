//! `delete`.

use std::ffi::OsString;

use caskfile::{Batch, Error};
use serde_json::json;

use crate::conflict::conflict;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::open::{Bucket, Missing, WriteTo};
use crate::session::Session;

/// Remove keys; removing one that is absent is no error
#[derive(clap::Args)]
pub struct Delete {
    #[command(flatten)]
    to: WriteTo,
    #[command(flatten)]
    bucket: Bucket,
    /// The keys; all of them are removed, or none
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    /// Remove the key only if it has this last_index, as `get --last-index` shows it
    #[arg(long, value_name = "INDEX")]
    if_last_index: Option<u64>,
}

impl Delete {
    pub fn run(self, session: &Session) -> Result<Exit> {
        if self.if_last_index.is_some() && self.keys.len() > 1 {
            return Err(Failure::usage("--if-last-index is for one key").hint("for several, use `caskfile batch`"));
        }
        let mut batch = Batch::new();
        batch.bucket(self.bucket.name(session)?);
        for key in &self.keys {
            let key = session.bytes(key)?;
            if let Some(index) = self.if_last_index {
                batch.expect_last_index(&key, index);
            }
            batch.delete(key);
        }
        let cask = self.to.open(session, Missing::Refuse)?;
        let applied = match cask.write(&batch) {
            Err(Error::BatchConflict { cause, .. }) => {
                return Err(conflict(session, &self.to, &self.bucket, &self.keys[0], *cause));
            }
            // Without `--if-last-index`, each key is one operation.
            Err(Error::BatchInvalid { op, cause }) => {
                let number = if self.keys.len() > 1 { format!("key {}: ", op + 1) } else { String::new() };
                return Err(Failure::input(format!("{number}{cause}")));
            }
            written => written?,
        };
        self.to.close(&cask)?;
        if session.json {
            session.write_json(&json!({ "last_index": applied.last_index() }))?;
        }
        Ok(Exit::Done)
    }
}
