//! What a listing, a scan or a slice shows is of one moment, whatever other threads and processes do meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, ReadMode};

use crate::common::TempDir;
use crate::common::patience::{in_finite_time, with_a_deadline};

/// A sum is moved about between two keys. A listing that shows both shows all of it, whatever is written or
/// compacted meanwhile, on this handle and on others.
#[test]
fn no_listing_ever_sees_half_a_batch() {
    const SUM: u64 = 1000;
    const TRANSFERS: u64 = 40;
    in_finite_time(|| {
        let directory = TempDir::new();
        let path = directory.join("store");
        let config = Config::new().durability(Durability::Os);
        let cask = Cask::open_with(&path, &config).unwrap();
        let mut batch = Batch::new();
        batch.put("account/a", SUM.to_le_bytes()).put("account/b", 0u64.to_le_bytes());
        cask.write(&batch).unwrap();
        let elsewhere = [
            Cask::open_with(&path, &config.clone().read_only(true)).unwrap(),
            Cask::open_with(&path, &config.clone().read_only(true).read_mode(ReadMode::Pread)).unwrap(),
            Cask::open_with(&path, &config).unwrap(),
        ];
        let transfer = |cask: &Cask| loop {
            let (a, b) = (cask.get("account/a").unwrap(), cask.get("account/b").unwrap());
            let (have, amount) = (number(&a.value), a.last_index % 7);
            let (rest, more) = if have >= amount { (have - amount, amount) } else { (0, have) };
            let mut batch = Batch::new();
            batch.expect_last_index("account/a", a.last_index).expect_last_index("account/b", b.last_index);
            // So that the two lie far apart in the file.
            batch.put("account/a", rest.to_le_bytes()).put("between", vec![7; 5000]);
            batch.put("account/b", (number(&b.value) + more).to_le_bytes());
            match cask.write(&batch) {
                Ok(_) => return,
                Err(Error::BatchConflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = [&cask, &cask, &elsewhere[2]]
                .map(|cask| scope.spawn(move || (0..TRANSFERS).for_each(|_| transfer(cask))))
                .into_iter()
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    cask.compact().unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let readers: Vec<_> = elsewhere.iter().chain([&cask]).collect();
            for (number_of, cask) in readers.into_iter().enumerate() {
                let done = &done;
                scope.spawn(move || {
                    let mut looks = 0;
                    while !done.load(Ordering::Relaxed) || looks == 0 {
                        let pairs: Vec<KvPair> = match looks % 4 {
                            0 => cask.list("account/").unwrap(),
                            1 => cask.scan("account/").unwrap().rev().map(|pair| pair.unwrap()).collect(),
                            2 => cask.range("account/a"..="account/b").unwrap().map(|pair| pair.unwrap()).collect(),
                            _ => {
                                let mut pairs = Vec::new();
                                cask.visit("account/", |pair| {
                                    pairs.push(pair.to_pair());
                                    ControlFlow::Continue(())
                                })
                                .unwrap();
                                pairs
                            }
                        };
                        assert_eq!(pairs.len(), 2);
                        let sum: u64 = pairs.iter().map(|pair| number(&pair.value)).sum();
                        assert_eq!(sum, SUM, "look {looks} of reader {number_of}");
                        // The batch is one write: the indexes of its records are neighbours, two apart.
                        let indexes = [pairs[0].last_index, pairs[1].last_index];
                        assert!(indexes[0].abs_diff(indexes[1]) <= 2, "{indexes:?}");
                        looks += 1;
                    }
                });
            }
            let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Relaxed);
            outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        });
        cask.verify().unwrap();
        elsewhere[2].verify().unwrap();
    });
}

/// Fills a store with a hundred pairs, and returns them.
fn hundred_pairs(cask: &Cask, suffix: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut batch = Batch::new();
    let mut pairs = BTreeMap::new();
    for n in 0..100 {
        let (key, value) = (format!("key-{n:03}"), format!("value-{n}-{suffix}"));
        batch.put(&key, &value);
        pairs.insert(key.into_bytes(), value.into_bytes());
    }
    cask.write(&batch).unwrap();
    pairs
}

#[test]
fn a_scan_shows_its_moment_whatever_happens_meanwhile() {
    for reads in [ReadMode::Map, ReadMode::Pread] {
        let directory = TempDir::new();
        let path = directory.join("store");
        let config = Config::new().durability(Durability::Os).read_mode(reads);
        let cask = Cask::open_with(&path, &config).unwrap();
        let mut expected = hundred_pairs(&cask, "first");
        let mut first = cask.scan("").unwrap();
        let (key, value) = expected.pop_first().unwrap();
        assert_eq!(first.next().unwrap().unwrap().key, key);
        assert!(value.ends_with(b"first"));

        let newer = hundred_pairs(&cask, "second");
        cask.delete_prefix("key-05").unwrap();
        let mut second = cask.scan("").unwrap();
        cask.compact().unwrap();
        hundred_pairs(&cask, "third");
        cask.compact().unwrap();
        // Another process has its way with it, too.
        Cask::open_with(&path, &config).unwrap().delete_prefix("").unwrap();
        assert_eq!(cask.list("").unwrap(), []);
        let (key, _) = expected.pop_last().unwrap();
        assert_eq!(first.next_back().unwrap().unwrap().key, key);
        cask.close().unwrap();
        drop(cask);
        fs::remove_file(&path).unwrap();

        assert_eq!((first.len(), second.len()), (98, 90));
        let shown: BTreeMap<_, _> = first.map(|pair| pair.unwrap()).map(|pair| (pair.key, pair.value)).collect();
        assert!(shown == expected);
        while let Some(pair) = second.next_ref() {
            let pair = pair.unwrap();
            assert_eq!(newer[pair.key], pair.value);
        }
    }
}

