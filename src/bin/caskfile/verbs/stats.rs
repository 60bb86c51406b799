//! `stats`.

use crate::exit::Exit;
use crate::failure::Result;
use crate::open::ReadFrom;
use crate::report::Report;
use crate::session::Session;

/// Show the number of keys, the size of the file, and how much of it compaction would free
#[derive(clap::Args)]
pub struct Stats {
    #[command(flatten)]
    from: ReadFrom,
}

impl Stats {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let stats = self.from.open(session)?.stats()?;
        // What a handle counts about itself is left out, such as its watches: this one was opened a moment ago.
        Report::default()
            .count("keys", stats.keys)
            .count("expiring_keys", stats.expiring)
            .count("expired_keys", stats.hidden)
            .count("buckets", stats.buckets)
            .count("records", stats.records)
            .count("last_index", stats.last_index)
            .bytes("file_bytes", stats.file_len)
            .bytes("log_bytes", stats.log_end)
            .bytes("live_bytes", stats.live_bytes)
            .bytes("dead_bytes", stats.dead_bytes)
            .bytes("index_memory_bytes", stats.index_bytes)
            .show(session)?;
        Ok(Exit::Done)
    }
}
