//! Pairs of BoltDB files become pairs of a store.

use std::fs::File;
use std::ops::ControlFlow;
use std::time::Duration;

use caskfile::boltdb::{BoltError, BoltFile, Contents, ImportOptions};
use caskfile::{Cask, Config, Durability};

use crate::common::TempDir;
use crate::common::patience::in_finite_time;
use crate::{Pair, data, expected, pairs, writer};

fn open(directory: &TempDir) -> Cask {
    Cask::open_with(directory.join("store"), &Config::new().durability(Durability::Os)).unwrap()
}

fn import(cask: &Cask, name: &str, options: &ImportOptions) -> Contents {
    let file = BoltFile::open(data(name)).unwrap();
    file.check(options).unwrap().import(cask, |_| ControlFlow::Continue(())).unwrap()
}

/// All pairs of a store, bucket by bucket.
fn stored(cask: &Cask) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut scan = cask.scan_by_index().unwrap();
    while let Some(next) = scan.next_ref() {
        let (bucket, pair) = next.unwrap();
        pairs.push((bucket.to_vec(), pair.key.to_vec(), pair.value.to_vec()));
    }
    pairs.sort();
    pairs
}

fn sorted(mut pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.sort();
    pairs
}

#[test]
fn every_pair_is_in_the_bucket_of_its_name() {
    for name in ["small.db", "shapes.db", "no-freelist.db", "boltdb.db", "libkv.db"] {
        let directory = TempDir::without_waits();
        let cask = open(&directory);
        // Whatever bucket the handle shows.
        let contents = import(&cask.bucket("elsewhere").unwrap(), name, &ImportOptions::new());
        let expected = sorted(expected(name));
        assert!(stored(&cask) == expected, "{name}");
        let bytes = expected.iter().map(|(_, key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        assert_eq!((contents.pairs, contents.bytes), (expected.len() as u64, bytes), "{name}");
    }
}

#[test]
fn with_libkv_each_value_loses_its_number() {
    let directory = TempDir::without_waits();
    let cask = open(&directory);
    import(&cask, "libkv.db", &ImportOptions::new().libkv(true));
    let network = cask.bucket("libnetwork").unwrap();
    assert_eq!(stored(&cask).len(), network.list("docker/network/v1.0/").unwrap().len());
    for pair in network.list("docker/network/v1.0/network/").unwrap() {
        let json: serde_json::Value = serde_json::from_slice(&pair.value).unwrap();
        assert_eq!(pair.key, format!("docker/network/v1.0/network/{}/", json["id"].as_str().unwrap()).as_bytes());
    }
    assert_eq!(network.get("docker/network/v1.0/idm/vxlan-id/").unwrap().value, b"");
}

#[test]
fn other_pairs_stay_and_a_second_import_changes_no_value() {
    let directory = TempDir::without_waits();
    let cask = open(&directory);
    cask.bucket("fruit").unwrap().put("apple", "brown").unwrap();
    cask.bucket("fruit").unwrap().put("plum", "blue").unwrap();
    cask.put("apple", "in the default bucket").unwrap();
    import(&cask, "small.db", &ImportOptions::new());
    let once = stored(&cask);
    assert_eq!(once.len(), expected("small.db").len() + 2);
    assert_eq!(cask.bucket("fruit").unwrap().get("apple").unwrap().value, b"red");
    import(&cask, "small.db", &ImportOptions::new());
    assert_eq!(stored(&cask), once);
}

#[test]
fn a_cancelled_import_says_how_far_it_came() {
    let directory = TempDir::without_waits();
    let cask = open(&directory);
    let file = BoltFile::open(data("shapes.db")).unwrap();
    let checked = file.check(&ImportOptions::new()).unwrap();
    let mut told = Vec::new();
    let result = checked.import(&cask, |progress| {
        told.push((progress.done, progress.total));
        ControlFlow::Break(())
    });
    match result {
        Err(BoltError::Cancelled { written, .. }) => assert_eq!(written, stored(&cask).len() as u64),
        other => panic!("{other:?}"),
    }
    assert_eq!(told, [(checked.contents().bytes, checked.contents().bytes)]);
}

/// The first batch ends in the second bucket.
fn two_batches(directory: &TempDir) -> (BoltFile, Vec<Pair>) {
    let keys: Vec<String> = (0..140).map(|number| format!("key {number:03}")).collect();
    let values: Vec<Vec<u8>> = (0..140).map(|number| vec![number; 16 << 10]).collect();
    let all: Vec<(&[u8], &[u8])> = keys.iter().zip(&values).map(|(key, value)| (key.as_bytes(), &value[..])).collect();
    let path = directory.join("two-batches.db");
    std::fs::write(&path, writer::buckets(&[(b"first", all[..40].to_vec()), (b"second", all.clone())])).unwrap();
    let file = BoltFile::open(&path).unwrap();
    let pairs = pairs(&file).unwrap();
    assert_eq!(pairs.len(), 180);
    (file, pairs)
}

#[test]
fn a_batch_begins_with_the_bucket_that_the_one_before_ended_in() {
    let directory = TempDir::without_waits();
    let cask = open(&directory);
    let (file, pairs) = two_batches(&directory);
    let checked = file.check(&ImportOptions::new()).unwrap();
    let mut batches = 0;
    let contents = checked.import(&cask, |_| {
        batches += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(contents.unwrap(), checked.contents());
    assert_eq!(batches, 3);
    assert!(stored(&cask) == sorted(pairs));
}

#[test]
fn between_two_batches_the_pairs_of_the_first_one_are_counted() {
    let directory = TempDir::without_waits();
    let (file, pairs) = two_batches(&directory);
    let checked = file.check(&ImportOptions::new()).unwrap();
    // Cancelled, and with a store that fails.
    for closes in [false, true] {
        let path = directory.join(if closes { "fails" } else { "cancelled" });
        let cask = Cask::open(&path).unwrap();
        let result = checked.import(&cask, |_| match closes {
            true => {
                cask.close().unwrap();
                ControlFlow::Continue(())
            }
            false => ControlFlow::Break(()),
        });
        let written = match result {
            Err(BoltError::Cancelled { written, .. }) if !closes => written,
            Err(BoltError::Store { written, cause: caskfile::Error::Closed }) if closes => written,
            other => panic!("{other:?}"),
        };
        drop(cask);
        let written = written as usize;
        assert!((41..pairs.len()).contains(&written), "the first batch ends in the second bucket: {written}");
        assert!(stored(&Cask::open(&path).unwrap()) == sorted(pairs[..written].to_vec()));
    }
}

#[test]
fn a_value_that_got_shorter_than_libkvs_number_is_refused_by_the_import_too() {
    let directory = TempDir::without_waits();
    let cask = open(&directory);
    let path = directory.join("changed.db");
    let with = |value: &[u8]| std::fs::write(&path, writer::buckets(&[(b"b", vec![(b"key", value)])])).unwrap();
    with(b"12345678value");
    let file = BoltFile::open(&path).unwrap();
    let checked = file.check(&ImportOptions::new().libkv(true)).unwrap();
    // A program that does not ask for the lock.
    with(b"1234567");
    let result = checked.import(&cask, |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(BoltError::Refused { page: 3, .. })), "{result:?}");
    assert!(stored(&cask).is_empty());
}

#[test]
fn an_error_of_the_store_says_how_many_pairs_it_has() {
    let directory = TempDir::without_waits();
    let cask = open(&directory);
    cask.close().unwrap();
    let file = BoltFile::open(data("small.db")).unwrap();
    let result = file.check(&ImportOptions::new()).unwrap().import(&cask, |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(BoltError::Store { written: 0, cause: caskfile::Error::Closed })), "{result:?}");
}

#[test]
fn a_file_that_another_program_writes_to_is_refused() {
    let directory = TempDir::new();
    let path = directory.join("locked.db");
    std::fs::copy(data("small.db"), &path).unwrap();
    let writer = File::open(&path).unwrap();
    fs2::FileExt::try_lock_exclusive(&writer).unwrap();
    assert!(matches!(BoltFile::open(&path), Err(BoltError::Locked { .. })));
    let short = Some(Duration::from_millis(20));
    assert!(
        matches!(BoltFile::open_with(&path, short), Err(BoltError::Locked { waited, .. }) if Some(waited) >= short)
    );

    // Readers do not disturb one another, and keep writers out.
    in_finite_time(move || {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| BoltFile::open_with(&path, None).unwrap());
            fs2::FileExt::unlock(&writer).unwrap();
            let file = waiting.join().unwrap();
            let another = BoltFile::open(&path).unwrap();
            assert!(fs2::FileExt::try_lock_exclusive(&writer).is_err());
            drop((file, another));
            fs2::FileExt::try_lock_exclusive(&writer).unwrap();
        });
    });
}
