//! Whatever the bytes of a file are: opening it gives a store or a typed error, reading it changes nothing, and a store
//! that opens can be written, closed, reopened and compacted without losing or making up a pair.
//!
//! The first byte of the input says how the rest becomes a file, see [`Plan`]. Most ways put checksums right, so that
//! the fuzzer reaches the checks after them.

#![no_main]

#[path = "../../tests/common/files/seal.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod seal;
mod shape;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caskfile::disk::sim::SimDisk;
use caskfile::disk::{Disk, RealDisk};
use caskfile::{Batch, Cask, Config, Durability, Error, ReadMode};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&plan, rest)) = input.split_first() else { return Corpus::Reject };
    let plan = Plan(plan);
    let Ok(file) = shape::file(plan.0, rest) else { return Corpus::Reject };
    let machine = plan.machine(&file);
    through_snapshot(&machine, &plan);
    read_only(&machine, &plan, &file);
    Corpus::Keep
});

/// What the input's first byte says.
struct Plan(u8);

impl Plan {
    /// A real file and a real map for one input in 16, a disk that knows no holes for three; both are slow.
    fn machine(&self, file: &[u8]) -> Machine {
        if self.0 >> 4 == 0xf { Machine::real(file) } else { Machine::simulated(file, self.0 & 0x30 != 0x30) }
    }

    /// With a check of the whole log, so that all handles see the same.
    fn config(&self) -> Config {
        self.unchecked().check_at_open(true)
    }

    fn unchecked(&self) -> Config {
        let reads = if self.0 & 8 == 0 { ReadMode::Map } else { ReadMode::Pread };
        Config::new().read_mode(reads).durability(if self.0 & 4 == 0 { Durability::Sync } else { Durability::Os })
    }
}

/// Where the file lies.
enum Machine {
    Simulated(SimDisk),
    Real(PathBuf),
}

impl Machine {
    fn simulated(file: &[u8], holes: bool) -> Machine {
        let disk = SimDisk::new();
        disk.set_holes(holes);
        disk.set_contents("/store", file.to_vec());
        Machine::Simulated(disk)
    }

