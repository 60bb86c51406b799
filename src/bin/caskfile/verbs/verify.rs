//! `verify`.

use crate::exit::Exit;
use crate::failure::Result;
use crate::open::ReadFrom;
use crate::report::Report;
use crate::session::Session;

/// Reads the whole file and checks every record, beside whoever writes to it. Damage ends with exit code 5.
#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    from: ReadFrom,
}

impl Verify {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let verified = self.from.open()?.verify()?;
        Report::default()
            .count("keys", verified.keys)
            .count("records", verified.records)
            .bytes("log_bytes", verified.log_end)
            .bytes("torn_bytes", verified.torn_bytes)
            .show(session)?;
        if verified.torn_bytes > 0 {
            session.note("the end of the log is torn, as a crash leaves it; the next writer cuts it off");
        }
        Ok(Exit::Done)
    }
}
