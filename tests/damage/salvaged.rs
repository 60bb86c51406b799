//! What salvage finds in damaged files, what it says of the rest, and what the store that it makes promises.
//!
//! The files are taken apart before they are damaged, so that for every record it is known whether it is still whole
//! and what follows if it is not. `CASKFILE_SALVAGE_ROUNDS=100000` damages 100,000 instead of a few hundred.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, Config, Damage, Durability, Error, Report, salvage, salvage_on, salvage_unfinished, verify, verify_on,
};

use crate::common::TempDir;
use crate::common::dice::Dice;
use crate::common::files::anatomy::{
    DELETE, FILE_HEADER, PUT, PUT_WITH, RECORD_HEADER, Record, STORE, SYNCED_TO, records, specimens,
};
use crate::common::files::layout::{SLOT_LEN, SLOTS, log_start, slot};

const RESCUED: &str = "/rescued";

/// Values and indexes by full key.
type Contents = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A damaged file, and the same file before that.
struct Patient<'a> {
    original: &'a [u8],
    records: Vec<Record>,
    damaged: &'a [u8],
}

/// What must become of it.
struct Prognosis {
    header_lost: bool,
    /// Which records are as they were.
    whole: Vec<bool>,
    /// Which records salvage keeps.
    kept: Vec<bool>,
    /// Everything before this was on stable storage, as is still proven.
    proven: usize,
}

