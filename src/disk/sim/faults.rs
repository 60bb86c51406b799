//! What goes wrong on a simulated disk, and at which call.

use std::io;

use super::SimDisk;

/// The calls of the seam, by the methods of `Disk`, `DiskFile` and `System`.
///
/// A sync is [`Verb::SyncData`], [`Verb::SyncAll`] or [`Verb::SyncFileSystem`], by its scope. A write-back that waits is
/// [`Verb::WriteBack`], and one that does not is [`Verb::BeginWriteBack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Verb {
    Resolve,
    Open,
    CreateNew,
    Link,
    Rename,
    Remove,
    SyncDir,
    Stat,
    List,
    FillRandom,
    UnixTime,
    Pause,
    ReadAt,
    WriteAt,
    Len,
    SetLen,
    Punch,
    SyncData,
    SyncAll,
    SyncFileSystem,
    BeginWriteBack,
    WriteBack,
    NextData,
    DataEnd,
    TryLock,
    Unlock,
    FileStat,
    Attributes,
    SetAttributes,
    Map,
    IsMappedElsewhere,
    Arm,
    /// A read through a map. That is no call: it is not counted and cannot fail. Only a hook that asks for it sees it, by
    /// [`When::of`] or [`When::and_map_reads`].
    ReadMap,
}

impl Verb {
    /// How many there are.
    pub(super) const COUNT: usize = Verb::ReadMap as usize + 1;

    /// The calls that change what a power cut may leave.
    pub const CHANGING: [Verb; 12] = [
        Verb::CreateNew,
        Verb::Link,
        Verb::Rename,
        Verb::Remove,
        Verb::SyncDir,
        Verb::WriteAt,
        Verb::SetLen,
        Verb::Punch,
        Verb::SyncData,
        Verb::SyncAll,
        Verb::SyncFileSystem,
        Verb::SetAttributes,
    ];

    fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// Selects a call. The first matching call after the disk gets this is number 1.
#[derive(Debug, Clone, Copy)]
pub struct When {
    nth: u64,
    /// A bit for each verb that matches.
    verbs: u64,
    process: Option<u64>,
}

impl When {
    /// Selects the `nth` call from now on, of any kind.
    pub fn nth(nth: u64) -> When {
        When { nth, verbs: !Verb::ReadMap.bit(), process: None }
    }

    /// Selects the next call.
    pub fn next() -> When {
        When::nth(1)
    }

    /// Counts only calls of this kind.
    pub fn of(self, verb: Verb) -> When {
        self.of_any(&[verb])
    }

    /// Counts only calls of these kinds.
    pub fn of_any(self, verbs: &[Verb]) -> When {
        When { verbs: verbs.iter().fold(0, |set, &verb| set | verb.bit()), ..self }
    }

    /// Counts reads through maps too.
    pub fn and_map_reads(self) -> When {
        When { verbs: self.verbs | Verb::ReadMap.bit(), ..self }
    }

    /// Counts only calls of this handle's process.
    pub fn by(self, process: &SimDisk) -> When {
        When { process: Some(process.process), ..self }
    }

    fn matches(&self, process: u64, verb: Verb) -> bool {
        self.process.is_none_or(|wanted| wanted == process) && self.verbs & verb.bit() != 0
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call does nothing and returns an error of this kind. A sync that fails drops what it should have written.
    Error(io::ErrorKind),
    /// As `Error`, with an error number of the operating system.
    Os(i32),
    /// A read or write handles at most this many bytes and says so; other calls are not affected.
    Short(usize),
    /// The process is killed in the middle of the call: a write has written at most this many bytes, a sync has brought
    /// nothing to the disk, and other calls have done their work. No caller gets the result.
    Kill(usize),
    /// The power goes out in the middle of the call. What it did counts as not synced, and it and all later calls fail.
    PowerCut,
}

/// Whether a fault goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The call fails, the ones after it work.
    Once,
    /// That call and all later matching calls fail.
    Forever,
}

impl Fault {
    /// Returns the error that the caller gets, if the call does nothing and fails.
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            Fault::Error(kind) => Some(kind.into()),
            Fault::Os(number) => Some(io::Error::from_raw_os_error(number)),
            Fault::Short(_) | Fault::Kill(_) | Fault::PowerCut => None,
        }
    }

    /// Returns whether the caller does not live until the end of the call. Then a sync may have done nothing.
    pub(super) fn ends_the_caller(self) -> bool {
        matches!(self, Fault::Kill(_) | Fault::PowerCut)
    }

    /// Returns how many of the requested bytes a read or write handles.
    pub(super) fn limit(self, asked: usize) -> usize {
        match self {
            Fault::Short(most) | Fault::Kill(most) => asked.min(most),
            Fault::Error(_) | Fault::Os(_) | Fault::PowerCut => asked,
        }
    }
}

/// What happens at certain calls: faults, or a test's closures.
pub(super) struct Schedule<T> {
    planned: Vec<Planned<T>>,
}

struct Planned<T> {
    when: When,
    repeat: Repeat,
    what: T,
}

impl<T> Default for Schedule<T> {
    fn default() -> Schedule<T> {
        Schedule { planned: Vec::new() }
    }
}

impl<T: Clone> Schedule<T> {
    pub(super) fn add(&mut self, when: When, repeat: Repeat, what: T) {
        self.planned.push(Planned { when, repeat, what });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Counts one call and returns what happens at it, in the order of planning.
    pub(super) fn due(&mut self, process: u64, verb: Verb) -> Vec<T> {
        // Allocates only if something is due.
        let mut due = Vec::new();
        self.planned.retain_mut(|planned| {
            if !planned.when.matches(process, verb) {
                return true;
            }
            planned.when.nth = planned.when.nth.saturating_sub(1);
            if planned.when.nth > 0 {
                return true;
            }
            due.push(planned.what.clone());
            planned.repeat == Repeat::Forever
        });
        due
    }
}
