//! Moments of an operation that have a name, and processes that die at one of them.
//!
//! A moment lies between two calls that change the disk, and is recognised from the two. An observer from outside
//! can tell no moment in between from it.

#![allow(dead_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::common::hooked::{Call, HALFWAY, HookedDisk};
use crate::common::process::{die, say};

/// The moments by name, with what was done last and what is to be done next.
const POINTS: [(&str, Did, Did); 25] = [
    ("creation: file synced, not linked", Did::Sync(Of::Temporary), Did::Link),
    ("creation: linked, temporary name there", Did::Link, Did::Remove),
    ("creation: linked, directory not synced", Did::Remove, Did::SyncDirectory),
    ("creation: file synced, not renamed over an empty one", Did::Sync(Of::Temporary), Did::Rename),
    ("creation: renamed over an empty one, directory not synced", Did::Unlock, Did::SyncDirectory),
    ("a group: file extended, nothing written", Did::Extend, Did::Group),
    ("a group: half written", Did::Group, Did::Half),
    ("a group: written, not synced", Did::Group, Did::Sync(Of::Store)),
    ("a group: written, lock held", Did::Group, Did::Unlock),
    ("a group: synced, lock held", Did::Sync(Of::Store), Did::Unlock),
    ("compaction: file synced, no MOVED", Did::Sync(Of::Temporary), Did::Moved),
    ("compaction: MOVED half written", Did::Moved, Did::Half),
    ("compaction: MOVED written, not renamed", Did::Moved, Did::Rename),
    ("compaction: renamed, directory not synced", Did::Rename, Did::SyncDirectory),
    ("compaction: directory synced, lock held", Did::SyncDirectory, Did::Unlock),
    ("a cut: marked, not punched", Did::CutMark, Did::Punch),
    ("a cut: punched, not synced", Did::Punch, Did::Sync(Of::Store)),
    ("a cut: synced, no end mark", Did::Sync(Of::Store), Did::EndMark),
    ("a cut: end mark, not synced", Did::EndMark, Did::Sync(Of::Store)),
    ("a torn tail: copied, not synced", Did::Copy, Did::Sync(Of::Torn)),
    ("a torn tail: copy synced, directory not synced", Did::Sync(Of::Torn), Did::SyncDirectory),
    ("a torn tail: kept, not cut", Did::SyncDirectory, Did::CutMark),
    ("close: lock held, not trimmed", Did::Lock, Did::Extend),
    ("close: root written, not trimmed", Did::Group, Did::Extend),
    ("close: trimmed, lock held", Did::Extend, Did::Unlock),
];

/// The names of all moments.
pub fn names() -> impl Iterator<Item = &'static str> {
    POINTS.iter().map(|(name, _, _)| *name)
}

/// A call that changes the disk or a lock, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Nothing,
    Create,
    Link,
    Rename,
    Remove,
    SyncDirectory,
    /// Changing the length.
    Extend,
    Punch,
    Group,
    Moved,
    CutMark,
    EndMark,
    /// The second half of a write.
    Half,
    /// Writing to a temporary file.
    Draft,
    /// Writing to a torn tail's copy.
    Copy,
    Sync(Of),
    Lock,
    Unlock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Store,
    Temporary,
    Torn,
}

/// The kind of the record that says that the log has moved, and where a record has its kind.
const MOVED: u8 = 0x82;
const AT_KIND: usize = 9;
const HEADER: usize = 24;
const END_MARK: usize = 8;

impl Did {
    /// What a call about such a file means; `None` if it changes nothing.
    fn by(call: &Call<'_>, of: Of) -> Option<Did> {
        Some(match call.name {
            "create_new" => Did::Create,
            "link" => Did::Link,
            "rename" => Did::Rename,
            "remove" => Did::Remove,
            "sync_dir" => Did::SyncDirectory,
            "set_len" => Did::Extend,
            "punch" => Did::Punch,
            "sync_data" | "sync_all" => Did::Sync(of),
            "try_lock" if of == Of::Store => Did::Lock,
            "unlock" if of == Of::Store => Did::Unlock,
            HALFWAY if of == Of::Store => Did::Half,
            "write_at" => match (of, call.bytes) {
                (Of::Temporary, _) => Did::Draft,
                (Of::Torn, _) => Did::Copy,
                (_, [0xff, ..]) if call.bytes.len() == END_MARK => Did::CutMark,
                (_, [0, ..]) if call.bytes.len() == END_MARK => Did::EndMark,
                _ if is_moved(call.bytes) => Did::Moved,
                _ => Did::Group,
            },
            _ => return None,
        })
    }
}

