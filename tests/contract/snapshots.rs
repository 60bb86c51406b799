//! When a handle writes a snapshot of the index, what it costs, and what opening costs with one.

use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Limits, SnapshotPolicy};

use crate::common::files::layout::{IMAGE, SNAPSHOT};
use crate::common::files::snapshot;
use crate::common::patience::in_finite_time;

const STORE: &str = "/store";

fn config() -> Config {
    Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual)
}

fn open(disk: &SimDisk, config: &Config) -> Cask {
    Cask::open_on(Arc::new(disk.process()), STORE, config).unwrap()
}

/// Puts keys with short values, a few hundred at a time.
fn fill(cask: &Cask, keys: std::ops::Range<usize>) {
    for first in keys.clone().step_by(500) {
        let mut batch = Batch::new();
        for n in first..(first + 500).min(keys.end) {
            batch.put(format!("key {n:08}"), [n as u8; 40]);
        }
        cask.write(&batch).unwrap();
    }
}

/// Bytes and number of the records of a kind.
fn records(file: &[u8], kind: u64) -> (u64, u64) {
    let records = snapshot::records(file, kind);
    (records.iter().map(|record| record.len() as u64).sum(), records.len() as u64)
}

/// The image's parts have 4 KiB or more, and there are up to 4,096.
#[test]
fn an_opening_reads_little_however_many_keys_there_are() {
    for keys in [10_000, 100_000, 250_000] {
        let disk = SimDisk::new();
        // As many records as a long image has.
        disk.set_limits(Limits { image_bytes: 1, ..Limits::REAL });
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
        fill(&cask, 0..keys);
        cask.close().unwrap();
        let len = disk.contents(STORE).unwrap().len() as u64;
        let before = disk.bytes_read();
        let cask = open(&disk, &config());
        let opened = disk.bytes_read() - before;
        assert!(opened <= 128 << 10, "{keys} keys: an opening reads {opened} bytes of {len}");
        cask.get("key 00000007").unwrap();
        let read = disk.bytes_read() - before - opened;
        assert!(read <= 32 << 10, "{keys} keys: a get reads {read} bytes");
        cask.get("key 00000007").unwrap();
        assert!(disk.bytes_read() - before - opened - read < 1000, "the part is in memory");
        assert_eq!(cask.stats().unwrap().keys, keys as u64);
        assert!(disk.bytes_read() - before > len / 2, "figures are counted from the log");
    }
}

/// A snapshot does not say how many keys each bucket has.
#[test]
fn each_bucket_of_a_snapshot_knows_how_many_keys_it_has() {
    const BUCKETS: [&str; 4] = ["", "a", "b", "none"];
    let lens = |cask: &Cask| BUCKETS.map(|name| cask.bucket(name).unwrap().len().unwrap());
    let disk = SimDisk::new();
    let cask = open(&disk, &config());
    fill(&cask, 0..10_000);
    fill(&cask.bucket("a").unwrap(), 0..700);
    fill(&cask.bucket("b").unwrap(), 0..1);
    assert!(cask.write_snapshot().unwrap());
    cask.delete("key 00000007").unwrap();
    drop(cask);
    let len = disk.contents(STORE).unwrap().len() as u64;
    let opened = || {
        let before = disk.bytes_read();
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::Never));
        assert!(disk.bytes_read() - before < len / 2, "it was opened through the snapshot");
        cask
    };

    let cask = opened();
    assert_eq!(lens(&cask), [9999, 700, 1, 0]);
    let before = disk.bytes_read();
    cask.bucket("b").unwrap().delete("key 00000000").unwrap();
    cask.put("key 00000007", "again").unwrap();
    assert_eq!(lens(&cask), [10_000, 700, 0, 0]);
    assert!(disk.bytes_read() - before < len / 8, "the log is read once");
    assert!(cask.bucket("b").unwrap().is_empty().unwrap());

    // Of the sorted index, where there is one.
    let cask = opened();
    cask.keys("").unwrap();
    let before = disk.bytes_read();
    assert_eq!(lens(&cask), [10_000, 700, 0, 0]);
    cask.bucket("none").unwrap().put("key", "value").unwrap();
    assert_eq!(lens(&cask), [10_000, 700, 0, 1]);
    assert!(disk.bytes_read() - before < len / 8, "the log is not read");
}

