//! BoltDB files: what the real libraries wrote, damaged ones, and their import.

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod importing;
mod memory;
mod mutated;
mod naive;
mod real;
mod writer;

use std::path::PathBuf;

use caskfile::boltdb::{BoltError, BoltFile};

use naive::Pair;

#[global_allocator]
static ALLOCATOR: common::counted_memory::Counting = common::counted_memory::Counting;

/// A file of tests/data/boltdb.
fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/boltdb").join(name)
}

/// All pairs of a file, in the order of the walk.
fn pairs(file: &BoltFile) -> Result<Vec<Pair>, BoltError> {
    let mut pairs = Vec::new();
    file.visit(|pair| {
        pairs.push((pair.bucket.to_vec(), pair.key.to_vec(), pair.value.to_vec()));
        Ok::<(), BoltError>(())
    })?;
    Ok(pairs)
}

/// What the real library has read from the file.
fn expected(name: &str) -> Vec<Pair> {
    // One change of options makes no difference to it.
    let name = name.replace("no-freelist", "shapes");
    let text = std::fs::read_to_string(data(&name).with_extension("txt")).unwrap();
    let bytes = |digits: &str| -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(digit).collect()
    };
    let pair = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        (bytes(fields[0]), bytes(fields[1]), bytes(fields[2]))
    };
    text.lines().map(pair).collect()
}
