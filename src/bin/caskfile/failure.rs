//! [`Failure`]: why the command failed, and what to do next.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use caskfile::{Error, Report};

use crate::exit::Exit;
use crate::numbers::{plural, readable_bytes};

pub type Result<T> = std::result::Result<T, Failure>;

/// What is printed on stderr at the end, and the code to end with.
#[derive(Debug)]
pub enum Failure {
    /// The reader of stdout has closed it, which is no error.
    ClosedPipe,
    /// A command that was run has failed with this code, and has said why.
    Silent(u8),
    Message {
        exit: Exit,
        /// The code of a command that was run, instead of that of `exit`.
        of_command: Option<u8>,
        message: String,
        hint: Option<String>,
        facts: Vec<(&'static str, u64)>,
    },
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure::Message { exit, of_command: None, message: message.into(), hint: None, facts: Vec::new() }
    }

    /// A command that was run has failed, with a code that is passed on.
    pub fn of_command(code: u8, message: impl Into<String>) -> Failure {
        let of_command = Some(code);
        Failure::Message { exit: Exit::Refused, of_command, message: message.into(), hint: None, facts: Vec::new() }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub fn input(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Input, message)
    }

    /// Adds what to do next.
    pub fn hint(mut self, text: impl Into<String>) -> Failure {
        if let Failure::Message { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Adds a number for programs, to `--json`.
    pub fn fact(mut self, name: &'static str, number: u64) -> Failure {
        if let Failure::Message { facts, .. } = &mut self {
            facts.push((name, number));
        }
        self
    }

    /// Replaces the message.
    pub fn say(mut self, words: String) -> Failure {
        if let Failure::Message { message, .. } = &mut self {
            *message = words;
        }
        self
    }

    /// Adds to the message.
    pub fn and(mut self, more: &str) -> Failure {
        if let Failure::Message { message, .. } = &mut self {
            message.push_str(more);
        }
        self
    }

    pub fn exit(&self) -> Exit {
        match self {
            Failure::ClosedPipe => Exit::Done,
            Failure::Silent(_) => Exit::Refused,
            Failure::Message { exit, .. } => *exit,
        }
    }

    /// The code to end with.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Silent(code) | Failure::Message { of_command: Some(code), .. } => *code,
            _ => self.exit().code(),
        }
    }

    /// The one place where errors are printed. With `json` it is one line that a program can read.
    pub fn print(&self, json: bool) {
        let Failure::Message { exit, of_command, message, hint, facts } = self else { return };
        let mut stderr = anstream::stderr().lock();
        let strong = |color: AnsiColor| Style::new().bold().fg_color(Some(color.into()));
        // If stderr is closed, there is no place for a message.
        if json {
            let name = if of_command.is_some() { "command" } else { exit.name() };
            let mut error = serde_json::json!({ "code": self.code(), "error": name, "message": message });
            if let Some(hint) = hint {
                error["hint"] = hint.as_str().into();
            }
            for (name, number) in facts {
                error[name] = (*number).into();
            }
            let _ = writeln!(stderr, "{error}");
            return;
        }
        let (red, green) = (strong(AnsiColor::Red), strong(AnsiColor::Green));
        let _ = writeln!(stderr, "{red}error:{red:#} {message}");
        if let Some(hint) = hint {
            let _ = writeln!(stderr, " {green}hint:{green:#} {hint}");
        }
    }
}

