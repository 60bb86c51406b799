//! Snapshots of the index: what the library writes is what docs/FORMAT.md says, byte for byte.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Durability, Limits, PutOptions};

use crate::common::dice::Dice;
use crate::common::files::layout::{IMAGE, NOW, RECORD_HEADER, RECORD_HEADER_LEN, SNAPSHOT, number};
use crate::common::files::library::PATH;
use crate::common::files::page;
use crate::common::files::reader::{Reader, Verdict, read};
use crate::common::files::snapshot::{self, ENTRY, HEAD, HEAD_LEN, Image, place, sip_hash};

/// The `file_id` of the page's examples.
const FILE_ID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// A message as the page's table writes it.
fn message(cell: &str) -> Vec<u8> {
    let hex = |digits: &str| u8::from_str_radix(digits, 16).expect("two hexadecimal digits");
    match cell.split(':').next().unwrap_or_default() {
        "none" => Vec::new(),
        "caskfile" => b"caskfile".to_vec(),
        counted if counted.contains('…') => (0..=hex(counted.rsplit(' ').next().unwrap())).collect(),
        bytes => bytes.split(' ').map(hex).collect(),
    }
}

#[test]
fn the_hash_of_the_page_has_the_values_of_its_table() {
    let rows = page::table("Snapshots", "| message | hash |");
    assert!(rows.len() > 5);
    for row in &rows {
        let hash = sip_hash(&FILE_ID, &message(&row[0]));
        let (table, tag) = place(hash);
        let stated = (page::number(&row[1]), page::number(&row[2]) as usize, page::number(&row[3]));
        assert_eq!((hash, table, tag), stated, "{}", row[0]);
    }
    // The vectors of the hash's authors, of 0 to 3 bytes, as other programs have them.
    let published = [0xabac_0158_050f_c4dc, 0xc9f4_9bf3_7d57_ca93, 0x82cb_9b02_4dc7_d44d, 0x8bf8_0ab8_e7dd_f7fb];
    for (len, hash) in published.into_iter().enumerate() {
        assert_eq!(sip_hash(&FILE_ID, &FILE_ID[..len]), hash);
    }
}

#[test]
fn the_example_of_the_page_is_in_the_golden_file() {
    let file = std::fs::read(super::golden_file("snapshot.cask")).unwrap();
    let (_, _, at) = Reader::new(&file).root().unwrap();
    let (start, bytes) = page::dump_of("SNAPSHOT");
    assert_eq!(start as u64, at);
    assert_eq!(
        bytes,
        file[start..start + bytes.len()],
        "the SNAPSHOT of the page (left) and of the golden file (right)"
    );
    let value = &bytes[RECORD_HEADER_LEN..];
    assert_eq!(number(RECORD_HEADER, "kind", &bytes), SNAPSHOT);
    let entry = &value[HEAD_LEN..];
    let (offset, count) = (number(ENTRY, "offset", entry), number(ENTRY, "count", entry));
    let sentence = format!("Its one part is at {offset:#x}. Two of its {} numbers are 1", 1 << snapshot::TABLE_BITS);
    assert!(page::says(&sentence), "the page does not say: {sentence}");
    let image = Image::of(&file, number(HEAD, "covered_to", value) as usize);
    assert_eq!(image.keys, count);
    for (table, words) in image.tables.iter().enumerate().filter(|(_, words)| !words.is_empty()) {
        let row = format!("| {table} | {:#018x} |", words[0]);
        assert!(page::says(&row), "the page lacks {row}");
    }
}

