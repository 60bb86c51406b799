//! Every field of a [`Report`], after one damage of every kind to every record: the range to the byte, what does not hold there,
//! whether it is torn, which batch it cuts, the lost key, and all totals. Inspection must name the same range.
//!
//! `salvaged` damages files at random, so it can only ask whether a range has the record. Here it is known to the byte.

use std::path::Path;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::inspect::{CatchUp, Class, Inspection};
use caskfile::{Batch, Cask, Config, Durability, Error, Loss, LostKey, Report, salvage_on, verify_on};

use crate::common::files::anatomy::{
    DELETE, FILE_HEADER, RECORD_HEADER, Record, STORE, SYNCED_TO, records, replay, specimens,
};
use crate::common::files::layout::ROOTS_END;
use crate::common::files::owners::{PATH, disk_with, pieces};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hurt {
    /// A bit of the header's checksum.
    Header,
    /// A bit of the last byte of the full key.
    Key,
    /// A bit of the last byte of the value.
    Value,
    /// All of it reads as zeros.
    Wiped,
    /// All of it reads as ones.
    Ones,
}

const HURTS: [Hurt; 5] = [Hurt::Header, Hurt::Key, Hurt::Value, Hurt::Wiped, Hurt::Ones];

/// The damaged file; `None` if the record has no such part.
fn hurt(file: &[u8], record: &Record, hurt: Hurt) -> Option<Vec<u8>> {
    let (key_end, mut file) = (record.at + RECORD_HEADER + record.key.len(), file.to_vec());
    match hurt {
        Hurt::Header => file[record.at] ^= 1,
        Hurt::Key if !record.key.is_empty() => file[key_end - 1] ^= 1,
        Hurt::Value if !record.value.is_empty() => file[record.end - 1] ^= 1,
        Hurt::Wiped => file[record.at..record.end].fill(0),
        Hurt::Ones => file[record.at..record.end].fill(0xff),
        Hurt::Key | Hurt::Value => return None,
    }
    Some(file)
}

/// What the report must say of the only loss.
#[derive(Debug, PartialEq)]
struct Lost {
    start: usize,
    end: usize,
    damage: &'static str,
    torn: bool,
    batch: Option<usize>,
    whole_records: usize,
    key: Option<KeyOfLoss>,
}

/// Offset, bucket, key, index, deleted, kept.
type KeyOfLoss = (u64, Vec<u8>, Vec<u8>, u64, bool, Option<u64>);

#[derive(Debug, PartialEq)]
struct Verdict {
    lost: Option<Lost>,
    log_end: usize,
    torn_bytes: usize,
    keys: usize,
    records: usize,
    sound: bool,
}

fn expected(damaged: &[u8], records: &[Record], number: usize, hurt: Hurt) -> Verdict {
    let record = &records[number];
    let data_end = damaged.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let unit = (0..number).rev().take_while(|&before| records[before].more).last().unwrap_or(number);
    let (last, start) = (number + 1 == records.len(), records[unit].at);
    let end_of = |record: &Record| record.end.next_multiple_of(8);
    let whole = |kept: &[&Record]| replay(kept.iter().copied()).len();
    if last && hurt == Hurt::Wiped {
        // The file shows nothing of it.
        let kept: Vec<&Record> = records[..number].iter().collect();
        assert_eq!(unit, number, "the last record of a specimen stands alone");
        let log_end = start;
        return Verdict { lost: None, log_end, torn_bytes: 0, keys: whole(&kept), records: number, sound: true };
    }
    // What a damaged header says is not believed; what a true one says is, but a statement in the body only if that is whole.
    let believed = |at: usize| match at == number {
        true => matches!(hurt, Hurt::Key | Hurt::Value) && records[at].kind != SYNCED_TO,
        false => true,
    };
    let proof = (unit + 1..records.len()).filter(|&at| believed(at)).filter_map(|at| records[at].proof).max();
    let torn = proof.is_none_or(|proof| proof <= start);
    let kept: Vec<&Record> = (0..records.len())
        .filter(|&at| at != number && !(torn && (unit..number).contains(&at)))
        .map(|at| &records[at])
        .collect();
    let header_true = matches!(hurt, Hurt::Key | Hurt::Value);
    // A key is listed if the header is true, or leads to the next record.
    let readable = header_true || (hurt == Hurt::Header && !last);
    let key = (record.has_key() && readable).then(|| {
        let full_key = &damaged[record.at + RECORD_HEADER..][..record.key.len()];
        let (bucket, key) = full_key[1..].split_at(usize::from(full_key[0]));
        let kept = replay(kept.iter().copied()).get(full_key).map(|(_, index)| *index);
        (record.at as u64, bucket.to_vec(), key.to_vec(), record.index, record.kind == DELETE, kept)
    });
    let lost = Lost {
        start: if torn { start } else { record.at },
        end: if last { data_end } else { records[number + 1].at },
        damage: match hurt {
            Hurt::Header | Hurt::Ones => "header",
            Hurt::Key | Hurt::Value => "body",
            Hurt::Wiped if number > unit => "broken_batch",
            Hurt::Wiped => "zeros",
        },
        torn,
        batch: (number > unit || (header_true && record.more)).then_some(start),
        whole_records: if torn { number - unit } else { 0 },
        key,
    };
    Verdict {
        lost: Some(lost),
        log_end: if torn { start } else { end_of(&records[records.len() - 1]) },
        torn_bytes: if torn { data_end - start } else { 0 },
        keys: whole(&kept),
        records: kept.len(),
        sound: torn,
    }
}

