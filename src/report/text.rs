//! A [`Report`] as text, for people.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use super::{Loss, LostKey, Report, WrongSnapshot};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { file_len, keys, records, .. } = self;
        // A file that has lost its end can end in the last record's padding, or before its log.
        let log_end = self.log_end.min(*file_len);
        write!(f, "{records} records verify and give {keys} keys; the log ends at {log_end} of {file_len} bytes")?;
        if self.torn_bytes > 0 {
            write!(f, ", followed by {} bytes of a torn tail", self.torn_bytes)?;
        }
        if self.truncated {
            match self.synced_to {
                Some(synced_to) => write!(f, "\nits end is missing: the log had reached {synced_to} at least")?,
                None => write!(f, "\nits end is missing: the file ends before a log can start")?,
            }
        }
        if self.cut_off {
            write!(f, "\nit is a copy whose end is missing")?;
        }
        if let Some(WrongSnapshot { offset, detail }) = &self.wrong_snapshot {
            write!(f, "\nthe snapshot of the index at {offset} is wrong: {detail}")?;
            write!(f, "\n  all records are there; `caskfile compact` makes a file without it")?;
        }
        for Range { start, end } in &self.unreadable {
            write!(f, "\nbytes {start} to {end} cannot be read from the disk")?;
        }
        if self.losses.is_empty() {
            let lacks_its_end = self.cut_off || self.truncated;
            let else_ = if self.unreadable.is_empty() && !lacks_its_end { "" } else { " else" };
            let known = if lacks_its_end { " known to be" } else { "" };
            return write!(f, "\nnothing{else_} is{known} lost");
        }
        let (bytes, ranges) = (self.lost_bytes(), self.losses.len());
        write!(f, "\n{bytes} bytes are lost, in {ranges} {}:", if ranges == 1 { "range" } else { "ranges" })?;
        self.losses.iter().try_for_each(|loss| write!(f, "\n{loss}"))?;
        match self.unlisted_keys {
            0 => Ok(()),
            more => write!(f, "\nand {more} more keys of lost records can be read"),
        }
    }
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  bytes {} to {}: {}", self.start, self.end, self.damage)?;
        if self.torn {
            write!(f, " (a torn tail: there is no proof that it was ever whole)")?;
        }
        if let Some(start) = self.batch {
            write!(f, "\n    cuts the batch that starts at {start} in two")?;
        }
        if self.whole_records > 0 {
            let s = if self.whole_records == 1 { "" } else { "s" };
            write!(f, "\n    has {} whole record{s} of a batch that has no end", self.whole_records)?;
        }
        self.keys.iter().try_for_each(|key| write!(f, "\n    {key}"))
    }
}

impl Display for LostKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = if self.deleted { "deletion of" } else { "value of" };
        write!(f, "{what} the key \"{}\"", self.key.escape_ascii())?;
        if !self.bucket.is_empty() {
            write!(f, " in the bucket \"{}\"", self.bucket.escape_ascii())?;
        }
        write!(f, " (unverified), last_index {}: ", self.last_index)?;
        match self.kept {
            Some(kept) if kept > self.last_index => write!(f, "replaced later, by last_index {kept}"),
            Some(kept) => write!(f, "the older value of last_index {kept} is there"),
            None => write!(f, "the key has no value now"),
        }
    }
}
