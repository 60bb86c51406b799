//! What must be true of the file that salvage writes, whatever its source is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, Config, Error, salvage_on, verify_on};

use crate::layout::{self, FILE_HEADER_LEN, RECORD_HEADER_LEN};
use crate::reader::{self, Name, Setting, Verdict};

pub const STORE: &str = "/store";
const RESCUED: &str = "/rescued";

/// Salvages the store, which is the only file on the disk and has these bytes, and judges what came of it.
pub fn salvage(disk: &SimDisk, file: &[u8]) {
    let verified = verify_on(disk, Path::new(STORE));
    let result = salvage_on(disk, Path::new(STORE), Path::new(RESCUED));
    assert!(disk.contents(STORE).unwrap() == file, "salvage has changed its source");
    let report = match result {
        Ok(report) => report,
        Err(
            Error::NotCaskfile { .. }
            | Error::UnsupportedVersion { .. }
            | Error::UnsupportedRecord { .. }
            | Error::Corrupt { offset: 0, .. },
        ) => {
            assert_eq!(disk.paths(), [PathBuf::from(STORE)], "nothing was salvaged, but something was left over");
            return;
        }
        Err(other) => panic!("bytes alone cannot cause this: {other}"),
    };
    assert_eq!(disk.paths().len(), 2);
    match verified {
        Ok(verified) => assert_eq!(verified, report),
        // Salvage does not look at the snapshot, and loses nothing if that is all that is wrong.
        Err(Error::Damaged { report: verified, .. }) => {
            let mut verified = (*verified).clone();
            verified.wrong_snapshot = None;
            assert_eq!(verified, report);
        }
        Err(other) => panic!("it was salvaged, but not verified: {other}"),
    }
    assert!(report.losses.iter().all(|loss| loss.start <= loss.end), "{report:?}");
    assert!(report.losses.is_sorted_by(|a, b| a.end <= b.start), "{report:?}");

    // It shows the moment by which the page's reader hides pairs.
    disk.stop_clock();
    let cask = Cask::open_on(Arc::new(disk.process()), RESCUED, &Config::new().create(false)).unwrap();
    assert_eq!(cask.verify().unwrap().keys, report.keys);
    let rescued = pairs(&cask);
    assert_eq!(rescued.len() as u64 + cask.stats().unwrap().hidden, report.keys);
    let readings = Readings::of(file);
    for (name, setting) in &rescued {
        assert!(readings.puts.get(name).is_some_and(|puts| puts.contains(setting)), "made up: {name:?} {setting:?}");
    }
    if let Verdict::Store(contents) = reader::read(file) {
        if report.losses.is_empty() && contents.torn == 0 {
            assert!(rescued == contents.pairs, "nothing was damaged: {rescued:?} of {:?}", contents.pairs);
        }
        for (name, setting) in &contents.pairs {
            let later = readings.newest.get(name).is_some_and(|&newest| newest > setting.1);
            assert!(later || rescued.get(name) == Some(setting), "lost: {name:?} {setting:?}");
        }
    }
    let highest = rescued.values().map(|(_, index)| *index).max().unwrap_or(0);
    match cask.put("after", "salvage") {
        Ok(index) => {
            assert!(index > highest);
            assert_eq!(cask.get("after").unwrap().last_index, index);
        }
        // Only a forged file has used all sequence numbers up.
        Err(Error::Full { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    cask.close().unwrap();
}

/// Everything in a store.
pub fn pairs(cask: &Cask) -> BTreeMap<Name, Setting> {
    let mut pairs = BTreeMap::new();
    for bucket in cask.buckets().unwrap() {
        for pair in cask.bucket(&bucket).unwrap().list("").unwrap() {
            pairs.insert((bucket.clone(), pair.key), (pair.value, pair.last_index));
        }
    }
    pairs
}

/// Everything in a file that has the checksum of a put or a delete, wherever it is.
#[derive(Default)]
struct Readings {
    puts: BTreeMap<Name, Vec<Setting>>,
    /// The highest index of each key.
    newest: BTreeMap<Name, u64>,
}

impl Readings {
    fn of(file: &[u8]) -> Readings {
        let mut readings = Readings::default();
        for at in (FILE_HEADER_LEN..file.len()).step_by(layout::ALIGNMENT) {
            readings.take(&file[at..]);
        }
        readings
    }

    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        let header = bytes.get(..RECORD_HEADER_LEN)?;
        let field = |name| layout::number(layout::RECORD_HEADER, name, header);
        let body = bytes.get(RECORD_HEADER_LEN..)?.get(..(field("key_len") + field("value_len")) as usize)?;
        let (key, value) = body.split_at(field("key_len") as usize);
        let (&bucket_len, rest) = key.split_first()?;
        let (bucket, key) = rest.split_at_checked(usize::from(bucket_len))?;
        let covered = &bytes[9..RECORD_HEADER_LEN + body.len()];
        if field("body_crc") == u64::from(crc32fast::hash(covered)) {
            let name = (bucket.to_vec(), key.to_vec());
            let newest = self.newest.entry(name.clone()).or_default();
            *newest = field("seq").max(*newest);
            let value = match field("kind") {
                layout::PUT => value,
                layout::PUT_WITH | layout::PUT_OWNED => value.get(layout::EXPIRY_LEN..)?,
                _ => return None,
            };
            self.puts.entry(name).or_default().push((value.to_vec(), field("seq")));
        }
        Some(())
    }
}