/// An error of the library, with its exit code and a hint.
impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = match &error {
            // The verb has shown the details.
            Error::Damaged { path, report } => {
                let mut said = said_of_end(report);
                if !report.losses.is_empty() {
                    let ranges = plural(report.losses.len() as u64, "range");
                    said.push(format!("damaged in {ranges}: {}", readable_bytes(report.lost_bytes())));
                }
                let unreadable = report.unreadable.iter().map(|range| range.end - range.start).sum();
                if unreadable > 0 {
                    said.push(format!("{} cannot be read from the disk", readable_bytes(unreadable)));
                }
                if let Some(wrong) = &report.wrong_snapshot {
                    said.push(format!("the snapshot of the index at {} is wrong: {}", wrong.offset, wrong.detail));
                }
                format!("{}: {}", path.display(), said.join("; "))
            }
            error => format!("{error:#}"),
        };
        let failure = Failure::new(exit_of(&error), message);
        match hint_for(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// What to print of a store that was shown, and whose end is missing; `None` if the end is there.
pub fn missing_end(store: &Path, report: &Report) -> Option<Failure> {
    let said = said_of_end(report);
    let failure = Failure::new(Exit::Corrupt, format!("{}: {}", store.display(), said.join("; ")));
    (!said.is_empty()).then(|| failure.hint(rescue(store, true)))
}

/// What a report says of an end that is missing. Empty if the end is there.
fn said_of_end(report: &Report) -> Vec<String> {
    let truncated = report.truncated.then(|| match report.synced_to {
        Some(synced_to) => format!("its end is missing: the log had reached {synced_to} at least"),
        None => "its end is missing: the file ends before a log can start".to_owned(),
    });
    let cut_off = report.cut_off.then(|| "it is a copy whose end is missing".to_owned());
    truncated.into_iter().chain(cut_off).collect()
}

/// How to rescue what a store still has.
fn rescue(store: &Path, lacks_its_end: bool) -> String {
    let rescued = store.with_extension("salvaged");
    let (from, to) = (shell_word(store.as_os_str()), shell_word(rescued.as_os_str()));
    if lacks_its_end {
        return format!(
            "copy the whole file again from where it came from; `caskfile salvage {from} {to}` copies what is left to a \
             new store"
        );
    }
    format!("`caskfile salvage {from} {to}` copies what still verifies to a new store")
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::KeyNotFound => Exit::NotFound,
        Error::KeyExists | Error::KeyModified | Error::BatchConflict { .. } => Exit::Conflict,
        Error::LockTimeout { .. } => Exit::Locked,
        Error::Corrupt { .. } | Error::Truncated { .. } | Error::Damaged { .. } => Exit::Corrupt,
        Error::NotCaskfile { .. } | Error::UnsupportedVersion { .. } | Error::UnsupportedRecord { .. } => {
            Exit::NotAStore
        }
        Error::KeyLength { .. }
        | Error::ValueTooLong { .. }
        | Error::ZeroTtl
        | Error::BucketTooLong { .. }
        | Error::BatchInvalid { .. }
        | Error::BatchTooLarge { .. } => Exit::Input,
        Error::Io { .. } | Error::Poisoned { .. } | Error::Indeterminate { .. } | Error::NoSessions { .. } => Exit::Io,
        Error::Compacted { .. } | Error::Undone { .. } => Exit::Lost,
        Error::SessionOver | Error::NotHeld => Exit::LockLost,
        Error::TimedOut { .. } => Exit::TimedOut,
        _ => Exit::Refused,
    }
}

fn hint_for(error: &Error) -> Option<String> {
    Some(match error {
        Error::KeyExists | Error::KeyModified => {
            "read the key again (`caskfile get --last-index …`), and decide again with the last_index that it has now"
                .into()
        }
        Error::LockTimeout { .. } => {
            "wait longer with --timeout SECONDS, or for ever with --timeout none; reading needs no lock".into()
        }
        Error::Damaged { path, report }
            if report.losses.is_empty() && said_of_end(report).is_empty() && report.wrong_snapshot.is_some() =>
        {
            format!(
                "all records are there; `caskfile compact {}` makes a file without it",
                shell_word(path.as_os_str())
            )
        }
        // The message says that the file should be copied again.
        Error::Corrupt { path, .. } | Error::Truncated { path, .. } => rescue(path, false),
        Error::Damaged { path, report } => rescue(path, report.truncated || report.cut_off),
        Error::NotCaskfile { .. } => "is this the path you meant? No file is ever overwritten".into(),
        Error::BatchTooLarge { .. } => "split it; `caskfile import` takes any amount, in many batches".into(),
        Error::Compacted { .. } | Error::Undone { .. } => {
            "run it again with --snapshot in the place of --after: it shows first what is there now".into()
        }
        Error::Replaced { .. } => "run the command again: it will open the file that is there now".into(),
        Error::Full { path, .. } => format!("`caskfile compact {}` makes room", shell_word(path.as_os_str())),
        Error::Poisoned { .. } => {
            "look at the disk, then read the keys back: whether they were written is unknown".into()
        }
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::NotFound if missing_file(error).is_none() => {
                "its directory does not exist; create it first".into()
            }
            io::ErrorKind::NotFound => "nothing is there: is this the path you meant?".into(),
            io::ErrorKind::AlreadyExists => "no file is ever replaced: choose another name".into(),
            io::ErrorKind::PermissionDenied => "ask for the permission, or run it as the file's owner".into(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room, or `caskfile backup --compact` to another file system; what was there before is unharmed"
                    .into()
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// The path of a file that does not exist, if its directory does.
pub fn missing_file(error: &Error) -> Option<&Path> {
    let Error::Io { path, source, .. } = error else { return None };
    let directory_exists = |directory: &Path| directory.as_os_str().is_empty() || directory.is_dir();
    (source.kind() == io::ErrorKind::NotFound && path.parent().is_none_or(directory_exists)).then_some(path)
}

/// An error of the operating system about a file of the command, not about the store.
pub fn io_failure(what: &str, error: io::Error) -> Failure {
    Failure::new(Exit::Io, format!("{what}: {error}"))
}

/// A word that can be pasted into a shell.
pub fn shell_word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_unreadable_file_is_not_called_damaged() {
        let mut report = Report::default();
        report.unreadable = vec![0..4096, 8192..12288];
        let failure = Failure::from(Error::Damaged { path: "store".into(), report: Arc::new(report) });
        let Failure::Message { message, .. } = failure else { panic!() };
        assert_eq!(message, "store: 8.00 KiB (8,192 bytes) cannot be read from the disk");
    }
}
