//! What a process does to a simulated disk, recorded, and done again on a copy of the disk: up to any call, and up to any
//! byte of a write. A test can so let a write of another process reach the file in parts, with calls of its own in between.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SimDisk;
use super::inode::Inode;
use super::machine::Machine;
use crate::disk::FileAttributes;

/// The changes that one process has made, in order: see [`SimDisk::record`].
#[derive(Clone, Default)]
pub struct Recording {
    process: u64,
    /// Files with higher numbers were created after the recording began.
    created: u64,
    changes: Vec<Change>,
}

/// A place in a [`Recording`]: this many calls, and of the next one, if it is a write, this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cue {
    /// How many calls are done as a whole.
    pub calls: usize,
    /// How many bytes of the next call are written.
    pub bytes: usize,
}

#[derive(Clone)]
pub(super) enum Change {
    Create { path: PathBuf, inode: u64, attributes: FileAttributes },
    Link { from: PathBuf, to: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    Write { inode: u64, offset: u64, bytes: Arc<[u8]> },
    SetLen { inode: u64, len: u64 },
    Punch { inode: u64, range: Range<u64> },
    SetAttributes { inode: u64, attributes: FileAttributes },
    Lock { inode: u64 },
    Unlock { inode: u64 },
}

/// Files that a recording creates get numbers above this when it is played, since the disk may have created others.
const OTHERS: u64 = 1 << 32;

/// Stands for the description by which a recorded process has a lock. No description has this number.
const RECORDED: u64 = 0;

impl Recording {
    /// Returns the number of calls that changed something.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the bytes that a call wrote; none if it was no write.
    pub fn written(&self, call: usize) -> &[u8] {
        match self.changes.get(call) {
            Some(Change::Write { bytes, .. }) => bytes,
            _ => &[],
        }
    }

    /// Returns the place after the last call.
    pub fn end(&self) -> Cue {
        Cue { calls: self.len(), bytes: 0 }
    }

    fn played_number(&self, inode: u64) -> u64 {
        if inode > self.created { OTHERS + inode } else { inode }
    }
}

impl SimDisk {
    /// Records from now on what this process changes: files, names and locks. Syncs are not recorded: they change nothing
    /// that another process sees.
    pub fn record(&self) {
        let mut machine = self.lock();
        let created = machine.world.created;
        machine.recording = Some(Recording { process: self.process, created, changes: Vec::new() });
    }

    /// Returns what was recorded up to now.
    pub fn recorded(&self) -> Recording {
        self.lock().recording.clone().unwrap_or_default()
    }

    /// Does what was recorded, from one place to another, on a copy of the disk that the recording began with. Returns how
    /// far it came: it stops where a lock was taken that another process has here.
    pub fn play(&self, recording: &Recording, from: Cue, to: Cue) -> Cue {
        let mut machine = self.lock();
        let mut at = from;
        while at.calls < to.calls {
            if !machine.play(recording, at.calls, at.bytes..usize::MAX) {
                return at;
            }
            at = Cue { calls: at.calls + 1, bytes: 0 };
        }
        if at < to && machine.play(recording, at.calls, at.bytes..to.bytes) {
            at = to;
        }
        at
    }
}

impl Machine {
    /// Takes down a change, if it is one of the process that is recorded.
    pub(super) fn record(&mut self, process: u64, change: impl FnOnce() -> Change) {
        if let Some(recording) = self.recording.as_mut().filter(|recording| recording.process == process) {
            recording.changes.push(change());
        }
    }