#[test]
fn the_scans_of_all_buckets_show_one_moment_together() {
    let directory = TempDir::new();
    let cask = Cask::open_with(directory.join("store"), &Config::new().durability(Durability::Os)).unwrap();
    let names: [&[u8]; 4] = [b"", b"b", b"a\xff", b"aa"];
    let write = |suffix: &str| {
        let mut batch = Batch::new();
        for name in names {
            batch.bucket(name).put("first", suffix).put("second", suffix).delete("third");
        }
        cask.write(&batch).unwrap();
    };
    write("before");
    let mut buckets = cask.scan_buckets().unwrap();
    let mut found = vec![buckets.next().unwrap().unwrap()];
    write("after");
    cask.bucket("new").unwrap().put("key", "").unwrap();
    cask.bucket("aa").unwrap().delete_prefix("").unwrap();
    cask.compact().unwrap();
    found.extend(buckets.map(Result::unwrap));

    // Shorter names first, as the documentation says.
    let found_names: Vec<_> = found.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(found_names, [&b""[..], b"b", b"aa", b"a\xff"]);
    for (name, pairs) in found {
        assert_eq!(pairs.len(), 2);
        let pairs: Vec<_> = pairs.map(|pair| pair.map(|pair| (pair.key, pair.value)).unwrap()).collect();
        let before = [(b"first".to_vec(), b"before".to_vec()), (b"second".to_vec(), b"before".to_vec())];
        assert_eq!(pairs, before, "{}", name.escape_ascii());
    }
    let now: Vec<_> = cask.scan_buckets().unwrap().map(|bucket| bucket.unwrap().0).collect();
    assert_eq!(now, [&b""[..], b"b", b"a\xff", b"new"]);
    cask.close().unwrap();
    assert!(matches!(cask.scan_buckets(), Err(Error::Closed)));
}

#[test]
fn a_scan_by_index_shows_its_moment_in_order() {
    for reads in [ReadMode::Map, ReadMode::Pread] {
        let directory = TempDir::new();
        let config = Config::new().durability(Durability::Os).read_mode(reads);
        let cask = Cask::open_with(directory.join("store"), &config).unwrap();
        let mut expected = Vec::new();
        // Values of many lengths, so that records end before, at and after the pieces in which the file is read.
        for (number, len) in (0..3000).zip((0..).map(|n| n * 7919 % 5000)) {
            let (bucket, key) = (["", "b", "other"][number % 3], format!("{:x}", number * 7919 % 3001));
            cask.bucket(bucket).unwrap().put(&key, vec![number as u8; len]).unwrap();
            expected.push((bucket.as_bytes().to_vec(), key.into_bytes(), vec![number as u8; len]));
        }
        cask.put("large", vec![7; 5 << 20]).unwrap();
        expected.push((Vec::new(), b"large".to_vec(), vec![7; 5 << 20]));
        // Deleted, and set again: at another place in the order.
        let (bucket, key, value) = expected.remove(10);
        let in_bucket = cask.bucket(&bucket).unwrap();
        in_bucket.delete(&key).unwrap();
        in_bucket.put(&key, &value).unwrap();
        expected.push((bucket, key, value));

        let mut pairs = cask.scan_by_index().unwrap();
        assert_eq!(pairs.len(), expected.len());
        let mut found = vec![pairs.next().unwrap().unwrap()];
        cask.bucket("b").unwrap().delete_prefix("").unwrap();
        cask.put("later", "").unwrap();
        cask.compact().unwrap();
        cask.close().unwrap();
        found.extend(pairs.map(Result::unwrap));
        assert!(found.is_sorted_by_key(|(_, pair)| pair.last_index));
        let found: Vec<_> = found.into_iter().map(|(bucket, pair)| (bucket, pair.key, pair.value)).collect();
        assert!(found == expected, "{reads:?}");
        assert!(matches!(cask.scan_by_index(), Err(Error::Closed)));
    }
}

#[test]
fn a_mapped_slice_survives_later_writes_and_close() {
    let Some(()) = with_a_deadline(a_mapped_slice_survives_later_writes_and_close) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    let expected = hundred_pairs(&cask, "first");
    // SAFETY: nothing but the library changes the file.
    let mapped = unsafe { cask.mapped() };
    let slices: Vec<_> = expected.keys().map(|key| mapped.get(key).unwrap()).collect();
    let check = || {
        for (slice, value) in slices.iter().zip(expected.values()) {
            assert_eq!(&slice[..], &value[..]);
        }
    };
    let last_indexes: Vec<_> = expected.keys().map(|key| cask.get(key).unwrap().last_index).collect();
    assert!(slices.iter().map(|slice| slice.last_index()).eq(last_indexes));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..5 {
                hundred_pairs(&cask, &format!("{round}{}", "x".repeat(3000)));
                cask.compact().unwrap();
            }
        });
        scope.spawn(|| (0..100).for_each(|_| check()));
    });
    check();
    assert_ne!(&mapped.get("key-000").unwrap()[..], &slices[0][..]);
    cask.close().unwrap();
    assert!(matches!(mapped.get("key-000"), Err(Error::Closed)));
    drop((mapped, cask));
    fs::remove_file(&path).unwrap();
    check();
    // It can be handed to a thread that outlives everything else here.
    let (one, value) = (slices[0].clone(), expected["key-000".as_bytes()].clone());
    thread::spawn(move || assert_eq!(&one[..], &value[..])).join().unwrap();
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a number has 8 bytes"))
}
