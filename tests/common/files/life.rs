//! A life after whatever was done to a file.

use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Durability, Error};

use super::anatomy::STORE;
use super::layout::END_MARK_LEN;
use super::reader::{self, Contents, Verdict};

/// Writes to a store that opens and holds `before`, closes it, and lets the page's reader look at the file.
pub fn live_on(file: &[u8], before: Contents) {
    let disk = SimDisk::new();
    disk.stop_clock();
    disk.set_contents(STORE, file.to_vec());
    let config = Config::new().durability(Durability::Os);
    let cask = Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap();
    let mut pairs = before.pairs;
    let mut batch = Batch::new();
    if let Some(((bucket, key), _)) = pairs.pop_first() {
        batch.bucket(bucket).delete(key);
    }
    batch.bucket("").put("fuzz", "behind it");
    match cask.write(&batch) {
        Ok(index) => {
            let index = index.last_index().unwrap();
            assert!(index > before.last_index, "index {index} after {}", before.last_index);
            pairs.insert((Vec::new(), b"fuzz".to_vec()), (b"behind it".to_vec(), index));
        }
        // Only a forged file has used all sequence numbers up.
        Err(Error::Full { .. }) => return,
        Err(error) => panic!("{error}"),
    }
    cask.close().unwrap();
    let file = disk.contents(STORE).unwrap();
    match reader::read(&file) {
        Verdict::Store(after) => {
            assert_eq!((after.torn, after.end as usize + END_MARK_LEN), (0, file.len()));
            assert!(after.pairs == pairs, "{:?} instead of {pairs:?}", after.pairs);
        }
        other => panic!("what the library has written is {other:?}"),
    }
}