    /// In memory if there is a file system for that: what counts is the map, not the medium.
    fn real(file: &[u8]) -> Machine {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let directory = parent.join(format!("caskfile-fuzz-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("store"), file).unwrap();
        Machine::Real(directory)
    }

    fn path(&self) -> PathBuf {
        match self {
            Machine::Simulated(_) => "/store".into(),
            Machine::Real(directory) => directory.join("store"),
        }
    }

    fn open(&self, config: &Config) -> caskfile::Result<Cask> {
        let disk: Arc<dyn Disk> = match self {
            Machine::Simulated(disk) => Arc::new(disk.process()),
            Machine::Real(_) => Arc::new(RealDisk),
        };
        Cask::open_on(disk, self.path(), config)
    }

    fn contents(&self) -> Vec<u8> {
        match self {
            Machine::Simulated(disk) => disk.contents("/store").unwrap(),
            Machine::Real(directory) => std::fs::read(directory.join("store")).unwrap(),
        }
    }

    /// All names, the store's own included.
    fn names(&self) -> Vec<PathBuf> {
        match self {
            Machine::Simulated(disk) => disk.paths(),
            Machine::Real(directory) => {
                std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
            }
        }
    }

    #[track_caller]
    fn assert_untouched(&self, file: &[u8]) {
        assert!(self.contents() == file, "the file was changed");
        assert_eq!(self.names(), [self.path()], "another file was made");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Machine::Real(directory) = self {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// Bucket and key, value and index.
type Pairs = BTreeMap<(Vec<u8>, Vec<u8>), (Vec<u8>, u64)>;

/// Everything in the store, by every way of reading.
fn read_everything(cask: &Cask) -> Pairs {
    let mut pairs = Pairs::new();
    let names = cask.buckets().unwrap();
    assert!(names.is_sorted());
    for name in names {
        let bucket = cask.bucket(&name).unwrap();
        let listed = bucket.list("").unwrap();
        assert!(!listed.is_empty(), "a bucket without a key");
        assert!(listed.is_sorted_by(|a, b| a.key < b.key));
        assert!(bucket.scan("").unwrap().rev().map(Result::unwrap).eq(listed.iter().rev().cloned()));
        for pair in listed {
            assert_eq!(bucket.get(&pair.key).unwrap(), pair);
            assert!(bucket.exists(&pair.key).unwrap());
            pairs.insert((name.clone(), pair.key), (pair.value, pair.last_index));
        }
    }
    let stats = cask.stats().unwrap();
    assert_eq!(stats.keys, pairs.len() as u64);
    assert!(pairs.values().all(|(_, index)| *index <= stats.last_index));
    pairs
}

fn verify(cask: &Cask) {
    // A copy whose end is missing opens, and is not sound; neither is a store with a wrong snapshot.
    let verified = match cask.verify() {
        Err(Error::Damaged { report, .. }) if report.cut_off || report.wrong_snapshot.is_some() => (*report).clone(),
        verified => verified.unwrap(),
    };
    let stats = cask.stats().unwrap();
    // Verification looks at no clock.
    let keys = stats.keys + stats.hidden;
    assert_eq!((verified.keys, verified.records, verified.log_end), (keys, stats.records, stats.log_end));
}

/// A handle that may not look at all of the log when it is opened. What it meets later may be damage, and nothing else.
fn through_snapshot(machine: &Machine, plan: &Plan) {
    let Ok(cask) = machine.open(&plan.unchecked().read_only(true)) else { return };
    let mut scan = match cask.scan("") {
        Err(Error::Corrupt { .. } | Error::Truncated { .. }) => return,
        scan => scan.unwrap(),
    };
    if let Some(error) = scan.find_map(Result::err) {
        assert!(matches!(error, Error::Corrupt { .. } | Error::Truncated { .. }), "{error}");
    }
    for key in ["k", "fuzz", "key"] {
        match cask.get(key) {
            Ok(_) | Err(Error::KeyNotFound | Error::Corrupt { .. } | Error::Truncated { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// A reader first, which must not change a byte; then a writer, which must agree with it.
fn read_only(machine: &Machine, plan: &Plan, file: &[u8]) {
    let read = machine.open(&plan.config().read_only(true)).map(|cask| {
        let pairs = read_everything(&cask);
        verify(&cask);
        assert!(matches!(cask.put("k", "v"), Err(Error::ReadOnly { .. })));
        cask.close().unwrap();
        pairs
    });
    machine.assert_untouched(file);
    match (&read, machine.open(&plan.config())) {
        // An empty file becomes an empty store.
        (Err(Error::NotCaskfile { .. }), Ok(cask)) if file.is_empty() => {
            write(machine, plan, cask, Pairs::new());
        }
        (Ok(pairs), Ok(cask)) => {
            // The padding of the last record may be missing.
            let end = file.len().min(cask.stats().unwrap().log_end as usize);
            assert!(machine.contents()[..end] == file[..end], "recovery has changed a record");
            write(machine, plan, cask, pairs.clone());
        }
        (Err(reader), Err(writer)) => {
            machine.assert_untouched(file);
            assert_eq!(std::mem::discriminant(reader), std::mem::discriminant(&writer), "{reader} but {writer}");
            refused(machine, &writer, file);
        }
        (Ok(_), Err(error)) => panic!("a reader opens what a writer does not: {error}"),
        (Err(error), Ok(_)) => panic!("a writer opens what a reader does not: {error}"),
    }
}

/// The error is one of those that bytes can cause, and what is damaged can be salvaged.
fn refused(machine: &Machine, error: &Error, file: &[u8]) {
    match error {
        Error::NotCaskfile { .. } | Error::UnsupportedVersion { .. } | Error::UnsupportedRecord { .. } => {}
        Error::Corrupt { .. } | Error::Truncated { .. } => {
            let Machine::Real(directory) = machine else { return };
            let rescued = directory.join("rescued");
            match caskfile::salvage(machine.path(), &rescued) {
                Ok(report) => {
                    assert!(!report.is_sound(), "opening has refused what salvage finds sound");
                    let cask = Cask::open(&rescued).unwrap();
                    let hidden = cask.stats().unwrap().hidden;
                    assert_eq!(read_everything(&cask).len() as u64 + hidden, report.keys);
                }
                Err(Error::UnsupportedRecord { .. }) => {}
                Err(Error::Corrupt { offset: 0, .. }) if matches!(error, Error::Corrupt { offset: 0, .. }) => {}
                Err(other) => panic!("salvage: {other}"),
            }
            assert!(machine.contents() == file, "salvage has changed its source");
        }
        other => panic!("bytes alone cannot cause this: {other}"),
    }
}

/// Writes, closes, reopens and compacts; `pairs` is what the store holds, and then what it must hold.
fn write(machine: &Machine, plan: &Plan, cask: Cask, mut pairs: Pairs) {
    assert!(read_everything(&cask) == pairs, "a writer reads something else than a reader");
    let highest = cask.stats().unwrap().last_index;
    match cask.bucket("b").unwrap().atomic_put("fuzz", "1", None) {
        Ok(pair) => {
            assert!(pair.last_index > highest, "an index for the second time");
            pairs.insert((b"b".to_vec(), pair.key), (pair.value, pair.last_index));
        }
        Err(Error::KeyExists) => {}
        // Only a forged file has used all sequence numbers up. The store can still be read.
        Err(Error::Full { .. }) => {
            assert!(read_everything(&cask) == pairs);
            return;
        }
        Err(error) => panic!("{error}"),
    }
    // A batch that deletes the first key and writes a longer value than most files here have.
    let mut batch = Batch::new();
    if let Some(((bucket, key), _)) = pairs.pop_first() {
        batch.bucket(bucket).delete(key);
    }
    let long = vec![b'x'; 1000];
    batch.bucket("").put("fuzz", &long);
    let index = cask.write(&batch).unwrap().last_index().unwrap();
    pairs.insert((Vec::new(), b"fuzz".to_vec()), (long, index));
    assert!(read_everything(&cask) == pairs);
    cask.close().unwrap();

    let cask = machine.open(&plan.config()).unwrap();
    assert_eq!(cask.stats().unwrap().torn_bytes, 0, "a clean close leaves no torn tail");
    assert!(read_everything(&cask) == pairs, "reopening has changed something");
    verify(&cask);
    cask.compact().unwrap();
    assert!(read_everything(&cask) == pairs, "compaction has changed something");
    verify(&cask);
    let last = cask.atomic_put("last", "", None).unwrap_or_else(|_| cask.get("last").unwrap()).last_index;
    drop(cask);
    let cask = machine.open(&plan.config().read_only(true)).unwrap();
    assert_eq!(cask.get("last").unwrap().last_index, last);
}
