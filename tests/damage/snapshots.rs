//! Snapshots of the index that are damaged or wrong: opening never fails because of one, verification says what is wrong, and
//! copies have none.

use std::path::Path;
use std::sync::Arc;

use crate::common::files::library::contents;
use crate::common::files::owners::{PATH, disk_with, examine, pieces};
use crate::common::files::page::summary;
use crate::common::files::reader::{Reader, Verdict};
use crate::common::files::snapshot::{self, Fault, Snapshotted};
use caskfile::disk::sim::SimDisk;
use caskfile::inspect::{Class, Inspection};
use caskfile::{Cask, Config, Error, Report, salvage_on, verify_on};

fn opened(disk: &Arc<SimDisk>) -> Cask {
    Cask::open_on(disk.clone(), PATH, &Config::new()).unwrap()
}

/// The report of verification, whatever it says.
fn verified(disk: &SimDisk) -> Report {
    match verify_on(disk, Path::new(PATH)) {
        Ok(report) => report,
        Err(Error::Damaged { report, .. }) => (*report).clone(),
        Err(other) => panic!("{other}"),
    }
}

fn is_damaged(fault: Fault) -> bool {
    matches!(fault, Fault::Broken | Fault::Lie)
}

#[test]
fn verify_finds_every_fault_of_a_snapshot() {
    for (story, fault, Snapshotted { file, snapshot_at, .. }) in snapshot::faults() {
        let disk = disk_with(&file);
        let report = verified(&disk);
        assert_eq!(report.wrong_snapshot.is_some(), is_damaged(fault), "{story}: {report}");
        assert_eq!((report.is_sound(), report.losses.len()), (!is_damaged(fault), 0), "{story}: {report}");
        if let Some(wrong) = &report.wrong_snapshot {
            assert_eq!(wrong.offset, snapshot_at as u64, "{story}");
            assert!(report.to_string().contains(&wrong.detail), "{story}");
            let error = verify_on(&*disk, Path::new(PATH)).unwrap_err().to_string();
            assert!(error.contains("caskfile compact") && !error.contains("salvage"), "{story}: {error}");
        }
        examine(story, &file);
        assert_eq!(disk.contents(PATH).as_deref(), Some(&file[..]), "{story}");
    }
}

#[test]
fn verify_says_in_which_number_a_snapshot_differs() {
    for (story, says) in [
        ("more records than there are", "it counts 6 records, and the log has 5"),
        ("live bytes that are too few", "live bytes, and the log has 64"),
        ("a number that is too low", "it ends after the record with seq 4, and the log there with seq 5"),
        ("another last event", "it states 3 as the seq of the last event, and the log has 5"),
        ("an end inside a batch", "where no record or batch ends"),
        ("a word with another tag", "has not the keys of the log"),
        ("a word with another checksum", "does not verify"),
        ("more keys than words", "contradict one another"),
        (
            "a lifetime of a pair that was replaced",
            "its 3 records with a deadline or of sessions are not the 3 of the log",
        ),
        ("a lifetime of another record", "it states another checksum than the record at "),
    ] {
        let faults = snapshot::faults();
        let (_, _, of) = faults.iter().find(|fault| fault.0 == story).unwrap();
        let detail = verified(&disk_with(&of.file)).wrong_snapshot.unwrap().detail;
        assert!(detail.contains(says), "{story}: {detail}");
    }
}

#[test]
fn no_fault_of_a_snapshot_keeps_a_store_from_being_opened_read_and_compacted() {
    for (story, fault, of) in snapshot::faults() {
        let disk = disk_with(&of.file);
        let cask = opened(&disk);
        if fault != Fault::Lie {
            let shown = Verdict::Store(Box::new(contents(&cask)));
            assert_eq!(summary(&shown), of.holds, "{story}");
        }
        // Compaction does not believe the snapshot, so it is the way out.
        cask.compact().unwrap_or_else(|error| panic!("{story}: {error}"));
        assert_eq!(summary(&Verdict::Store(Box::new(contents(&cask)))), of.holds, "{story}: after compaction");
        cask.verify().unwrap_or_else(|error| panic!("{story}: {error}"));
        cask.close().unwrap();
        let report = verified(&disk);
        assert!(report.is_sound(), "{story}: {report}");
    }
}

