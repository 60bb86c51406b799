//! What a watch keeps in memory: nothing that grows with a batch, but for its longest value.

use caskfile::{Batch, Cask, Config, Durability, WatchFrom};

use crate::common::TempDir;
use crate::common::counted_memory::{kept_by, peak_during};

/// Buffers: a window of a megabyte, and what it was before it grew.
const BUFFERS: usize = 4 << 20;

/// The window stays.
const KEPT: isize = (1 << 20) + (64 << 10);

fn open(directory: &TempDir) -> Cask {
    let config = Config::new().durability(Durability::Os);
    Cask::open_with(directory.join("store"), &config).unwrap()
}

/// Writes the batch by another handle, and watches it.
fn watched(directory: &TempDir, batch: &Batch, prefix: &str, expected: usize) -> (usize, isize) {
    let cask = open(directory);
    let mut watch = cask.changes(prefix, WatchFrom::Now).unwrap();
    open(directory).write(batch).unwrap();
    // The index grows here, and not in the watch.
    cask.exists("key").unwrap();
    let mut peak = 0;
    let kept = kept_by(|| {
        peak = peak_during(|| {
            let mut unit = watch.try_next().unwrap().unwrap();
            let mut changes = 0;
            while let Some(change) = unit.next_ref() {
                assert!(change.unwrap().value().is_some());
                changes += 1;
            }
            assert_eq!(changes, expected);
        });
        assert!(watch.try_next().unwrap().is_none());
    });
    (peak, kept)
}

#[test]
fn a_batch_of_a_million_keys_is_watched_in_little_memory() {
    let directory = TempDir::new();
    let mut batch = Batch::new();
    (0..1_000_000).for_each(|n| _ = batch.put(format!("key {n:07}"), ""));
    for (prefix, expected) in [("", 1_000_000), ("key 09999", 100)] {
        let (peak, kept) = watched(&directory, &batch, prefix, expected);
        assert!(peak <= BUFFERS && kept <= KEPT, "{prefix}: {peak} bytes, and {kept} stay");
    }
}

/// With `CASKFILE_FULL`, nearly as large as a batch can be.
#[test]
fn a_long_batch_is_watched_in_the_memory_of_its_longest_value() {
    const VALUE: usize = 4 << 20;
    let directory = TempDir::new();
    let values = if std::env::var_os("CASKFILE_FULL").is_some() { 255 } else { 12 };
    let mut batch = Batch::new();
    (0..values).for_each(|n| _ = batch.put(format!("key {n:07}"), vec![n as u8; VALUE]));
    for (prefix, expected) in [("", values), ("key 0000001", 1)] {
        let (peak, kept) = watched(&directory, &batch, prefix, expected);
        assert!(peak <= 2 * VALUE && kept <= KEPT, "{prefix}: {peak} bytes, and {kept} stay");
        println!("{values} values of {VALUE} bytes, {prefix:?}: {peak} bytes at most, {kept} stay");
    }
}
