//! What a call costs.

use std::fmt;

use caskfile::disk::sim::{SimDisk, Verb};

/// The kinds of calls to the disk, with the names that the table gives them.
const NAMES: [(Verb, &str); 31] = [
    (Verb::Resolve, "resolve"),
    (Verb::Open, "open"),
    (Verb::CreateNew, "create"),
    (Verb::Map, "map"),
    (Verb::IsMappedElsewhere, "is mapped?"),
    (Verb::TryLock, "lock"),
    (Verb::Stat, "stat"),
    (Verb::FileStat, "fstat"),
    (Verb::Len, "length"),
    (Verb::List, "directory"),
    (Verb::FillRandom, "random"),
    (Verb::UnixTime, "time"),
    (Verb::Attributes, "attributes"),
    (Verb::SetAttributes, "set attributes"),
    (Verb::ReadAt, "read"),
    (Verb::NextData, "next data"),
    (Verb::DataEnd, "data end"),
    (Verb::SetLen, "set length"),
    (Verb::Punch, "punch"),
    (Verb::WriteAt, "write"),
    (Verb::BeginWriteBack, "begin write-back"),
    (Verb::WriteBack, "write-back"),
    (Verb::SyncData, "sync"),
    (Verb::SyncAll, "sync all"),
    (Verb::Link, "link"),
    (Verb::Rename, "rename"),
    (Verb::Remove, "remove"),
    (Verb::SyncDir, "sync directory"),
    (Verb::SyncFileSystem, "sync file system"),
    (Verb::Pause, "pause"),
    (Verb::Unlock, "unlock"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    calls: [u64; NAMES.len()],
    pub written: u64,
    pub read: u64,
    pub read_with_lock: u64,
}

impl Cost {
    pub fn of(disk: &SimDisk, act: impl FnOnce()) -> Cost {
        let before = Cost::until_now(disk);
        act();
        let after = Cost::until_now(disk);
        Cost {
            calls: std::array::from_fn(|at| after.calls[at] - before.calls[at]),
            written: after.written - before.written,
            read: after.read - before.read,
            read_with_lock: after.read_with_lock - before.read_with_lock,
        }
    }

    fn until_now(disk: &SimDisk) -> Cost {
        let calls = NAMES.map(|(verb, _)| disk.calls_of(verb));
        assert_eq!(calls.iter().sum::<u64>(), disk.calls(), "a kind of call is missing in the list of names");
        let (written, read) = (disk.bytes_written(), disk.bytes_read());
        Cost { calls, written, read, read_with_lock: disk.bytes_read_under_lock() }
    }

    pub fn calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    pub fn of_kind(&self, verb: Verb) -> u64 {
        let at = NAMES.iter().position(|&(other, _)| other == verb).expect("every kind has a name");
        self.calls[at]
    }
}

/// The calls, as the table lists them.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = NAMES.iter().zip(self.calls).filter(|&(_, calls)| calls > 0);
        let texts =
            made.map(|((_, name), calls)| if calls == 1 { (*name).to_owned() } else { format!("{calls} {name}") });
        let texts: Vec<_> = texts.collect();
        if texts.is_empty() { write!(f, "none") } else { write!(f, "{}", texts.join(", ")) }
    }
}
