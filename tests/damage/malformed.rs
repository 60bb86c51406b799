//! Malformed files: whatever has happened to a file's bytes, opening it gives the right pairs or a typed error. Never a
//! wrong value, never a key that was deleted, never a panic, and never a change to a file that is refused.
//!
//! Two things say what is right, and neither uses the library. For damage it is the undamaged file ([`oracle`]): what
//! follows from any damage to it is known to the byte. For files that were changed and got right checksums again, so
//! that the checks after the checksums are reached, it is the reader that was made from docs/FORMAT.md ([`reader`]).
//!
//! The corpus is a store of 64 KiB. Every one of its 524,288 bits is flipped, and it is cut at every byte, if
//! `CASKFILE_MALFORMED` is set; without, the small store is treated like this, and the large one in part.
//! What has to be bounded in memory and time is in `malformed_cost.rs`.

mod check;
mod place;

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::TempDir;
use crate::common::dice::Dice;
use crate::common::files::anatomy::{FILE_HEADER, specimens_of};
use crate::common::files::forge::{self, Seal};
use crate::common::files::library;
use crate::common::files::life::live_on;
use crate::common::files::oracle::{Expected, Original};
use crate::common::files::reader::{self, Contents, Verdict};
use check::check;
use place::{Place, Simulated};

const SMALL: usize = 2 << 10;
const LARGE: usize = 64 << 10;

/// A small store and a large one, each as a crash leaves it and as a close does.
fn originals(len: usize) -> [Original; 2] {
    let (crashed, closed) = specimens_of(len);
    [crashed, closed].map(Original::new)
}

/// How many files were tried, by all tests that are run.
static FILES: AtomicU64 = AtomicU64::new(0);

/// Counts a file that is about to be tried, and says now and then how many there were, the last time at a test's end.
fn count_file() {
    struct Count;
    impl Drop for Count {
        fn drop(&mut self) {
            println!("files up to now: {}", FILES.load(Ordering::Relaxed));
        }
    }
    thread_local!(static COUNT: Count = const { Count });
    COUNT.with(|_| FILES.fetch_add(1, Ordering::Relaxed));
}

/// Every case, or one in `many` of them. They are chosen by a prime number so that all bits of a byte get their turn.
fn one_in(many: usize) -> usize {
    if std::env::var_os("CASKFILE_MALFORMED").is_some() { 1 } else { many }
}

fn check_truncations(place: &dyn Place, original: &Original, one_in: usize) {
    for len in (1..original.bytes.len()).step_by(one_in) {
        check(place, original, &original.bytes[..len], &format_args!("cut to {len} bytes"));
    }
}

