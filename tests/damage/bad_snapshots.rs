//! A damaged or wrong snapshot is never the reason for an error or a wrong answer: the log is read instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, CompactionPolicy, Config, Error, Limits, OptionalExt, SnapshotPolicy};

use crate::common::dice::Dice;
use crate::common::files::layout::{IMAGE, RECORD_HEADER, RECORD_HEADER_LEN, ROOTS_END, SNAPSHOT, crc_at, number};
use crate::common::files::reader::Reader;
use crate::common::files::seal::seal_record;
use crate::common::files::snapshot;

const STORE: &str = "/store";

/// Snapshots of several pieces and many parts, of few keys.
fn limits() -> Limits {
    Limits {
        least_cost: 1,
        sync_cost: 2 << 10,
        least_part: 40,
        image_bytes: 200,
        image_records: 64,
        leaf_entries: 4,
        ..Limits::REAL
    }
}

fn config() -> Config {
    Config::new().compaction(CompactionPolicy::Manual).snapshots(SnapshotPolicy::AtClose)
}

fn open(disk: &SimDisk, config: &Config) -> Result<Cask, Error> {
    Cask::open_on(Arc::new(disk.process()), STORE, config)
}

type Model = BTreeMap<String, Vec<u8>>;

/// A store that was closed with a snapshot, and its pairs. `later` writes follow the snapshot, of a process that was killed.
fn store(later: usize) -> (SimDisk, Model) {
    store_of(later, false)
}

/// As [`store`], and the snapshot has the order of the keys.
fn ordered(later: usize) -> (SimDisk, Model) {
    store_of(later, true)
}

fn store_of(later: usize, is_ordered: bool) -> (SimDisk, Model) {
    let (disk, mut model) = (SimDisk::new(), Model::new());
    disk.set_limits(limits());
    let put = |cask: &Cask, model: &mut Model, n: usize, value: &[u8]| {
        cask.put(format!("key {n}"), value).unwrap();
        model.insert(format!("key {n}"), value.to_vec());
    };
    let cask = open(&disk, &config()).unwrap();
    for n in 0..40 {
        put(&cask, &mut model, n, &[n as u8; 20]);
    }
    for n in 0..5 {
        put(&cask, &mut model, n * 7, b"replaced");
        cask.delete(format!("key {}", n * 6 + 1)).unwrap();
        model.remove(&format!("key {}", n * 6 + 1));
    }
    cask.put("again", "old").unwrap();
    cask.delete("again").unwrap();
    cask.put("again", "new").unwrap();
    model.insert("again".to_owned(), b"new".to_vec());
    if is_ordered {
        cask.list("").unwrap();
    }
    cask.close().unwrap();
    let cask = open(&disk.process(), &config()).unwrap();
    for n in 0..later {
        put(&cask, &mut model, n * 3, b"later");
    }
    disk.kill();
    (disk.reboot(&mut caskfile::disk::sim::Choices::keep_all()), model)
}

/// The offsets of the records of a kind.
fn records(file: &[u8], kind: u64) -> Vec<usize> {
    snapshot::records(file, kind).into_iter().map(|record| record.start).collect()
}

/// The bodies of all records of an image.
fn image_bytes(file: &[u8]) -> Vec<usize> {
    let body = |at: usize| {
        at + RECORD_HEADER_LEN..at + RECORD_HEADER_LEN + number(RECORD_HEADER, "value_len", &file[at..]) as usize
    };
    records(file, IMAGE).into_iter().flat_map(body).collect()
}

/// The leaves of the order, and their directory.
fn order_bytes(file: &[u8]) -> BTreeSet<usize> {
    let at = records(file, SNAPSHOT)[0];
    let of = snapshot::Snapshotted { file: file.to_vec(), image_at: 0, snapshot_at: at, holds: "" };
    of.leaves().into_iter().flat_map(|(bytes, _)| bytes).chain(of.directory().into_iter().flatten()).collect()
}

/// All pairs, by a scan that begins with some from both ends.
fn both_ends(cask: &Cask, front: usize, back: usize) -> Model {
    let mut scan = cask.scan("").unwrap();
    let mut pairs: Vec<_> = scan.by_ref().take(front).collect();
    pairs.extend(scan.by_ref().rev().take(back));
    pairs.extend(scan);
    let pairs = pairs.into_iter().map(|pair| pair.unwrap());
    let found: Vec<_> = pairs.map(|pair| (String::from_utf8(pair.key).unwrap(), pair.value)).collect();
    let model: Model = found.iter().cloned().collect();
    assert_eq!(model.len(), found.len(), "no pair twice");
    model
}

