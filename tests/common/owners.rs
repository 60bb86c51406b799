//! Whether each byte of a file has one owner, and what the pieces say is what the store and verification say.

// Every test program compiles its own copy and uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::inspect::{Class, Inspection, Piece};
use caskfile::{Cask, Config, Error, verify_on};

pub const PATH: &str = "/store";

pub fn disk_with(file: &[u8]) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new());
    disk.set_contents(PATH, file.to_vec());
    disk
}

pub fn pieces(inspection: &Inspection) -> Vec<Piece> {
    inspection.pieces().collect::<Result<_, _>>().unwrap()
}

/// How many bytes each class has.
fn totals(pieces: &[Piece]) -> BTreeMap<Class, u64> {
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
    has_the_stores_pairs(story, &disk, &pieces);
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
    verified: caskfile::Result<caskfile::Report>,
) {
    let totals = totals(pieces);
    let total = |class| totals.get(&class).copied().unwrap_or(0);
    let counted = pieces
        .iter()
        .filter(|piece| matches!(piece.class, Class::Live | Class::Dead | Class::Tombstone | Class::Statement));
    let report = match (inspection.check(), verified) {
        (Ok(_), Ok(report)) => report,
        (Err(Error::Damaged { .. }), Err(Error::Damaged { report, .. })) => (*report).clone(),
        // Verification goes on behind a torn tail, for whoever salvages it.
        (Ok(report), Err(Error::UnsupportedRecord { .. })) if report.torn_bytes > 0 => return,
        (Err(Error::Damaged { report, .. }), Err(Error::UnsupportedRecord { .. })) if report.torn_bytes > 0 => return,
        (Err(ours), Err(its)) if ours.to_string() == its.to_string() => {
            assert!(inspection.header().is_none() || total(Class::Unread) > 0, "{story}");
            return;
        }
        (ours, its) => panic!("{story}: {:?}, but verification says {:?}", ours.err(), its.err()),
    };
    assert_eq!(total(Class::Torn), report.torn_bytes, "{story}");
    let lost = report.losses.iter().filter(|loss| !loss.torn && loss.start > 0).map(|loss| loss.end - loss.start);
    assert_eq!(total(Class::Corrupt), lost.sum::<u64>(), "{story}");
    assert_eq!(total(Class::Unread), 0, "{story}");
    let beyond_torn = report.losses.iter().position(|loss| loss.torn).is_some_and(|at| at + 1 < report.losses.len());
    if report.torn_bytes == 0 {
        assert_eq!(counted.count() as u64, report.records, "{story}");
        let live = pieces.iter().filter(|piece| piece.class == Class::Live).count() as u64;
        assert_eq!(live, report.keys, "{story}");
    } else if !beyond_torn {
        assert_eq!(inspection.log_end(), report.log_end, "{story}");
    }
}

fn has_the_stores_pairs(story: &str, disk: &Arc<SimDisk>, pieces: &[Piece]) {
    let Ok(cask) = Cask::open_on(disk.clone(), PATH, &Config::new().read_only(true)) else { return };
    let mut held = BTreeSet::new();
    let mut scan = cask.scan_by_index().unwrap();
    while let Some(next) = scan.next_ref() {
        let (bucket, pair) = next.unwrap();
        held.insert((bucket.to_vec(), pair.key.to_vec(), pair.last_index));
    }
    let live = pieces.iter().filter(|piece| piece.class == Class::Live).map(|piece| {
        let record = piece.record.as_ref().unwrap();
        let (bucket, key) = record.bucket_and_key().unwrap();
        (bucket.to_vec(), key.to_vec(), record.index)
    });
    assert_eq!(live.collect::<BTreeSet<_>>(), held, "{story}");
}
