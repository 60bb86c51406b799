//! `completions`.

use std::io::Write;

use crate::exit::Exit;
use crate::failure::Result;
use crate::session::{Session, stdout_failure};

/// Write completions for a shell to stdout
///
/// For bash: caskfile completions bash > ~/.local/share/bash-completion/completions/caskfile
#[derive(clap::Args)]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn run(self, session: &Session) -> Result<Exit> {
        // To memory first, since the generator panics if a write fails.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut (session.command)(), "caskfile", &mut script);
        let mut output = session.output()?;
        output.write_all(&script).and_then(|()| output.flush()).map_err(stdout_failure)?;
        Ok(Exit::Done)
    }
}