fn root_snapshot(file: &[u8]) -> u64 {
    Reader::new(file).root().map_or(0, |(_, _, snapshot)| snapshot)
}

fn spoil(disk: &SimDisk, places: impl IntoIterator<Item = usize>) {
    let mut file = disk.contents(STORE).unwrap();
    places.into_iter().for_each(|at| file[at] ^= 0x10);
    disk.set_contents(STORE, file);
}

fn value(cask: &Cask, key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(cask.get(key).optional()?.map(|pair| pair.value))
}

fn assert_all(cask: &Cask, model: &Model, what: &str) {
    for n in 0..45 {
        let key = format!("key {n}");
        assert_eq!(value(cask, &key).unwrap(), model.get(&key).cloned(), "{what}: {key}");
    }
    let listed: Model =
        cask.list("").unwrap().into_iter().map(|pair| (String::from_utf8(pair.key).unwrap(), pair.value)).collect();
    assert_eq!(&listed, model, "{what}");
}

#[test]
fn the_specimens_have_what_they_are_for() {
    let (disk, model) = store(4);
    let file = disk.contents(STORE).unwrap();
    let (images, snapshots) = (records(&file, IMAGE), records(&file, SNAPSHOT));
    assert!(snapshot::order(&file).is_none());
    let (with_order, _) = ordered(4);
    assert_eq!(snapshot::order(&with_order.contents(STORE).unwrap()).unwrap().len(), 36);
    assert!(images.len() >= 2 && snapshots.len() == 1 && root_snapshot(&file) == snapshots[0] as u64);
    assert_all(&open(&disk, &config()).unwrap(), &model, "undamaged");
}

/// Where a walk over the whole log finds no damage, neither does a handle that begins with the snapshot. Otherwise each key has
/// its value, or the answer is that there is damage.
#[test]
fn a_flipped_bit_anywhere_leaves_each_answer_right_or_an_error() {
    flip_bits(store(4));
}

#[test]
fn a_flipped_bit_anywhere_in_a_store_with_an_order_leaves_each_answer_right_or_an_error() {
    flip_bits(ordered(4));
}

fn flip_bits((sound, model): (SimDisk, Model)) {
    let file = sound.contents(STORE).unwrap();
    let (mut healed, mut refused, mut answered) = (0, 0, 0);
    // Most bytes of an image are alike.
    let in_image: BTreeSet<usize> = image_bytes(&file).into_iter().collect();
    let end = file.iter().rposition(|&byte| byte != 0).unwrap() + 16;
    let order = order_bytes(&file);
    for at in (0..end).filter(|at| at % 41 == 0 || !in_image.contains(at) || order.contains(at)) {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        let disk = SimDisk::new();
        disk.set_limits(limits());
        disk.set_contents(STORE, damaged);
        let read_only = config().read_only(true);
        let whole = open(&disk, &read_only.clone().check_at_open(true));
        match (open(&disk, &read_only), whole) {
            (Ok(cask), Ok(whole)) => {
                healed += 1;
                // Without the last write, if its record is taken for a torn one.
                let left = whole.list("").unwrap();
                let left = left.into_iter().map(|pair| (String::from_utf8(pair.key).unwrap(), pair.value)).collect();
                if order.contains(&at) {
                    assert_eq!(both_ends(&cask, at % 7, at % 5), left, "byte {at}");
                }
                assert_all(&cask, &left, &format!("byte {at}"));
            }
            (Err(_), Err(_)) => refused += 1,
            (Ok(cask), Err(_)) => {
                answered += 1;
                for n in (0..45).rev() {
                    let key = format!("key {n}");
                    match value(&cask, &key) {
                        Ok(found) => assert_eq!(found, model.get(&key).cloned(), "byte {at}: {key}"),
                        Err(Error::Corrupt { .. }) => {}
                        Err(error) => panic!("byte {at}, {key}: {error}"),
                    }
                }
            }
            (Err(error), Ok(_)) => panic!("byte {at}: a snapshot is the reason for {error}"),
        }
    }
    println!(
        "{healed} without damage to the log, {refused} refused, {answered} opened with damage before the snapshot"
    );
    assert!(healed > 100 && refused > 100 && answered > 1000);
}

