//! A value on the command line: as an argument, from a file, or from stdin.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use caskfile::MAX_VALUE_LEN;

use crate::failure::{Failure, Result, io_failure};
use crate::session::Session;

/// Where a value comes from. Its bytes are stored unchanged: no newline is added or removed.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Value {
    /// The value; `-` reads it from stdin
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    argument: Option<OsString>,

    /// Read the value from a file
    #[arg(short, long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

impl Value {
    pub fn read(&self, session: &Session) -> Result<Vec<u8>> {
        match (&self.argument, &self.file) {
            (Some(argument), _) if argument == "-" => {
                session.note_reading("the value");
                read_value(session.input()?, 0).map_err(|e| io_failure("stdin", e))
            }
            (Some(argument), _) => session.bytes(argument),
            (None, Some(path)) => read_file(path).map_err(|e| io_failure(&path.display().to_string(), e)),
            (None, None) => Err(Failure::usage("no value was given")),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    read_value(file, len)
}

/// Reads a value, and one byte beyond the limit at most. `expected` is its length, if that is known, so that the buffer
/// need not double.
fn read_value(source: impl Read, expected: u64) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    // One byte more, to find the end.
    let room = expected.min(MAX_VALUE_LEN as u64) as usize + 1;
    value.try_reserve_exact(room).map_err(|_| io::ErrorKind::OutOfMemory)?;
    source.take(MAX_VALUE_LEN as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}
