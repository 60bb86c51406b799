//! Damage is judged as the undamaged bytes say, to the byte: corrupt, or torn, or harmless.
//!
//! This program takes a small store apart that has records of every kind, as a close leaves it and as a crash does,
//! and so knows what follows from damage to any of its bytes: from the first damaged unit on everything is lost,
//! which is only accepted if nothing that is left proves that it had been on stable storage.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::disk::{Disk, RealDisk};
use caskfile::{Cask, Config, Durability, Error};

#[path = "common/anatomy.rs"]
mod anatomy;
mod common;

use anatomy::{FILE_HEADER, Pairs, RECORD_HEADER, Record, STORE, SYNCED_TO, records, replay, specimens};
use common::TempDir;

#[derive(Debug, PartialEq)]
enum Expected {
    /// The file header cannot be used.
    Foreign,
    Corrupt,
    Holds(Pairs),
}

/// What must become of a file that has these bytes instead of `original`.
fn expected(original: &[u8], damaged: &[u8]) -> Expected {
    let differs = |range: Range<usize>| damaged.get(range.clone()) != original.get(range);
    if differs(0..FILE_HEADER) {
        return Expected::Foreign;
    }
    let records = records(original);
    let mut unit = 0;
    for (at, record) in records.iter().enumerate() {
        if differs(record.at..record.end) {
            break;
        }
        if !record.more {
            unit = at + 1;
        }
    }
    let lost_from = records.get(unit).map(|record| record.at);
    // What a header says, it says also if its body is damaged; what a body says, only if that is whole.
    let proves = |record: &&Record| {
        let says = if record.kind == SYNCED_TO { record.end } else { record.at + RECORD_HEADER };
        !differs(record.at..says) && record.end <= damaged.len()
    };
    let proof = records[unit..].iter().filter(proves).filter_map(|record| record.proof).max();
    match (lost_from, proof) {
        (Some(lost), Some(proof)) if proof > lost => Expected::Corrupt,
        _ => Expected::Holds(replay(&records[..unit])),
    }
}

/// Where a damaged file is put for a test.
trait Place {
    fn lay_out(&self, bytes: &[u8]);
    fn disk(&self) -> Arc<dyn Disk>;
    fn path(&self) -> PathBuf;
    fn bytes(&self) -> Vec<u8>;
    fn names(&self) -> usize;
}

impl Place for SimDisk {
    fn lay_out(&self, bytes: &[u8]) {
        for path in self.paths() {
            self.remove(&path).unwrap();
        }
        self.set_contents(STORE, bytes.to_vec());
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.process())
    }

    fn path(&self) -> PathBuf {
        STORE.into()
    }

    fn bytes(&self) -> Vec<u8> {
        self.contents(STORE).unwrap()
    }

    fn names(&self) -> usize {
        self.paths().len()
    }
}

impl Place for TempDir {
    fn lay_out(&self, bytes: &[u8]) {
        for entry in TempDir::path(self).read_dir().unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        std::fs::write(Place::path(self), bytes).unwrap();
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn path(&self) -> PathBuf {
        self.join("store")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(Place::path(self)).unwrap()
    }

    fn names(&self) -> usize {
        TempDir::path(self).read_dir().unwrap().count()
    }
}

fn pairs(cask: &Cask) -> Result<Pairs, Error> {
    let pairs = cask.scan("")?.map(|pair| pair.map(|pair| (pair.key, (pair.value, pair.last_index))));
    pairs.collect()
}

/// Opens a damaged file for reading and for writing, and goes on with it if it can be opened.
fn check(place: &dyn Place, original: &[u8], damaged: &[u8], what: &str) {
    place.lay_out(damaged);
    let expected = expected(original, damaged);
    let config = Config::new().durability(Durability::Os);
    for read_only in [true, false] {
        let opened = Cask::open_on(place.disk(), place.path(), &config.clone().read_only(read_only).create(false));
        match (opened, &expected) {
            (Ok(cask), Expected::Holds(expected)) => {
                assert_eq!(pairs(&cask).unwrap(), *expected, "{what}, read only: {read_only}");
                for (key, (value, index)) in expected {
                    let pair = cask.get(key).unwrap();
                    assert_eq!((&pair.value, pair.last_index), (value, *index), "{what}");
                }
                cask.verify().unwrap();
                if read_only {
                    assert_eq!(place.bytes(), damaged, "{what}: a reader has changed it");
                } else {
                    go_on(place, cask, expected, what);
                }
            }
            (Err(error), Expected::Corrupt) => assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}"),
            (Err(error), Expected::Foreign) => {
                assert!(
                    matches!(error, Error::Corrupt { offset: 0, .. } | Error::NotCaskfile { .. }),
                    "{what}: {error}"
                );
            }
            (Err(error), Expected::Holds(_)) => panic!("{what}, read only: {read_only}: {error}"),
            (Ok(cask), _) => panic!("{what}: opened, with {:?}, expected {expected:?}", pairs(&cask)),
        }
    }
    if !matches!(expected, Expected::Holds(_)) {
        assert_eq!((place.bytes(), place.names()), (damaged.to_vec(), 1), "{what}: something was changed");
    }
}

