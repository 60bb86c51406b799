//! Each byte of a file belongs to one piece, whatever state the file is in, and what the pieces say is what the store
//! and verification say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::TempDir;
use crate::common::dice::Dice;
use crate::common::files::owners::{PATH, disk_with, examine, owned_once, pieces, totals};
use crate::common::patience::with_a_deadline;
use caskfile::disk::sim::{Repeat, SimDisk, When};
use caskfile::inspect::{CatchUp, Class, Inspection};
use caskfile::{Batch, Cask, Config, Error, verify};
use serde_json::Value;

fn golden() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "cask")).collect();
    files.sort();
    files
}

#[test]
fn each_byte_of_every_golden_file_has_one_owner() {
    let mut seen = BTreeSet::new();
    for path in golden() {
        let file = fs::read(&path).unwrap();
        let totals = examine(&path.display().to_string(), &file);
        seen.extend(totals.into_iter().flatten().filter(|(_, bytes)| *bytes > 0).map(|(class, _)| class));
    }
    assert_eq!(seen, BTreeSet::from(Class::ALL), "a class that no golden file has");
}

#[test]
fn the_records_of_every_golden_file_are_as_stated() {
    let mut compared = 0;
    for path in golden() {
        let written: Value = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
        let Some(records) = written["records"].as_array() else { continue };
        let inspection = Inspection::open_on(disk_with(&fs::read(&path).unwrap()), PATH).unwrap();
        let sound = pieces(&inspection).into_iter().filter(|piece| !matches!(piece.class, Class::Torn | Class::Roots));
        let found: Vec<Value> = sound
            .filter_map(|piece| piece.record)
            .map(|record| {
                serde_json::json!({
                    "offset": record.offset,
                    "seq": record.seq,
                    "kind": record.kind_name().map_or(format!("{:#04x}", record.kind), str::to_owned),
                    "flags": record.flag_names().collect::<Vec<_>>(),
                    "key_len": record.key_len,
                    "value_len": record.value_len,
                })
            })
            .collect();
        assert_eq!(&found, records, "{}", path.display());
        compared += records.len();
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn a_record_changed_during_an_inspection_is_an_error() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    ["a", "b", "c"].into_iter().for_each(|key| cask.put(key, "value").map(drop).unwrap());
    cask.close().unwrap();
    let inspection = Inspection::open(&path).unwrap();
    let offsets: Vec<u64> =
        pieces(&inspection).into_iter().filter_map(|piece| piece.record).map(|r| r.offset).collect();
    let mut file = fs::read(&path).unwrap();
    // Its index, so that it still has the form of a record.
    file[offsets[2] as usize + 16] ^= 1;
    fs::write(&path, file).unwrap();
    let mut items = inspection.pieces().skip_while(Result::is_ok);
    assert!(matches!(items.next(), Some(Err(Error::Corrupt { offset, .. })) if offset == offsets[2]));
    assert!(items.next().is_none());
}

#[test]
fn each_byte_of_a_damaged_file_has_one_owner() {
    let mut seen = BTreeMap::new();
    for path in golden() {
        let (name, file) = (path.display(), fs::read(&path).unwrap());
        let mut dice = Dice::new(file.len() as u64);
        // All of a small file, and a sample of the few large ones.
        let step = file.len() / 400 + 1;
        for len in (0..file.len()).rev().step_by(step) {
            examine(&format!("{name} cut to {len}"), &file[..len]);
        }
        for at in (0..file.len()).step_by(step) {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << dice.below(8);
            let totals = examine(&format!("{name} with another byte {at}"), &flipped);
            totals.into_iter().flatten().for_each(|(class, bytes)| *seen.entry(class).or_insert(0) += bytes);
        }
        let mut wiped = file.clone();
        for start in (0..file.len()).step_by(step * 8) {
            let end = (start + 8 * (1 + dice.below(8) as usize)).min(file.len());
            wiped[start..end].fill(if dice.one_in(2) { 0 } else { 0xee });
            examine(&format!("{name} without {start} to {end}"), &wiped);
            wiped[start..end].copy_from_slice(&file[start..end]);
        }
        let extended = [&file[..], &vec![0; 5000]].concat();
        examine(&format!("{name}, extended"), &extended);
    }
    assert!(Class::ALL.iter().all(|class| seen.contains_key(class)), "{seen:?}");
}

#[test]
fn each_record_of_a_batch_belongs_to_it() {
    let batches = |name: &str| -> Vec<_> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let records = pieces(&Inspection::open(path).unwrap()).into_iter().filter_map(|piece| piece.record);
        records.map(|record| (record.offset, record.batch)).collect()
    };
    let alone = [(64, None), (88, None)];
    let whole = [(120, Some(120)), (152, Some(120)), (184, Some(120)), (224, Some(120)), (256, None)];
    assert_eq!(batches("batch.cask"), [&alone[..], &whole].concat());
    // A group begins with the second one, so the first one's batch was never finished.
    for name in ["batch-with-synced.cask", "batch-with-synced-of-an-unknown-kind.cask"] {
        assert_eq!(batches(name)[3..5], [(152, Some(152)), (184, None)], "{name}");
    }
}

