//! A damaged file is opened for reading and for writing, and lived with if it can be.

use std::fmt::Display;

use caskfile::{Cask, Config, Durability, Error, Result};

use super::place::Place;
use crate::common::files::anatomy::Pairs;
use crate::common::files::oracle::{Expected, Original};

/// Everything in a store, by full key.
pub fn pairs(cask: &Cask) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    for bucket in cask.buckets()? {
        let prefix = [&[bucket.len() as u8], &bucket[..]].concat();
        for pair in cask.bucket(&bucket)?.list("")? {
            pairs.insert([&prefix[..], &pair.key].concat(), (pair.value, pair.last_index));
        }
    }
    Ok(pairs)
}

/// What becomes of a file that has these bytes instead of the original's must be what follows from those: right pairs
/// or a typed error, for a reader and for a writer, and never a change to a file that is refused.
pub fn check(place: &dyn Place, original: &Original, damaged: &[u8], what: &dyn Display) {
    super::count_file();
    place.lay_out(damaged);
    let expected = original.expected(damaged);
    let config = Config::new().durability(Durability::Os);
    for read_only in [true, false] {
        let opened = Cask::open_on(place.disk(), place.path(), &config.clone().read_only(read_only).create(false));
        match (opened, &expected) {
            (Ok(cask), Expected::Holds(expected)) => {
                assert_eq!(pairs(&cask).unwrap(), *expected, "{what}, read only: {read_only}");
                cask.verify().unwrap();
                if read_only {
                    assert!(place.holds(damaged), "{what}: a reader has changed it");
                } else {
                    go_on(place, cask, expected, what);
                }
            }
            (Err(error), Expected::Corrupt) => assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}"),
            (Err(error), Expected::Truncated) => assert!(matches!(error, Error::Truncated { .. }), "{what}: {error}"),
            (Err(error), Expected::Foreign) => assert!(
                matches!(error, Error::Corrupt { offset: 0, .. } | Error::NotCaskfile { .. }),
                "{what}: {error}"
            ),
            (Err(error), Expected::Holds(_)) => panic!("{what}, read only: {read_only}: {error}"),
            (Ok(cask), _) => panic!("{what}: opened, with {:?}, expected {expected:?}", pairs(&cask)),
        }
    }
    if !matches!(expected, Expected::Holds(_)) {
        assert!(place.holds(damaged) && place.names() == 1, "{what}: something was changed");
    }
}

/// Writes, closes, reopens and reads.
fn go_on(place: &dyn Place, cask: Cask, before: &Pairs, what: &dyn Display) {
    let highest = cask.stats().unwrap().last_index;
    let index = cask.atomic_put("new", "value", None).unwrap().last_index;
    // What of a lost tail had been seen is unknown, so its whole block of sequence numbers is skipped.
    assert!(index >> 20 > highest >> 20, "{what}: index {index} after {highest}");
    cask.delete("second").unwrap();
    cask.close().unwrap();
    let again = Cask::open_on(place.disk(), place.path(), &Config::new()).unwrap();
    let mut after = before.clone();
    after.insert(b"\0new".to_vec(), (b"value".to_vec(), index));
    after.remove(b"\0second".as_slice());
    assert_eq!(pairs(&again).unwrap(), after, "{what}: opened again");
    assert_eq!(again.verify().unwrap().torn_bytes, 0, "{what}");
    again.close().unwrap();
}
