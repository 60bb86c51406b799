//! [`LinesInto`]: the arguments and the input of the verbs that read lines into a store.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result, io_failure};
use crate::open::{Bucket, WriteTo};
use crate::session::Session;

/// The store, the bucket, and the input.
#[derive(clap::Args)]
pub struct LinesInto {
    #[command(flatten)]
    pub to: WriteTo,
    #[command(flatten)]
    pub bucket: Bucket,
    /// The file to read; `-` is stdin
    #[arg(value_name = "FILE", default_value = "-", value_hint = clap::ValueHint::FilePath)]
    input: PathBuf,
}

impl LinesInto {
    /// The input, and its length if it is known. On a terminal, a note says that the command reads `what`.
    pub fn open_input(&self, session: &Session, what: &str) -> Result<(File, Option<u64>)> {
        if self.input.as_os_str() == "-" {
            session.note_reading(what);
            return Ok((session.input()?, None));
        }
        let named = |e| self.reading_failed(e);
        let file = File::open(&self.input).map_err(named)?;
        let metadata = file.metadata().map_err(named)?;
        if metadata.is_dir() {
            // Otherwise the first read would fail, after the store was created.
            return Err(named(io::ErrorKind::IsADirectory.into()));
        }
        Ok((file, metadata.is_file().then_some(metadata.len())))
    }

    /// The path of the input; `None` for stdin.
    pub fn input_path(&self) -> Option<&Path> {
        (self.input.as_os_str() != "-").then_some(&self.input)
    }

    pub fn reading_failed(&self, error: io::Error) -> Failure {
        let name = if self.input.as_os_str() == "-" { "stdin".into() } else { self.input.display().to_string() };
        io_failure(&name, error)
    }
}
