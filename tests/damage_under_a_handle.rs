//! What a handle does when bytes that it has validated are changed under it.

use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, Config, Error};

const STORE: &str = "/store";

fn open(disk: &SimDisk) -> Result<Cask, Error> {
    Cask::open_on(Arc::new(disk.process()), STORE, &Config::default())
}

/// Flips a bit of the first place in the file where `bytes` stand.
fn damage(disk: &SimDisk, bytes: &[u8]) {
    let mut contents = disk.contents(STORE).unwrap();
    let at = contents.windows(bytes.len()).position(|window| window == bytes).expect("the bytes are in the file");
    contents[at] ^= 1;
    disk.set_contents(STORE, contents);
}

/// The key of a record is damaged in the file. A put of that key is appended before the index is asked for the key's
/// old place; the answer is that the old record no longer verifies, so the log is read anew, which stops at the damage,
/// in the middle of the file. Whatever was written next went there, over records that were whole.
#[test]
fn a_put_of_a_key_whose_record_is_damaged_changes_nothing_before_the_logs_end() {
    let disk = SimDisk::new();
    let cask = open(&disk).unwrap();
    cask.put("damaged key", "old").unwrap();
    cask.put("other", "whole").unwrap();
    damage(&disk, b"damaged key");
    let before = disk.contents(STORE).unwrap();
    let end = cask.stats().unwrap().log_end as usize;

    let put = cask.put("damaged key", "new");
    assert!(matches!(put, Err(Error::Poisoned { .. })), "{put:?}");
    assert!(cask.put("other", "newer").is_err());
    assert!(cask.close().is_err());
    let after = disk.contents(STORE).unwrap();
    assert_eq!(after[..end], before[..end], "the log before the new record is as it was");
    assert!(matches!(open(&disk), Err(Error::Corrupt { .. })));
    assert_eq!(disk.contents(STORE).unwrap()[..end], before[..end]);
}
