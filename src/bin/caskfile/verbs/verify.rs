//! `verify`.

use caskfile::Error;

use crate::exit::Exit;
use crate::failure::Result;
use crate::open::ReadFrom;
use crate::progress::while_busy;
use crate::session::Session;

/// Read the whole file and check every record
///
/// It works while others write, and shows what is damaged and which keys are lost. Damage ends with exit code 5, and so does
/// a file or a copy whose end is missing, or a snapshot of the index that is not that of the log. A torn tail, as a crash
/// leaves it, is no damage.
#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    from: ReadFrom,
}

impl Verify {
    pub fn run(self, session: &Session) -> Result<Exit> {
        // Without opening the store, since a damaged file does not open.
        let verified = while_busy(session, "verifying", false, || caskfile::verify(&self.from.store));
        match &verified {
            Ok(report) => session.write_report(report)?,
            Err(Error::Damaged { report, .. }) => session.write_report(report)?,
            Err(_) => {}
        }
        verified?;
        Ok(Exit::Done)
    }
}
