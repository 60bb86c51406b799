//! Whether each byte of a file has one owner, and what the pieces say is what the store and verification say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::inspect::{Class, Inspection, Piece};
use caskfile::{Cask, Config, Error, Report, verify_on};

use super::layout::{self, NOW, RECORD_HEADER_LEN, SESSION_VALUE};

pub const PATH: &str = "/store";

pub fn disk_with(file: &[u8]) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new());
    disk.stop_clock();
    disk.set_contents(PATH, file.to_vec());
    disk
}

pub fn pieces(inspection: &Inspection) -> Vec<Piece> {
    inspection.pieces().collect::<Result<_, _>>().unwrap()
}

/// How many bytes each class has.
pub fn totals(pieces: &[Piece]) -> BTreeMap<Class, u64> {
    let mut totals = BTreeMap::new();
    for piece in pieces {
        *totals.entry(piece.class).or_insert(0) += piece.end - piece.start;
    }
    totals
}

/// Looks at a file, and holds what it sees against what the library says otherwise. Returns the classes, unless it is no
/// file of ours.
pub fn examine(story: &str, file: &[u8]) -> Option<BTreeMap<Class, u64>> {
    let disk = disk_with(file);
    let verified = verify_on(&*disk, Path::new(PATH));
    let inspection = match Inspection::open_on(disk.clone(), PATH) {
        Ok(inspection) => inspection,
        Err(error) => {
            assert!(matches!(error, Error::NotCaskfile { .. }), "{story}: {error}");
            assert!(matches!(verified, Err(Error::NotCaskfile { .. })), "{story}: {verified:?}");
            return None;
        }
    };
    assert_eq!(inspection.file_len(), file.len() as u64, "{story}");
    let pieces = pieces(&inspection);
    owned_once(story, file, &pieces);
    says_what_verification_says(story, &inspection, &pieces, verified);
    has_the_stores_pairs(story, &disk, file, &pieces);
    Some(totals(&pieces))
}

pub fn owned_once(story: &str, file: &[u8], pieces: &[Piece]) {
    let mut at = 0;
    for piece in pieces {
        assert_eq!(piece.start, at, "{story}: {piece:?}");
        assert!(piece.end > at || (piece.end == at && piece.class == Class::Corrupt), "{story}: {piece:?}");
        let mut field_at = at;
        for field in piece.fields() {
            assert!(field.start == field_at && field.end > field_at, "{story}: {field:?} of {piece:?}");
            field_at = field.end;
        }
        assert_eq!(field_at, piece.end, "{story}: {piece:?}");
        at = piece.end;
        if matches!(piece.class, Class::EndMark | Class::Zeros) {
            let bytes = &file[piece.start as usize..piece.end as usize];
            assert!(bytes.iter().all(|byte| *byte == 0), "{story}: {piece:?}");
        }
    }
    assert_eq!(at, file.len() as u64, "{story}");
}

fn says_what_verification_says(
    story: &str,
    inspection: &Inspection,
    pieces: &[Piece],
    verified: caskfile::Result<Report>,
) {
    let totals = totals(pieces);
    let total = |class| totals.get(&class).copied().unwrap_or(0);
    let (ours, its) = match (reported(inspection.check().cloned()), reported(verified)) {
        (Ok(ours), Ok(its)) => (ours, its),
        // Verification goes on after a torn tail, for the sake of salvage.
        (Ok(ours), Err(Error::UnsupportedRecord { .. })) if ours.torn_bytes > 0 => (ours.clone(), ours),
        (Err(ours), Err(its)) if ours.to_string() == its.to_string() => {
            assert!(inspection.header().is_none() || total(Class::Unread) > 0, "{story}");
            return;
        }
        (ours, its) => panic!("{story}: {ours:?}, but verification says {its:?}"),
    };
    assert_eq!((damaged(&ours), ours.torn_bytes), (damaged(&its), its.torn_bytes), "{story}");
    assert_eq!(ours.wrong_snapshot, its.wrong_snapshot, "{story}");
    let corrupt = damaged(&its).iter().filter(|range| range.0 > 0).map(|range| range.1 - range.0).sum::<u64>();
    assert_eq!((total(Class::Corrupt), total(Class::Torn)), (corrupt, its.torn_bytes), "{story}");
    assert_eq!((total(Class::Unread), inspection.log_end()), (0, its.log_end), "{story}");
    if its.torn_bytes == 0 {
        let count = |class| pieces.iter().filter(|piece| piece.class == class).count() as u64;
        let counted = [Class::Live, Class::Dead, Class::Tombstone, Class::Statement, Class::Snapshot].map(count);
        assert_eq!((counted.iter().sum::<u64>(), counted[0]), (its.records, its.keys), "{story}");
    }
}

/// The report, be it in an error or not.
fn reported(verified: caskfile::Result<Report>) -> caskfile::Result<Report> {
    match verified {
        Err(Error::Damaged { report, .. }) => Ok((*report).clone()),
        verified => verified,
    }
}

/// What is damaged before the log's end.
fn damaged(report: &Report) -> Vec<(u64, u64)> {
    report.losses.iter().take_while(|loss| !loss.torn).map(|loss| (loss.start, loss.end)).collect()
}

fn has_the_stores_pairs(story: &str, disk: &Arc<SimDisk>, file: &[u8], pieces: &[Piece]) {
    let config = Config::new().read_only(true).check_at_open(true);
    let Ok(cask) = Cask::open_on(disk.clone(), PATH, &config) else { return };
    let mut held = BTreeSet::new();
    let mut scan = cask.scan_by_index().unwrap();
    while let Some(next) = scan.next_ref() {
        let (bucket, pair) = next.unwrap();
        held.insert((bucket.to_vec(), pair.key.to_vec(), pair.last_index));
    }
    let mut sessions = BTreeSet::new();
    for piece in pieces.iter().filter(|piece| piece.class == Class::Statement) {
        let Some(record) = piece.record.as_ref().filter(|record| record.kind_name() == Some("session")) else {
            continue;
        };
        let session = record.session.unwrap();
        match layout::number(SESSION_VALUE, "deadline", &file[piece.start as usize + RECORD_HEADER_LEN..]) {
            0 => sessions.remove(&session),
            _ => sessions.insert(session),
        };
    }
    let live = pieces.iter().filter(|piece| piece.class == Class::Live).filter_map(|piece| {
        let record = piece.record.as_ref().unwrap();
        let has_ended = record.session.is_some_and(|session| !sessions.contains(&session));
        if has_ended || record.deadline.is_some_and(|deadline| NOW >= deadline) {
            return None;
        }
        let (bucket, key) = record.bucket_and_key().unwrap();
        Some((bucket.to_vec(), key.to_vec(), record.seq))
    });
    assert_eq!(live.collect::<BTreeSet<_>>(), held, "{story}");
}