fn said(report: &Report) -> Verdict {
    let lost = |loss: &Loss| Lost {
        start: loss.start as usize,
        end: loss.end as usize,
        damage: loss.damage.name(),
        torn: loss.torn,
        batch: loss.batch.map(|batch| batch as usize),
        whole_records: loss.whole_records as usize,
        key: loss.keys.first().map(|LostKey { offset, bucket, key, last_index, deleted, kept, .. }| {
            (*offset, bucket.clone(), key.clone(), *last_index, *deleted, *kept)
        }),
    };
    assert!(report.losses.len() < 2 && report.losses.iter().all(|loss| loss.keys.len() < 2), "one damage: {report}");
    Verdict {
        lost: report.losses.first().map(lost),
        log_end: report.log_end as usize,
        torn_bytes: report.torn_bytes as usize,
        keys: report.keys as usize,
        records: report.records as usize,
        sound: report.is_sound(),
    }
}

fn report_of(outcome: caskfile::Result<Report>) -> Report {
    match outcome {
        Ok(report) => report,
        Err(Error::Damaged { report, path }) => {
            assert_eq!(path, Path::new(STORE));
            Report::clone(&report)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Tries every kind of damage on every record, and returns how many it tried.
fn for_each_damage(mut check: impl FnMut(&str, &[u8], Verdict)) -> usize {
    let (crashed, closed) = specimens();
    let mut tried = 0;
    for (name, file) in [("crashed", crashed), ("closed", closed)] {
        let records = records(&file);
        for (number, record) in records.iter().enumerate() {
            for how in HURTS {
                let Some(damaged) = hurt(&file, record, how) else { continue };
                let story = format!("{name}, record {number} at {}, {how:?}", record.at);
                check(&story, &damaged, expected(&damaged, &records, number, how));
                tried += 1;
            }
        }
    }
    tried
}

#[test]
fn a_report_names_each_damage_to_the_byte() {
    let tried = for_each_damage(|story, damaged, expected| {
        let disk = disk_with(damaged);
        let report = report_of(verify_on(&*disk, Path::new(STORE)));
        assert_eq!(said(&report), expected, "{story}: {report}");
        assert_eq!(
            (report.file_len, report.cut_off, report.unlisted_keys),
            (damaged.len() as u64, false, 0),
            "{story}"
        );
        assert!(report.unreadable.is_empty(), "{story}");
        let lost = expected.lost.as_ref().map_or(0, |lost| lost.end - lost.start);
        assert_eq!(report.lost_bytes(), lost as u64, "{story}");
        let unfinished = expected.lost.as_ref().map_or(0, |lost| lost.whole_records);
        assert_eq!(report.unfinished_records(), unfinished as u64, "{story}");
        let salvaged = salvage_on(&*disk, Path::new(STORE), Path::new("/rescued")).unwrap();
        assert_eq!(salvaged, report, "{story}: salvage must say what verification says");
    });
    assert!(tried > 150, "{tried}");
}

#[test]
fn an_inspection_shows_each_damage_to_the_byte() {
    for_each_damage(|story, damaged, expected| {
        let inspection = Inspection::open_on(disk_with(damaged), PATH).unwrap();
        let pieces = pieces(&inspection);
        let broken = pieces.iter().filter(|piece| matches!(piece.class, Class::Corrupt | Class::Torn));
        let broken: Vec<_> = broken.collect();
        let Some(lost) = expected.lost else {
            assert!(broken.is_empty(), "{story}");
            return;
        };
        assert!(!broken.is_empty(), "{story}");
        let (class, end) = match lost.torn {
            true => (Class::Torn, expected.log_end + expected.torn_bytes),
            false => (Class::Corrupt, lost.end),
        };
        assert!(broken.iter().all(|piece| piece.class == class), "{story}: {broken:?}");
        let shown = (broken[0].start as usize, broken[broken.len() - 1].end as usize);
        assert_eq!(shown, (lost.start, end), "{story}: {broken:?}");
        assert_eq!(inspection.log_end() as usize, expected.log_end, "{story}");
    });
}

#[test]
fn a_report_names_a_lost_file_header() {
    let (_, closed) = specimens();
    let sound = report_of(verify_on(&*disk_with(&closed), Path::new(STORE)));
    for at in 0..FILE_HEADER {
        let mut damaged = closed.clone();
        damaged[at] ^= 0x10;
        let mut report = report_of(verify_on(&*disk_with(&damaged), Path::new(STORE)));
        let [loss] = &report.losses[..] else { panic!("byte {at}: {report}") };
        assert_eq!((loss.start, loss.end, loss.torn), (0, FILE_HEADER as u64, false), "byte {at}");
        assert_eq!(loss.damage.name(), if at < 8 { "magic" } else { "file_header" }, "byte {at}");
        report.losses.clear();
        assert_eq!(report, sound, "byte {at}: nothing else is lost");
    }
}

/// A torn record before a torn batch: their ranges touch, so they are one range, which must say all that both say.
#[test]
fn losses_that_touch_are_one_with_all_that_they_say() {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap();
    cask.put("first", "1").unwrap();
    cask.put("before", "the batch").unwrap();
    cask.write(Batch::new().put("a", "1").put("b", "2").put("c", "3")).unwrap();
    let mut bytes = disk.contents(STORE).unwrap();
    let end = cask.stats().unwrap().log_end as usize;
    bytes.truncate(end + 64);
    let records = records(&bytes);
    let of = |key: &str| records.iter().find(|record| record.key.get(1..) == Some(key.as_bytes())).unwrap();
    for lost in ["before", "b"] {
        bytes[of(lost).end - 1] ^= 1;
    }
    let report = report_of(verify_on(&*disk_with(&bytes), Path::new(STORE)));
    let [loss] = &report.losses[..] else { panic!("{report}") };
    assert_eq!((loss.start, loss.end, loss.torn), (of("before").at as u64, of("c").at as u64, true), "{report}");
    assert_eq!((loss.batch, loss.whole_records), (Some(of("a").at as u64), 1), "{report}");
    let keys: Vec<&[u8]> = loss.keys.iter().map(|lost| &lost.key[..]).collect();
    assert_eq!(keys, [&b"before"[..], b"b"], "{report}");
    let data_end = bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    assert_eq!((report.log_end, report.torn_bytes), (loss.start, data_end - loss.start), "{report}");
    // What stands before them, and the last record of the batch.
    assert_eq!(report.keys, 2, "{report}");
}

/// Whatever part of the log an inspection has seen when it was opened, half a record or half a batch included: once it has caught
/// up, it says what a new inspection says.
#[test]
fn an_inspection_that_catches_up_says_what_a_new_one_says() {
    let (crashed, _) = specimens();
    let data_end = crashed.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let said = |inspection: &Inspection| (inspection.check().unwrap().clone(), format!("{:?}", pieces(inspection)));
    let expected = said(&Inspection::open_on(disk_with(&crashed), PATH).unwrap());
    for seen in (ROOTS_END..data_end).step_by(3) {
        let mut start = crashed.clone();
        // The file has its length already, or grows too.
        if seen % 2 == 0 {
            start[seen..].fill(0);
        } else {
            start.truncate(seen);
        }
        let disk = disk_with(&start);
        let mut inspection = Inspection::open_on(disk.clone(), PATH).unwrap();
        disk.set_contents(PATH, crashed.clone());
        let mut quiet = 0;
        // A place that does not parse is read again when it was met for the second time.
        while quiet < 3 {
            match inspection.catch_up().unwrap() {
                CatchUp::Nothing => quiet += 1,
                CatchUp::Grown => quiet = 0,
                other => panic!("{seen} bytes were there: {other:?}"),
            }
        }
        let (report, pieces) = said(&inspection);
        assert_eq!(report, expected.0, "{seen} bytes were there");
        assert!(pieces == expected.1, "{seen} bytes were there: the pieces differ");
    }
}