impl Patient<'_> {
    fn new<'a>(original: &'a [u8], damaged: &'a [u8]) -> Patient<'a> {
        Patient { original, records: records(original), damaged }
    }

    fn differs(&self, range: Range<usize>) -> bool {
        self.damaged.get(range.clone()) != self.original.get(range)
    }

    /// After the last byte that is not zero.
    fn data_end(&self) -> usize {
        self.damaged.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
    }

    /// What a header says, it says also if its body is damaged; what a body says, only if that is whole.
    fn proof_after(&self, unit: usize) -> usize {
        let proves = |record: &&Record| {
            let says = if record.kind == SYNCED_TO { record.end } else { record.at + RECORD_HEADER };
            !self.differs(record.at..says) && record.end <= self.damaged.len()
        };
        self.records[unit + 1..].iter().filter(proves).filter_map(|record| record.proof).max().unwrap_or(0)
    }

    /// What the file states of its own length, if that can still be read.
    fn stated(&self) -> Option<usize> {
        // Either header says that the slots are there.
        let heads = [0..FILE_HEADER, FILE_HEADER..FILE_HEADER + RECORD_HEADER];
        let has_roots = log_start(self.original) > FILE_HEADER && heads.into_iter().any(|head| !self.differs(head));
        let slots = SLOTS.into_iter().filter(|&at| has_roots && !self.differs(at..at + SLOT_LEN));
        let slots = slots.map(|at| slot(self.original, at));
        slots.filter(|slot| slot.0 > 0).max().map(|slot| slot.1 as usize)
    }

    fn prognosis(&self) -> Prognosis {
        let whole: Vec<bool> = self.records.iter().map(|record| !self.differs(record.at..record.end)).collect();
        let mut kept = vec![false; whole.len()];
        let (mut unit, mut proven) = (Vec::new(), self.stated().unwrap_or(0));
        for (number, record) in self.records.iter().enumerate() {
            if whole[number] {
                unit.push(number);
                if !record.more {
                    unit.drain(..).for_each(|number| kept[number] = true);
                }
                continue;
            }
            let start = *unit.first().unwrap_or(&number);
            proven = proven.max(self.proof_after(start));
            if proven > self.records[start].at {
                unit.drain(..).for_each(|number| kept[number] = true);
            }
            unit.clear();
        }
        Prognosis { header_lost: self.differs(0..FILE_HEADER), whole, kept, proven }
    }

    fn contents(&self, prognosis: &Prognosis) -> Contents {
        let mut contents = Contents::new();
        for (record, _) in self.records.iter().zip(&prognosis.kept).filter(|(_, kept)| **kept) {
            match record.kind {
                PUT | PUT_WITH => {
                    let value = record.sets().expect("it is a put").to_vec();
                    contents.insert(record.key.clone(), (value, record.index));
                }
                DELETE => drop(contents.remove(&record.key)),
                _ => {}
            }
        }
        contents
    }

    /// Compares what is said of the file with what is known of it.
    fn check(&self, prognosis: &Prognosis, report: &Report) {
        let contents = self.contents(prognosis);
        assert_eq!(report.keys, contents.len() as u64, "{report}");
        assert_eq!(report.records, prognosis.kept.iter().filter(|kept| **kept).count() as u64);
        assert_eq!(report.file_len, self.damaged.len() as u64);
        assert_eq!(report.unlisted_keys, 0);
        assert_eq!(report.synced_to, self.stated().map(|stated| stated as u64));
        assert!(report.truncated || self.damaged.len() >= self.stated().map_or(0, |stated| stated + 8), "{report}");
        let ends: Vec<u64> = report.losses.iter().flat_map(|loss| [loss.start, loss.end]).collect();
        assert!(ends.is_sorted(), "ranges are in the order of the file and apart: {ends:?}");
        assert_eq!(prognosis.header_lost, report.losses.first().is_some_and(|loss| loss.start == 0));

        for (number, record) in self.records.iter().enumerate() {
            let around = |at: usize| report.losses.iter().find(|loss| (loss.start..loss.end).contains(&(at as u64)));
            if prognosis.kept[number] {
                assert!((record.at..record.end).all(|at| around(at).is_none()), "what was kept is not lost");
                continue;
            }
            if record.at >= self.data_end() {
                // The file ends before it: nothing tells that it ever was there.
                continue;
            }
            let loss = around(record.at).expect("what was not kept is said to be lost");
            assert_eq!(loss.torn, loss.start >= prognosis.proven as u64, "{loss}");
            if number > 0 && self.records[number - 1].more && prognosis.kept[number - 1] {
                assert!(loss.batch.is_some(), "{loss}");
            }
            let key_end = record.at + RECORD_HEADER + record.key.len();
            let readable = !self.differs(record.at..key_end) && record.end <= self.damaged.len();
            let listed = loss.keys.iter().find(|key| key.offset == record.at as u64);
            if readable && !prognosis.whole[number] && !loss.torn && record.has_key() {
                let listed = listed.expect("a key that can be read is listed");
                assert_eq!([&[listed.bucket.len() as u8], &listed.bucket[..], &listed.key].concat(), record.key);
                assert_eq!((listed.last_index, listed.deleted), (record.index, record.kind == DELETE));
                assert_eq!(listed.kept, contents.get(&record.key).map(|(_, index)| *index));
            }
        }
        for key in report.losses.iter().flat_map(|loss| &loss.keys) {
            let number = self.records.iter().position(|record| record.at as u64 == key.offset);
            assert!(number.is_some_and(|number| !prognosis.whole[number]), "a key of no lost record: {key}");
        }
    }
}

fn contents(cask: &Cask) -> Contents {
    let mut contents = Contents::new();
    for bucket in cask.buckets().unwrap() {
        for pair in cask.bucket(&bucket).unwrap().list("").unwrap() {
            let full_key = [&[bucket.len() as u8], &bucket[..], &pair.key].concat();
            contents.insert(full_key, (pair.value, pair.last_index));
        }
    }
    contents
}

/// Verifies and salvages a damaged file.
fn treat(original: &[u8], damaged: &[u8]) {
    let disk = SimDisk::new();
    disk.set_contents(STORE, damaged.to_vec());
    treat_on(&disk, original, damaged);
}

