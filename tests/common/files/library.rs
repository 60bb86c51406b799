//! The library's verdict on a file, and a disk on which it always writes the same bytes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::disk::{Access, Disk, DiskFile, FileStat, System};
use caskfile::{Cask, Config, Error, Limits, SnapshotPolicy};

use super::bytes::{CREATED, FILE_ID};
use super::layout::{END_MARK_LEN, ROOTS_END};
use super::reader::{Contents, Reader, Verdict};

pub const PATH: &str = "/store";

/// The library's verdict: once of a read-only handle, once of a writer, which also carries out what it decides. Both read all
/// of the file when they open it. A handle that is opened through a snapshot must show the same.
pub fn verdict(file: &[u8]) -> Verdict {
    let disk = SimDisk::new();
    // It shows the moment by which the page's reader hides pairs.
    disk.stop_clock();
    disk.set_contents(PATH, file.to_vec());
    let config = Config::new().create(false).snapshots(SnapshotPolicy::Never);
    let through_snapshot = Cask::open_on(Arc::new(disk.clone()), PATH, &config.clone().read_only(true));
    let through_snapshot = through_snapshot.and_then(|cask| try_contents(&cask));
    let config = config.check_at_open(true);
    let read_only = verdict_of(Cask::open_on(Arc::new(disk.clone()), PATH, &config.clone().read_only(true)));
    assert_eq!(disk.contents(PATH).as_deref(), Some(file), "a read-only handle has changed the file");
    let writer = Cask::open_on(Arc::new(disk.clone()), PATH, &config);
    let torn = writer.as_ref().map_or(0, |cask| cask.stats().expect("it is open").torn_bytes);
    let after = disk.contents(PATH).expect("the store is there");
    let found = verdict_of(writer);
    assert_eq!(found, read_only, "a writer and a reader disagree");
    match (&found, through_snapshot) {
        (Verdict::Store(contents), shown) => assert_eq!(shown.as_ref().ok(), Some(&**contents), "through the snapshot"),
        (_, Err(_)) => {}
        // The damage may lie in records that no handle reads which was opened through a snapshot.
        (_, Ok(_)) if file.len() >= ROOTS_END && Reader::new(file).root().is_some_and(|root| root.2 > 0) => {}
        (_, Ok(shown)) => panic!("{found:?}, and without a check at opening {shown:?}"),
    }
    let Verdict::Store(mut contents) = found else {
        assert_eq!(after, file, "a file that is refused has been changed");
        return found;
    };
    let end = contents.end as usize;
    if torn > 0 || file.len() < end + END_MARK_LEN {
        let mut cut = file[..end.min(file.len())].to_vec();
        cut.resize(file.len().max(end + END_MARK_LEN), 0);
        assert_eq!(after, cut, "the log was not cut at its end, or the file has another length");
    } else {
        assert_eq!(after, file, "a whole file has been changed by opening it");
    }
    let kept: Vec<_> = disk.paths().into_iter().filter(|path| path != Path::new(PATH)).collect();
    for path in &kept {
        assert!(path.to_string_lossy().starts_with("/store.torn-"), "{path:?}");
        assert_eq!(disk.contents(path).as_deref(), Some(&file[end..end + torn as usize]), "the wrong bytes were kept");
    }
    assert!(kept.len() <= 1, "{kept:?}");
    (contents.torn, contents.kept) = (torn, !kept.is_empty());
    Verdict::Store(contents)
}

fn verdict_of(opened: caskfile::Result<Cask>) -> Verdict {
    match opened {
        Ok(cask) => Verdict::Store(Box::new(contents(&cask))),
        Err(Error::NotCaskfile { .. }) => Verdict::NotCaskfile,
        Err(Error::UnsupportedVersion { .. }) => Verdict::UnsupportedVersion,
        Err(Error::UnsupportedRecord { offset, .. }) => Verdict::UnsupportedRecord { offset },
        Err(Error::Corrupt { offset, .. }) => Verdict::Corrupt { offset },
        Err(Error::Truncated { log_end, stated, .. }) => Verdict::Truncated { log_end, stated },
        Err(other) => panic!("the page knows no such error: {other}"),
    }
}

/// All that a handle shows.
pub fn contents(cask: &Cask) -> Contents {
    try_contents(cask).expect("it is open")
}

fn try_contents(cask: &Cask) -> caskfile::Result<Contents> {
    let mut pairs = BTreeMap::new();
    for bucket in cask.buckets()? {
        for pair in cask.bucket(&bucket)?.list("")? {
            pairs.insert((bucket.clone(), pair.key), (pair.value, pair.last_index));
        }
    }
    let stats = cask.stats()?;
    let (records, last_index, proven, end) = (stats.records, stats.last_index, stats.proven, stats.log_end);
    Ok(Contents { pairs, records, last_index, proven, end, torn: 0, kept: false })
}

/// A simulated disk on which every file has the same identity and is made at the same time.
pub struct SameEveryTime(pub SimDisk);

impl Disk for SameEveryTime {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.resolve(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path, access)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create_new(path, mode)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.0.stat(path)
    }

    fn list(&self, directory: &Path, prefix: &OsString) -> io::Result<Vec<OsString>> {
        self.0.list(directory, prefix)
    }

    fn limits(&self) -> &'static Limits {
        self.0.limits()
    }

    fn system(&self) -> &dyn System {
        self
    }
}

impl System for SameEveryTime {
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        // Names are random as well, and shorter.
        match bytes.len() {
            16 => bytes.copy_from_slice(&FILE_ID),
            _ => self.0.system().fill_random(bytes)?,
        }
        Ok(())
    }

    fn unix_time(&self) -> u64 {
        CREATED
    }
}
