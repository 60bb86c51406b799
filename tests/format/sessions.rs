//! What copies of a log keep of its sessions: compaction, backup and salvage, and what verification says of them.

use std::path::Path;
use std::sync::Arc;

use super::rules::records;
use crate::common::files::bytes::{FileBytes, record};
use crate::common::files::layout::{MARK, PUT, PUT_OWNED, SESSION, SYNCED, session, with_owner};
use crate::common::files::library::PATH;
use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, Config, salvage_on, verify_on};

const BLOCK: u64 = 1 << 20;

/// Two sessions with a pair each. The first is renewed, the second has ended.
const FIRST: u64 = BLOCK + 1;
const SECOND: u64 = BLOCK + 3;

fn file() -> Vec<u8> {
    let owned = |of, seq, key: &'static [u8]| (seq, key, with_owner(0, of, seq, b"value"));
    let (lock, other) = (owned(FIRST, BLOCK + 2, b"\0lock"), owned(SECOND, BLOCK + 4, b"\0other"));
    FileBytes::new(0)
        .push(record(0, MARK, BLOCK, b"", b""))
        .push(record(SYNCED, SESSION, FIRST, b"", &session(FIRST, 1000)))
        .push(record(SYNCED, PUT_OWNED, lock.0, lock.1, &lock.2))
        .push(record(SYNCED, SESSION, SECOND, b"", &session(SECOND, 1000)))
        .push(record(SYNCED, PUT_OWNED, other.0, other.1, &other.2))
        .push(record(SYNCED, SESSION, BLOCK + 5, b"", &session(FIRST, 2000)))
        .push(record(SYNCED, SESSION, BLOCK + 6, b"", &session(SECOND, 0)))
        .push(record(SYNCED, PUT, BLOCK + 7, b"\0plain", b"value"))
        .push(record(SYNCED, MARK, BLOCK + 8, b"", b""))
        .end()
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.stop_clock();
    disk.set_contents(PATH, file());
    disk
}

type Kept = Vec<(u64, u64, Vec<u8>, Vec<u8>)>;

/// Kind, number, key and value of each record of a file that is no mark.
fn kept(file: &[u8]) -> Kept {
    let records = records(file);
    let kept = records.iter().filter(|record| record.kind < MARK);
    kept.map(|record| (record.kind, record.seq, record.key.to_vec(), record.value.to_vec())).collect()
}

/// The records of [`file`] that are needed: without older records of sessions, and without ENDs.
fn needed() -> Kept {
    kept(&file()).into_iter().filter(|(kind, seq, ..)| *kind != SESSION || *seq == BLOCK + 5).collect()
}

#[test]
fn compaction_keeps_the_last_record_of_each_session_without_end() {
    let disk = disk();
    let cask = Cask::open_on(Arc::new(disk.process()), PATH, &Config::new()).unwrap();
    cask.compact().unwrap();
    assert_eq!(kept(&disk.contents(PATH).unwrap()), needed());
    cask.verify().unwrap();
    // Nothing is left to leave out.
    cask.compact().unwrap();
    assert_eq!(kept(&disk.contents(PATH).unwrap()), needed());
}

#[test]
fn a_backup_keeps_the_whole_history_of_sessions() {
    let disk = disk();
    let cask = Cask::open_on(Arc::new(disk.process()), PATH, &Config::new().read_only(true)).unwrap();
    cask.backup("/copy").unwrap();
    assert_eq!(kept(&disk.contents("/copy").unwrap()), kept(&file()));
    let mut stream = Vec::new();
    cask.backup_to(&mut stream).unwrap();
    assert_eq!(kept(&stream), kept(&file()));
    cask.compact_to("/compacted").unwrap();
    assert_eq!(kept(&disk.contents("/compacted").unwrap()), needed());
}

#[test]
fn salvage_keeps_the_last_record_of_each_session_that_verifies() {
    let disk = disk();
    assert!(salvage_on(&disk, Path::new(PATH), Path::new("/salvaged")).unwrap().is_sound());
    assert_eq!(kept(&disk.contents("/salvaged").unwrap()), needed());

    // The renewal and the END are lost: so both sessions are as they had begun.
    let mut damaged = file();
    let places: Vec<usize> = records(&damaged)
        .iter()
        .filter(|record| [BLOCK + 5, BLOCK + 6].contains(&record.seq))
        .map(|record| record.offset + 30)
        .collect();
    places.into_iter().for_each(|at| damaged[at] ^= 1);
    disk.set_contents(PATH, damaged);
    let report = salvage_on(&disk, Path::new(PATH), Path::new("/rescued")).unwrap();
    assert_eq!((report.losses.len(), report.losses[0].keys.len()), (1, 0));
    let begun = kept(&file()).into_iter().filter(|(_, seq, ..)| ![BLOCK + 5, BLOCK + 6].contains(seq));
    assert_eq!(kept(&disk.contents("/rescued").unwrap()), begun.collect::<Kept>());
}

#[test]
fn verification_reads_sessions() {
    let report = verify_on(&disk(), Path::new(PATH)).unwrap();
    assert_eq!((report.keys, report.records), (3, 9));
}
