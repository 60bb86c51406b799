//! `backup`.

use std::path::PathBuf;

use caskfile::Error;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::interrupt::stoppable;
use crate::numbers::{plural, readable_bytes};
use crate::open::ReadFrom;
use crate::progress::while_busy;
use crate::session::Session;

/// Copy the store as it is at one moment to another file, or to stdout, while others write
///
/// The copy is a store. To restore it, put it in the place of the original while no process has that open. Ctrl-C removes
/// an unfinished copy.
#[derive(clap::Args)]
pub struct Backup {
    #[command(flatten)]
    from: ReadFrom,
    /// The copy's file, which must not exist; `-` writes it to stdout
    #[arg(value_name = "COPY", value_hint = clap::ValueHint::FilePath)]
    to: PathBuf,
    /// Leave out replaced and deleted records: a smaller copy, which takes longer
    #[arg(long)]
    compact: bool,
}

impl Backup {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let to_stdout = self.to.as_os_str() == "-";
        if to_stdout {
            session.refuse_terminal("a backup", "send it to a file or a pipe")?;
        }
        if to_stdout && self.compact {
            return Err(Failure::usage("--compact needs a file").hint("leave --compact away, or name a file"));
        }
        let cask = self.from.open(session)?;
        let mut output = session.output()?;
        let backup = while_busy(session, "copying", to_stdout, || match (to_stdout, self.compact) {
            // A closed pipe is an error here: half a backup must not look like a whole one.
            (true, _) => cask.backup_to(&mut output).map_err(stdout_failed),
            (false, true) => stoppable(|watch| cask.compact_to_with(&self.to, watch)),
            (false, false) => stoppable(|watch| cask.backup_with(&self.to, watch)),
        })?;
        let (keys, bytes) = (plural(backup.keys, "key"), readable_bytes(backup.bytes));
        session.note(format!("copied {keys}, {bytes}"));
        if session.json && !to_stdout {
            session.write_json(&serde_json::json!({ "keys": backup.keys, "bytes": backup.bytes }))?;
        }
        Ok(Exit::Done)
    }
}

/// The library's error names the store, not stdout.
fn stdout_failed(error: Error) -> Failure {
    match &error {
        Error::Io { operation: "write the backup", source, .. } => {
            Failure::new(Exit::Io, format!("writing to stdout: {source}"))
        }
        _ => error.into(),
    }
}
