//! The engines, one file each. Each has a cache of [`CACHE_BYTES`] where it has a cache at all; everything else is as its
//! authors ship it, unless the file says otherwise.

mod candystore;
mod caskfile;
mod fjall;
mod floor_log;
mod floor_map;
#[cfg(feature = "lmdb")]
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::ops::Bound;

use crate::engine::Kind;

const CACHE_BYTES: usize = 1 << 30;

pub fn all() -> Vec<&'static Kind> {
    let all: &[&'static [Kind]] = &[
        caskfile::KINDS,
        redb::KINDS,
        fjall::KINDS,
        #[cfg(feature = "lmdb")]
        lmdb::KINDS,
        #[cfg(feature = "sqlite")]
        sqlite::KINDS,
        candystore::KINDS,
        sled::KINDS,
        #[cfg(feature = "rocksdb")]
        rocksdb::KINDS,
        floor_map::KINDS,
        floor_log::KINDS,
    ];
    all.iter().copied().flatten().collect()
}

/// The range of keys that start with `prefix`, for engines that know ranges only.
fn after_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}
