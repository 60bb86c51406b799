//! Whatever the pages of a BoltDB file are: it is refused, or read as a reader reads it that checks nothing.
//!
//! The input is the number of the root, and the pages after the two meta pages. Those are made here, and so are the numbers that the
//! pages begin with, unless the first bit of the input says otherwise: few inputs would have them right.

#![no_main]

#[path = "../../tests/boltdb/naive.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod naive;

use caskfile::boltdb::{BoltError, BoltFile, ImportOptions};
use libfuzzer_sys::{Corpus, fuzz_target};

const SIZE: usize = 1024;

/// Makes a file of the pages.
fn file(how: u8, pages: &[u8]) -> Vec<u8> {
    let count = 2 + pages.len().div_ceil(SIZE);
    let mut bytes = vec![0; count * SIZE];
    bytes[2 * SIZE..][..pages.len()].copy_from_slice(pages);
    if how & 0x80 == 0 {
        for page in 2..count {
            bytes[page * SIZE..][..8].copy_from_slice(&(page as u64).to_le_bytes());
        }
    }
    let meta = &mut bytes[16..16 + 64];
    meta[..4].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    meta[4] = 2;
    meta[8..12].copy_from_slice(&(SIZE as u32).to_le_bytes());
    meta[16] = how & 0x7f;
    meta[40..48].copy_from_slice(&(count as u64).to_le_bytes());
    let sum = naive::checksum(meta);
    meta[56..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&how, pages)) = input.split_first() else { return Corpus::Reject };
    let bytes = file(how, pages);
    let path = std::env::temp_dir().join(format!("caskfile-fuzz-boltdb-{}", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    let file = BoltFile::open(&path).unwrap();
    let mut pairs = Vec::new();
    let visited = file.visit(|pair| {
        pairs.push((pair.bucket.to_vec(), pair.key.to_vec(), pair.value.to_vec()));
        Ok::<(), BoltError>(())
    });
    match visited {
        Ok(contents) => {
            assert_eq!(contents.pairs, pairs.len() as u64);
            assert_eq!(pairs, naive::read(&bytes, SIZE));
        }
        Err(BoltError::Damaged { page, offset, .. } | BoltError::Refused { page, offset, .. }) => {
            assert!(offset < bytes.len() as u64 && page <= offset / SIZE as u64);
        }
        Err(error) => panic!("{error}"),
    }
    let _ = file.check(&ImportOptions::new().libkv(true));
    Corpus::Keep
});
