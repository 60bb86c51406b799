//! How much memory a large value takes, while it is written and read and afterwards.

use std::hint::black_box;

use caskfile::{Batch, Cask, Config, Durability};

use crate::common::TempDir;
use crate::common::counted_memory::{kept_by, peak_during};

const LARGE: usize = 24 << 20;
/// For everything else.
const SLACK: usize = 4 << 20;

#[test]
fn a_large_value_takes_twice_its_size_to_write() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    cask.put("small", "value").unwrap();
    let value = vec![7; LARGE];
    let mut batch = Batch::new();
    let at_most = |copies: usize, what: &str, act: &dyn Fn()| {
        let mut peak = 0;
        let kept = kept_by(|| peak = peak_during(act));
        assert!(peak <= copies * LARGE + SLACK, "{what}: {peak} bytes at once");
        assert!(kept <= SLACK as isize, "{what}: {kept} bytes are kept");
    };
    at_most(2, "put", &|| cask.put("large", &value).map(drop).unwrap());
    assert!(peak_during(|| assert!(!batch.put("large", &value).is_empty())) <= LARGE + SLACK);
    at_most(2, "write of a batch", &|| assert!(cask.write(&batch).unwrap().last_index().is_some()));
    drop(batch);
    // With the value of the pair that is returned.
    let pair = cask.get("large").unwrap();
    at_most(3, "atomic_put", &|| drop(cask.atomic_put("large", &value, Some(&pair)).unwrap()));
    drop(pair);
    at_most(1, "get", &|| drop(black_box(cask.get("large").unwrap())));
    at_most(1, "list", &|| assert_eq!(cask.list("").unwrap().len(), 2));
    at_most(2, "scan_by_index", &|| assert_eq!(cask.scan_by_index().unwrap().count(), 2));
    at_most(2, "backup", &|| assert_eq!(cask.backup(directory.join("copy")).unwrap().keys, 2));
    at_most(2, "compact", &|| assert_eq!(cask.compact().unwrap().keys, 2));
    at_most(1, "opening and verify", &|| drop(Cask::open(&path).unwrap().verify().unwrap()));
    assert_eq!(cask.get("large").unwrap().value, value);
}
