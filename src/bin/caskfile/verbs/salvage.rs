//! `salvage`.

use std::path::PathBuf;

use crate::exit::Exit;
use crate::failure::{Failure, Result, shell_word};
use crate::interrupt::stoppable;
use crate::numbers::plural;
use crate::progress::while_busy;
use crate::session::Session;

/// Copy what still verifies of a damaged store to a new one
///
/// It shows what was lost, and does not change the damaged file. A key whose newest value was lost may come back with an
/// older one, and a key whose deletion was lost may come back. Whole records of a batch that has no end are left out; the
/// exit code is 5 then. Ctrl-C removes the unfinished new file.
#[derive(clap::Args)]
pub struct Salvage {
    /// The damaged store's file
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    from: PathBuf,
    /// The new store's file, which must not exist
    #[arg(value_name = "NEW", value_hint = clap::ValueHint::FilePath)]
    to: PathBuf,
    /// Also copy the whole records of a batch that has no end, after a crash or a cut of the file
    #[arg(long)]
    unfinished: bool,
}

impl Salvage {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let report = while_busy(session, "salvaging", false, || {
            stoppable(|watch| match self.unfinished {
                true => caskfile::salvage_unfinished(&self.from, &self.to, watch),
                false => caskfile::salvage_with(&self.from, &self.to, watch),
            })
        })?;
        session.write_report(&report)?;
        match report.unfinished_records() {
            0 => Ok(Exit::Done),
            left_out => {
                let (from, records) = (shell_word(self.from.as_os_str()), plural(left_out, "whole record"));
                let message = format!("{records} of a batch that has no end were left out; all else is copied");
                let hint = format!("`caskfile salvage --unfinished {from} NEW` copies them as well");
                Err(Failure::new(Exit::Corrupt, message).hint(hint))
            }
        }
    }
}
