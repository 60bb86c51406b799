//! What copies of a log keep of its sessions: compaction, backup and salvage, and what verification says of them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::rules::records;
use crate::common::files::bytes::{FileBytes, record};
use crate::common::files::layout::{MARK, PUT, PUT_OWNED, SESSION, SESSION_VALUE, SYNCED, number, session, with_owner};
use crate::common::files::library::PATH;
use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, CompactionPolicy, Config, Limits, Session, SessionState, SnapshotPolicy, salvage_on, verify_on};

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

/// What is written to a session while its record is copied: the copy must have the newest one, and none of a session that has ended.
#[test]
fn sessions_that_change_during_a_compaction_are_carried_over() {
    let disk = SimDisk::new();
    let clock = disk.stop_clock();
    let open = || Cask::open_on(Arc::new(disk.process()), PATH, &Config::new()).unwrap();
    let (compacting, other) = (open(), open());
    let ttl = Duration::from_secs(100);
    let (renewed, ending) = (other.session(ttl).unwrap(), other.session(ttl).unwrap());
    renewed.put(&other, "renewed", "1").unwrap();
    ending.put(&other, "ending", "2").unwrap();
    let (mut ending, mut begun) = (Some(ending), None);
    compacting
        .compact_with(|_| {
            if let Some(ending) = ending.take() {
                clock.advance(Duration::from_secs(10));
                other.renew_sessions().unwrap();
                ending.end().unwrap();
                let session = other.session(ttl).unwrap();
                session.put(&other, "begun", "3").unwrap();
                begun = Some(session);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let sessions = compacting.sessions().unwrap();
    let keys: Vec<_> = sessions.iter().flat_map(|status| &status.keys).map(|key| &key.key[..]).collect();
    assert_eq!(keys, [&b"renewed"[..], b"begun"]);
    let left = |at: usize| if let SessionState::Live(left) = sessions[at].state { left } else { Duration::ZERO };
    assert_eq!((left(0), left(1)), (ttl, ttl), "the renewal counts, not the record from before");
    compacting.verify().unwrap();
    assert!(renewed.is_live() && begun.as_ref().is_some_and(Session::is_live));
    // Once more: no record of the ended session is left, and one of each other.
    compacting.compact().unwrap();
    let file = disk.contents(PATH).unwrap();
    let of_sessions = kept(&file).into_iter().filter(|record| record.0 == SESSION);
    let of_sessions: Vec<u64> = of_sessions.map(|record| number(SESSION_VALUE, "session", &record.3)).collect();
    assert_eq!(of_sessions.len(), 2);
    assert_eq!(of_sessions, sessions.iter().map(|status| status.session).collect::<Vec<_>>());
}

/// A snapshot says nothing of sessions, so a reader that began with one would take their pairs for those of sessions without a record.
/// And a build that does not know sessions must come to their records, to refuse the file.
#[test]
fn a_log_with_a_session_gets_no_snapshot_until_a_compaction_finds_none() {
    let disk = SimDisk::new();
    disk.set_limits(Limits { least_cost: 1, least_part: 8, ..Limits::SMALL });
    let config = Config::new().snapshots(SnapshotPolicy::AtClose).compaction(CompactionPolicy::Manual);
    let open = || Cask::open_on(Arc::new(disk.process()), PATH, &config).unwrap();
    let cask = open();
    (0..100).for_each(|n| assert!(cask.put(format!("key {n}"), "value").is_ok()));
    assert!(cask.write_snapshot().unwrap());
    // After the snapshot, so a reader that begins there sees it.
    let session = cask.session(Duration::from_secs(100)).unwrap();
    assert!(!cask.write_snapshot().unwrap(), "it has a session without a pair");
    session.put(&cask, "key 7", "owned").unwrap();
    let reader = open();
    assert_eq!(reader.get("key 7").unwrap().value, b"owned");
    assert_eq!(reader.sessions().unwrap().len(), 1);
    session.end().unwrap();
    assert!(!reader.exists("key 7").unwrap() && reader.exists("key 8").unwrap());
    cask.put("key 7", "again").unwrap();
    assert!(!cask.write_snapshot().unwrap(), "its records are there still");
    cask.compact().unwrap();
    cask.put("key 8", "again").unwrap();
    assert!(cask.write_snapshot().unwrap());
    assert_eq!(open().len().unwrap(), 100);
}
