//! `delete-prefix`.

use std::ffi::OsString;

use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::numbers::plural;
use crate::open::{Bucket, Missing, WriteTo};
use crate::session::Session;

/// Remove all keys that start with a prefix
#[derive(clap::Args)]
pub struct DeletePrefix {
    #[command(flatten)]
    to: WriteTo,
    #[command(flatten)]
    bucket: Bucket,
    /// What the keys start with
    #[arg(required_unless_present = "all")]
    prefix: Option<OsString>,
    /// Remove all keys of the bucket
    #[arg(long, conflicts_with = "prefix")]
    all: bool,
}

impl DeletePrefix {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let prefix = session.bytes(self.prefix.as_deref().unwrap_or_default())?;
        if prefix.is_empty() && !self.all {
            // Probably a variable that a script has not set.
            return Err(Failure::usage("the prefix is empty, and every key starts with that")
                .hint("to remove all keys of the bucket, give --all instead of a prefix"));
        }
        let cask = self.to.open(session, Missing::Refuse)?;
        let deleted = cask.bucket(self.bucket.name(session)?)?.delete_prefix(prefix)?;
        self.to.close(&cask)?;
        session.note(format!("deleted {}", plural(deleted, "key")));
        if session.json {
            session.write_json(&json!({ "deleted": deleted }))?;
        }
        Ok(Exit::Done)
    }
}