    /// Does one call again, or this part of a write. Returns `false` if it must wait for a lock.
    fn play(&mut self, recording: &Recording, call: usize, part: Range<usize>) -> bool {
        let world = &mut self.world;
        let number = |inode: &u64| recording.played_number(*inode);
        let of = |path: &Path| path.to_path_buf();
        match &recording.changes[call] {
            Change::Create { path, inode, attributes } => {
                world.inodes.insert(number(inode), Inode::new(attributes.clone()));
                world.directory.add(of(path), number(inode));
            }
            Change::Link { from, to } => {
                let inode = world.directory.get(from).expect("recorded");
                world.directory.add(of(to), inode);
            }
            Change::Rename { from, to } => {
                let inode = world.directory.get(from).expect("recorded");
                world.directory.rename(of(from), of(to), inode);
            }
            Change::Remove { path } => world.directory.remove(of(path)),
            Change::Write { inode, offset, bytes } => {
                let part = part.start..part.end.min(bytes.len());
                let (inode, offset) = (world.inode(number(inode)), offset + part.start as u64);
                inode.allocate(offset..offset + part.len() as u64, None);
                inode.write(offset, &bytes[part]);
            }
            Change::SetLen { inode, len } => {
                world.release(number(inode), *len..u64::MAX);
                world.inode(number(inode)).set_len(*len);
            }
            Change::Punch { inode, range } => {
                world.release(number(inode), range.clone());
                world.inode(number(inode)).punch(range.clone());
            }
            Change::SetAttributes { inode, attributes } => {
                world.inode(number(inode)).set_attributes(attributes.clone());
            }
            Change::Lock { inode } => {
                let inode = world.inode(number(inode));
                inode.was_locked = true;
                return *inode.locked_by.get_or_insert(RECORDED) == RECORDED;
            }
            Change::Unlock { inode } => world.inode(number(inode)).locked_by = None,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Access, Disk, DiskFile};

    const FILE: &str = "/file";

    fn open(disk: &SimDisk) -> Arc<dyn DiskFile> {
        disk.open(Path::new(FILE), Access::ReadWrite).unwrap()
    }

    #[test]
    fn a_recorded_write_arrives_in_parts() {
        let disk = SimDisk::new();
        disk.set_contents(FILE, b"before".to_vec());
        let copy = disk.fork();
        disk.record();
        let file = open(&disk);
        assert!(file.try_lock().unwrap());
        file.write_at(2, b"written").unwrap();
        disk.create_new(Path::new("/new"), 0o600).unwrap().write_at(0, b"new").unwrap();
        disk.rename(Path::new("/new"), Path::new(FILE)).unwrap();
        file.unlock().unwrap();
        let recording = disk.recorded();
        assert_eq!((recording.len(), recording.written(1), recording.written(2)), (6, &b"written"[..], &b""[..]));

        let half = copy.play(&recording, Cue::default(), Cue { calls: 1, bytes: 3 });
        assert_eq!(copy.contents(FILE).unwrap(), b"bewrie");
        let (ours, created) = (open(&copy), copy.create_new(Path::new("/ours"), 0o600).unwrap());
        assert!(!ours.try_lock().unwrap(), "the recorded process has it");
        assert_eq!(copy.play(&recording, half, recording.end()), recording.end());
        assert_eq!(copy.contents(FILE).unwrap(), b"new");
        assert!(ours.try_lock().unwrap());
        let mut bytes = [0; 9];
        assert_eq!((ours.read_at(0, &mut bytes).unwrap(), &bytes), (9, b"bewritten"));
        assert_ne!(created.stat().unwrap().identity, open(&copy).stat().unwrap().identity);
    }

    #[test]
    fn a_recorded_process_waits_for_a_lock() {
        let disk = SimDisk::new();
        disk.set_contents(FILE, Vec::new());
        let copy = disk.fork();
        disk.record();
        let file = open(&disk);
        file.set_len(5).unwrap();
        assert!(file.try_lock().unwrap());
        file.set_len(6).unwrap();
        let (recording, ours) = (disk.recorded(), open(&copy));
        assert!(ours.try_lock().unwrap());
        let at = copy.play(&recording, Cue::default(), recording.end());
        assert_eq!((at.calls, ours.len().unwrap()), (1, 5));
        ours.unlock().unwrap();
        assert_eq!(copy.play(&recording, at, recording.end()), recording.end());
        assert_eq!(ours.len().unwrap(), 6);
    }
}