/// The directory, a leaf or two, and the records.
#[test]
fn the_first_list_reads_little_however_many_keys_there_are() {
    for keys in [10_000, 100_000, 250_000] {
        let disk = SimDisk::new();
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
        fill(&cask, 0..keys);
        assert!(cask.scan("").unwrap().next().is_some());
        cask.close().unwrap();
        let cask = open(&disk, &config());
        let before = disk.bytes_read();
        let found = cask.scan("").unwrap().take(100).map(|pair| pair.unwrap().key);
        assert!(found.eq((0..100).map(|n| format!("key {n:08}").into_bytes())), "{keys} keys");
        let read = disk.bytes_read() - before;
        assert!(read <= 128 << 10, "{keys} keys: a list of 100 pairs reads {read} bytes");
        let last = cask.scan("").unwrap().next_back().unwrap().unwrap();
        assert_eq!(last.key, format!("key {:08}", keys - 1).into_bytes());
        assert_eq!(cask.scan("key 0000").unwrap().len(), 10_000.min(keys));
        assert!(disk.bytes_read() - before <= 256 << 10, "{keys} keys");
    }
}

#[test]
fn an_order_is_kept_by_handles_that_never_list() {
    let disk = SimDisk::new();
    let has_order = || snapshot::order(&disk.contents(STORE).unwrap()).is_some();
    let write = |keys, act: &dyn Fn(&Cask)| {
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
        fill(&cask, keys);
        act(&cask);
        cask.close().unwrap();
        assert!(records(&disk.contents(STORE).unwrap(), SNAPSHOT).1 > 0);
    };
    write(0..5_000, &|_| {});
    assert!(!has_order(), "nothing was listed");
    write(5_000..10_000, &|cask| assert_eq!(cask.list("").unwrap().len(), 10_000));
    assert!(has_order());
    write(10_000..15_000, &|_| {});
    assert!(has_order(), "the snapshot before had it");
    write(15_000..25_000, &|cask| assert_eq!(cask.compact().unwrap().keys, 25_000));
    assert!(has_order(), "and one before the compaction");
    let cask = open(&disk, &config());
    assert_eq!(cask.scan("").unwrap().len(), 25_000);
    cask.verify().unwrap();
}

/// The directory, and the leaves at both ends of the bucket.
#[test]
fn a_count_reads_little_where_the_snapshot_has_the_order() {
    let disk = SimDisk::new();
    let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
    fill(&cask.bucket("a").unwrap(), 0..700);
    fill(&cask.bucket("b").unwrap(), 0..100_000);
    cask.list("none").unwrap();
    cask.close().unwrap();
    let cask = open(&disk, &config());
    cask.bucket("b").unwrap().delete("key 00000007").unwrap();
    cask.put("key", "value").unwrap();
    let before = disk.bytes_read();
    let len = |name: &str| cask.bucket(name).unwrap().len().unwrap();
    assert_eq!(["", "a", "b", "none"].map(len), [1, 700, 99_999, 0]);
    let read = disk.bytes_read() - before;
    assert!(read <= 256 << 10, "{read} bytes");
}

/// A program that loads a store, lists and closes it. The snapshots that it has written meanwhile are too new for another one.
#[test]
fn a_store_that_was_listed_leaves_its_order_at_the_close() {
    let disk = SimDisk::new();
    let order = || snapshot::order(&disk.contents(STORE).unwrap());
    let write = |act: &dyn Fn(&Cask)| {
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
        act(&cask);
        cask.close().unwrap();
    };
    write(&|cask| {
        fill(cask, 0..20_000);
        assert!(cask.write_snapshot().unwrap());
        assert_eq!(cask.scan("").unwrap().len(), 20_000);
    });
    assert_eq!(order().map(|order| order.len()), Some(20_000));
    let cask = open(&disk, &config());
    let before = disk.bytes_read();
    assert!(cask.scan("").unwrap().next().is_some());
    assert!(disk.bytes_read() - before <= 128 << 10, "the next process does not sort the keys");
    drop(cask);

    // A handle that only reads leaves the file as it is, and one that only writes does not sort the keys.
    let disk = SimDisk::new();
    let write = |act: &dyn Fn(&Cask)| {
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
        act(&cask);
        cask.close().unwrap();
        snapshot::order(&disk.contents(STORE).unwrap()).is_some()
    };
    assert!(!write(&|cask| fill(cask, 0..20_000)));
    assert!(!write(&|cask| assert_eq!(cask.scan("").unwrap().len(), 20_000)));
    assert!(!write(&|cask| assert!(cask.put("key", "value").unwrap() > 0)));
}

