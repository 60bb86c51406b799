//! Small logs on a simulated disk, for this module's own tests.

use std::path::Path;
use std::sync::Arc;

use super::LogFile;
use super::group::Group;
use crate::disk::sim::SimDisk;
use crate::disk::{Access, Disk};
use crate::format::{
    Ancillary, FILE_HEADER_LEN, FileHeader, FileSeed, Flags, Kind, MAJOR_VERSION, MINOR_VERSION, RECORD_HEADER_LEN,
};

pub(crate) const PATH: &str = "/store";

pub(crate) const PLAIN: Flags = Flags::NONE;
pub(crate) const MORE: Flags = Flags { synced: false, more: true };
pub(crate) const SYNCED: Flags = Flags { synced: true, more: false };

pub(crate) const MARK: Kind = Kind::Ancillary(Ancillary::Mark);

/// The bytes of a log in the making, each record with the index after the one before.
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    pub(crate) index: u64,
}

impl Draft {
    pub(crate) fn new() -> Draft {
        Draft { bytes: header().encode().to_vec(), index: 0 }
    }

    /// Adds a record and returns where it starts.
    pub(crate) fn push(&mut self, flags: Flags, kind: Kind, key: &[u8], value: &[u8]) -> u64 {
        self.index += 1;
        let index = self.index;
        self.group(|group| group.push(flags, kind, index, key, value))
    }

    pub(crate) fn put(&mut self, flags: Flags, key: &str) -> u64 {
        self.push(flags, Kind::Put, format!("\0{key}").as_bytes(), b"value")
    }

    pub(crate) fn synced_to(&mut self, synced: u64) -> u64 {
        self.index += 1;
        let index = self.index;
        self.group(|group| group.push_synced_to(index, synced))
    }

    /// Adds headers, one behind the other, of which each speaks of a body of `len` bytes that is not there: the bodies
    /// would overlap.
    pub(crate) fn push_hollow(&mut self, count: usize, len: usize) {
        for _ in 0..count {
            let start = self.push(PLAIN, Kind::Put, b"\0k", &vec![7; len - 2]) as usize;
            self.bytes.truncate(start + RECORD_HEADER_LEN);
        }
    }

    fn group(&mut self, fill: impl FnOnce(&mut Group)) -> u64 {
        let start = self.bytes.len();
        let mut group = Group::new(seed(), start as u64);
        fill(&mut group);
        let end = (group.end() - start as u64) as usize;
        self.bytes.extend_from_slice(&group.finish()[..end]);
        start as u64
    }

    pub(crate) fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The file as it is now.
    pub(crate) fn copy(&self) -> LogFile {
        open(self.bytes.clone())
    }

    /// The file, closed with an end mark.
    pub(crate) fn finish(mut self) -> LogFile {
        self.bytes.extend_from_slice(&[0; 8]);
        open(self.bytes)
    }
}

pub(crate) fn header() -> FileHeader {
    FileHeader { major: MAJOR_VERSION, minor: MINOR_VERSION, file_id: [5; 16], base_seq: 0, created: 0 }
}

pub(crate) fn seed() -> FileSeed {
    header().seed()
}

/// A file with these bytes, behind a header.
pub(crate) fn open(bytes: Vec<u8>) -> LogFile {
    open_on(&SimDisk::new(), bytes)
}

/// The same on a disk that is there.
pub(crate) fn open_on(disk: &SimDisk, bytes: Vec<u8>) -> LogFile {
    assert!(bytes.len() >= FILE_HEADER_LEN);
    disk.set_contents(PATH, bytes);
    let path: Arc<Path> = Path::new(PATH).into();
    let file = disk.open(&path, Access::ReadWrite).unwrap();
    LogFile::open(file, &path).unwrap()
}

/// Whether docs/FORMAT.md has these words, wherever its lines are broken: numbers on the page that no file shows are
/// compared with the code here and there.
pub(crate) fn page_says(words: &str) -> bool {
    let page = include_str!("../../docs/FORMAT.md");
    page.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
}