/// Writes, closes, reopens and reads.
fn go_on(place: &dyn Place, cask: Cask, before: &Pairs, what: &str) {
    let highest = cask.stats().unwrap().last_index;
    cask.put("new", what).unwrap();
    let index = cask.get("new").unwrap().last_index;
    // Nobody knows what of a lost tail had been seen, so its block of indexes is left behind as a whole.
    assert!(index >> 20 > highest >> 20, "{what}: index {index} after {highest}");
    cask.delete("second").unwrap();
    cask.close().unwrap();
    let again = Cask::open_on(place.disk(), place.path(), &Config::new()).unwrap();
    let mut after = before.clone();
    after.insert(b"new".to_vec(), (what.as_bytes().to_vec(), index));
    after.remove(b"second".as_slice());
    assert_eq!(pairs(&again).unwrap(), after, "{what}: opened again");
    assert_eq!(again.verify().unwrap().torn_bytes, 0, "{what}");
    again.close().unwrap();
}

fn check_truncations(place: &dyn Place, original: &[u8], step: usize) {
    for len in (1..original.len()).step_by(step) {
        check(place, original, &original[..len], &format!("cut to {len} bytes"));
    }
}

fn check_flips(place: &dyn Place, original: &[u8], step: usize) {
    for bit in (0..original.len() * 8).step_by(step) {
        let mut damaged = original.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(place, original, &damaged, &format!("bit {} of byte {} flipped", bit % 8, bit / 8));
    }
}

/// Overwrites ranges that start and end where words do.
fn check_overwrites(place: &dyn Place, original: &[u8], with: u8, lens: &[usize]) {
    for &len in lens {
        for start in (FILE_HEADER..original.len()).step_by(8) {
            let mut damaged = original.to_vec();
            let end = original.len().min(start + len);
            damaged[start..end].fill(with);
            check(place, original, &damaged, &format!("bytes {start} to {end} overwritten with {with}"));
        }
    }
}

#[test]
fn every_truncation_of_a_closed_file_leaves_a_prefix_of_its_history() {
    let (_, closed) = specimens();
    check_truncations(&SimDisk::new(), &closed, 1);
}

#[test]
fn every_truncation_of_a_crashed_file_leaves_a_prefix_of_its_history() {
    let (crashed, _) = specimens();
    check_truncations(&SimDisk::new(), &crashed, 1);
}

#[test]
fn every_flipped_bit_of_a_closed_file_is_harmless_or_an_error() {
    let (_, closed) = specimens();
    // Here all is proven: what can be opened has lost nothing.
    let all = replay(&records(&closed));
    for bit in 0..closed.len() * 8 {
        let mut damaged = closed.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let expected = expected(&closed, &damaged);
        assert!(!matches!(expected, Expected::Holds(pairs) if pairs != all), "bit {bit}");
    }
    check_flips(&SimDisk::new(), &closed, 1);
}

#[test]
fn every_flipped_bit_of_a_crashed_file_is_an_error_or_leaves_a_prefix_of_its_history() {
    let (crashed, _) = specimens();
    check_flips(&SimDisk::new(), &crashed, 1);
}

#[test]
fn a_file_read_without_maps_and_holes_is_judged_alike() {
    let disk = SimDisk::new();
    disk.set_maps(false);
    disk.set_holes(false);
    let (crashed, closed) = specimens();
    for specimen in [&crashed, &closed] {
        check_truncations(&disk, specimen, 7);
        check_flips(&disk, specimen, 7);
    }
}

#[test]
fn ranges_that_read_as_zeros_or_ones_are_found() {
    let disk = SimDisk::new();
    let (crashed, closed) = specimens();
    for specimen in [&crashed, &closed] {
        check_overwrites(&disk, specimen, 0, &[8, 24, 64, 4096]);
        check_overwrites(&disk, specimen, 0xff, &[8, 512]);
    }
}

#[test]
fn real_files_are_judged_alike() {
    let directory = TempDir::new();
    let (crashed, closed) = specimens();
    for specimen in [&crashed, &closed] {
        check_truncations(&directory, specimen, 61);
        check_flips(&directory, specimen, 61);
    }
}

/// Of a record that is lost, salvage loses nothing but that record.
#[test]
fn salvage_copies_all_but_the_damaged_record() {
    let directory = TempDir::new();
    let (_, closed) = specimens();
    let all = records(&closed);
    let rescued = directory.join("rescued");
    let mut corrupt = 0;
    for (number, record) in all.iter().enumerate() {
        for at in [record.at + 2, record.at + 12, record.end - 1] {
            let mut damaged = closed.clone();
            damaged[at] ^= 0x10;
            if expected(&closed, &damaged) != Expected::Corrupt {
                continue;
            }
            corrupt += 1;
            directory.lay_out(&damaged);
            let report = caskfile::salvage(Place::path(&directory), &rescued).unwrap();
            assert_eq!(report.losses.len(), 1, "byte {at}");
            assert!((report.losses[0].start..report.losses[0].end).contains(&(record.at as u64)), "byte {at}");
            let cask = Cask::open(&rescued).unwrap();
            let others = all.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, record)| record);
            let expected = replay(others);
            assert_eq!(pairs(&cask).unwrap(), expected, "byte {at}");
            assert_eq!(report.keys, expected.len() as u64);
            cask.verify().unwrap();
            cask.close().unwrap();
            drop(cask);
            assert_eq!(Place::bytes(&directory), damaged);
        }
    }
    assert!(corrupt > 2 * all.len(), "{corrupt} of {} records", all.len());
    assert!(Path::new(&rescued).exists());
}