/// The load has written a snapshot before its end, and less than an image since.
#[test]
fn a_load_leaves_little_to_replay() {
    in_finite_time(|| {
        let disk = SimDisk::new();
        let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
        fill(&cask, 0..100_000);
        assert!(cask.write_snapshot().unwrap());
        let (image, _) = records(&disk.contents(STORE).unwrap(), IMAGE);
        fill(&cask, 100_000..107_000);
        let (key, uncovered) = ("key 00000007", 7000 * 80);
        assert!((256 << 10..image).contains(&uncovered), "{uncovered}, where an image has {image}");
        cask.close().unwrap();
        let before = disk.bytes_read();
        let cask = open(&disk, &config());
        cask.get(key).unwrap();
        let read = disk.bytes_read() - before;
        assert!(read < 128 << 10, "{read} bytes");

        // A handle that has written little leaves it to a later one.
        fill(&cask, 0..7000);
        cask.close().unwrap();
        assert_eq!(records(&disk.contents(STORE).unwrap(), SNAPSHOT).1, 2);
        let cask = open(&disk, &config());
        fill(&cask, 7000..14_000);
        cask.close().unwrap();
        assert_eq!(records(&disk.contents(STORE).unwrap(), SNAPSHOT).1, 3);
    });
}

/// Each of them changes one key. None adds an image to the log for it, but the first.
#[test]
fn short_lived_handles_that_list_store_the_order_once() {
    let disk = SimDisk::new();
    let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
    fill(&cask, 0..20_000);
    cask.close().unwrap();
    // It does not know that others store the order, and is closed last.
    let before = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
    before.put("key", "before").unwrap();
    let snapshots = || records(&disk.contents(STORE).unwrap(), SNAPSHOT).1;
    let short_lived = |n: usize| {
        let check = config().check_at_open(n % 3 == 2);
        let cask = open(&disk, &check);
        assert_eq!(cask.scan("key 0").unwrap().len(), 20_000);
        cask.put("key", n.to_string()).unwrap();
        cask.close().unwrap();
    };
    (0..12).for_each(short_lived);
    assert_eq!(snapshots(), 2, "the one of the load, and one with the order");
    // Each of these puts enough for an image without the order, and not for one with it.
    let images = || records(&disk.contents(STORE).unwrap(), IMAGE).0;
    let earlier = images();
    for round in 0..8 {
        let cask = open(&disk, &config().check_at_open(true));
        fill(&cask, 0..2500);
        cask.close().unwrap();
        short_lived(round);
    }
    fill(&before, 0..2500);
    before.close().unwrap();
    short_lived(0);
    assert!(snapshot::order(&disk.contents(STORE).unwrap()).is_some());
    let (images, puts) = (images() - earlier, 9 * 2500 * 80);
    assert!(images > 0 && images < puts, "{images} bytes of images, {puts} of puts");
}

#[test]
fn what_follows_the_snapshot_is_read_and_no_more() {
    let disk = SimDisk::new();
    let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
    fill(&cask, 0..50_000);
    cask.close().unwrap();
    let cask = open(&disk, &config().snapshots(SnapshotPolicy::Never));
    let end = cask.stats().unwrap().log_end;
    fill(&cask, 50_000..52_000);
    let appended = cask.stats().unwrap().log_end - end;
    cask.close().unwrap();
    let before = disk.bytes_read();
    let cask = open(&disk, &config());
    let read = disk.bytes_read() - before;
    assert!((appended..appended + (128 << 10)).contains(&read), "{read} bytes for {appended} of the log");
    assert_eq!(cask.get("key 00051999").unwrap().value, [51_999_u32 as u8; 40]);
}

#[test]
fn a_policy_says_when_snapshots_are_written() {
    for (policy, at_close) in [(SnapshotPolicy::Automatic, 1), (SnapshotPolicy::AtClose, 1), (SnapshotPolicy::Never, 0)]
    {
        let disk = SimDisk::new();
        // Less than what a store writes one for that stays open.
        disk.set_limits(Limits { least_running_cost: u64::MAX, ..Limits::REAL });
        let cask = open(&disk, &config().snapshots(policy));
        fill(&cask, 0..10_000);
        cask.close().unwrap();
        assert_eq!(records(&disk.contents(STORE).unwrap(), SNAPSHOT).1, at_close, "{policy:?}");
        // Nothing is worth a snapshot now.
        for write in [false, true] {
            let cask = open(&disk, &config().snapshots(policy));
            if write {
                cask.put("key", "value").unwrap();
            }
            cask.close().unwrap();
            assert_eq!(records(&disk.contents(STORE).unwrap(), SNAPSHOT).1, at_close, "{policy:?}");
        }
    }
}

#[test]
fn a_store_that_stays_open_writes_snapshots_in_the_background() {
    in_finite_time(|| {
        let disk = SimDisk::new();
        disk.set_limits(Limits::REAL);
        let cask = open(&disk, &config());
        let mut keys = 0;
        while keys < 100_000 || cask.stats().unwrap().snapshots < 3 {
            fill(&cask, keys..keys + 1000);
            keys += 1000;
        }
        // Killed: what is read is what is not covered, and not all.
        let file = disk.contents(STORE).unwrap();
        let (images, of_images) = records(&file, IMAGE);
        let (snapshots, of_snapshots) = records(&file, SNAPSHOT);
        assert!(of_images >= 3 && of_snapshots >= 3);
        let rest = file.len() as u64 - images - snapshots;
        assert!(images + snapshots <= rest / 4, "{images} and {snapshots} bytes of images for {rest}");
        let other = open(&disk, &config().read_only(true));
        assert_eq!(other.list("").unwrap().len(), keys);
        cask.verify().unwrap();
    });
}