/// The indexes of the records from a place on.
fn seqs_from(inspection: &Inspection, start: u64) -> Vec<u64> {
    let records = inspection.pieces_from(start).filter_map(|piece| piece.unwrap().record);
    records.map(|record| record.seq).collect()
}

#[test]
fn an_appended_record_is_read_and_names_its_predecessor() {
    let directory = TempDir::new();
    let path = directory.join("s");
    let cask = Cask::open(&path).unwrap();
    let first = cask.atomic_put("k", "1", None).unwrap();
    let mut inspection = Inspection::open(&path).unwrap();
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::Nothing);
    let end = inspection.log_end();
    let second = cask.atomic_put("k", "2", Some(&first)).unwrap();
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::Grown);
    assert_eq!(seqs_from(&inspection, end), [second.last_index]);
    let class_of = |inspection: &Inspection, index| {
        let all = pieces(inspection);
        let found = all.into_iter().find(|piece| piece.record.as_ref().is_some_and(|record| record.seq == index));
        found.unwrap().class
    };
    assert_eq!(class_of(&inspection, first.last_index), Class::Dead);
    assert_eq!(class_of(&inspection, second.last_index), Class::Live);
    let end = inspection.log_end();
    let mut batch = Batch::new();
    batch.delete("k").put("l", "3").put("m", "4");
    let last = cask.write(&batch).unwrap().last_index().unwrap();
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::Grown);
    let members: Vec<_> = inspection.pieces_from(end).filter_map(|piece| piece.unwrap().record).collect();
    assert_eq!(members.iter().map(|record| record.seq).collect::<Vec<_>>(), [last - 2, last - 1, last]);
    assert!(members.iter().all(|record| record.batch == Some(members[0].offset)), "{members:?}");
    assert_eq!(class_of(&inspection, second.last_index), Class::Dead);
    cask.close().unwrap();
    owned_once("followed", &fs::read(&path).unwrap(), &pieces(&Inspection::open(&path).unwrap()));
}

#[test]
fn a_torn_record_counts_once_it_is_whole() {
    let directory = TempDir::new();
    let path = directory.join("s");
    let cask = Cask::open(&path).unwrap();
    cask.put("a", "1").unwrap();
    let end = Inspection::open(&path).unwrap().log_end() as usize;
    cask.put("b", "2").unwrap();
    // Closing would state that all of it is on stable storage.
    let whole = fs::read(&path).unwrap();
    let mut half = whole.clone();
    half[end + 20..].fill(0);
    fs::write(&path, &half).unwrap();
    let mut inspection = Inspection::open(&path).unwrap();
    assert!(inspection.check().unwrap().losses[0].torn);
    assert_eq!(totals(&pieces(&inspection))[&Class::Torn], 19, "up to the last byte that is not zero");
    fs::write(&path, &whole).unwrap();
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::Grown);
    assert_eq!(inspection.check().unwrap().losses, []);
    owned_once("completed", &whole, &pieces(&inspection));
}

