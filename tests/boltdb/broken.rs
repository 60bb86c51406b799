//! Files that are broken in one way each.

use std::path::PathBuf;

use caskfile::boltdb::{BoltError, BoltFile, ImportOptions};

use crate::common::TempDir;
use crate::naive::{checksum, metas};
use crate::{Pair, data, expected, pairs, writer};

const SIZE: usize = 1024;

/// A copy of a file, which a test breaks.
struct Copy {
    directory: TempDir,
    bytes: Vec<u8>,
}

impl Copy {
    fn of(name: &str) -> Copy {
        Copy { directory: TempDir::without_waits(), bytes: std::fs::read(data(name)).unwrap() }
    }

    fn saved(&self) -> PathBuf {
        let path = self.directory.join("broken.db");
        std::fs::write(&path, &self.bytes).unwrap();
        path
    }

    fn read(&self) -> Result<Vec<Pair>, BoltError> {
        pairs(&BoltFile::open(self.saved())?)
    }

    /// The file must be damaged here, for this reason.
    #[track_caller]
    fn is_damaged(&self, page: usize, at: usize, says: &str) {
        match self.read() {
            Err(BoltError::Damaged { page: said_page, offset, reason, .. }) => {
                assert_eq!((said_page, offset), (page as u64, (page * SIZE + at) as u64), "{reason}");
                assert!(reason.contains(says), "{reason}");
            }
            other => panic!("must be damaged, but gave {:?}", other.map(|pairs| pairs.len())),
        }
    }

