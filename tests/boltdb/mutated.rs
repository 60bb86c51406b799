//! Thousands of files with random mistakes: each is read as a second reader reads it, or refused with the page.

use std::os::unix::fs::FileExt;

use caskfile::boltdb::{BoltError, BoltFile};

use crate::common::TempDir;
use crate::common::counted_memory::peak_during;
use crate::common::dice::Dice;
use crate::naive::{checksum, read};
use crate::{data, pairs};

const FILES: u64 = 10_000;

/// Makes one to three mistakes.
fn mutate(bytes: &mut [u8], page_size: usize, dice: &mut Dice) {
    let pages = bytes.len() / page_size;
    for _ in 0..=dice.below(3) {
        let page = dice.below(pages as u64) as usize * page_size;
        // Most mistakes are where numbers are.
        let near = page + dice.below(64) as usize;
        let anywhere = dice.below(bytes.len() as u64) as usize;
        match dice.below(8) {
            0 => bytes[anywhere] = dice.roll() as u8,
            1 => bytes[anywhere] ^= 1 << dice.below(8),
            2 => bytes[near] = dice.choose(&[0, 1, 2, 3, 0x10, 0x7f, 0x80, 0xff]),
            3 => bytes[near] ^= 1 << dice.below(8),
            4 => bytes[near] = bytes[near].wrapping_add(dice.choose(&[1, 0xff, 16, 0xf0])),
            5 => {
                let field = page + 16 + 4 * dice.below(60) as usize;
                let number = dice.choose(&[0, 1, 15, 16, 1024, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff_u32]);
                bytes[field..field + 4].copy_from_slice(&number.to_le_bytes());
            }
            6 => {
                let to = dice.below(pages as u64) as usize * page_size;
                bytes.copy_within(page..page + page_size, to);
                // As the page that it stands for.
                let number = (to / page_size) as u64;
                bytes[to..to + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ => {
                let from = 16 + 16 * dice.below(8) as usize;
                let to = 16 + 16 * dice.below(8) as usize;
                bytes.copy_within(page + from..page + from + 16, page + to);
            }
        }
    }
    // Most of what is wrong in a meta page would be found by its checksum alone.
    if !dice.one_in(4) {
        for meta in [16, page_size + 16] {
            let sum = checksum(&bytes[meta..]);
            bytes[meta + 56..meta + 64].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

#[test]
fn ten_thousand_mutated_files_are_read_right_or_refused_with_the_page() {
    let directory = TempDir::without_waits();
    let files: Vec<(Vec<u8>, usize)> = [("shapes.db", 1024), ("libkv.db", 0), ("boltdb.db", 4096), ("small.db", 4096)]
        .map(|(name, page_size)| {
            let bytes = std::fs::read(data(name)).unwrap();
            let stated = u32::from_le_bytes(bytes[24..28].try_into().unwrap()) as usize;
            assert!(page_size == 0 || page_size == stated);
            (bytes, stated)
        })
        .into();
    let path = directory.join("mutated.db");
    let (mut right, mut damaged, mut other) = (0, 0, 0);
    for seed in 0..FILES {
        let mut dice = Dice::new(seed);
        // Half of them of all shapes.
        let (original, page_size) = &files[(dice.below(6) as usize).saturating_sub(2)];
        let mut bytes = original.clone();
        mutate(&mut bytes, *page_size, &mut dice);
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();

        // Checked without keeping anything, so that only the reader's own memory counts.
        let mut checked = None;
        let peak = peak_during(|| checked = Some(BoltFile::open(&path).and_then(|file| file.visit(|_| Ok(())))));
        assert!(peak <= 4 * bytes.len() + 65_536, "seed {seed}: {peak} bytes of memory for a file of {}", bytes.len());
        let result = BoltFile::open(&path).and_then(|file| pairs(&file));
        assert_eq!(result.is_ok(), checked.is_some_and(|checked| checked.is_ok()), "seed {seed}");
        match result {
            Ok(pairs) => {
                let second = read(&bytes, *page_size);
                let differs = pairs.iter().zip(&second).position(|(one, other)| one != other);
                assert!(pairs == second, "seed {seed}: pair {differs:?} is read wrong");
                right += 1;
            }
            Err(BoltError::Damaged { page, offset, reason, .. }) => {
                assert!(page < (bytes.len() / page_size) as u64, "seed {seed}: page {page}: {reason}");
                let start = page * *page_size as u64;
                assert!((start..bytes.len() as u64).contains(&offset), "seed {seed}: page {page}, {offset}: {reason}");
                damaged += 1;
            }
            Err(BoltError::NotBolt { .. } | BoltError::Cut { .. } | BoltError::Refused { .. }) => other += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    println!("{right} read right, {damaged} damaged, {other} refused for another reason");
    assert!(right > FILES / 10 && damaged > FILES / 10 && other > 0);
}