#[test]
fn a_snapshot_is_not_compared_in_a_file_that_has_other_damage() {
    let of = snapshot::small(6);
    let mut lie = of.clone();
    let at = lie.field("records").start;
    lie.file[at] ^= 3;
    lie.seal(false);
    assert!(verified(&disk_with(&lie.file)).wrong_snapshot.is_some());
    // In the first record, and in the first one after the snapshot.
    for damaged in [216 + 26, lie.file.len() - 32 - 64 + 26] {
        let mut file = lie.file.clone();
        file[damaged] ^= 1;
        let report = verified(&disk_with(&file));
        assert_eq!((report.wrong_snapshot.as_ref(), report.losses.len()), (None, 1), "{damaged}: {report}");
    }
}

#[test]
fn salvage_and_backup_leave_snapshots_out() {
    let of = snapshot::small(6);
    let disk = disk_with(&of.file);
    let report = salvage_on(&*disk, Path::new(PATH), Path::new("/salvaged")).unwrap();
    assert!(report.is_sound());
    opened(&disk).backup("/copy").unwrap();
    for copy in ["/salvaged", "/copy"] {
        let file = disk.contents(copy).unwrap();
        let inspection = Inspection::open_on(disk.clone(), copy).unwrap();
        assert!(pieces(&inspection).iter().all(|piece| piece.class != Class::Snapshot), "{copy}");
        assert_eq!((inspection.snapshot(), Reader::new(&file).root().map_or(0, |root| root.2)), (None, 0), "{copy}");
    }
    // Salvage does not even look at it.
    for (story, _, of) in snapshot::faults() {
        let disk = disk_with(&of.file);
        let report = salvage_on(&*disk, Path::new(PATH), Path::new("/salvaged")).unwrap();
        assert!(report.is_sound() && report.wrong_snapshot.is_none(), "{story}: {report}");
        assert_eq!(report.keys, of.holds.split(' ').count() as u64, "{story}");
    }
}

#[test]
fn the_fields_of_a_snapshot_have_the_names_of_the_page() {
    let of = snapshot::small(6);
    let inspection = Inspection::open_on(disk_with(&of.file), PATH).unwrap();
    assert_eq!(inspection.snapshot(), Some(of.snapshot_at as u64));
    let pieces = pieces(&inspection);
    let named = |at: usize| pieces.iter().find(|piece| piece.start == at as u64).unwrap();
    let (image, record) = (named(of.image_at), named(of.snapshot_at));
    for (piece, kind) in [(image, "IMAGE"), (record, "SNAPSHOT")] {
        assert_eq!((piece.class, piece.record.as_ref().unwrap().kind_name()), (Class::Snapshot, Some(kind)));
    }
    let fields = record.fields();
    for &(name, at, len) in snapshot::HEAD {
        let start = (of.snapshot_at + 24 + at) as u64;
        assert!(fields.iter().any(|field| (field.name, field.start, field.end) == (name, start, start + len as u64)));
    }
    for entry in of.entries() {
        let found = fields.iter().filter(|field| entry.contains(&(field.start as usize)));
        assert_eq!(found.map(|field| field.name).collect::<Vec<_>>(), ["offset", "count", "crc"]);
    }
    // A value of another length has no fields.
    let mut short = of.clone();
    short.file[of.snapshot_at + 12] -= 8;
    short.seal(false);
    let inspection = Inspection::open_on(disk_with(&short.file), PATH).unwrap();
    let piece = inspection.pieces_from(of.snapshot_at as u64).next().unwrap().unwrap();
    assert_eq!(piece.fields().iter().filter(|field| field.name == "value").count(), 1);
}
