//! `man`.

use std::io::Write;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::session::{Session, stdout_failure};

/// Write the man page to stdout, in roff
///
/// To read it: caskfile man | man -l -
#[derive(clap::Args)]
pub struct Man {
    /// The page of one verb, instead of the one about all
    verb: Option<String>,
}

impl Man {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let mut command = (session.command)();
        command.build();
        if let Some(verb) = &self.verb {
            let found = command.find_subcommand(verb).cloned();
            command = found.ok_or_else(|| {
                Failure::usage(format!("there is no verb {verb:?}")).hint("`caskfile help` shows them")
            })?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(stdout_failure)?;
        let mut output = session.output()?;
        output.write_all(&page).and_then(|()| output.flush()).map_err(stdout_failure)?;
        Ok(Exit::Done)
    }
}
