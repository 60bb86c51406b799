//! `salvage`.

use std::path::PathBuf;

use crate::exit::Exit;
use crate::failure::Result;
use crate::interrupt::stoppable;
use crate::progress::while_busy;
use crate::session::Session;

/// Copy what still verifies of a damaged store to a new one
///
/// It says what was lost, and the damaged file stays as it is. Ctrl-C leaves nothing of the new one. A key
/// whose newest value was lost may come back with an older one, and one whose deletion was lost may come back.
#[derive(clap::Args)]
pub struct Salvage {
    /// The damaged store's file
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    from: PathBuf,
    /// The new store's file, which must not exist
    #[arg(value_name = "NEW", value_hint = clap::ValueHint::FilePath)]
    to: PathBuf,
}

impl Salvage {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let report = while_busy(session, "salvaging", false, || {
            stoppable(|watch| caskfile::salvage_with(&self.from, &self.to, watch))
        })?;
        session.write_report(&report)?;
        Ok(Exit::Done)
    }
}
