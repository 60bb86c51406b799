//! [`Session`]: what all verbs share. Only this file knows which streams are terminals.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use crate::escape::{escaped, unescape_into};
use crate::failure::{Failure, Result, io_failure};

/// Options that every verb takes.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Write results as JSON, one object a line, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,

    /// Write only errors to stderr, and show no progress bar
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Read keys, values and bucket names on the command line with the escapes that `list` writes: \n \t \r \\ \xHH
    #[arg(short, long, global = true)]
    pub escaped: bool,
}

/// What all verbs share.
pub struct Session {
    pub json: bool,
    quiet: bool,
    escaped: bool,
    /// Whether stdout is a terminal, so that data is made readable.
    pub to_terminal: bool,
    errors_to_terminal: bool,
    from_terminal: bool,
    /// The whole command line, for the man page and the completions.
    pub command: fn() -> clap::Command,
}

/// Stdout for data, without std's buffer, which searches for the end of every line.
pub type Output = BufWriter<File>;

impl Session {
    pub fn new(common: Common, command: fn() -> clap::Command) -> Session {
        Session {
            json: common.json,
            quiet: common.quiet,
            escaped: common.escaped,
            to_terminal: io::stdout().is_terminal(),
            errors_to_terminal: io::stderr().is_terminal(),
            from_terminal: io::stdin().is_terminal(),
            command,
        }
    }

    /// Whether a progress bar may be drawn on stderr. `to_stdout` says that the verb writes its data meanwhile. Bar and
    /// data must not be mixed on a terminal.
    pub fn shows_progress(&self, to_stdout: bool) -> bool {
        self.errors_to_terminal && !self.quiet && !(to_stdout && self.to_terminal)
    }

    /// The bytes of a key, a value, or a bucket's name that was given on the command line.
    pub fn bytes(&self, argument: &OsStr) -> Result<Vec<u8>> {
        if !self.escaped {
            return Ok(argument.as_bytes().to_vec());
        }
        let mut bytes = Vec::new();
        unescape_into(argument.as_bytes(), &mut bytes)
            .map_err(|problem| Failure::usage(format!("{}: {problem}", escaped(argument.as_bytes()))))?;
        Ok(bytes)
    }

    /// ` --escaped` if it was given, for a command in a hint.
    pub fn escaped_option(&self) -> &'static str {
        if self.escaped { " --escaped" } else { "" }
    }

    /// Writes a note to stderr: neither data nor an error.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            // If stderr is closed, there is no place for a note.
            let _ = writeln!(anstream::stderr(), "{}", text.as_ref());
        }
    }

    /// Says that the command waits for input, if stdin is a terminal.
    pub fn note_reading(&self, what: &str) {
        if self.from_terminal {
            self.note(format!("reading {what} from the terminal; Ctrl-D on an empty line ends it"));
        }
    }

    /// Whether stdout may have colours: on a terminal, unless NO_COLOR or the like is set.
    pub fn is_colored(&self) -> bool {
        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// Refuses to write `what` to a terminal.
    pub fn refuse_terminal(&self, what: &str, instead: &str) -> Result<()> {
        if self.to_terminal {
            return Err(Failure::usage(format!("{what} is no text for a terminal")).hint(instead));
        }
        Ok(())
    }

    /// Stdin without std's buffer, and with its errors: std takes a stdin that cannot be read for an empty one.
    pub fn input(&self) -> Result<File> {
        Ok(io::stdin().as_fd().try_clone_to_owned().map_err(|e| io_failure("stdin", e))?.into())
    }

    pub fn output(&self) -> Result<Output> {
        let fd = io::stdout().as_fd().try_clone_to_owned().map_err(|e| io_failure("stdout", e))?;
        Ok(BufWriter::with_capacity(1 << 16, fd.into()))
    }

    /// Writes the library's report on a file, as text or with `--json` as JSON.
    pub fn write_report(&self, report: &caskfile::Report) -> Result<()> {
        let mut output = self.output()?;
        let written = if self.json { writeln!(output, "{}", report.to_json()) } else { writeln!(output, "{report}") };
        written.and_then(|()| output.flush()).map_err(stdout_failure)
    }

    /// Writes one JSON object on a line of its own.
    pub fn write_json(&self, object: &serde_json::Value) -> Result<()> {
        let mut output = self.output()?;
        writeln!(output, "{object}").and_then(|()| output.flush()).map_err(stdout_failure)
    }
}

/// The failure of a write to stdout. A closed pipe is no error; a full disk is.
pub fn stdout_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => io_failure("writing to stdout", error),
    }
}
