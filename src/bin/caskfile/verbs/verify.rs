//! `verify`.

use caskfile::Error;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::open::ReadFrom;
use crate::progress::while_busy;
use crate::report::{plural, readable_bytes};
use crate::session::Session;

/// Read the whole file and check every record
///
/// It works beside whoever writes to the file, and shows what is damaged and which keys are lost. Damage ends with exit code 5; a torn tail, as a crash leaves it, is no damage.
#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    from: ReadFrom,
}

impl Verify {
    pub fn run(self, session: &Session) -> Result<Exit> {
        // Not an open store, which a damaged file would not make.
        match while_busy(session, "verifying", false, || caskfile::verify(&self.from.store)) {
            Err(error @ Error::Damaged { .. }) => {
                let Error::Damaged { report, .. } = &error else { return Err(error.into()) };
                session.write_report(report)?;
                let (ranges, bytes) =
                    (plural(report.losses.len() as u64, "range"), readable_bytes(report.lost_bytes()));
                let message = format!("{}: damaged in {ranges}: {bytes}", self.from.store.display());
                Err(Failure::from(error).say(message))
            }
            report => {
                session.write_report(&report?)?;
                Ok(Exit::Done)
            }
        }
    }
}
