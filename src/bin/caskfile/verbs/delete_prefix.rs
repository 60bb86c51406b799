//! `delete-prefix`.

use std::ffi::OsString;

use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::open::{Bucket, Missing, WriteTo};
use crate::report::plural;
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
            // Most likely a variable of a script that was never set.
            return Err(Failure::usage("the prefix is empty, and every key starts with that")
                .hint("if all keys of the bucket are meant, say --all instead of a prefix"));
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
