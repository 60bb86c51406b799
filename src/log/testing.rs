//! Small logs on a simulated disk, for tests.

use std::path::Path;
use std::sync::Arc;

use super::LogFile;
use super::group::Group;
use super::temp_file::head;
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

/// The bytes of a log. Each record has the next sequence number.
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    pub(crate) seq: u64,
}

impl Draft {
    pub(crate) fn new() -> Draft {
        Draft { bytes: header().encode().to_vec(), seq: 0 }
    }

    /// A file with `ROOTS` and empty slots.
    pub(crate) fn with_roots() -> Draft {
        Draft { bytes: head(&FileHeader { has_roots: true, ..header() }), seq: 0 }
    }

    /// Adds a record and returns its offset.
    pub(crate) fn push(&mut self, flags: Flags, kind: Kind, key: &[u8], value: &[u8]) -> u64 {
        self.seq += 1;
        let seq = self.seq;
        self.group(|group| group.push(flags, kind, seq, key, value))
    }

    pub(crate) fn put(&mut self, flags: Flags, key: &str) -> u64 {
        self.push(flags, Kind::Put, format!("\0{key}").as_bytes(), b"value")
    }

    pub(crate) fn synced_to(&mut self, synced: u64) -> u64 {
        self.seq += 1;
        let seq = self.seq;
        self.group(|group| group.push_synced_to(seq, synced))
    }

    /// Adds headers that each claim a body of `len` bytes. The bodies are missing and would overlap.
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

    /// The file with an end mark.
    pub(crate) fn finish(mut self) -> LogFile {
        self.bytes.extend_from_slice(&[0; 8]);
        open(self.bytes)
    }
}

pub(crate) fn header() -> FileHeader {
    FileHeader {
        major: MAJOR_VERSION,
        minor: MINOR_VERSION,
        has_roots: false,
        file_id: [5; 16],
        base_seq: 0,
        created: 0,
        complete_after: 0,
    }
}

pub(crate) fn seed() -> FileSeed {
    header().seed()
}

/// A file with these bytes, which begin with a header.
pub(crate) fn open(bytes: Vec<u8>) -> LogFile {
    open_on(&SimDisk::new(), bytes)
}

/// As [`open`], on an existing disk.
pub(crate) fn open_on(disk: &SimDisk, bytes: Vec<u8>) -> LogFile {
    assert!(bytes.len() >= FILE_HEADER_LEN);
    disk.set_contents(PATH, bytes);
    let path: Arc<Path> = Path::new(PATH).into();
    let file = disk.open(&path, Access::ReadWrite).unwrap();
    LogFile::open(file, &path).unwrap()
}

/// Whether docs/FORMAT.md has these words, wherever its lines break. Tests compare its numbers with the code.
pub(crate) fn page_says(words: &str) -> bool {
    let page = include_str!("../../docs/FORMAT.md");
    page.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
}