    fn number(&self, at: usize, len: usize) -> u64 {
        self.bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn set(&mut self, at: usize, len: usize, number: u64) {
        self.bytes[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
    }

    /// Where the meta page that counts has its fields.
    fn meta(&self) -> usize {
        *metas(&self.bytes, SIZE).last().unwrap()
    }

    /// Sets a field of the meta page that counts, and its checksum.
    fn set_in_meta(&mut self, field: usize, len: usize, number: u64) {
        let meta = self.meta();
        self.set(meta + field, len, number);
        let sum = checksum(&self.bytes[meta..]);
        self.set(meta + 56, 8, sum);
    }

    /// The first page of a bucket at the top.
    fn bucket(&self, name: &str) -> usize {
        let root = self.number(self.meta() + 16, 8) as usize * SIZE;
        assert_eq!(self.number(root + 8, 2), 2, "the root is a leaf");
        let elements = (0..self.number(root + 10, 2) as usize).map(|element| root + 16 + 16 * element);
        let mut found = elements.filter_map(|at| {
            let key = at + self.number(at + 4, 4) as usize;
            let value = key + self.number(at + 8, 4) as usize;
            (&self.bytes[key..value] == name.as_bytes()).then(|| self.number(value, 8) as usize)
        });
        found.next().unwrap()
    }

    /// The page that a branch's element leads to.
    fn child(&self, page: usize, element: usize) -> usize {
        assert_eq!(self.number(page * SIZE + 8, 2), 1, "page {page} is a branch");
        self.number(page * SIZE + 16 + 16 * element + 8, 8) as usize
    }
}

#[test]
fn with_one_broken_meta_page_the_other_one_counts() {
    let (now, last) = (expected("shapes.db"), b"zz last".to_vec());
    let before: Vec<Pair> = now.iter().filter(|(bucket, ..)| *bucket != last).cloned().collect();
    assert_eq!(before.len() + 1, now.len());
    let found = metas(&Copy::of("shapes.db").bytes, SIZE);
    for (broken, expected) in [(found[0], &now), (found[1], &before)] {
        for at in 0..64 {
            let mut copy = Copy::of("shapes.db");
            copy.bytes[broken + at] ^= 0x40;
            assert!(copy.read().unwrap() == *expected, "byte {at} of the meta page at {broken}");
        }
    }
}

#[test]
fn without_a_whole_meta_page_nothing_is_read() {
    let mut copy = Copy::of("shapes.db");
    copy.bytes[16 + 40] ^= 1;
    copy.bytes[SIZE + 16 + 40] ^= 1;
    copy.is_damaged(0, 0, "checksum");

    copy.bytes[16] ^= 1;
    copy.is_damaged(1, 0, "checksum");

    copy.bytes[SIZE + 16] ^= 1;
    let error = copy.read().unwrap_err();
    assert!(matches!(error, BoltError::NotBolt { .. }), "{error}");

    copy.set(16, 4, 0xEDDA_0CED);
    assert!(copy.read().unwrap_err().to_string().contains("big-endian"));

    let mut copy = Copy::of("shapes.db");
    copy.set(16 + 4, 4, 3);
    copy.set(SIZE + 16 + 4, 4, 3);
    assert!(copy.read().unwrap_err().to_string().contains("version 3"));
}

#[test]
fn other_files_are_not_bolt_files() {
    let directory = TempDir::without_waits();
    for (name, bytes) in [("empty", &b""[..]), ("text", b"text"), ("zeros", &[0; 100_000])] {
        std::fs::write(directory.join(name), bytes).unwrap();
        let error = BoltFile::open(directory.join(name)).unwrap_err();
        assert!(matches!(error, BoltError::NotBolt { .. }), "{name}: {error}");
    }
    let error = BoltFile::open(directory.path()).unwrap_err();
    assert!(matches!(error, BoltError::NotBolt { .. }), "{error}");
    let error = BoltFile::open(directory.join("absent")).unwrap_err();
    assert!(matches!(error, BoltError::Io { operation: "open", .. }), "{error}");
}

#[test]
fn a_file_that_was_cut_anywhere_is_refused() {
    let mut copy = Copy::of("shapes.db");
    let pages = copy.number(copy.meta() + 40, 8);
    for len in (0..pages as usize * SIZE).step_by(97).rev() {
        copy.bytes.truncate(len);
        match copy.read() {
            Err(BoltError::Cut { len: said, stated, .. }) => assert_eq!((said, stated), (len as u64, pages * 1024)),
            // What is left does not show what it was.
            Err(BoltError::NotBolt { .. }) => assert!(len < 80),
            other => panic!("{len} bytes gave {:?}", other.map(|pairs| pairs.len())),
        }
    }
}

#[test]
fn a_meta_page_that_leads_nowhere_is_damaged() {
    for root in [0, 1, 1 << 20, u64::MAX] {
        let mut copy = Copy::of("shapes.db");
        let meta = copy.meta();
        copy.set_in_meta(16, 8, root);
        copy.is_damaged(meta / SIZE, 0, "leads to page");
    }
    for pages in [1 << 20, 1 << 54, u64::MAX] {
        let mut copy = Copy::of("shapes.db");
        copy.set_in_meta(40, 8, pages);
        let error = copy.read().unwrap_err();
        assert!(matches!(error, BoltError::Cut { .. }), "{error}");
    }
}

#[test]
fn a_page_that_is_not_what_it_should_be_is_damaged() {
    let page = Copy::of("shapes.db").bucket("many");
    let copy = Copy::of("shapes.db");
    let leaf = copy.child(page, 1);
    let rest = copy.number(copy.meta() + 40, 8) - leaf as u64;
    for (at, len, number, says_at, says) in [
        (0, 8, 7, 0, "it says that it is page 7"),
        (8, 2, 4, 8, "kind 0x4"),
        (8, 2, 3, 8, "kind 0x3"),
        (10, 2, 0xffff, 10, "65535 elements do not fit"),
        (12, 4, 1 << 20, 12, "1048576 more pages"),
        (12, 4, rest, 12, "more pages are not in a file"),
        (12, 4, u64::from(u32::MAX), 12, "more pages are not in a file"),
        (16, 4, 2, 16, "unknown flags 0x2"),
        (16 + 4, 4, 4096, 16, "element 0 is not in the page"),
        (16 + 4, 4, 8, 16, "element 0 does not begin where"),
        (32 + 8, 4, u64::from(u32::MAX), 32, "element 1 is not in the page"),
        (32 + 12, 4, 0, 48, "element 2 does not begin where"),
    ] {
        let mut copy = Copy::of("shapes.db");
        copy.set(leaf * SIZE + at, len, number);
        copy.is_damaged(leaf, says_at, says);
    }
}

#[test]
fn a_branch_that_leads_astray_is_damaged() {
    let mut copy = Copy::of("shapes.db");
    let page = copy.bucket("many");
    let second = page * SIZE + 32 + 8;
    let lost = 1 << 40;
    // Of a bucket that the walk has been to before.
    let other = copy.bucket("large");
    assert!(other > 1);
    for (number, says) in [
        (0, "leads to page 0"),
        (lost, "leads to page 1099511627776"),
        (page as u64, "which has another place already"),
        (copy.child(page, 0) as u64, "which has another place already"),
        (other as u64, "which has another place already"),
    ] {
        copy.set(second, 8, number);
        copy.is_damaged(page, 32, says);
    }

    // A branch without elements.
    let mut copy = Copy::of("shapes.db");
    copy.set(page * SIZE + 10, 2, 0);
    copy.is_damaged(page, 10, "a branch without elements");
}

#[test]
fn a_page_has_no_more_pages_than_it_needs() {
    let mut copy = Copy::of("shapes.db");
    let leaf = copy.child(copy.bucket("many"), 1);
    copy.set(leaf * SIZE + 12, 4, 1);
    copy.is_damaged(leaf, 12, "1 more pages belong to it, and it needs 0");
}

/// A file of branches, each with one element that leads to the next page, and the last one to `end`. No library writes such a file.
fn chain(branches: usize, end: u64) -> Copy {
    let pages = 2 + branches + 1;
    let mut copy = Copy { directory: TempDir::without_waits(), bytes: vec![0; pages * SIZE] };
    for (field, len, number) in [(0, 4, 0xED0C_DAED), (4, 4, 2), (8, 4, SIZE as u64), (16, 8, 2), (40, 8, pages as u64)]
    {
        copy.set(16 + field, len, number);
    }
    let sum = checksum(&copy.bytes[16..]);
    copy.set(16 + 56, 8, sum);
    for page in 2..pages {
        copy.set(page * SIZE, 8, page as u64);
        copy.set(page * SIZE + 8, 2, 2);
    }
    for page in 2..2 + branches {
        let next = if page == 1 + branches { end } else { page as u64 + 1 };
        for (field, len, number) in [(8, 2, 1), (10, 2, 1), (16, 4, 16), (20, 4, 1), (24, 8, next), (32, 1, 7)] {
            copy.set(page * SIZE + field, len, number);
        }
    }
    copy
}

#[test]
fn a_tree_that_is_a_circle_or_too_high_is_damaged() {
    assert!(chain(63, 65).read().unwrap().is_empty());
    chain(64, 66).is_damaged(65, 16, "more than 64 levels");
    for (branches, end) in [(1, 2), (5, 2), (5, 4), (60, 61)] {
        chain(branches, end).is_damaged(1 + branches, 16, "which has another place already");
    }
}

#[test]
fn keys_out_of_order_are_damage() {
    let mut copy = Copy::of("shapes.db");
    let page = copy.bucket("many");
    let leaf = copy.child(page, 1);
    let key = |copy: &Copy, element: usize| {
        let at = leaf * SIZE + 16 + 16 * element;
        at + copy.number(at + 4, 4) as usize
    };
    // Within a leaf.
    let (at, second) = (key(&copy, 1), key(&copy, 2));
    let (kept, other) = (copy.bytes[at..at + 8].to_vec(), copy.bytes[second..second + 8].to_vec());
    copy.bytes[at..at + 8].copy_from_slice(&other);
    copy.is_damaged(leaf, 48, "the key of element 2 is not above the one before");
    copy.bytes[at..at + 8].copy_from_slice(&kept);
    copy.read().unwrap();

    // Below what the branch says, and above what it says of the next one.
    let first = key(&copy, 0);
    let digit = copy.bytes[first + 4];
    copy.bytes[first] = b'a';
    copy.is_damaged(leaf, 0, "its first key is below");
    copy.bytes[first] = b'k';
    assert_eq!(copy.bytes[first + 4], digit);
    let last = key(&copy, copy.number(leaf * SIZE + 10, 2) as usize - 1);
    copy.bytes[last] = b'z';
    copy.is_damaged(leaf, 0, "its last key is not below");
}

#[test]
fn a_key_that_belongs_two_branches_further_on_is_damage() {
    for (key, is_right) in [(b"l", true), (b"m", false)] {
        let pages = [
            writer::leaf(1, &[(b"bucket", &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]),
            writer::branch(&[(b"a", 4), (b"m", 6)]),
            writer::branch(&[(b"a", 5)]),
            writer::leaf(0, &[(key, b"value")]),
            writer::leaf(0, &[]),
        ];
        let copy = Copy { directory: TempDir::without_waits(), bytes: writer::file(&pages, None) };
        match is_right {
            true => assert_eq!(copy.read().unwrap().len(), 1),
            false => copy.is_damaged(5, 0, "its last key is not below"),
        }
    }
}

#[test]
fn a_bucket_that_is_none_is_damaged() {
    let copy = Copy::of("shapes.db");
    let root = copy.number(copy.meta() + 16, 8) as usize;
    let elements = copy.number(root * SIZE + 10, 2) as usize;
    // The last one is small, and has four pairs.
    let at = root * SIZE + 16 * elements;
    let key = at + copy.number(at + 4, 4) as usize;
    let value = key + copy.number(at + 8, 4) as usize;
    assert_eq!((&copy.bytes[key..value], copy.number(value, 8)), (&b"\xff\0"[..], 0));
    let place = at - root * SIZE;
    let inline = value - root * SIZE + 16;

    // No bucket at all.
    let mut broken = Copy::of("shapes.db");
    broken.set(at, 4, 0);
    broken.is_damaged(root, place, "a pair that is in no bucket");
    // A page of its own, and one in its value.
    let mut broken = Copy::of("shapes.db");
    broken.set(value, 8, 5);
    broken.is_damaged(root, place, "has one in its value as well");
    // Too short.
    let mut broken = Copy::of("shapes.db");
    broken.set(at + 12, 4, 15);
    broken.is_damaged(root, place, "too short for a bucket");
    let mut broken = Copy::of("shapes.db");
    broken.set(at + 12, 4, 20);
    broken.is_damaged(root, inline, "too short for a page");
    // Its page.
    for (field, len, number, says_at, says) in [
        (8, 2, 1, 16, "element 0 does not begin where"),
        (8, 2, 4, 8, "kind 0x4"),
        (10, 2, 0, 0, "does not end where its pairs end"),
        (10, 2, 3, 16, "element 0 does not begin where"),
        (16, 4, 1, 0, "a small bucket has pairs only"),
        (16 + 12, 4, 2, 32, "element 1 does not begin where"),
        (64 + 12, 4, 0, 0, "does not end where its pairs end"),
        (64 + 12, 4, 1 << 31, 64, "element 3 is not in the page"),
    ] {
        let mut broken = Copy::of("shapes.db");
        broken.set(value + 16 + field, len, number);
        broken.is_damaged(root, inline + says_at, says);
    }
}

#[test]
fn what_caskfile_has_no_place_for_is_refused_with_its_place() {
    for (name, says) in [("two-of-a-name.db", "two buckets would have one name"), ("long-name.db", "has 256")] {
        let file = BoltFile::open(data(name)).unwrap();
        match file.check(&ImportOptions::new()) {
            Err(BoltError::Refused { page, offset, reason, .. }) => {
                assert_eq!(offset / 1024, page);
                assert!(reason.contains(says), "{reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
