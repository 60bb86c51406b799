//! What a handle does when bytes that it has validated are changed under it.

mod every_bit;

use std::sync::Arc;

use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Error, ReadMode};

const STORE: &str = "/store";

fn open(disk: &SimDisk) -> Result<Cask, Error> {
    Cask::open_on(Arc::new(disk.process()), STORE, &Config::default())
}

/// Flips a bit of the first place in the file where `bytes` stand.
fn damage(disk: &SimDisk, bytes: &[u8]) {
    let mut contents = disk.contents(STORE).unwrap();
    let at = contents.windows(bytes.len()).position(|window| window == bytes).expect("the bytes are in the file");
    contents[at] ^= 1;
    disk.set_contents(STORE, contents);
}

/// The key or the header of a record is damaged in the file. A put of that key was appended before the index was asked for
/// the old record, which does not verify. Then the log was read again, up to the damage in the middle of the file: the
/// handle was poisoned, every read failed, and once the next write went there, over records that were whole.
#[test]
fn a_put_over_a_damaged_record_writes_nothing() {
    // A byte of the key, and one of the index in the header, 24 bytes long, before the bucket's length byte and the key.
    for back in [0, 1 + 24 - 8] {
        for batch in [false, true] {
            let disk = SimDisk::new();
            let cask = open(&disk).unwrap();
            cask.put("damaged key", "old").unwrap();
            cask.put("other", "whole").unwrap();
            let mut contents = disk.contents(STORE).unwrap();
            let key = contents.windows(11).position(|window| window == b"damaged key").unwrap();
            contents[key - back] ^= 1;
            disk.set_contents(STORE, contents.clone());

            let put = if batch {
                let mut batch = Batch::new();
                batch.put("new", "value").put("damaged key", "new");
                cask.write(&batch).map(drop)
            } else {
                cask.put("damaged key", "new").map(drop)
            };
            assert!(matches!(put, Err(Error::Corrupt { .. })), "{put:?}");
            assert_eq!(disk.contents(STORE).unwrap(), contents, "nothing is written");
            assert_eq!(cask.get("other").unwrap().value, b"whole");
            cask.put("other", "newer").unwrap();
            assert!(matches!(cask.get("new"), Err(Error::KeyNotFound)));
            assert!(matches!(open(&disk), Err(Error::Corrupt { .. })));
        }
    }
}

#[test]
fn a_scan_by_index_reports_damage_and_goes_on() {
    let disk = SimDisk::new();
    let cask = open(&disk).unwrap();
    for key in ["first", "damaged key", "third", "fourth", "last"] {
        cask.put(key, format!("value of {key}")).unwrap();
    }
    damage(&disk, b"damaged key");
    damage(&disk, b"value of fourth");
    let found: Vec<_> = cask.scan_by_index().unwrap().map(|next| next.map(|(_, pair)| pair.key)).collect();
    let keys: Vec<_> = found.iter().map(|next| next.as_ref().ok().map(|key| &key[..])).collect();
    assert_eq!(keys, [Some(&b"first"[..]), None, Some(b"third"), None, Some(b"last")]);
    assert!(found.iter().flat_map(|next| next.as_ref().err()).all(|error| matches!(error, Error::Corrupt { .. })));

    // The file is shorter than it was.
    let contents = disk.contents(STORE).unwrap();
    let cut = contents.windows(4).position(|window| window == b"last").unwrap();
    let mut pairs = cask.scan_by_index().unwrap();
    disk.set_contents(STORE, contents[..cut].to_vec());
    assert!(pairs.by_ref().take(4).filter(|next| next.is_ok()).count() == 2);
    assert!(matches!(pairs.next(), Some(Err(Error::Corrupt { .. }))));
    assert!(pairs.next().is_none());
}

/// The name of a long bucket is in the log alone, so the start of the next bucket is unknown.
#[test]
fn a_scan_of_buckets_ends_where_a_name_is_damaged() {
    let disk = SimDisk::new();
    let cask = open(&disk).unwrap();
    for name in ["first", "a second bucket with a long name", "third"] {
        cask.bucket(name).unwrap().put("key", "value").unwrap();
    }
    let buckets = cask.scan_buckets().unwrap();
    damage(&disk, b"a second bucket");
    let found: Vec<_> = buckets.take(9).map(|next| next.map(|(name, _)| name)).collect();
    // Shorter names come first.
    assert_eq!(found[..2].iter().flatten().collect::<Vec<_>>(), [b"first", b"third"]);
    assert!(matches!(found[2..], [Err(Error::Corrupt { .. })]), "{found:?}");
}

