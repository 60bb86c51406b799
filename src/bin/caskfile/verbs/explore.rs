//! `explore`.

use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::explore::Page;
use crate::failure::{Result, io_failure};
use crate::look::{Look, finish, refuse_json};
use crate::session::{Session, stdout_failure};

/// Write an HTML page that shows the file's bytes, its log, and its keys at any moment
///
/// The page is one file and needs no network: a hex dump, the log's records and the keys, linked to each other, and a
/// slider that replays the log. It works for a file in any state. All keys and values are in the page, so it is as
/// secret as the store. After the page is written, damage ends with exit code 5, a later version with 6.
#[derive(clap::Args)]
pub struct Explore {
    #[command(flatten)]
    look: Look,
    /// The page's file, which must not exist [default: stdout]
    #[arg(short, long, value_name = "PAGE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Put at most this much of the file into the page; of a longer file it has a sample, and says so
    #[arg(long, value_name = "MEBIBYTES", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..1024))]
    hold: u64,
}

impl Explore {
    pub fn run(self, session: &Session) -> Result<Exit> {
        if self.output.is_none() {
            session.refuse_terminal("a page", "name a file with -o, or send it to a pipe")?;
        }
        refuse_json(session, "explore writes HTML only")?;
        let inspection = self.look.open(session)?;
        let page = Page::new(&self.look.store, &inspection, self.hold << 20)?;
        match &self.output {
            Some(path) => write_to(path, &page)?,
            None => {
                let mut out = session.output()?;
                page.write(&mut out).and_then(|()| out.flush()).map_err(stdout_failure)?;
            }
        }
        finish(&self.look.store, &inspection)
    }
}

/// Creates the page's file for its owner alone, since all keys and values are in it.
fn write_to(path: &Path, page: &Page<'_>) -> Result<()> {
    let failure = |error: std::io::Error| {
        let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
        let failure = io_failure(&path.display().to_string(), error);
        if exists { failure.hint("no file is ever replaced: choose another name") } else { failure }
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failure)?;
    let mut out = BufWriter::new(file);
    page.write(&mut out).and_then(|()| out.flush()).map_err(|error| {
        // Half a page is of no use. An error of the removal would hide the first one.
        let _ = fs::remove_file(path);
        failure(error)
    })
}