/// Verifies and salvages a damaged file of which so much can be read, in the same places.
fn treat_on(disk: &SimDisk, original: &[u8], readable: &[u8]) {
    let patient = Patient::new(original, readable);
    let prognosis = patient.prognosis();
    let before = disk.contents(STORE).unwrap();
    let verified = match verify_on(disk, Path::new(STORE)) {
        Ok(report) => {
            assert!(report.is_sound());
            Ok(report)
        }
        Err(Error::Damaged { report, .. }) => {
            assert!(!report.is_sound());
            Ok(Report::clone(&report))
        }
        Err(error) => Err(error),
    };
    let salvaged = salvage_on(disk, Path::new(STORE), Path::new(RESCUED));
    assert!(disk.contents(STORE).unwrap() == before, "the source was changed");
    let spoiled = before != readable;
    let whole = prognosis.whole.iter().filter(|whole| **whole).count();
    match salvaged {
        Ok(report) => {
            assert_eq!(verified.unwrap(), report, "verification and salvage agree");
            patient.check(&prognosis, &report);
            let cask = Cask::open_on(Arc::new(disk.clone()), RESCUED, &Config::new()).unwrap();
            assert!(contents(&cask) == patient.contents(&prognosis));
            cask.verify().unwrap();
            let next = cask.atomic_put("a key that is not there", "", None).unwrap().last_index;
            assert!(patient.records.iter().all(|record| record.index < next), "an index for the second time");
            let mut paths = disk.paths();
            paths.sort();
            assert_eq!(paths, [Path::new(RESCUED), Path::new(STORE)], "nothing else is left");
        }
        Err(Error::Io { source, .. }) if spoiled => {
            assert_eq!(source.raw_os_error(), Some(libc::EIO));
            assert!(verified.is_err() && prognosis.header_lost && whole < 2, "{whole} records are whole");
            assert_eq!(disk.paths(), [Path::new(STORE)]);
        }
        Err(Error::Corrupt { offset: 0, .. } | Error::NotCaskfile { .. }) if !spoiled => {
            assert!(verified.is_err() && prognosis.header_lost && whole < 2, "{whole} records are whole");
            assert_eq!(disk.paths(), [Path::new(STORE)]);
        }
        Err(error) => panic!("{error}"),
    }
}

/// A file with some history: two writers, buckets, batches, deletions, long values, and logs as values if wanted.
fn history(dice: &mut Dice, logs: bool) -> Vec<u8> {
    let disk = SimDisk::from_seed(dice.roll());
    let open =
        |durability| Cask::open_on(Arc::new(disk.process()), STORE, &Config::new().durability(durability)).unwrap();
    let casks = [open(Durability::Sync), open(Durability::Os)];
    let (log, _) = specimens();
    for _ in 0..dice.below(60) {
        let cask = &casks[dice.below(2) as usize];
        let bucket = cask.bucket(dice.choose(&["", "b", "a longer name"])).unwrap();
        let key = format!("key-{}", dice.below(12));
        match dice.below(10) {
            0 if logs => bucket.put(key, &log).map(drop).unwrap(),
            1 | 2 => bucket.delete(key).unwrap(),
            3 => {
                let mut batch = Batch::new();
                for number in 0..dice.below(6) {
                    batch.put(format!("key-{number}"), vec![number as u8; dice.below(40) as usize]).delete(&key);
                }
                bucket.write(&batch).unwrap();
            }
            4 => bucket.put(key, vec![0xa5; dice.below(5000) as usize]).map(drop).unwrap(),
            _ => bucket.put(key, "v".repeat(dice.below(100) as usize)).map(drop).unwrap(),
        }
    }
    if dice.one_in(2) {
        casks.iter().for_each(|cask| cask.close().unwrap());
        return disk.contents(STORE).unwrap();
    }
    let end = casks[0].stats().unwrap().log_end.max(casks[1].stats().unwrap().log_end) as usize;
    let mut bytes = disk.contents(STORE).unwrap();
    bytes.truncate(end + 8 + dice.below(100) as usize);
    bytes
}

