//! [`Look`]: how the verbs that show a file's bytes open it, in any state, and how they end.

use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use caskfile::inspect::{Class, Inspection, Record};

use crate::exit::Exit;
use crate::failure::{Failure, Result, missing_end};
use crate::progress::while_busy;
use crate::session::Session;

/// The file of a verb that shows bytes. It is only read, without a lock.
#[derive(Debug, clap::Args)]
pub struct Look {
    /// The store's file, in any state
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    pub store: PathBuf,
}

impl Look {
    pub fn open(&self, session: &Session) -> Result<Inspection> {
        Ok(while_busy(session, "reading", false, || Inspection::open(&self.store))?)
    }
}

/// Ends a verb that has shown the file. Damage, which was shown too, is still an error, and so is a missing end, which
/// nothing shows.
pub fn finish(store: &Path, inspection: &Inspection) -> Result<Exit> {
    match missing_end(store, inspection.check()?) {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

/// Refuses `--json` for a verb that has another form of output, with the message `what_it_does`.
pub fn refuse_json(session: &Session, what_it_does: &str) -> Result<()> {
    if session.json {
        return Err(Failure::usage(what_it_does).hint("`caskfile dump --json` has the records as JSON"));
    }
    Ok(())
}

/// An offset in a file: in bytes, decimal or hexadecimal with 0x.
pub fn parse_offset(text: &str) -> std::result::Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "give bytes from the start of the file, such as 4096 or 0x1000".into())
}

/// Whether these bytes are not part of the store: torn, damaged or not read.
pub fn is_broken(class: Class) -> bool {
    matches!(class, Class::Torn | Class::Corrupt | Class::Unread)
}

/// The name of a record's kind, or its number.
pub fn kind(record: &Record) -> String {
    record.kind_name().map_or_else(|| format!("{:#04x}", record.kind), str::to_owned)
}

/// The names of the flags, and the unknown ones as a number.
pub fn flags(record: &Record) -> Vec<String> {
    let mut flags: Vec<String> = record.flag_names().map(str::to_owned).collect();
    if record.unknown_flags() != 0 {
        flags.push(format!("{:#04x}", record.unknown_flags()));
    }
    flags
}

/// The colour of a class.
pub fn style(class: Class) -> Style {
    let color = match class {
        Class::Live => AnsiColor::Blue,
        Class::Dead | Class::Padding | Class::Zeros => return Style::new().dimmed(),
        Class::Tombstone => AnsiColor::Magenta,
        Class::Statement => AnsiColor::Cyan,
        Class::Snapshot => AnsiColor::BrightBlack,
        Class::FileHeader | Class::Roots | Class::EndMark => AnsiColor::Green,
        Class::Torn | Class::Unread => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(color.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_decimal_or_hexadecimal() {
        assert_eq!(parse_offset("4096"), Ok(4096));
        assert_eq!(parse_offset("0x1000"), Ok(4096));
        for wrong in ["", "0x", "-1", "1k", "1000h", "99999999999999999999"] {
            assert!(parse_offset(wrong).is_err(), "{wrong}");
        }
    }
}