/// An image is no reason to compact a store that has nothing else to give up.
#[test]
fn the_last_snapshot_is_not_dead() {
    let disk = SimDisk::new();
    let often = CompactionPolicy::Automatic { dead_percent: 1, min_dead_bytes: 1 << 16 };
    let cask = open(&disk, &config().snapshots(SnapshotPolicy::AtClose));
    fill(&cask, 0..20_000);
    cask.close().unwrap();
    let image = records(&disk.contents(STORE).unwrap(), IMAGE).0;
    assert!(image > 1 << 17, "more than what would make the store overdue");
    let cask = open(&disk, &config().compaction(often));
    cask.put("key", "value").unwrap();
    assert!(cask.stats().unwrap().dead_bytes < 1 << 16);
    cask.close().unwrap();
    let file = disk.contents(STORE).unwrap();
    assert_eq!(records(&file, IMAGE).0, image, "it was not compacted");
}

/// To replay a thousand small records takes a fraction of a millisecond, and the image of even an empty index has 16 KiB.
#[test]
fn snapshots_of_a_small_store_are_shorter_than_what_its_short_lived_writers_write() {
    let disk = SimDisk::new();
    for n in 0..1000 {
        let cask = open(&disk, &config());
        cask.put(format!("key {}", n % 10), "value").unwrap();
        cask.close().unwrap();
    }
    let file = disk.contents(STORE).unwrap();
    let ((images, count), (snapshots, _)) = (records(&file, IMAGE), records(&file, SNAPSHOT));
    assert!(count > 0, "there is a snapshot");
    let others = file.len() as u64 - images - snapshots;
    assert!(images + snapshots < others / 2, "{} bytes of images, {others} of everything else", images + snapshots);
}

#[test]
fn a_close_finishes_the_snapshot_that_is_under_way() {
    // Each part is a record of its own, so that there is much to do.
    let limits = Limits { image_bytes: 1, ..Limits::REAL };
    let store = |is_closed_at_once: bool| {
        let disk = SimDisk::new();
        if is_closed_at_once {
            disk.set_limits(limits);
        } else {
            disk.set_limits(Limits { least_running_cost: u64::MAX, ..limits });
        }
        let process = disk.process();
        // So that the close comes while the thread writes.
        process.before(When::nth(1).of(Verb::WriteAt), Repeat::Forever, |_| {
            if std::thread::current().name() == Some("caskfile-snapshot") {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let cask = Cask::open_on(Arc::new(process), STORE, &config()).unwrap();
        let mut batch = Batch::new();
        (0..5000).for_each(|n| _ = batch.put(format!("key {n:08}"), [7; 40]));
        cask.write(&batch).unwrap();
        cask.close().unwrap();
        let file = disk.contents(STORE).unwrap();
        (records(&file, IMAGE).1, records(&file, SNAPSHOT).1)
    };
    let in_background = store(true);
    assert!(in_background.0 > 4, "{} pieces", in_background.0);
    assert_eq!(in_background, store(false), "only a close writes the other one");
}

/// At each call of a close that writes a snapshot, a call fails once. The store has everything, and only a failure of what a close
/// does anyway is an error.
#[test]
fn a_snapshot_that_cannot_be_written_loses_nothing() {
    let small = Limits { least_cost: 1, least_part: 40, image_bytes: 4000, ..Limits::REAL };
    let mut refused = 0;
    for nth in 1.. {
        for fault in [Fault::Os(libc::ENOSPC), Fault::Short(100)] {
            let disk = SimDisk::new();
            disk.set_limits(small);
            let process = disk.process();
            let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config()).unwrap();
            fill(&cask, 0..600);
            let written = disk.calls_of(Verb::WriteAt);
            process.fail(When::nth(nth).of(Verb::WriteAt), fault, Repeat::Once);
            refused += u64::from(cask.close().is_err());
            process.clear_faults();
            let calls = disk.calls_of(Verb::WriteAt) - written;
            for check in [false, true] {
                let cask = open(&disk, &config().check_at_open(check));
                assert_eq!(cask.list("").unwrap().len(), 600, "write {nth}");
            }
            if nth > calls {
                assert!(calls > 8, "only {calls} writes");
                assert!(refused <= 4, "{refused} closes failed: only those whose own mark or root failed may");
                return;
            }
        }
    }
}