/// Damages something after the file header.
///
/// If that is lost too, only a majority of the records tells which are in their place, so none is `misplaced` then.
fn damage(dice: &mut Dice, bytes: &mut Vec<u8>, misplaced: bool) {
    let at = FILE_HEADER + dice.below((bytes.len() - FILE_HEADER) as u64 + 1) as usize;
    let most = dice.choose(&[8, 64, 600, 5000]);
    let len = 1 + dice.below(most) as usize;
    let range = at.min(bytes.len() - 1)..(at + len).min(bytes.len());
    match dice.below(7) {
        0 | 1 => bytes[range.start] ^= 1 << dice.below(8),
        2 => bytes[range].fill(0),
        3 => bytes[range].iter_mut().for_each(|byte| *byte = dice.roll() as u8),
        4 => bytes[range].fill(0xff),
        5 if misplaced => {
            // The disk has written to the wrong place.
            let from = dice.below((bytes.len() - range.len() + 1) as u64) as usize / 8 * 8;
            let (to, len) = (range.start / 8 * 8, range.len());
            bytes.copy_within(from..from + len, to);
        }
        6 if dice.one_in(3) => bytes.truncate(at),
        _ => bytes.extend((0..len).map(|_| dice.roll() as u8)),
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("CASKFILE_SALVAGE_ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

#[test]
fn salvage_keeps_whole_records_and_names_lost_ranges() {
    for seed in 0..rounds(300) {
        let dice = &mut Dice::new(seed);
        let header_lost = dice.one_in(4);
        let original = history(dice, !header_lost);
        let mut damaged = original.clone();
        for _ in 0..dice.below(6) {
            damage(dice, &mut damaged, !header_lost);
        }
        if header_lost {
            damaged[..FILE_HEADER].fill(dice.roll() as u8);
        }
        println!("seed {seed}");
        treat(&original, &damaged);
    }
}

#[test]
fn every_flipped_byte_and_truncation_is_reported_correctly() {
    let (crashed, closed) = specimens();
    for original in [crashed, closed] {
        for at in 0..original.len() {
            let mut damaged = original.clone();
            damaged[at] ^= 0x20;
            treat(&original, &damaged);
        }
        for len in (FILE_HEADER..original.len()).step_by(3) {
            treat(&original, &original[..len]);
        }
    }
}

#[test]
fn a_lost_file_header_costs_nothing_but_itself() {
    let (_, original) = specimens();
    let mut damaged = original.clone();
    for len in [1, 8, 30, FILE_HEADER] {
        damaged[FILE_HEADER - len..FILE_HEADER].fill(0);
        treat(&original, &damaged);
        let disk = SimDisk::new();
        disk.set_contents(STORE, damaged.clone());
        let report = salvage_on(&disk, Path::new(STORE), Path::new(RESCUED)).unwrap();
        let [loss] = &report.losses[..] else { panic!("{report}") };
        assert_eq!((loss.start, loss.end), (0, FILE_HEADER as u64));
        let lost_magic = len == FILE_HEADER;
        assert_eq!(loss.damage == Damage::Magic, lost_magic, "{loss}");
    }
}

/// As of zeros in their place, but that they are named as what they are.
#[test]
fn what_the_disk_cannot_read_costs_nothing_but_itself() {
    let page = 4096;
    for seed in 0..rounds(100) {
        let dice = &mut Dice::new(seed);
        let original = history(dice, false);
        let disk = SimDisk::new();
        disk.set_contents(STORE, original.clone());
        let mut readable = original.clone();
        let mut spoiled = BTreeSet::new();
        for _ in 0..dice.below(4) {
            let at = dice.below(original.len() as u64) as usize / page * page;
            readable[at..original.len().min(at + page)].fill(0);
            disk.spoil(STORE, at as u64);
            spoiled.insert(at as u64);
        }
        println!("seed {seed}: {spoiled:?}");
        treat_on(&disk, &original, &readable);
        let report = match verify_on(&disk, Path::new(STORE)) {
            Ok(report) => report,
            Err(Error::Damaged { report, .. }) => Report::clone(&report),
            Err(_) => continue,
        };
        let reported = report.unreadable.iter().flat_map(|range| range.clone().step_by(page));
        assert_eq!(reported.collect::<BTreeSet<_>>(), spoiled);
        assert!(spoiled.is_empty() || !report.is_sound());
    }
}

/// Whatever was read before, and whichever read it is that fails.
#[test]
fn a_block_that_goes_bad_costs_only_itself() {
    let original = {
        let disk = SimDisk::new();
        let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new()).unwrap();
        for (key, len) in [("a", 1), ("pad", 9000), ("a", 2), ("b", 3)] {
            cask.put(key, vec![7; len]).unwrap();
        }
        cask.close().unwrap();
        disk.contents(STORE).unwrap()
    };
    let (mut reported, mut fine) = (0, 0);
    for (at, nth, salvages) in (0..3 * 60 * 2).map(|n| (n % 3 * 4096, 1 + n / 3 % 60, n / 180 == 1)) {
        let disk = SimDisk::new();
        disk.set_contents(STORE, original.clone());
        let spoiled = disk.clone();
        disk.before(When::nth(nth).of(Verb::ReadAt), Repeat::Once, move |_| spoiled.spoil(STORE, at));
        let outcome = match salvages {
            true => salvage_on(&disk, Path::new(STORE), Path::new(RESCUED)),
            false => verify_on(&disk, Path::new(STORE)),
        };
        let unreadable = match outcome {
            Ok(report) => report.unreadable,
            Err(Error::Damaged { report, .. }) => report.unreadable.clone(),
            Err(error) => panic!("{at}, before read {nth}, salvage {salvages}: {error}"),
        };
        match &unreadable[..] {
            [] => fine += 1,
            [bad] => {
                assert_eq!((bad.start, bad.end), (at, (at + 4096).min(original.len() as u64)));
                reported += 1;
            }
            _ => panic!("{unreadable:?}"),
        }
        if salvages {
            let cask = Cask::open_on(Arc::new(disk.clone()), RESCUED, &Config::new()).unwrap();
            cask.verify().unwrap();
        }
    }
    assert!(reported > 40 && fine > 40, "{reported} {fine}");
}

#[test]
fn a_file_that_cannot_be_read_is_not_foreign() {
    let (_, original) = specimens();
    let disk = SimDisk::new();
    disk.set_contents(STORE, original.clone());
    for at in (0..original.len() as u64).step_by(4096) {
        disk.spoil(STORE, at);
    }
    let reported = [verify_on(&disk, Path::new(STORE)), salvage_on(&disk, Path::new(STORE), Path::new(RESCUED))];
    for reported in reported {
        assert!(
            matches!(&reported, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EIO)),
            "{reported:?}"
        );
    }
}

/// A store may hold another store's file as a value. When that value is damaged, what lies inside it is no record of
/// this store; nor is it if the header is lost as well.
#[test]
fn a_log_inside_a_damaged_value_is_not_read() {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new()).unwrap();
    let (_, inner) = specimens();
    cask.put("before", "1").unwrap();
    cask.put("inner", &inner).unwrap();
    cask.put("after", "2").unwrap();
    cask.close().unwrap();
    let original = disk.contents(STORE).unwrap();
    let at = original.windows(inner.len()).position(|window| window == inner).unwrap();
    for header in [false, true] {
        for damaged_at in [at - 20, at - 3, at, at + 70, at + inner.len() - 1] {
            let mut damaged = original.clone();
            damaged[damaged_at] ^= 4;
            if header {
                damaged[..FILE_HEADER].fill(0x77);
            }
            treat(&original, &damaged);
        }
    }
}

