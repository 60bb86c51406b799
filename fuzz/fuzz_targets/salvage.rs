//! Whatever the bytes of a file are: verification and salvage never panic and never change it, and what salvage writes
//! is a store that opens, verifies, and holds what a simple reading of the bytes finds. Inspection gives each byte one
//! owner, and says what the library says otherwise.
//!
//! The simple reading knows nothing of walks and of proofs. It takes every place in which a record can start, and
//! believes those whose `body_crc` holds: no pair may be made up. And it is the reader that was made from
//! docs/FORMAT.md: nothing may be missing of what that finds before any damage.

#![no_main]

#[path = "../../tests/common/files/layout.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layout;
#[path = "../../tests/common/files/owners.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod owners;
#[path = "../../tests/common/files/reader.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod reader;
mod rescue;
#[path = "../../tests/common/files/seal.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod seal;
mod shape;

use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, Config, Error, ReadMode};
use libfuzzer_sys::{Corpus, fuzz_target};

use rescue::STORE;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&how, rest)) = input.split_first() else { return Corpus::Reject };
    let Ok(file) = shape::file(how, rest) else { return Corpus::Reject };
    let disk = SimDisk::new();
    disk.stop_clock();
    disk.set_holes(how & 4 == 0);
    disk.set_contents(STORE, file.clone());
    let reads = if how & 8 == 0 { ReadMode::Map } else { ReadMode::Pread };
    // A snapshot could hide damage from the handle.
    let config = Config::new().read_only(true).read_mode(reads).check_at_open(true);
    if let Ok(cask) = Cask::open_on(Arc::new(disk.process()), STORE, &config) {
        // A copy whose end is missing opens, and is not sound; neither is a store with a wrong snapshot.
        let verified = match cask.verify() {
            Err(Error::Damaged { report, .. }) if report.cut_off || report.wrong_snapshot.is_some() => {
                (*report).clone()
            }
            verified => verified.unwrap(),
        };
        let hidden = cask.stats().unwrap().hidden as usize;
        assert_eq!(verified.keys as usize, rescue::pairs(&cask).len() + hidden);
    }
    rescue::salvage(&disk, &file);
    owners::examine("any bytes", &file);
    Corpus::Keep
});
