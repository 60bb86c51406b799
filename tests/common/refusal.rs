//! What the tests of bad input look at: that an error says what it must, and that a file is as it was.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use caskfile::{Cask, Config, Durability, Error, LockMode, ReadMode, Result};

/// Every way to open a file that differs in what it may do to it.
pub fn every_config() -> [Config; 5] {
    [
        Config::new(),
        Config::new().create(false),
        Config::new().read_only(true),
        Config::new().read_only(true).read_mode(ReadMode::Pread),
        Config::new().lock_mode(LockMode::Exclusive).durability(Durability::Os),
    ]
}

/// A file and its directory as they are, so that they can be compared later.
pub struct Unchanged {
    path: PathBuf,
    names: Vec<String>,
    bytes: Vec<u8>,
    times_and_identity: (i64, i64, u64, u32, u64),
}

impl Unchanged {
    pub fn from_now_on(path: &Path) -> Unchanged {
        // Long ago, so that any write changes it, however coarse the file system's clock is.
        File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        Unchanged::look(path)
    }

    fn look(path: &Path) -> Unchanged {
        let directory = path.parent().unwrap().read_dir().unwrap();
        let mut names: Vec<_> = directory.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let metadata = fs::metadata(path).unwrap();
        let (mtime, nsec) = (metadata.mtime(), metadata.mtime_nsec());
        let times_and_identity = (mtime, nsec, metadata.ino(), metadata.mode(), metadata.nlink());
        Unchanged { path: path.to_owned(), names, bytes: fs::read(path).unwrap(), times_and_identity }
    }

    #[track_caller]
    pub fn check(&self) {
        let now = Unchanged::look(&self.path);
        assert_eq!(now.names, self.names, "files came or went");
        assert!(now.bytes == self.bytes, "{} was changed", self.path.display());
        assert_eq!(now.times_and_identity, self.times_and_identity, "{} was written to", self.path.display());
    }
}

/// The error's message must name the path, whatever else it has to say.
#[track_caller]
pub fn says(error: &Error, path: &Path, more: &[&str]) {
    let message = format!("{error:#}");
    let path = path.to_str().unwrap();
    for part in [path].iter().chain(more) {
        assert!(message.contains(part), "{message:?} must say {part:?}");
    }
}

#[track_caller]
pub fn io_kind(error: &Error) -> ErrorKind {
    match error {
        Error::Io { source, .. } => source.kind(),
        other => panic!("{other:?} is no I/O error"),
    }
}

#[track_caller]
pub fn refused<T>(result: Result<T>) -> Error {
    result.err().expect("it must be refused")
}

pub fn store_with(path: &Path, pairs: &[(&str, &str)]) {
    let cask = Cask::open(path).unwrap();
    for (key, value) in pairs {
        cask.put(key, value).unwrap();
    }
    cask.close().unwrap();
}