/// Work is bounded by the file's length: no record is read again for each of the others, however many are damaged.
#[test]
fn a_file_damaged_everywhere_is_read_a_few_times() {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap();
    let mut batch = Batch::new();
    for number in 0..4000 {
        batch.put(format!("key-{number}"), vec![7; 100]);
    }
    for _ in 0..3 {
        cask.write(&batch).unwrap();
    }
    cask.close().unwrap();
    let original = disk.contents(STORE).unwrap();
    for distance in [2, 3, 1] {
        let mut damaged = original.clone();
        for record in records(&original).iter().filter(|record| record.kind == PUT).step_by(distance) {
            damaged[record.end - 1] ^= 1;
        }
        for header in [false, true] {
            let mut damaged = damaged.clone();
            if header {
                damaged[..FILE_HEADER].fill(1);
            }
            let disk = SimDisk::new();
            disk.set_contents(STORE, damaged.clone());
            let Err(Error::Damaged { report, .. }) = verify_on(&disk, Path::new(STORE)) else { panic!() };
            assert!(report.losses.len() > 12_000 / distance / 2 || distance == 1, "{}", report.losses.len());
            let most = 8 * damaged.len() as u64 + 16 * 1024 * (12_000 / distance) as u64;
            assert!(disk.bytes_read() < most, "{} bytes were read, every {distance}", disk.bytes_read());
        }
    }
}

