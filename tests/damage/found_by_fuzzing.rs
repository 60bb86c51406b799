//! What fuzzing has found, each as small as it gets.

use crate::common::TempDir;
use crate::common::files::bytes::{FileBytes, record};
use crate::common::files::layout::{MORE, PUT, SYNCED, SYNCED_TO};
use caskfile::{Cask, Config, Durability, ReadMode, salvage};

/// The bytes of a closed store that holds one pair.
fn store_with_one_pair(dir: &TempDir) -> Vec<u8> {
    let path = dir.join("made");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    cask.put("key", "value").unwrap();
    cask.close().unwrap();
    std::fs::read(path).unwrap()
}

/// A file that ends within the eight bytes after its log, with bytes there that are not zero: a reader without a map
/// found that it could not read the end mark, took the log for another, read it again, and found the same again, for
/// ever.
#[test]
fn a_few_bytes_after_the_last_record_delay_no_reader() {
    let dir = TempDir::new();
    let mut bytes = store_with_one_pair(&dir);
    bytes.truncate(bytes.len() - 8);
    for stray in 0..8usize {
        let path = dir.join(format!("store-{stray}"));
        std::fs::write(&path, [&bytes[..], &[0xff; 8][..stray]].concat()).unwrap();
        for reads in [ReadMode::Pread, ReadMode::Map] {
            let cask = Cask::open_with(&path, &Config::new().read_mode(reads).read_only(true)).unwrap();
            assert_eq!(cask.list("").unwrap().len(), 1);
            assert_eq!(cask.get("key").unwrap().value, b"value");
        }
        let cask = Cask::open_with(&path, &Config::new().read_mode(ReadMode::Pread)).unwrap();
        assert_eq!(cask.stats().unwrap().torn_bytes, stray as u64);
        cask.put("other", "").unwrap();
        assert_eq!(cask.list("").unwrap().len(), 2);
        cask.verify().unwrap();
    }
}

/// A batch that breaks off with a record whose last bytes are zeros, and that holds the proof of its own beginning:
/// salvage took the data's end, which is in front of these zeros, for the end of what is lost after them.
#[test]
fn a_loss_after_the_last_data_has_a_positive_length() {
    let dir = TempDir::new();
    let begun = FileBytes::new(0).push(record(MORE, PUT, 1, b"\0key", b"value"));
    let stated = begun.len() as u64;
    let file = begun.push(record(MORE, SYNCED_TO, 2, b"", &stated.to_le_bytes()));
    let end = file.len() as u64;
    std::fs::write(dir.join("damaged"), file.end()).unwrap();
    let report = salvage(dir.join("damaged"), dir.join("rescued")).unwrap();
    assert_eq!(report.losses.iter().map(|loss| (loss.start, loss.end)).collect::<Vec<_>>(), [(end, end)]);
    assert_eq!(Cask::open(dir.join("rescued")).unwrap().get("key").unwrap().value, b"value");
}

/// `SYNCED` where a batch should go on: the record that carries it is sound, and begins a group of its own. Salvage took
/// it for the damaged record, and lost it. Found by the reader in docs/reader.
#[test]
fn salvage_keeps_the_record_that_shows_a_broken_batch() {
    let dir = TempDir::new();
    let begun = FileBytes::new(0).push(record(MORE, PUT, 1, b"\0begun", b"1"));
    let file = begun.push(record(SYNCED, PUT, 2, b"\0sound", b"2"));
    std::fs::write(dir.join("damaged"), file.end()).unwrap();
    let report = salvage(dir.join("damaged"), dir.join("rescued")).unwrap();
    assert_eq!((report.keys, report.losses.len()), (2, 1));
    assert_eq!(Cask::open(dir.join("rescued")).unwrap().get("sound").unwrap().value, b"2");
}
