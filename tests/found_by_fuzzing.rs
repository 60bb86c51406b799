//! What fuzzing has found, each as small as it gets.

mod common;

use caskfile::{Cask, Config, Durability, ReadMode};
use common::TempDir;

/// The bytes of a closed store that holds one pair.
fn store_with_one_pair(dir: &TempDir) -> Vec<u8> {
    let path = dir.join("made");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    cask.put("key", "value").unwrap();
    cask.close().unwrap();
    std::fs::read(path).unwrap()
}

/// A file that ends within the eight bytes behind its log, with bytes there that are not zero: a reader without a map
/// found that it could not read the end mark, took the log for another, read it anew, and found the same again, for
/// ever.
#[test]
fn a_few_bytes_behind_the_last_record_do_not_keep_a_reader_busy_for_ever() {
    let dir = TempDir::new();
    let mut bytes = store_with_one_pair(&dir);
    bytes.truncate(bytes.len() - 8);
    for stray in 0..8usize {
        let path = dir.join(format!("store-{stray}"));
        std::fs::write(&path, [&bytes[..], &[0xff; 8][..stray]].concat()).unwrap();
        for reads in [ReadMode::Pread, ReadMode::Map] {
            let cask = Cask::open_with(&path, &Config::new().reads(reads).read_only(true)).unwrap();
            assert_eq!(cask.list("").unwrap().len(), 1);
            assert_eq!(cask.get("key").unwrap().value, b"value");
        }
        let cask = Cask::open_with(&path, &Config::new().reads(ReadMode::Pread)).unwrap();
        assert_eq!(cask.stats().unwrap().torn_bytes, stray as u64);
        cask.put("other", "").unwrap();
        assert_eq!(cask.list("").unwrap().len(), 2);
        cask.verify().unwrap();
    }
}