fn check_flips(place: &dyn Place, original: &Original, one_in: usize) {
    let mut damaged = original.bytes.clone();
    for bit in (0..damaged.len() * 8).step_by(one_in) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(place, original, &damaged, &format_args!("bit {} of byte {} flipped", bit % 8, bit / 8));
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Overwrites ranges that start and end where words do.
fn check_overwrites(place: &dyn Place, original: &Original, with: u8, lens: &[usize]) {
    for &len in lens {
        for start in (FILE_HEADER..original.bytes.len()).step_by(8) {
            let mut damaged = original.bytes.clone();
            let end = damaged.len().min(start + len);
            damaged[start..end].fill(with);
            check(place, original, &damaged, &format_args!("bytes {start} to {end} overwritten with {with}"));
        }
    }
}

#[test]
fn every_truncation_leaves_a_prefix_of_the_history() {
    for original in originals(SMALL) {
        check_truncations(&Simulated::new(), &original, 1);
    }
    for original in originals(LARGE) {
        check_truncations(&Simulated::new(), &original, one_in(211));
    }
}

#[test]
fn every_flipped_bit_of_a_closed_file_is_harmless_or_found() {
    for (len, one_in) in [(SMALL, 1), (LARGE, one_in(509))] {
        let [_, closed] = originals(len);
        // Here all is proven: what can be opened has lost nothing.
        let all = closed.pairs();
        let mut damaged = closed.bytes.clone();
        for bit in 0..damaged.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            if bit % one_in == 0 {
                let expected = closed.expected(&damaged);
                assert!(!matches!(expected, Expected::Holds(pairs) if pairs != all), "bit {bit}");
            }
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        check_flips(&Simulated::new(), &closed, one_in);
    }
}

#[test]
fn every_flipped_bit_of_a_crashed_file_leaves_a_prefix() {
    for (len, one_in) in [(SMALL, 1), (LARGE, one_in(509))] {
        let [crashed, _] = originals(len);
        check_flips(&Simulated::new(), &crashed, one_in);
    }
}

#[test]
fn a_file_without_maps_and_holes_is_judged_alike() {
    let disk = Simulated::without_maps_and_holes();
    for (len, one_in) in [(SMALL, 7), (LARGE, 5003)] {
        for original in originals(len) {
            check_truncations(&disk, &original, one_in);
            check_flips(&disk, &original, one_in);
        }
    }
}

#[test]
fn real_files_are_judged_alike() {
    let directory = TempDir::new();
    for original in originals(SMALL) {
        check_truncations(&directory, &original, 61);
        check_flips(&directory, &original, 61);
    }
}

#[test]
fn ranges_that_read_as_zeros_or_ones_are_found() {
    let disk = Simulated::new();
    for original in originals(SMALL) {
        check_overwrites(&disk, &original, 0, &[8, 24, 64, 4096]);
        check_overwrites(&disk, &original, 0xff, &[8, 512]);
    }
}

/// One to four of everything that the other tests do one at a time, and pieces of the file in other places.
fn damage(dice: &mut Dice, file: &mut Vec<u8>) {
    for _ in 0..=dice.below(3) {
        // Seldom in the file header: damage to that is soon found.
        let at = if dice.one_in(50) { dice.below(64) } else { dice.below(file.len() as u64).max(64) } as usize;
        let at = at.min(file.len() - 1);
        let end = file.len().min(at + 1 + dice.below(600) as usize);
        match dice.below(6) {
            0 | 1 => file[at] ^= 1 << dice.below(8),
            2 => file[at..end].fill(0),
            3 => file[at..end].iter_mut().for_each(|byte| *byte = dice.roll() as u8),
            4 => {
                let piece = file[at..end].to_vec();
                let to = FILE_HEADER + dice.below(file.len() as u64) as usize / 8 * 8;
                file.iter_mut().skip(to).zip(piece).for_each(|(byte, new)| *byte = new);
            }
            _ => file.truncate(at.max(FILE_HEADER + 1)),
        }
    }
}

#[test]
fn several_damages_at_once_are_judged_by_the_first() {
    let mut verdicts = [0; 4];
    for (len, rounds) in [(SMALL, 6_000), (LARGE, 60_000 / one_in(100))] {
        let originals = originals(len);
        for seed in 0..rounds as u64 {
            let mut dice = Dice::new(seed);
            let original = &originals[dice.below(2) as usize];
            let mut damaged = original.bytes.clone();
            damage(&mut dice, &mut damaged);
            verdicts[match original.expected(&damaged) {
                Expected::Foreign => 0,
                Expected::Corrupt => 1,
                Expected::Holds(_) => 2,
                Expected::Truncated => 3,
            }] += 1;
            check(&Simulated::new(), original, &damaged, &format_args!("{len} bytes, dice {seed}"));
        }
    }
    println!("foreign, corrupt, held, truncated: {verdicts:?}");
    assert!(verdicts.iter().all(|&count| count > 50), "hardly ever tried: {verdicts:?}");
}

/// What the page's reader says of a file is what the library says, and what it does.
fn agree(file: &[u8], what: &dyn Display) -> Verdict {
    let ours = reader::read(file);
    assert_eq!(ours, library::verdict(file), "{what}: the page's reader (left) and the library (right)");
    ours
}

/// As [`agree`]; then a store that opens is lived with.
fn agree_and_live_on(file: &[u8], what: &dyn Display) -> Verdict {
    count_file();
    let verdict = agree(file, what);
    if let Verdict::Store(contents) = &verdict {
        live_on(file, Contents::clone(contents));
    }
    verdict
}

/// How often each verdict came, as the variants are listed.
#[derive(Debug, Default)]
struct Tally([usize; 6]);

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        self.0[match verdict {
            Verdict::Store(contents) if contents.torn == 0 => 0,
            Verdict::Store(_) => 1,
            Verdict::Corrupt { .. } => 2,
            Verdict::UnsupportedRecord { .. } => 3,
            Verdict::NotCaskfile | Verdict::UnsupportedVersion => 4,
            Verdict::Truncated { .. } => 5,
        }] += 1;
    }
}

/// Each field of each record gets each value at which something changes, and each time no checksum is made right, or
/// the header's, or the body's as well.
fn check_boundaries(len: usize, one_in: usize) -> Tally {
    let (mut tally, mut number) = (Tally::default(), 0);
    for original in originals(len) {
        for record in &original.records {
            for field in forge::fields(record) {
                for value in forge::boundaries(&original, record, field) {
                    for seal in Seal::ALL {
                        number += 1;
                        if number % one_in == 0 {
                            let mut file = original.bytes.clone();
                            field.set(&mut file, record, value, seal);
                            let what = format_args!("{} of {} set to {value:#x}, {seal:?}", field.name, record.at);
                            tally.count(&agree_and_live_on(&file, &what));
                        }
                    }
                }
            }
        }
    }
    tally
}

#[test]
fn every_field_at_its_boundaries_is_judged_as_documented() {
    let small = check_boundaries(SMALL, one_in(5));
    assert!(small.0[..4].iter().all(|&count| count > 100), "hardly ever tried: {small:?}");
    println!("{small:?} {:?}", check_boundaries(LARGE, one_in(997)));
}

#[test]
fn random_damage_and_forgery_is_judged_as_documented() {
    let (originals, mut tally) = (originals(SMALL), Tally::default());
    for seed in 0..200_000 / one_in(100) as u64 {
        let mut dice = Dice::new(seed);
        let original = &originals[dice.below(2) as usize];
        let mut file = original.bytes.clone();
        for _ in 0..=dice.below(3) {
            match dice.below(4) {
                0 => damage(&mut dice, &mut file),
                1 => file.resize(file.len() + dice.below(80) as usize, 0),
                _ => forge::at_random(&mut dice, original, &mut file),
            }
        }
        tally.count(&agree_and_live_on(&file, &format_args!("dice {seed}")));
    }
    println!("{tally:?}");
    assert!(tally.0[..4].iter().all(|&count| count > 50), "hardly ever tried: {tally:?}");
}
