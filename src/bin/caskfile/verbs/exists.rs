//! `exists`.

use std::ffi::OsString;

use serde_json::json;

use crate::exit::Exit;
use crate::failure::Result;
use crate::open::{Bucket, ReadFrom};
use crate::session::Session;

/// Show by the exit code whether a key is there: 0 if it is, 1 if not
#[derive(clap::Args)]
pub struct Exists {
    #[command(flatten)]
    from: ReadFrom,
    #[command(flatten)]
    bucket: Bucket,
    /// The key
    key: OsString,
}

impl Exists {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let exists = self.from.open(session)?.bucket(bucket)?.exists(key)?;
        if session.json {
            session.write_json(&json!({ "exists": exists }))?;
        }
        Ok(if exists { Exit::Done } else { Exit::NotFound })
    }
}