/// The root was read after the walk. What another process had appended and stated meanwhile seemed to be missing.
#[test]
fn an_inspection_that_catches_up_beside_a_closing_writer_misses_nothing() {
    for nth in 1.. {
        let disk = SimDisk::new();
        let cask = Cask::open_on(Arc::new(disk.process()), PATH, &Config::new()).unwrap();
        cask.put("a", "1").unwrap();
        let reader = disk.process();
        let mut inspection = Inspection::open_on(Arc::new(reader.clone()), PATH).unwrap();
        cask.put("b", "2").unwrap();
        let came = Arc::new(AtomicBool::new(false));
        let coming = Arc::clone(&came);
        disk.before(When::nth(nth).by(&reader), Repeat::Once, move |_| {
            coming.store(true, Ordering::Relaxed);
            cask.put("c", vec![7; 5000]).unwrap();
            cask.close().unwrap();
        });
        assert_eq!(inspection.catch_up().unwrap(), CatchUp::Grown);
        let report = inspection.check().unwrap();
        assert!(!report.truncated, "before call {nth}: {report}");
        if !came.load(Ordering::Relaxed) {
            assert!(nth > 5, "only {nth} calls");
            break;
        }
    }
}

#[test]
fn a_compaction_is_another_log_and_a_stranger_an_error() {
    let directory = TempDir::new();
    let path = directory.join("s");
    let cask = Cask::open(&path).unwrap();
    cask.put("k", "1").unwrap();
    cask.put("k", "2").unwrap();
    let mut inspection = Inspection::open(&path).unwrap();
    cask.put("k", "3").unwrap();
    cask.compact().unwrap();
    cask.put("k", "4").unwrap();
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::Grown, "the old file's last records come first");
    let kinds = inspection.pieces().filter_map(|piece| piece.unwrap().record?.kind_name());
    assert_eq!(kinds.last(), Some("MOVED"));
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::NewLog);
    let mut inspection = Inspection::open(&path).unwrap();
    assert_eq!(inspection.catch_up().unwrap(), CatchUp::Nothing);
    cask.close().unwrap();
    fs::rename(&path, directory.join("aside")).unwrap();
    while let Ok(CatchUp::Grown) = inspection.catch_up() {}
    assert!(matches!(inspection.catch_up(), Err(Error::Replaced { .. })));
    Cask::open(&path).unwrap().close().unwrap();
    assert!(matches!(inspection.catch_up(), Err(Error::Replaced { .. })));
}

#[test]
fn damage_during_an_inspection_is_found_once_proven() {
    let directory = TempDir::new();
    let path = directory.join("s");
    let cask = Cask::open(&path).unwrap();
    cask.put("a", "1").unwrap();
    let mut inspection = Inspection::open(&path).unwrap();
    let end = inspection.log_end() as usize;
    cask.put("b", "2").unwrap();
    cask.close().unwrap();
    let mut file = fs::read(&path).unwrap();
    file[end + 24] ^= 1;
    fs::write(&path, &file).unwrap();
    let changes: Vec<_> = (0..4).map(|_| inspection.catch_up().unwrap()).collect();
    assert_eq!(changes, [CatchUp::Nothing, CatchUp::Grown, CatchUp::Nothing, CatchUp::Nothing]);
    let found: Vec<_> = inspection.pieces_from(end as u64).map(|piece| piece.unwrap()).collect();
    assert_eq!(found[0].class, Class::Corrupt);
    let lost = found[0].record.as_ref().unwrap();
    assert_eq!((lost.header_holds, lost.body_holds), (true, Some(false)));
    assert!(matches!(inspection.check(), Err(Error::Damaged { .. })));
    assert!(matches!(verify(&path), Err(Error::Damaged { .. })));
}

#[test]
fn a_file_can_be_inspected_while_others_write() {
    let Some(()) = with_a_deadline(a_file_can_be_inspected_while_others_write) else { return };
    let directory = TempDir::new();
    let path = directory.join("s");
    let cask = Cask::open(&path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300_u32 {
                let mut batch = Batch::new();
                batch.put(format!("{}", number % 7), vec![7; number as usize]).delete(format!("{}", number % 5));
                cask.write(&batch).unwrap();
                if number % 100 == 99 {
                    cask.compact().unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let inspection = Inspection::open(&path).unwrap();
            let mut at = 0;
            for piece in inspection.pieces() {
                let piece = piece.unwrap();
                assert_eq!(piece.start, at);
                assert_ne!(piece.class, Class::Corrupt);
                at = piece.end;
            }
            assert_eq!(at, inspection.file_len());
            inspection.check().unwrap();
        }
    });
    cask.close().unwrap();
}