/// Two handles that write, compact, close and open again, on a disk where snapshots are frequent.
fn lived(seed: u64, mut look: impl FnMut(&[u8])) {
    let (disk, mut dice) = (SimDisk::from_seed(seed), Dice::new(seed));
    // Real ones but for those that make snapshots frequent and parts small.
    let Limits { least_cost, least_part, image_bytes, leaf_entries, .. } = Limits::SMALL;
    disk.set_limits(Limits { least_cost, least_part, image_bytes: image_bytes * 64, leaf_entries, ..Limits::REAL });
    let until = PutOptions::new().expires_at(Some(SystemTime::UNIX_EPOCH + Duration::from_millis(2 * NOW)));
    for _ in 0..6 {
        let durability = [Durability::Sync, Durability::Os][dice.below(2) as usize];
        let open = || Cask::open_on(Arc::new(disk.process()), PATH, &Config::new().durability(durability)).unwrap();
        let casks = [open(), open()];
        // The second handle is the last to close, and ends its session then.
        let session = (seed % 3 == 1).then(|| casks[1].session(Duration::from_secs(3600)).unwrap());
        if let Some(session) = &session {
            session.put(&casks[1], "owned", "by a session").unwrap();
        }
        for n in 0..30 + dice.below(60) {
            let cask = casks[dice.below(2) as usize].bucket(["", "b", "bucket"][dice.below(3) as usize]).unwrap();
            let key = format!("key {}", dice.below(300));
            match dice.below(9) {
                0 => cask.delete(&key).unwrap(),
                1 => {
                    let mut batch = Batch::new();
                    batch.put(&key, vec![1; 700]).delete("key 7").bucket("other").put(&key, "in a batch");
                    assert!(cask.write(&batch).unwrap().last_index().is_some());
                }
                2 if seed % 3 == 0 => drop(cask.put_with(&key, "until", &until).unwrap()),
                _ => drop(cask.put(&key, vec![n as u8; dice.below(900) as usize]).unwrap()),
            }
        }
        if dice.one_in(4) {
            casks[0].compact().unwrap();
        }
        if dice.one_in(4) {
            casks[1].list("").unwrap();
        }
        for cask in &casks {
            cask.close().unwrap();
            look(&disk.contents(PATH).unwrap());
        }
    }
}

#[test]
fn every_image_that_the_library_writes_is_that_of_the_log() {
    let (mut compared, mut parts, mut pieces, mut leaves, mut lifetimes) = (0, 0, 0, 0, 0);
    for seed in 0..20 {
        let mut last = 0;
        lived(seed, |file| {
            let Verdict::Store(_) = read(file) else { panic!("seed {seed}: {:?}", read(file)) };
            let Some((_, synced_to, at)) = Reader::new(file).root().filter(|root| root.2 > 0) else { return };
            if std::mem::replace(&mut last, at) == at {
                return;
            }
            let value = &file[at as usize + RECORD_HEADER_LEN..];
            let covered_to = number(HEAD, "covered_to", value);
            let mut image = Image::of(file, covered_to as usize);
            if number(HEAD, "leaves", value) == 0 {
                assert_eq!(value[60..76], [0; 16]);
                image.order.clear();
            }
            leaves = leaves.max(number(HEAD, "leaves", value));
            lifetimes += image.lifetimes.as_ref().map_or(0, Vec::len);
            assert_eq!(snapshot::stored(file).unwrap(), image, "seed {seed}");
            let mut records = Vec::new();
            let (reader, mut o, mut previous) = (Reader::new(file), covered_to as usize, image.covered_seq);
            while o <= at as usize {
                let Ok(record) = reader.record(o, previous) else { panic!("seed {seed}: no record at {o}") };
                records.push((record.kind, record.flags, record.key.len(), record.body_holds));
                (o, previous) = (record.next, record.seq);
            }
            assert!(o as u64 <= synced_to, "seed {seed}: the root states less than the end of its snapshot");
            assert_eq!(records.pop(), Some((SNAPSHOT, 0, 0, true)));
            let images = records.iter().filter(|record| **record == (IMAGE, 0, 0, true)).count();
            (compared, parts, pieces) =
                (compared + 1, parts.max(1 << number(HEAD, "part_bits", value)), pieces.max(images));
        });
    }
    assert!(compared > 40 && parts >= 16 && pieces > 1, "{compared} snapshots, {parts} parts, {pieces} records");
    assert!(leaves > 10 && lifetimes > 100, "{leaves} leaves, {lifetimes} records with a lifetime");
}
