//! Some thousand files that a disk, a program, a crash or a later version might leave, with the library's verdicts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use caskfile::disk::sim::{Choices, SimDisk};
use caskfile::{Batch, Cask, Config, Durability, Limits, PutOptions};

use super::answer::answer;
use crate::common::dice::Dice;
use crate::common::files::anatomy::specimens_of;
use crate::common::files::cases;
use crate::common::files::forge;
use crate::common::files::layout::{FILE_HEADER_LEN, NOW};
use crate::common::files::library::PATH;
use crate::common::files::oracle::Original;
use crate::common::files::owners::examine;
use crate::common::files::snapshot;

/// A directory of files, with a line for each that has the library's verdict. The library's inspection must agree with it.
pub struct Corpus<'d> {
    directory: &'d Path,
    lines: String,
    pub files: u64,
    pub verdicts: BTreeMap<String, u64>,
}

impl Corpus<'_> {
    /// Fills a directory with `rounds` files that are damaged and forged at random, a tenth as many after power cuts, and
    /// every cut of one small file.
    pub fn write(directory: &Path, rounds: u64) -> Corpus<'_> {
        let mut corpus = Corpus { directory, lines: String::new(), files: 0, verdicts: BTreeMap::new() };
        for case in cases::all() {
            corpus.add(case.name, &case.file);
        }
        let (crashed, closed) = specimens_of(2 << 10);
        for original in [crashed, closed].map(Original::new) {
            corpus.add_cut_and_flipped(&original.bytes);
            corpus.add_damaged_and_forged(&original, rounds / 2);
        }
        corpus.add_snapshots(rounds);
        for seed in 0..rounds / 10 {
            corpus.add("a power cut", &after_a_power_cut(seed));
        }
        fs::write(directory.join("verdicts.ndjson"), &corpus.lines).expect("it can be written");
        corpus
    }

    fn add(&mut self, story: &str, file: &[u8]) {
        examine(story, file);
        let name = format!("{:06}.cask", self.files);
        self.files += 1;
        fs::write(self.directory.join(&name), file).expect("it can be written");
        let mut line = answer(file);
        (line["file"], line["story"]) = (name.into(), story.into());
        *self.verdicts.entry(line["verdict"].as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
        writeln!(self.lines, "{line}").expect("a string takes all");
    }

    /// Every length, and every fifth bit, so that each bit of a byte has its turn.
    fn add_cut_and_flipped(&mut self, file: &[u8]) {
        for len in 0..=file.len() {
            self.add("cut", &file[..len]);
        }
        let mut flipped = file.to_vec();
        for bit in (0..file.len() * 8).step_by(5) {
            flipped[bit / 8] ^= 1 << (bit % 8);
            self.add("flipped", &flipped);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Snapshots with other bits here or there, and snapshots that the library writes.
    fn add_snapshots(&mut self, rounds: u64) {
        let (small, with_lifetimes) = (snapshot::small(6), snapshot::small_with_lifetimes());
        for seed in 0..rounds / 4 {
            let (mut dice, mut of) =
                (Dice::new(seed), if seed % 3 == 0 { with_lifetimes.clone() } else { small.clone() });
            let (image, snapshot) = (of.image_at..of.snapshot_at, of.snapshot_at..of.file.len());
            for _ in 0..=dice.below(2) {
                let range = if dice.one_in(2) { &image } else { &snapshot };
                let at = range.start + dice.below((range.end - range.start) as u64) as usize;
                of.file[at] ^= 1 << dice.below(8);
            }
            self.add("a damaged snapshot", &of.file);
        }
        for seed in 0..rounds / 40 {
            self.add("a snapshot after a life", &snapshot_of_a_life(seed));
        }
    }

    fn add_damaged_and_forged(&mut self, original: &Original, rounds: u64) {
        for seed in 0..rounds {
            let (mut dice, mut file) = (Dice::new(seed), original.bytes.clone());
            for _ in 0..=dice.below(3) {
                if dice.one_in(3) {
                    damage(&mut dice, &mut file);
                } else {
                    forge::at_random(&mut dice, original, &mut file);
                }
            }
            self.add("damaged and forged", &file);
        }
    }
}

/// What a disk or a foreign program may do.
fn damage(dice: &mut Dice, file: &mut Vec<u8>) {
    let at = FILE_HEADER_LEN + dice.below((file.len() - FILE_HEADER_LEN) as u64) as usize;
    let end = file.len().min(at + 1 + dice.below(80) as usize);
    match dice.below(5) {
        0 => file[at..end].fill(0),
        1 => file[at..end].iter_mut().for_each(|byte| *byte ^= dice.roll() as u8),
        2 => file.truncate(at + 1),
        3 => file.resize(file.len() + end - at, 0),
        _ => {
            let piece = file[at / 8 * 8..end].to_vec();
            let to = FILE_HEADER_LEN + dice.below(file.len() as u64) as usize / 8 * 8;
            file.iter_mut().skip(to).zip(piece).for_each(|(byte, new)| *byte = new);
        }
    }
}

/// A store that was closed with a snapshot by one handle, or two, and damaged in every third case.
fn snapshot_of_a_life(seed: u64) -> Vec<u8> {
    let (disk, mut dice) = (SimDisk::from_seed(seed), Dice::new(seed));
    disk.set_limits(Limits { least_cost: 300, least_part: 40, ..Limits::REAL });
    let until = PutOptions::new().expires_at(Some(SystemTime::UNIX_EPOCH + Duration::from_millis(2 * NOW)));
    for _ in 0..=dice.below(2) {
        let cask = Cask::open_on(Arc::new(disk.process()), PATH, &Config::new()).expect("the power is on");
        for _ in 0..20 {
            let key = format!("key {}", dice.below(40));
            match dice.below(5) {
                0 => cask.delete(&key),
                1 => cask.write(Batch::new().put(&key, "in a batch").bucket("b").put("other", vec![1; 900])).map(drop),
                2 if seed % 2 == 0 => cask.put_with(&key, "until", &until).map(drop),
                _ => cask.put(&key, vec![dice.roll() as u8; 800 + dice.below(900) as usize]).map(drop),
            }
            .expect("the power is on");
        }
        cask.close().expect("the power is on");
    }
    let mut file = disk.contents(PATH).expect("it was created durably");
    if dice.one_in(3) {
        damage(&mut dice, &mut file);
    }
    file
}

/// Three writers at the moment of a power cut. Some of their unsynced writes survive, some do not.
fn after_a_power_cut(seed: u64) -> Vec<u8> {
    let (disk, mut dice) = (SimDisk::from_seed(seed), Dice::new(seed));
    let open = |durability| {
        let config = Config::new().durability(durability);
        Cask::open_on(Arc::new(disk.process()), PATH, &config).expect("the power is on")
    };
    let writers = [Durability::Sync, Durability::Os, Durability::Os].map(open);
    for _ in 0..6 + dice.below(20) {
        let (cask, key) = (&writers[dice.below(3) as usize], format!("key {}", dice.below(5)));
        let value = vec![dice.roll() as u8; dice.below(900) as usize];
        let done = match dice.below(5) {
            0 => cask.delete(&key),
            1 => cask.write(Batch::new().put(&key, "in a batch").put("other", value)).map(drop),
            _ => cask.put(&key, value).map(drop),
        };
        done.expect("the power is on");
    }
    let mut file = disk.reboot(&mut Choices::from_seed(seed)).contents(PATH).expect("it was created durably");
    // A part of the space ahead is enough.
    let data_end = file.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    file.truncate((data_end + 64).min(file.len()));
    file
}