/// Three handles, each with an index block of its own; what the second and the third wrote is damaged beyond
/// recognition. A caller still has a pair of the third's, and compares with it what others have written since.
#[test]
fn a_salvaged_store_does_not_reuse_a_lost_index() {
    let directory = TempDir::new();
    let (damaged, rescued) = (directory.join("damaged"), directory.join("rescued"));
    let put = |path: &Path, value: &str| {
        let cask = Cask::open(path).unwrap();
        cask.put("key", value).unwrap();
        let (pair, end) = (cask.get("key").unwrap(), cask.stats().unwrap().log_end as usize);
        cask.close().unwrap();
        (pair, end)
    };
    let (_, sound) = put(&damaged, "1");
    let (_, _) = put(&damaged, "2");
    let (lost, _) = put(&damaged, "3");
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[sound..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&damaged, bytes).unwrap();

    let report = salvage(&damaged, &rescued).unwrap();
    assert_eq!((report.keys, report.losses.len()), (1, 1), "{report:?}");
    for _ in 0..4 {
        let (pair, _) = put(&rescued, "4");
        assert!(pair.last_index > lost.last_index, "{} after {}", pair.last_index, lost.last_index);
        let cask = Cask::open(&rescued).unwrap();
        assert!(matches!(cask.atomic_put("key", "5", Some(&lost)), Err(Error::KeyModified)));
    }
}

/// A store with one pair and then a batch of a thousand, cut inside of the record with this number.
fn cut_inside_a_batch(path: &Path, of_a_backup: bool, number: usize) {
    let original = path.with_file_name("original");
    let cask = Cask::open(&original).unwrap();
    cask.put("before", "the batch").unwrap();
    let mut batch = Batch::new();
    for n in 0..1000 {
        batch.put(format!("key-{n:03}"), format!("value-{n:03}"));
    }
    cask.write(&batch).unwrap();
    if of_a_backup {
        cask.backup(path).unwrap();
        cask.close().unwrap();
    } else {
        // Closing would state that all of it is on stable storage, and the cut file would be refused.
        std::fs::copy(&original, path).unwrap();
    }
    let mut bytes = std::fs::read(path).unwrap();
    let name = format!("key-{number:03}");
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    bytes.truncate(at + 3);
    std::fs::write(path, bytes).unwrap();
}

/// All of a backup was on stable storage before it got its name, so this is no batch that a crash has torn.
#[test]
fn salvage_of_half_a_backup_keeps_its_broken_batch() {
    let directory = TempDir::new();
    let (cut, rescued) = (directory.join("cut"), directory.join("rescued"));
    cut_inside_a_batch(&cut, true, 500);
    let Err(Error::Damaged { report, .. }) = verify(&cut) else { panic!("its end is missing") };
    assert!(report.cut_off && report.keys == 501, "{report}");
    let report = salvage(&cut, &rescued).unwrap();
    assert!(report.cut_off && report.losses[0].batch.is_some(), "{report}");
    assert_eq!((report.keys, report.unfinished_records()), (501, 0), "{report}");
    let cask = Cask::open(&rescued).unwrap();
    assert_eq!((cask.list("").unwrap().len(), cask.get("key-499").unwrap().value), (501, b"value-499".to_vec()));
}

/// A crash may have left it, so the batch does not count unless it is asked for.
#[test]
fn salvage_counts_and_copies_a_broken_batch() {
    let directory = TempDir::new();
    let cut = directory.join("cut");
    cut_inside_a_batch(&cut, false, 500);
    let report = verify(&cut).unwrap();
    assert_eq!((report.keys, report.unfinished_records(), report.cut_off), (1, 500, false), "{report}");
    assert!(report.to_string().contains("500 whole records of a batch that has no end"), "{report}");
    let report = salvage(&cut, directory.join("without")).unwrap();
    assert_eq!((report.keys, report.unfinished_records()), (1, 500), "{report}");

    let report = salvage_unfinished(&cut, directory.join("with"), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.keys, report.unfinished_records()), (501, 0), "{report}");
    let cask = Cask::open(directory.join("with")).unwrap();
    assert_eq!((cask.list("").unwrap().len(), cask.get("key-499").unwrap().value), (501, b"value-499".to_vec()));
    assert!(cask.get("key-500").is_err());
}