/// A part is found damaged after others of the same image were used.
#[test]
fn a_part_that_goes_bad_between_two_reads_changes_no_answer() {
    type Use = (&'static str, fn(&Cask, &mut Model));
    let uses: [Use; 11] = [
        ("get", |cask, model| assert_eq!(value(cask, "key 20").unwrap().as_ref(), model.get("key 20"))),
        ("get of an absent key", |cask, _| assert_eq!(value(cask, "absent").unwrap(), None)),
        ("get of a deleted key", |cask, _| assert!(!cask.exists("key 1").unwrap())),
        ("list", |cask, model| assert_eq!(cask.list("").unwrap().len(), model.len())),
        ("scan by index", |cask, model| assert_eq!(cask.scan_by_index().unwrap().count(), model.len())),
        ("stats", |cask, model| assert_eq!(cask.stats().unwrap().keys, model.len() as u64)),
        ("put", |cask, model| {
            cask.put("key 39", "new").unwrap();
            model.insert("key 39".to_owned(), b"new".to_vec());
        }),
        ("delete", |cask, model| {
            cask.delete("key 39").unwrap();
            model.remove("key 39");
        }),
        ("a batch with a condition", |cask, model| {
            let index = cask.get("key 39").unwrap().last_index;
            cask.write(
                Batch::new()
                    .expect_last_index("key 39", index)
                    .put("key 39", "new")
                    .expect_absent("key 1")
                    .delete("key 38"),
            )
            .unwrap();
            model.insert("key 39".to_owned(), b"new".to_vec());
            model.remove("key 38");
        }),
        ("delete_prefix", |cask, model| {
            let all = model.len();
            model.retain(|key, _| !key.starts_with("key 3"));
            assert_eq!(cask.delete_prefix("key 3").unwrap(), (all - model.len()) as u64);
        }),
        ("compact", |cask, model| assert_eq!(cask.compact().unwrap().keys, model.len() as u64)),
    ];
    for (what, act) in uses {
        for (read_before, is_ordered) in [(false, false), (true, false), (false, true), (true, true)] {
            let (disk, mut model) = store_of(4, is_ordered);
            let cask = open(&disk, &config()).unwrap();
            if read_before {
                assert_eq!(value(&cask, "key 0").unwrap().as_ref(), model.get("key 0"));
            }
            let file = disk.contents(STORE).unwrap();
            spoil(&disk, image_bytes(&file));
            act(&cask, &mut model);
            assert_all(&cask, &model, what);
            cask.put("key 2", "written").unwrap();
            model.insert("key 2".to_owned(), b"written".to_vec());
            assert_all(&cask, &model, what);
            cask.close().unwrap();
            let file = disk.contents(STORE).unwrap();
            let bad = records(&file, SNAPSHOT).first().map_or(0, |&at| at as u64);
            // Figures are counted from the log.
            assert!(
                what == "compact" || what == "stats" || root_snapshot(&file) != bad,
                "{what}: the root still leads to the bad snapshot"
            );
            let cask = open(&disk, &config()).unwrap();
            assert_all(&cask, &model, what);
            // Until a root leads elsewhere, verification says that the snapshot is bad. The close has written another one, for
            // the order, if that one had none.
            assert_eq!(cask.verify().is_ok(), what != "stats" || !is_ordered, "{what}");
        }
    }
}

/// Want of memory, and what is gone in a moment, is no damage: the call fails, and nothing is given up for it. Bytes that the
/// medium does not give are one.
#[test]
fn an_error_that_is_no_damage_costs_one_call_and_no_snapshot() {
    let list = |cask: &Cask| cask.list("").map(|pairs| pairs.len());
    let scan = |cask: &Cask| cask.scan("")?.collect::<Result<Vec<_>, _>>().map(|pairs| pairs.len());
    let get = |cask: &Cask| cask.get("key 20").map(|_| 0_usize);
    type Call<'c> = &'c dyn Fn(&Cask) -> Result<usize, Error>;
    for (what, call) in [("get", &get as Call<'_>), ("list", &list), ("scan", &scan)] {
        for (code, is_damage) in [(libc::ENOMEM, false), (libc::EAGAIN, false), (libc::EIO, true)] {
            let mut failed = 0;
            // At each of the reads.
            for nth in 1.. {
                let (disk, model) = ordered(0);
                let right = if ["list", "scan"].contains(&what) { model.len() } else { 0 };
                let (process, before) = (disk.process(), root_snapshot(&disk.contents(STORE).unwrap()));
                let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config()).unwrap();
                let reads = disk.calls_of(Verb::ReadAt);
                process.fail(When::nth(nth).of(Verb::ReadAt), Fault::Os(code), Repeat::Once);
                let result = call(&cask);
                let reads = disk.calls_of(Verb::ReadAt) - reads;
                process.clear_faults();
                match result {
                    Err(Error::Io { .. }) if !is_damage => failed += 1,
                    result => assert_eq!(result.unwrap(), right, "{what}, {code}, read {nth}"),
                }
                assert_eq!(call(&cask).unwrap(), right, "{what}, {code}, read {nth}: the next call");
                cask.put("key 1", "one more").unwrap();
                cask.close().unwrap();
                if !is_damage {
                    let file = disk.contents(STORE).unwrap();
                    assert_eq!(root_snapshot(&file), before, "{what}, {code}, read {nth}");
                }
                if nth > reads {
                    break;
                }
            }
            assert_eq!(failed > 0, !is_damage, "{what}, {code}");
        }
    }
}

/// The whole order goes bad after a scan has begun, and has returned pairs from both ends.
#[test]
fn an_order_that_goes_bad_under_a_scan_loses_and_doubles_no_pair() {
    for front in 0..40 {
        for back in [0, 1, 5, 40 - front] {
            let (disk, model) = ordered(4);
            let cask = open(&disk, &config().verify_on_read(front % 2 == 0)).unwrap();
            let (mut scan, mut found) = (cask.scan("").unwrap(), Vec::new());
            found.extend(scan.by_ref().take(front));
            found.extend(scan.by_ref().rev().take(back));
            let file = disk.contents(STORE).unwrap();
            spoil(&disk, order_bytes(&file));
            // Of a later moment than the scan.
            cask.put("key 20", "after the scan has begun").unwrap();
            cask.delete("key 22").unwrap();
            found.extend(if back % 2 == 0 { scan.collect::<Vec<_>>() } else { scan.rev().collect() });
            let found: Vec<_> = found.into_iter().map(|pair| pair.unwrap()).collect();
            let pairs: Model =
                found.iter().map(|pair| (String::from_utf8(pair.key.clone()).unwrap(), pair.value.clone())).collect();
            assert_eq!((pairs, found.len()), (model.clone(), model.len()), "{front} and {back}");
            let mut now = model;
            now.insert("key 20".to_owned(), b"after the scan has begun".to_vec());
            now.remove("key 22");
            assert_all(&cask, &now, "afterwards");
        }
    }
}

#[test]
fn an_order_that_goes_bad_under_a_walk_over_buckets_loses_and_doubles_none() {
    for before in 0..12 {
        let disk = SimDisk::new();
        disk.set_limits(limits());
        let cask = open(&disk, &config()).unwrap();
        let mut names: Vec<String> = (10..22).map(|n| format!("a bucket with a long name {n}")).collect();
        names.insert(0, "b".to_owned());
        for name in &names {
            (0..3).for_each(|n| drop(cask.bucket(name).unwrap().put(format!("{n}"), "")));
        }
        cask.list("").unwrap();
        cask.close().unwrap();
        let cask = open(&disk, &config()).unwrap();
        let (mut buckets, mut found) = (cask.scan_buckets().unwrap(), Vec::new());
        found.extend(buckets.by_ref().take(before));
        let file = disk.contents(STORE).unwrap();
        spoil(&disk, order_bytes(&file));
        found.extend(buckets);
        let found: Vec<_> = found.into_iter().map(|bucket| bucket.unwrap()).collect();
        assert!(found.iter().map(|(name, _)| name).eq(names.iter().map(String::as_bytes)), "after {before}");
        assert!(
            found.into_iter().all(|(_, scan)| scan.map(|pair| pair.unwrap().key).eq(["0", "1", "2"].map(Vec::from)))
        );
    }
}

/// The end of a scan is never the answer to damage.
#[test]
fn a_scan_over_a_bad_order_of_a_damaged_log_returns_the_logs_damage() {
    for taken in 0..36 {
        let (disk, model) = ordered(4);
        let cask = open(&disk, &config()).unwrap();
        let mut scan = cask.scan("").unwrap();
        let found = scan.by_ref().take(taken).filter(Result::is_ok).count();
        assert_eq!(found, taken);
        let file = disk.contents(STORE).unwrap();
        let first = records(&file, 1)[0];
        spoil(&disk, order_bytes(&file).into_iter().chain([first + RECORD_HEADER_LEN + 3]));
        let (mut right, mut errors) = (found, 0);
        for pair in scan {
            match pair {
                Ok(_) => right += 1,
                Err(Error::Corrupt { offset, .. }) => {
                    assert_eq!(offset, first as u64, "the damage is that of the log");
                    errors += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(right + errors >= model.len() || errors > 0, "{taken}: {right} pairs, and nothing else");
    }
}

/// A handle that writes no snapshots itself leads the root away from a bad one.
#[test]
fn a_writer_that_has_met_a_bad_snapshot_withdraws_it() {
    let (disk, model) = store(0);
    let file = disk.contents(STORE).unwrap();
    assert!(root_snapshot(&file) > 0);
    spoil(&disk, image_bytes(&file));
    let never = config().snapshots(SnapshotPolicy::Never);
    let reader = open(&disk, &never.clone().read_only(true)).unwrap();
    assert_all(&reader, &model, "a reader");
    reader.close().unwrap();
    assert!(root_snapshot(&disk.contents(STORE).unwrap()) > 0, "a reader writes nothing");
    let cask = open(&disk, &never).unwrap();
    cask.put("key 0", model["key 0"].clone()).unwrap();
    assert_all(&cask, &model, "a writer");
    cask.close().unwrap();
    assert_eq!(root_snapshot(&disk.contents(STORE).unwrap()), 0);
}

/// What was loaded stays in use; for the rest, the log's own damage is the answer.
#[test]
fn a_bad_part_of_a_damaged_log_is_the_logs_damage() {
    let (disk, model) = store(4);
    let cask = open(&disk, &config()).unwrap();
    assert_eq!(value(&cask, "key 0").unwrap().as_ref(), model.get("key 0"));
    let file = disk.contents(STORE).unwrap();
    let first = records(&file, 1)[0];
    spoil(&disk, image_bytes(&file).into_iter().chain([first + RECORD_HEADER_LEN + 3]));
    let failed = (0..45).filter(|n| match value(&cask, &format!("key {n}")) {
        Ok(found) => {
            assert_eq!(found, model.get(&format!("key {n}")).cloned());
            false
        }
        Err(Error::Corrupt { offset, .. }) => {
            assert_eq!(offset, first as u64, "the damage is that of the log");
            true
        }
        Err(error) => panic!("{error}"),
    });
    assert!(failed.count() > 30);
    assert_eq!(value(&cask, "key 0").unwrap().as_ref(), model.get("key 0"), "its part is loaded");
}

/// A value of true records for its place: an empty index of the whole log, which would hide every key.
#[test]
fn a_value_cannot_forge_a_snapshot() {
    let (disk, mut model) = store(0);
    let cask = open(&disk, &config()).unwrap();
    cask.put("before", "").unwrap();
    model.insert("before".to_owned(), Vec::new());
    let end = cask.stats().unwrap().log_end as usize;
    let snapshot_at = records(&disk.contents(STORE).unwrap(), SNAPSHOT)[0];
    let mut file = disk.contents(STORE).unwrap()[..end].to_vec();
    let real = file[snapshot_at..].to_vec();
    // "forger": with the bucket's length byte, the value begins at a multiple of 8 after two bytes more.
    let value_at = end + RECORD_HEADER_LEN + 1 + 6;
    let forged_at = value_at.next_multiple_of(8);
    file.resize(forged_at, 0);
    let len = number(RECORD_HEADER, "value_len", &real) as usize;
    file.extend_from_slice(&real[..RECORD_HEADER_LEN + len]);
    let body = forged_at + RECORD_HEADER_LEN;
    file[body + 16..body + 24].copy_from_slice(&(end as u64).to_le_bytes());
    file[body + 40..body + 56].fill(0);
    file[body + 80..].fill(0);
    assert!(seal_record(&mut file, forged_at).is_some());
    let value = file[value_at..].to_vec();
    cask.put("forger", &value).unwrap();
    assert_eq!(
        &disk.contents(STORE).unwrap()[forged_at..forged_at + RECORD_HEADER_LEN],
        &value[forged_at - value_at..][..24]
    );
    model.insert("forger".to_owned(), value);
    drop(cask);
    disk.kill();
    let disk = disk.reboot(&mut caskfile::disk::sim::Choices::keep_all());
    for check in [false, true] {
        let cask = open(&disk, &config().read_only(true).check_at_open(check)).unwrap();
        assert_eq!(cask.list("").unwrap().len(), model.len());
        assert_eq!(cask.stats().unwrap().keys, model.len() as u64);
    }
}

/// Snapshots of any numbers, with right checksums: no panic, no endless loop, and no memory that they ask for.
#[test]
fn a_snapshot_of_random_numbers_is_used_or_not_and_nothing_else() {
    random_numbers(store(4));
    random_numbers(ordered(4));
}

fn random_numbers((sound, _): (SimDisk, Model)) {
    let file = sound.contents(STORE).unwrap();
    let at = records(&file, SNAPSHOT)[0];
    let len = number(RECORD_HEADER, "value_len", &file[at..]) as usize;
    let (mut used, mut dice) = (0, Dice::new(20));
    for _ in 0..1_000 {
        let mut changed = file.clone();
        let body = &mut changed[at + RECORD_HEADER_LEN..at + RECORD_HEADER_LEN + len];
        for _ in 0..1 + dice.below(3) {
            let places = if dice.one_in(2) { 80 } else { len as u64 };
            let place = (dice.below(places / 4) * 4) as usize;
            let number = match dice.below(6) {
                0 => 0,
                1 => u32::MAX,
                2 => 1 << dice.below(32),
                3 => dice.below(5_000) as u32 * 8,
                4 => u32::from_le_bytes(body[place..place + 4].try_into().unwrap()).wrapping_add(8),
                _ => dice.roll() as u32,
            };
            body[place..place + 4].copy_from_slice(&number.to_le_bytes());
        }
        assert!(seal_record(&mut changed, at).is_some());
        let disk = SimDisk::new();
        disk.set_limits(limits());
        disk.set_contents(STORE, changed);
        let Ok(cask) = open(&disk, &config()) else { continue };
        used += 1;
        for n in 0..45 {
            let _ = cask.get(format!("key {n}"));
        }
        let _ = (cask.list(""), cask.scan_by_index().map(Iterator::count), cask.verify(), cask.put("key 0", "new"));
        let _ = (cask.stats(), cask.compact(), cask.close());
    }
    assert!(used > 750);
    assert!(ROOTS_END < at);
}

/// Words that lead to wrong places, in parts with right checksums. A bug could write them; a compaction must not keep them.
#[test]
fn positions_that_are_wrong_are_found_out() {
    const PART_ENTRY: usize = 16;
    let (sound, model) = store(0);
    let file = sound.contents(STORE).unwrap();
    let head = records(&file, SNAPSHOT)[0] + RECORD_HEADER_LEN;
    let u32_at = |file: &[u8], at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let part_bits = u32_at(&file, head + 56);
    let entries: Vec<usize> = (0..1 << part_bits).map(|part| head + 80 + part * PART_ENTRY).collect();
    // Of a key that was deleted: a position that leads to an older record of the same key looks right.
    let first_put = records(&file, 1)[1] as u64 / 8;
    // Of a key that is there again.
    let tombstone = records(&file, 2).last().map(|&at| at as u64 / 8).unwrap();
    for (what, wrong) in
        [("a tombstone", tombstone), ("a record of another key", first_put), ("the middle of a record", first_put + 1)]
    {
        let mut changed = file.clone();
        for &entry in &entries {
            let offset = u64::from_le_bytes(changed[entry..entry + 8].try_into().unwrap()) as usize;
            let count = u32_at(&changed, entry + 8) as usize;
            if count == 0 {
                continue;
            }
            let words = offset + (4 << (12 - part_bits));
            for word in (0..count).map(|n| words + n * 8) {
                let tag = u64::from_le_bytes(changed[word..word + 8].try_into().unwrap()) >> 40;
                changed[word..word + 8].copy_from_slice(&((tag << 40) | wrong).to_le_bytes());
            }
            let crc = crc_at(&changed, offset, &changed[offset..words + count * 8]);
            changed[entry + 12..entry + 16].copy_from_slice(&crc.to_le_bytes());
        }
        assert!(seal_record(&mut changed, head - RECORD_HEADER_LEN).is_some());
        let disk = SimDisk::new();
        disk.set_limits(limits());
        disk.set_contents(STORE, changed);
        let open = || open(&disk, &config()).unwrap();
        for key in (0..45).map(|n| format!("key {n}")).chain(["again".to_owned()]) {
            // Each with a handle that has seen nothing else.
            assert_eq!(value(&open(), &key).unwrap(), model.get(&key).cloned(), "{what}: {key}");
        }
        assert_all(&open(), &model, what);
        let copied = open().compact_to("/copy").unwrap();
        assert_eq!(copied.keys, model.len() as u64, "{what}");
        assert_eq!(open().compact().unwrap().keys, model.len() as u64, "{what}");
        assert_all(&open(), &model, what);
    }
}

/// Entries of the order that lead to wrong places, in leaves with right checksums.
#[test]
fn entries_of_an_order_that_are_wrong_are_found_out() {
    let (sound, model) = ordered(0);
    let file = sound.contents(STORE).unwrap();
    let at = records(&file, SNAPSHOT)[0];
    let sound =
        snapshot::Snapshotted { file: file.clone(), image_at: records(&file, IMAGE)[0], snapshot_at: at, holds: "" };
    let tombstone = records(&file, 2).last().map(|&at| at as u64 / 8).unwrap();
    let first_put = records(&file, 1)[1] as u64 / 8;
    for (what, wrong) in
        [("a tombstone", tombstone), ("a record of another key", first_put), ("the middle of a record", first_put + 1)]
    {
        for leaf in 0..sound.leaves().len() {
            let mut of = sound.clone();
            for entry in of.leaves()[leaf].0.clone().step_by(snapshot::ORDER_ENTRY_LEN).skip(leaf % 4) {
                of.file[entry + 16..entry + 21].copy_from_slice(&wrong.to_le_bytes()[..5]);
            }
            of.seal_order(true);
            assert!(seal_record(&mut of.file, at).is_some());
            let disk = SimDisk::new();
            disk.set_limits(limits());
            disk.set_contents(STORE, of.file);
            let open = || open(&disk, &config()).unwrap();
            assert_eq!(both_ends(&open(), leaf, 3), model, "{what}");
            assert_all(&open(), &model, what);
            let prefix: Vec<_> = open().list("key 3").unwrap().into_iter().map(|pair| pair.key).collect();
            assert!(
                prefix.iter().eq(model.keys().map(String::as_bytes).filter(|key| key.starts_with(b"key 3"))),
                "{what}"
            );
            let cask = open();
            assert_eq!(
                cask.delete_prefix("key 1").unwrap(),
                model.keys().filter(|key| key.starts_with("key 1")).count() as u64
            );
            assert_eq!(
                cask.list("").unwrap().len(),
                model.keys().filter(|key| !key.starts_with("key 1")).count(),
                "{what}"
            );
        }
    }
}

/// A snapshot spares an opening most of the log, but not the records that say how long something counts. A deadline that is damaged
/// would hide a pair without an error.
#[test]
fn a_damaged_record_with_a_lifetime_before_a_snapshot_is_damage_at_opening() {
    let of = snapshot::small_with_lifetimes();
    let entries = of.room_of_entries();
    for entry in of.file[entries.end - 3 * snapshot::ENTRY_LEN..entries.end].chunks(snapshot::ENTRY_LEN) {
        let at = number(snapshot::ENTRY, "offset", entry) as usize;
        let len = RECORD_HEADER_LEN + number(RECORD_HEADER, "key_len", &of.file[at..]) as usize;
        let len = len + number(RECORD_HEADER, "value_len", &of.file[at..]) as usize;
        for byte in 0..len {
            let disk = SimDisk::new();
            let mut file = of.file.clone();
            file[at + byte] ^= 1;
            disk.set_contents(STORE, file);
            let found = open(&disk, &config()).map(drop);
            assert!(
                matches!(found, Err(Error::Corrupt { offset, .. }) if offset == at as u64),
                "{at} + {byte}: {found:?}"
            );
        }
    }
    // A plain put is looked at when it is read.
    let disk = SimDisk::new();
    let mut file = of.file.clone();
    file[ROOTS_END + RECORD_HEADER_LEN] ^= 1;
    disk.set_contents(STORE, file);
    open(&disk, &config()).unwrap();
}
