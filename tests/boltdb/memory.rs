//! Files that ask for more memory than they have bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use caskfile::boltdb::{BoltError, BoltFile, Contents};

use crate::common::TempDir;
use crate::common::counted_memory::peak_during;
use crate::writer::{SIZE, branch, buckets, file, leaf};

/// Reads a file, and returns how much memory that took.
fn read(path: &Path) -> (Result<Contents, BoltError>, usize) {
    let mut result = None;
    let peak = peak_during(|| result = Some(BoltFile::open(path).and_then(|file| file.visit(|_| Ok(())))));
    (result.unwrap(), peak)
}

/// A branch with a long key, and 61 branches in a row below it, whose keys are all below that one.
#[test]
fn a_long_key_above_a_long_way_is_in_memory_once() {
    let long = [b'z'; 1 << 20];
    let way = 61;
    let above = |below: u64| branch(&[(b"a", below), (&long, below + way + 1)]);
    let first = 2 + (above(0).len() / SIZE) as u64;
    let mut pages = vec![above(first)];
    pages.extend((1..=way).map(|step| branch(&[(b"a", first + step)])));
    pages.extend([leaf(0, &[]), leaf(0, &[])]);
    let bytes = file(&pages, None);

    let directory = TempDir::without_waits();
    let path = directory.join("long-key.db");
    std::fs::write(&path, &bytes).unwrap();
    let (result, peak) = read(&path);
    assert_eq!(result.unwrap(), Contents::default());
    assert!(peak <= 2 * bytes.len(), "{peak} bytes of memory for a file of {}", bytes.len());
}

/// The names are up to 255 bytes long, and say little in the file.
#[test]
fn names_of_many_buckets_in_a_bucket_take_no_more_than_the_file() {
    let mut small = [0; 32];
    small[16 + 8] = 2;
    let keys: Vec<[u8; 2]> = (0..60_000_u16).map(u16::to_be_bytes).collect();
    let inner = leaf(1, &keys.iter().map(|key| (&key[..], &small[..])).collect::<Vec<_>>());
    let mut root = [0; 16];
    root[0] = 3;
    let bytes = file(&[leaf(1, &[(&[b'n'; 252], &root)]), inner], None);

    let directory = TempDir::without_waits();
    let path = directory.join("many-names.db");
    std::fs::write(&path, &bytes).unwrap();
    let (result, peak) = read(&path);
    assert_eq!(result.unwrap().buckets, 60_001);
    assert!(peak <= 3 * bytes.len(), "{peak} bytes of memory for a file of {}", bytes.len());
}

/// Most of the file is a hole, which costs its maker nothing.
#[test]
fn a_page_takes_no_more_than_its_elements_need() {
    let mut bytes = buckets(&[(b"b", vec![(b"key", b"value")])]);
    let more = 1 << 20;
    bytes[3 * SIZE + 12..3 * SIZE + 16].copy_from_slice(&u32::to_le_bytes(more));
    let pages = 4 + u64::from(more);
    bytes[16 + 40..16 + 48].copy_from_slice(&pages.to_le_bytes());
    bytes[16 + 56..16 + 64].copy_from_slice(&[0; 8]);
    let directory = TempDir::without_waits();
    let path = directory.join("hole.db");
    std::fs::write(&path, &bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(pages * SIZE as u64).unwrap();
    let (result, peak) = read(&path);
    match result {
        Err(BoltError::Damaged { page: 3, reason, .. }) => assert!(reason.contains("and it needs 0"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(peak < 1 << 20, "{peak} bytes of memory");
}

/// A bit for each of its pages would be more than there can be.
#[test]
fn a_file_of_countless_pages_takes_memory_for_those_that_it_uses() {
    let pages = 1 << 52;
    let path = Path::new("/dev/shm").join(format!("caskfile-boltdb-{}", std::process::id()));
    let Ok(holes) = File::create(&path) else { return };
    let _remove = remove_at_end(&path);
    // Few file systems have files of this length.
    if holes.set_len(pages * SIZE as u64).is_err() {
        return;
    }
    holes.write_all_at(&file(&[leaf(1, &[])], Some(pages)), 0).unwrap();
    let (result, peak) = read(&path);
    assert_eq!(result.unwrap(), Contents::default());
    assert!(peak < 1 << 20, "{peak} bytes of memory");

    let last = pages - 1;
    let mut far = leaf(0, &[]);
    far[..8].copy_from_slice(&last.to_le_bytes());
    holes.write_all_at(&far, last * SIZE as u64).unwrap();
    holes.write_all_at(&file(&[branch(&[(b"a", last)])], Some(pages)), 0).unwrap();
    match read(&path).0 {
        Err(BoltError::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::OutOfMemory),
        other => panic!("{other:?}"),
    }
}

/// Removes a file at the end of the test.
fn remove_at_end(path: &Path) -> impl Drop + '_ {
    struct Remove<'p>(&'p Path);
    impl Drop for Remove<'_> {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(self.0);
        }
    }
    Remove(path)
}