/// What is cut off by the next writer has whole records in it that may have been acknowledged.
#[test]
fn a_put_after_a_broken_batch_keeps_the_cut() {
    // Of the first record nothing is whole.
    for (number, kept) in [(0, false), (1, true), (500, true)] {
        let directory = TempDir::new();
        let cut = directory.join("cut");
        cut_inside_a_batch(&cut, false, number);
        let before = std::fs::read(&cut).unwrap();
        let cask = Cask::open(&cut).unwrap();
        cask.put("after", "the cut").unwrap();
        assert_eq!(cask.list("").unwrap().len(), 2);
        let torn: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("cut.torn-"))
            .collect();
        assert_eq!(torn.len(), usize::from(kept), "record {number}");
        for path in torn {
            let tail = std::fs::read(path).unwrap();
            let end = before.len() - before.iter().rev().take_while(|&&byte| byte == 0).count();
            assert_eq!(tail, before[end - tail.len()..end]);
            let names = tail.windows(4).filter(|window| *window == b"key-").count();
            assert!(names >= number, "{names} of {number}");
        }
    }
}

/// `verify` of half a backup said that it was sound, and the next write made the loss final.
#[test]
fn half_a_backup_is_refused_and_left_alone() {
    for number in [0, 1, 500] {
        let directory = TempDir::new();
        let cut = directory.join("cut");
        cut_inside_a_batch(&cut, true, number);
        let before = std::fs::read(&cut).unwrap();
        for config in [Config::new(), Config::new().read_only(true)] {
            let error = Cask::open_with(&cut, &config).unwrap_err();
            assert!(matches!(error, Error::Truncated { .. }), "{error}");
        }
        assert!(matches!(verify(&cut), Err(Error::Damaged { report, .. }) if report.truncated && report.cut_off));
        assert_eq!(std::fs::read(&cut).unwrap(), before);
    }
}

/// A copy goes on above all indexes of its original, and what was written to it was seen. If it loses its end, the
/// records no longer say so.
#[test]
fn a_copy_over_a_salvaged_store_reuses_no_index() {
    for compacted in [false, true] {
        let disk = SimDisk::new();
        let open = |path: &str| Cask::open_on(Arc::new(disk.process()), path, &Config::new()).unwrap();
        let original = open(STORE);
        original.write(Batch::new().put("a", "1").put("b", "2").put("c", "3")).unwrap();
        original.delete("c").unwrap();
        let mut seen = original.get("b").unwrap().last_index;
        if compacted { original.compact_to("/copy") } else { original.backup("/copy") }.unwrap();
        // Each handle has an index block of its own.
        for value in ["4", "5"] {
            let copy = open("/copy");
            copy.write(Batch::new().put("a", value).put("d", value)).unwrap();
            seen = seen.max(copy.atomic_put("e", value, copy.get("e").ok().as_ref()).unwrap().last_index);
            copy.close().unwrap();
        }
        let bytes = disk.contents("/copy").unwrap();
        for len in FILE_HEADER..=bytes.len() {
            disk.set_contents("/cut", bytes[..len].to_vec());
            salvage_on(&disk, Path::new("/cut"), Path::new(RESCUED)).unwrap();
            let cask = open(RESCUED);
            for pair in cask.list("").unwrap() {
                assert!(pair.last_index <= seen, "{len}");
            }
            let next = cask.atomic_put("new", "", None).unwrap().last_index;
            assert!(next > seen, "cut to {len} of {} bytes: {next} after {seen}", bytes.len());
            drop(cask);
            disk.remove(Path::new(RESCUED)).unwrap();
        }
    }
}
