//! What a salvaged store promises.

use caskfile::{Cask, Error, salvage};

mod common;

use common::TempDir;

/// Three handles, each with an index block of its own; what the second and the third wrote is damaged beyond
/// recognition. Somebody still has a pair of the third's, and compares with it what others have written since.
#[test]
fn an_index_that_was_lost_with_its_record_is_not_handed_out_by_the_salvaged_store() {
    let directory = TempDir::new();
    let (damaged, rescued) = (directory.join("damaged"), directory.join("rescued"));
    let put = |path: &std::path::Path, value: &str| {
        let cask = Cask::open(path).unwrap();
        cask.put("key", value).unwrap();
        let (pair, end) = (cask.get("key").unwrap(), cask.stats().unwrap().log_end as usize);
        cask.close().unwrap();
        (pair, end)
    };
    let (_, sound) = put(&damaged, "1");
    let (_, _) = put(&damaged, "2");
    let (lost, _) = put(&damaged, "3");
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[sound..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&damaged, bytes).unwrap();

    let report = salvage(&damaged, &rescued).unwrap();
    assert_eq!((report.keys, report.losses.len()), (1, 1), "{report:?}");
    for _ in 0..4 {
        let (pair, _) = put(&rescued, "4");
        assert!(pair.last_index > lost.last_index, "{} after {}", pair.last_index, lost.last_index);
        let cask = Cask::open(&rescued).unwrap();
        assert!(matches!(cask.atomic_put("key", "5", Some(&lost)), Err(Error::KeyModified)));
    }
}