/// Whether these are a group that ends with the record that says that the log has moved.
fn is_moved(group: &[u8]) -> bool {
    let last = group.len().checked_sub(END_MARK + HEADER);
    // After a statement and a mark at most; a longer group is one of values.
    last.is_some_and(|last| last <= 3 * HEADER && group[last + AT_KIND] == MOVED)
}

/// Recognises moments in a sequence of calls.
pub struct Watch {
    last: Did,
    /// The temporary file that was made last.
    made: Option<PathBuf>,
    /// The temporary name of a file that is the store by now.
    renamed: Option<PathBuf>,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { last: Did::Nothing, made: None, renamed: None }
    }
}

impl Watch {
    /// The name of the moment before this call, if it has one.
    pub fn point(&mut self, call: &Call<'_>) -> Option<&'static str> {
        let next = Did::by(call, self.of(call.path))?;
        match next {
            Did::Create => self.made = Some(call.path.to_owned()),
            Did::Rename => self.renamed = self.made.take(),
            _ => {}
        }
        let found = POINTS.iter().find(|(_, last, to_come)| (*last, *to_come) == (self.last, next));
        // Half a write is still that write.
        self.last = if next == Did::Half { self.last } else { next };
        found.map(|(name, _, _)| *name)
    }

    fn of(&self, path: &Path) -> Of {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match name {
            _ if self.renamed.as_deref() == Some(path) => Of::Store,
            _ if name.contains(".tmp-") => Of::Temporary,
            _ if name.contains(".torn-") => Of::Torn,
            _ => Of::Store,
        }
    }
}

/// When a process is to die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Never,
    /// Before its n-th call to the disk.
    AtCall(u64),
    /// The n-th time that it comes to this moment.
    AtPoint(String, u64),
}

impl Fate {
    pub fn to_words(&self) -> [String; 2] {
        match self {
            Fate::Never => ["never".to_owned(), "0".to_owned()],
            Fate::AtCall(call) => ["call".to_owned(), call.to_string()],
            Fate::AtPoint(name, time) => [name.clone(), time.to_string()],
        }
    }

    pub fn from_words(what: &str, number: &str) -> Fate {
        let number = number.parse().unwrap();
        match what {
            "never" => Fate::Never,
            "call" => Fate::AtCall(number),
            name => Fate::AtPoint(name.to_owned(), number),
        }
    }
}

/// What a process says before it dies, followed by the moment's name, or by nothing if it has none.
pub const LAST_WORD: &str = "dies: ";

/// The real disk, on which this process dies as it is fated to. Writes are made in two halves.
///
/// `fail` is asked before every call that does not end it, and may make it fail.
pub fn deadly_disk(fate: Fate, fail: impl Fn(&Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> HookedDisk {
    let state = Mutex::new((Watch::default(), 0u64, 0u64));
    let mut disk = HookedDisk::watched(move |call| {
        let mut state = state.lock().unwrap();
        let (watch, calls, times) = &mut *state;
        let point = watch.point(call);
        let dies = match &fate {
            Fate::Never => false,
            Fate::AtCall(at) => *calls == *at,
            Fate::AtPoint(name, time) => {
                let here = point == Some(name.as_str());
                *times += u64::from(here);
                here && *times > *time
            }
        };
        *calls += 1;
        if dies {
            say(format!("{LAST_WORD}{}", point.unwrap_or_default()));
            die();
        }
        drop(state);
        fail(call)
    });
    disk.halve_writes = true;
    disk
}
