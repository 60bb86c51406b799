//! Files that the real libraries wrote are read as those libraries read them.

use std::collections::BTreeSet;

use caskfile::boltdb::{BoltFile, ImportOptions};

use crate::{data, expected, pairs};

#[track_caller]
fn reads_as_the_library_does(name: &str) {
    let (expected, read) = (expected(name), pairs(&BoltFile::open(data(name)).unwrap()).unwrap());
    assert_eq!(read.len(), expected.len());
    for (read, expected) in read.iter().zip(&expected) {
        assert!(read == expected, "{} in {}", expected.1.escape_ascii(), expected.0.escape_ascii());
    }
}

#[test]
fn two_small_buckets() {
    reads_as_the_library_does("small.db");
}

#[test]
fn every_kind_of_page_and_of_bucket() {
    reads_as_the_library_does("shapes.db");
}

#[test]
fn a_file_without_a_list_of_free_pages() {
    reads_as_the_library_does("no-freelist.db");
}

#[test]
fn a_file_of_the_library_before_the_fork() {
    reads_as_the_library_does("boltdb.db");
}

#[test]
fn a_file_of_libkv() {
    reads_as_the_library_does("libkv.db");
}

/// Otherwise the tests above would prove less than they say.
#[test]
fn the_file_of_all_shapes_has_them() {
    let bytes = std::fs::read(data("shapes.db")).unwrap();
    let mut kinds = BTreeSet::new();
    let mut number = 0;
    while (number + 1) * 1024 <= bytes.len() {
        let page = &bytes[number * 1024..];
        let word = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let overflow = u32::from_le_bytes(page[12..16].try_into().unwrap()) as usize;
        kinds.insert((word(8), overflow > 0));
        number += 1 + overflow;
    }
    // Branch, leaf, meta, free list.
    for kind in [(1, false), (1, true), (2, false), (2, true), (4, false), (16, false)] {
        assert!(kinds.contains(&kind), "no page of kind {kind:?}: {kinds:?}");
    }
    let names: BTreeSet<Vec<u8>> = expected("shapes.db").into_iter().map(|(bucket, ..)| bucket).collect();
    for name in ["outer", "outer/inner", "outer/paged", "outer/paged/deepest"] {
        assert!(names.contains(name.as_bytes()), "{name}");
    }
    let file = BoltFile::open(data("shapes.db")).unwrap();
    let buckets = file.check(&ImportOptions::new()).unwrap().contents().buckets;
    assert!(buckets > names.len() as u64, "no empty bucket");
}