/// A log without records was recognised by the end of its file header, which was compared with what the handle would
/// have written there. Where that is something else (a file of a later minor version, whose reserved bytes are in use,
/// or another store that was copied over this one), a listing read the log again for ever.
#[test]
fn a_foreign_but_valid_header_is_read_until_it_changes() {
    let disk = SimDisk::new();
    open(&disk).unwrap().close().unwrap();
    let mut header = disk.contents(STORE).unwrap();
    // Without `ROOTS`, so that the file header is all that there is.
    header.truncate(72);
    header[12] = 0;
    header[64..].fill(0);
    header[48..60].fill(7);
    let crc = crc32(&header[..60]);
    header[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.set_contents(STORE, header.clone());
    let cask = open(&disk).unwrap();
    assert_eq!(cask.list("").unwrap(), []);

    header[16..32].fill(9);
    let crc = crc32(&header[..60]);
    header[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.set_contents(STORE, header.clone());
    assert!(matches!(cask.list(""), Err(Error::Replaced { .. })));
    assert!(matches!(cask.put("key", "value"), Err(Error::Replaced { .. })));
    assert_eq!(disk.contents(STORE).unwrap(), header);

    header[0] = 0;
    disk.set_contents(STORE, header);
    assert!(matches!(cask.list(""), Err(Error::Replaced { .. } | Error::NotCaskfile { .. })));
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// An earlier copy of the file is put back, in place, and another process goes on from there. A handle that was
/// open all the time knows a last record that is no longer there.
#[test]
fn a_log_that_went_back_and_diverged_is_read_again() {
    let disk = SimDisk::new();
    let cask = open(&disk).unwrap();
    cask.put("key", "1").unwrap();
    let earlier = disk.contents(STORE).unwrap();
    // So long that what comes in its place is not longer.
    cask.put("lost", vec![b'x'; 1000]).unwrap();
    disk.set_contents(STORE, earlier);
    let other = open(&disk).unwrap();
    other.put("key", "2").unwrap();
    other.put("other", "way").unwrap();
    assert!(matches!(cask.get("lost"), Err(Error::KeyNotFound)));
    assert_eq!(cask.get("key").unwrap().value, b"2");
    cask.put("ours", "goes on there").unwrap();
    assert_eq!(other.list("").unwrap(), cask.list("").unwrap());
    cask.verify().unwrap();
}

/// Another process's recovery cuts a record off, in the middle of a call that reads it, and writes another one there. The
/// call may answer from before that or from after it, but nothing is damaged.
#[test]
fn a_record_cut_off_while_it_is_read_is_no_damage() {
    type Read = fn(&Cask) -> Result<Option<usize>, Error>;
    let read: [Read; 4] = [
        |cask| cask.get("key").map(|pair| Some(pair.value.len())),
        |cask| cask.exists("key").map(|there| there.then_some(LEN)),
        |cask| cask.list("").map(|pairs| pairs.iter().find(|pair| pair.key == b"key").map(|pair| pair.value.len())),
        // SAFETY: the simulated disk lends nothing, so the slice is a copy.
        |cask| unsafe { cask.mapped() }.get("key").map(|value| Some(value.len())),
    ];
    const LEN: usize = 100_000;
    let mut cut_in_the_middle = 0;
    for (nth, read) in read.iter().enumerate() {
        for moment in 1..20 {
            let disk = SimDisk::new();
            let process = disk.process();
            let config = Config::default().read_mode(ReadMode::Pread);
            let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
            cask.put("first", "stays").unwrap();
            let earlier = disk.contents(STORE).unwrap();
            cask.put("key", vec![7; LEN]).unwrap();
            let other = move |disk: &SimDisk| {
                disk.set_contents(STORE, earlier.clone());
                open(disk).unwrap().put("other", vec![9; LEN]).unwrap();
            };
            process.before(When::nth(moment).of(Verb::ReadAt).by(&process), Repeat::Once, other);
            let answer = read(&cask);
            let was_cut = disk.contents(STORE).unwrap().contains(&9);
            process.clear_hooks();
            match answer {
                Ok(Some(LEN)) => {}
                Ok(None) | Err(Error::KeyNotFound) => cut_in_the_middle += usize::from(was_cut),
                other => panic!("call {nth}, cut before read {moment}: {other:?}"),
            }
        }
    }
    assert!(cut_in_the_middle > 0);
}
