//! [`Exit`]: the one table of exit codes, which the help, the man page and `docs/CLI.md` show.

use std::fmt::Write;

/// How the command ended. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    NotFound = 1,
    Usage = 2,
    Conflict = 3,
    Locked = 4,
    Corrupt = 5,
    NotAStore = 6,
    Input = 7,
    Io = 8,
    Refused = 9,
    Lost = 10,
    TimedOut = 11,
    LockLost = 12,
    HungUp = 129,
    Interrupted = 130,
    Terminated = 143,
}

/// One row for each way to end: the code, its name in `--json` errors, and what it means.
pub const TABLE: &[(Exit, &str, &str)] = &[
    (Exit::Done, "done", "it was done; also when the reader of a pipe closed it before the end, except of a backup"),
    (Exit::NotFound, "not-found", "the key is not in the store"),
    (Exit::Usage, "usage", "the command line is not understood, or does not fit the store; nothing was written to it"),
    (Exit::Conflict, "conflict", "a condition does not hold, since another writer was faster; nothing was written"),
    (
        Exit::Locked,
        "locked",
        "another writer held the store for the whole --timeout; nothing was written (of an import: nothing more)",
    ),
    (Exit::Corrupt, "corrupt", "bytes that had been stored are damaged or missing; the file is unchanged"),
    (Exit::NotAStore, "not-a-store", "the file is no caskfile, or one of a later version; it is unchanged"),
    (Exit::Input, "input", "a key, a value or a line of the input is malformed or over a limit"),
    (Exit::Io, "io", "the operating system refused something: no such file, no permission, disk full"),
    (Exit::Refused, "refused", "the store refused: the message says why"),
    (
        Exit::Lost,
        "lost",
        "a watch cannot go on: the changes after its position are not all in the store, or were taken back",
    ),
    (Exit::TimedOut, "timed-out", "what `wait` or `lock` waits for has not come for the whole --timeout"),
    (Exit::LockLost, "lock-lost", "`lock` has lost the lock before its command had ended"),
    (Exit::HungUp, "hung-up", "stopped by SIGHUP; the store is whole"),
    (Exit::Interrupted, "interrupted", "stopped by Ctrl-C; the store is whole"),
    (Exit::Terminated, "terminated", "stopped by SIGTERM; the store is whole"),
];

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The signal that stopped the command.
    pub fn cause(self) -> &'static str {
        match self {
            Exit::Terminated => "SIGTERM",
            Exit::HungUp => "SIGHUP",
            _ => "Ctrl-C",
        }
    }

    pub fn name(self) -> &'static str {
        TABLE.iter().find(|(exit, ..)| *exit == self).map_or("", |(_, name, _)| name)
    }
}

/// The table as the help shows it.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, _, meaning) in TABLE {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:5}  {meaning}", exit.code());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_a_row_a_name_and_a_number() {
        for (row, (exit, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(exit.name(), *name);
            for (other, other_name, _) in &TABLE[row + 1..] {
                assert_ne!((exit.code(), *name), (other.code(), *other_name));
            }
        }
    }

    #[test]
    fn the_page_in_docs_has_this_table() {
        let page = include_str!("../../../docs/CLI.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for (exit, name, meaning) in TABLE {
            let row = format!("| `{}` | {name} | {meaning} |", exit.code());
            assert!(rows.contains(&row.as_str()), "docs/CLI.md lacks the row\n{row}");
        }
    }
}
