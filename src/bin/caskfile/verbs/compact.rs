//! `compact`.

use crate::exit::Exit;
use crate::failure::Result;
use crate::open::{Missing, WriteTo};
use crate::report::Report;
use crate::session::Session;

#[derive(clap::Args)]
pub struct Compact {
    #[command(flatten)]
    to: WriteTo,
}

impl Compact {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let cask = self.to.open(session, Missing::Refuse)?;
        let compaction = cask.compact()?;
        self.to.close(&cask)?;
        Report::default()
            .count("keys", compaction.keys)
            .bytes("log_bytes_before", compaction.before)
            .bytes("log_bytes_after", compaction.after)
            .show(session)?;
        Ok(Exit::Done)
    }
}
