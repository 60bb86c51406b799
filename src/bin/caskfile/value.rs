//! A value on the command line: as an argument, from a file, or from stdin.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use caskfile::MAX_VALUE_LEN;

use crate::failure::{Failure, Result, io_failure};
use crate::session::Session;

/// Where a value comes from. Its bytes are taken as they are: no newline is added, and none removed.
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
                read_value(session.input()?).map_err(|e| io_failure("stdin", e))
            }
            (Some(argument), _) => session.bytes(argument),
            (None, Some(path)) => {
                File::open(path).and_then(read_value).map_err(|e| io_failure(&path.display().to_string(), e))
            }
            (None, None) => Err(Failure::usage("no value was given")),
        }
    }
}

/// Reads no more than shows that a value is too long.
fn read_value(source: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    source.take(MAX_VALUE_LEN as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}
