//! What `stats` says, compared with what is known from elsewhere.

use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Error, LockMode};

use crate::common::TempDir;
use crate::common::patience::with_a_deadline;

#[test]
fn the_figures_match_the_contents_and_the_file() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    assert_eq!((cask.stats().unwrap().keys, cask.stats().unwrap().buckets), (0, 0));
    let record = |key: usize, value: usize| (24_u64 + 1 + (key + value) as u64).next_multiple_of(8);
    for round in 0..3 {
        cask.put("key", "v".repeat(round)).unwrap();
        cask.bucket("b").unwrap().put("other", "value").unwrap();
    }
    let mut batch = Batch::new();
    batch.bucket("c").put("1", "").put("2", "").delete("1").bucket("d").put("1", "").delete("1");
    cask.write(&batch).unwrap();
    // Known by whom it was written, by whom it was opened later, and after compaction.
    let check = |cask: &Cask| {
        let stats = cask.stats().unwrap();
        assert_eq!((stats.keys, stats.buckets), (3, 3), "\"\", b and c");
        assert_eq!(stats.buckets, cask.buckets().unwrap().len() as u64);
        assert_eq!(stats.live_bytes, record(3, 2) + record(6, 5) + record(2, 0));
        assert_eq!(stats.live_bytes + stats.dead_bytes, stats.log_end - 216);
        assert_eq!(stats.file_len, std::fs::metadata(&path).unwrap().len());
        assert_eq!(stats.records, cask.verify().unwrap().records);
        assert!(stats.last_index >= cask.get("key").unwrap().last_index);
        assert!(stats.proven <= stats.log_end && stats.index_bytes > 0);
    };
    check(&cask);
    check(&Cask::open_with(&path, &Config::new().read_only(true)).unwrap());
    let before = cask.stats().unwrap();
    cask.compact().unwrap();
    check(&cask);
    let after = cask.stats().unwrap();
    assert!(after.dead_bytes < before.dead_bytes && after.log_end < before.log_end);
    assert_eq!((before.compactions, after.compactions), (0, 1));
    for bucket in ["", "b", "c"] {
        cask.bucket(bucket).unwrap().delete_prefix("").unwrap();
    }
    let stats = cask.stats().unwrap();
    assert_eq!((stats.keys, stats.buckets, stats.live_bytes), (0, 0, 0));
}

#[test]
fn groups_and_syncs_are_those_that_were_made() {
    let directory = TempDir::new();
    for durability in [Durability::Sync, Durability::Os] {
        let cask = Cask::open_with(directory.join("store"), &Config::new().durability(durability)).unwrap();
        cask.put("first", "value").unwrap();
        let before = cask.stats().unwrap();
        for _ in 0..10 {
            cask.put("key", "value").unwrap();
        }
        cask.write(Batch::new().put("a", "").put("b", "")).unwrap();
        cask.delete("absent").unwrap();
        let after = cask.stats().unwrap();
        assert_eq!(after.groups - before.groups, 11);
        assert_eq!(after.syncs - before.syncs, if durability == Durability::Sync { 11 } else { 0 });
        assert!(after.open_for >= before.open_for && after.opening <= after.open_for);
    }
}

#[test]
fn stats_report_torn_bytes_and_the_opening_time() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    cask.put("key", vec![1; 100_000]).unwrap();
    cask.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([7; 50]);
    std::fs::write(&path, bytes).unwrap();
    let began = Instant::now();
    let cask = Cask::open(&path).unwrap();
    let stats = cask.stats().unwrap();
    assert_eq!(stats.torn_bytes, 8 + 50, "from the end mark on");
    assert!(stats.opening > Duration::ZERO && stats.opening <= began.elapsed());
    let began = Instant::now();
    cask.reopen().unwrap();
    assert!(cask.stats().unwrap().opening <= began.elapsed());
}

#[test]
fn waiting_for_the_lock_is_counted_and_measured() {
    let Some(()) = with_a_deadline(waiting_for_the_lock_is_counted_and_measured) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let patient = Cask::open(&path).unwrap();
    patient.put("key", "value").unwrap();
    let holder = Cask::open_with(&path, &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
    let patience = Duration::from_millis(20);
    let impatient = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
    assert_eq!(impatient.stats().unwrap().lock_waits, 0);
    let before = patient.stats().unwrap();
    let waited = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| patient.put("key", "waits").unwrap());
        std::thread::sleep(patience);
        holder.close().unwrap();
    });
    let waited = waited.elapsed();
    let after = patient.stats().unwrap();
    assert_eq!(after.lock_waits, before.lock_waits + 1);
    let measured = after.lock_waited - before.lock_waited;
    assert!(measured > Duration::ZERO && measured <= waited, "{measured:?} of {waited:?}");

    let holder = Cask::open_with(&path, &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
    let error = Cask::open_with(&path, &Config::new().connection_timeout(patience)).unwrap_err();
    assert!(matches!(error, Error::LockTimeout { waited, .. } if waited >= patience));
    holder.close().unwrap();
}

/// While a log is read, room for keys is made by what has been read of it so far.
#[test]
fn an_index_takes_at_most_sixteen_bytes_a_key() {
    const BATCH: usize = 500;
    let put = |cask: &Cask, first: usize, keys: usize, value: &[u8]| {
        for start in (first..first + keys).step_by(BATCH) {
            let mut batch = Batch::new();
            for n in start..start + BATCH {
                batch.put(format!("key {n:06}"), value);
            }
            cask.write(&batch).unwrap();
        }
    };
    let check = |what: &str, cask: &Cask| {
        let stats = cask.stats().unwrap();
        // A slot more or less makes a difference to 4,096 sub-tables with a few keys each.
        let bytes = stats.index_bytes.saturating_sub(192 << 10);
        assert!(bytes <= 16 * stats.keys, "{what}: {bytes} bytes for {} keys", stats.keys);
    };
    type Way<'a> = (&'static str, &'a dyn Fn(&Cask, usize));
    let ways: [Way; 4] = [
        ("evenly", &|cask, keys| put(cask, 0, keys, b"value")),
        ("small ones first", &|cask, keys| {
            put(cask, 0, keys, b"");
            put(cask, 0, keys, &[7; 400]);
        }),
        ("overwritten", &|cask, keys| (0..5).for_each(|_| put(cask, 0, keys, b"value"))),
        ("most removed", &|cask, keys| {
            put(cask, 0, 5 * keys, b"value");
            for n in keys..5 * keys {
                cask.delete(format!("key {n:06}")).unwrap();
            }
        }),
    ];
    for (what, fill) in ways {
        for keys in [1000, 5000, 17_000, 40_000] {
            let directory = TempDir::new();
            let path = directory.join("store");
            let config = Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual);
            let cask = Cask::open_with(&path, &config).unwrap();
            fill(&cask, keys);
            cask.close().unwrap();
            let cask = Cask::open_with(&path, &config).unwrap();
            check(what, &cask);
            cask.compact().unwrap();
            check(what, &cask);
        }
    }
}
