//! `compact`.

use std::ops::ControlFlow;

use caskfile::{Cask, Compaction, Error};

use crate::exit::Exit;
use crate::failure::Result;
use crate::interrupt::{Interrupt, stopped};
use crate::open::{Missing, WriteTo};
use crate::progress::{Progress, Unit};
use crate::report::Report;
use crate::session::Session;

/// Rewrite the file without replaced and deleted records
///
/// Other processes may read and write meanwhile. After Ctrl-C the store is as it was.
#[derive(clap::Args)]
pub struct Compact {
    #[command(flatten)]
    to: WriteTo,
}

impl Compact {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let cask = self.to.open(session, Missing::Refuse)?;
        let compaction = compact(&cask, session)?;
        self.to.close(&cask)?;
        Report::default()
            .count("keys", compaction.keys)
            .bytes("log_bytes_before", compaction.before)
            .bytes("log_bytes_after", compaction.after)
            .show(session)?;
        Ok(Exit::Done)
    }
}

fn compact(cask: &Cask, session: &Session) -> Result<Compaction> {
    let interrupt = Interrupt::watch()?;
    let mut bar = Progress::new(session, "compacting", Unit::Bytes, Some(cask.stats()?.live_bytes), false);
    let compacted = cask.compact_with(|progress| {
        bar.set_of(progress.done, progress.total);
        if interrupt.received().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(bar);
    match (compacted, interrupt.received()) {
        (Err(error @ Error::CompactionCancelled { .. }), Some(exit)) => Err(stopped(&error, exit)),
        (compacted, _) => Ok(compacted?),
    }
}
