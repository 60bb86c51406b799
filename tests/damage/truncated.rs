//! A file that has lost its end is refused: every truncation, every flipped bit and every zeroed tail of a store that was
//! closed, whose process was killed, or that is open elsewhere.
//!
//! What opens must be a state of the store's history, and what its root states must be there. Values are random, text,
//! and text that is padded with zeros, since zeros at the end of a value look like space ahead of the log.

use std::sync::Arc;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, salvage_on, verify_on};

use crate::common::dice::Dice;
use crate::common::files::reader::Reader;

const STORE: &str = "/store";
const END_MARK: usize = 8;

/// How the last process left the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Closed,
    /// Closed by a handle that has synced nothing before, after another process was killed in a write.
    ClosedAfterAKill,
    Killed,
    /// Another process has it open, and has written last.
    OpenElsewhere,
}

impl Left {
    fn is_closed(self) -> bool {
        matches!(self, Left::Closed | Left::ClosedAfterAKill)
    }
}

/// A process writes a pair and a part of another one, and dies.
fn killed_in_a_write(disk: &SimDisk) {
    let process = disk.process();
    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap();
    cask.put("killed", "").unwrap();
    let its_last = process.clone();
    disk.fail(When::next().of(Verb::WriteAt).by(&process), Fault::Short(40), Repeat::Once);
    disk.before(When::nth(2).of(Verb::WriteAt).by(&process), Repeat::Once, move |_| its_last.kill());
    cask.put("killed", [9; 100]).unwrap_err();
    disk.clear_hooks();
}

#[derive(Debug, Clone, Copy)]
enum Values {
    Random,
    Text,
    PaddedWithZeros,
}

struct Specimen {
    bytes: Vec<u8>,
    /// The store after each of its writes; the last one is what it held.
    states: Vec<Vec<KvPair>>,
    left: Left,
    what: String,
}

fn value(values: Values, dice: &mut Dice) -> Vec<u8> {
    let len = dice.below(60) as usize;
    match values {
        Values::Random => (0..len).map(|_| dice.roll() as u8).collect(),
        Values::Text => vec![b'v'; len],
        Values::PaddedWithZeros => [&b"value"[..], &vec![0; len]].concat(),
    }
}

fn specimen(left: Left, values: Values) -> Specimen {
    let disk = SimDisk::new();
    let mut dice = Dice::new(values as u64);
    let open =
        |durability| Cask::open_on(Arc::new(disk.process()), STORE, &Config::new().durability(durability)).unwrap();
    let (mut states, all) = (vec![Vec::new()], |cask: &Cask| cask.list("").unwrap());
    // The root of the first life is below the end of the second.
    let first = open(Durability::Sync);
    for n in 0..6 {
        first.put(format!("key {n}"), value(values, &mut dice)).unwrap();
        states.push(all(&first));
    }
    first.close().unwrap();
    let after_a_kill = left == Left::ClosedAfterAKill;
    if after_a_kill {
        killed_in_a_write(&disk);
        states.push(all(&open(Durability::Os)));
    }
    let (second, other) = (open(if after_a_kill { Durability::Os } else { Durability::Sync }), open(Durability::Os));
    for n in 0..6 {
        let mut batch = Batch::new();
        batch
            .put(format!("key {n}"), value(values, &mut dice))
            .delete("key 1")
            .put("in a batch", value(values, &mut dice));
        second.write(&batch).unwrap();
        states.push(all(&second));
        if left == Left::OpenElsewhere {
            other.put("other", value(values, &mut dice)).unwrap();
            states.push(all(&other));
        }
    }
    // Not all of the space ahead.
    let end = second.stats().unwrap().log_end as usize + 40;
    let mut bytes = disk.contents(STORE).unwrap();
    if left.is_closed() {
        drop(other);
        second.close().unwrap();
        bytes = disk.contents(STORE).unwrap();
    }
    bytes.truncate(bytes.len().min(end));
    Specimen { bytes, states, left, what: format!("{left:?}, {values:?}") }
}

fn specimens() -> Vec<Specimen> {
    let all = [Left::Closed, Left::ClosedAfterAKill, Left::Killed, Left::OpenElsewhere]
        .map(|left| [Values::Random, Values::Text, Values::PaddedWithZeros].map(|values| specimen(left, values)));
    all.into_iter().flatten().collect()
}

/// What opening says of a file: the number of the state that it shows, or an error.
fn opened(specimen: &Specimen, bytes: &[u8], what: &str) -> Result<usize, Error> {
    let disk = SimDisk::new();
    disk.set_contents(STORE, bytes.to_vec());
    let outcomes: [caskfile::Result<usize>; 2] = [true, false].map(|read_only| {
        let config = Config::new().read_only(read_only).create(false);
        let cask = Cask::open_on(Arc::new(disk.process()), STORE, &config)?;
        let found = cask.list("").unwrap();
        let state = specimen.states.iter().rposition(|state| *state == found);
        Ok(state.unwrap_or_else(|| panic!("{}, {what}: no state of the history: {found:?}", specimen.what)))
    });
    match outcomes {
        [Ok(read), Ok(write)] => {
            assert_eq!(read, write, "{}, {what}: a reader and a writer differ", specimen.what);
            Ok(read)
        }
        [Err(read), Err(write)] => {
            assert_eq!(read.to_string(), write.to_string(), "{}, {what}", specimen.what);
            assert!(
                disk.contents(STORE).unwrap() == bytes && disk.paths().len() == 1,
                "{}, {what}: changed",
                specimen.what
            );
            Err(read)
        }
        other => panic!("{}, {what}: {other:?}", specimen.what),
    }
}

#[test]
fn a_truncated_file_is_refused_below_its_root() {
    for specimen in specimens() {
        let (whole, last) = (&specimen.bytes, specimen.states.len() - 1);
        let stated = Reader::new(whole).stated() as usize;
        assert_eq!(opened(&specimen, whole, "whole").unwrap(), last);
        let mut refused = 0;
        for len in 1..whole.len() {
            let what = format!("cut to {len} of {} bytes, {stated} stated", whole.len());
            match opened(&specimen, &whole[..len], &what) {
                Ok(state) => {
                    assert!(len >= stated + END_MARK, "{}, {what}: accepted", specimen.what);
                    let lost = state < last;
                    assert!(!lost || !specimen.left.is_closed(), "{}, {what}: lost a pair", specimen.what);
                }
                Err(Error::NotCaskfile { .. }) => assert!(len < 64),
                Err(error) => {
                    assert!(matches!(error, Error::Truncated { .. }), "{}, {what}: {error}", specimen.what);
                    assert!((64..stated + END_MARK).contains(&len), "{}, {what}", specimen.what);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, stated + END_MARK - 64, "{}", specimen.what);
    }
}

#[test]
fn a_tail_of_zeros_at_full_length_is_refused_below_the_root() {
    for specimen in specimens() {
        let (whole, last) = (&specimen.bytes, specimen.states.len() - 1);
        let stated = Reader::new(whole).stated() as usize;
        for from in 216..whole.len() {
            let what = format!("zeros from {from}, {stated} stated");
            let mut zeroed = whole.clone();
            zeroed[from..].fill(0);
            match opened(&specimen, &zeroed, &what) {
                Ok(state) => {
                    // Zeros in place of zeros, and of padding, change nothing.
                    let unchanged = whole[from..stated.max(from)].iter().all(|&byte| byte == 0);
                    assert!(unchanged, "{}, {what}: accepted", specimen.what);
                    assert!(state == last || !specimen.left.is_closed(), "{}, {what}: lost a pair", specimen.what);
                }
                Err(Error::Truncated { .. } | Error::Corrupt { .. }) => {
                    assert!(from < stated, "{}, {what}: nothing below the root is lost", specimen.what);
                }
                Err(error) => panic!("{}, {what}: {error}", specimen.what),
            }
        }
    }
}

/// `CASKFILE_BITS=1` flips every bit, and N one in N (5).
#[test]
fn a_flipped_bit_costs_nothing_that_the_root_states() {
    let one_in = std::env::var("CASKFILE_BITS").map_or(5, |one| one.parse().expect("a number"));
    for specimen in specimens() {
        let stated = Reader::new(&specimen.bytes).stated() as usize;
        let last = specimen.states.len() - 1;
        for bit in (0..specimen.bytes.len() * 8).step_by(one_in) {
            let mut flipped = specimen.bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let what = format!("bit {} of byte {}", bit % 8, bit / 8);
            match opened(&specimen, &flipped, &what) {
                // Damage to a slot leaves the other one, which may state less.
                Ok(state) => assert!(state == last || bit / 8 >= stated, "{}, {what}: {state}", specimen.what),
                Err(Error::Corrupt { .. } | Error::NotCaskfile { .. }) => {}
                Err(error) => panic!("{}, {what}: {error}", specimen.what),
            }
        }
    }
}

/// The report says that the end is missing, and salvage copies a state of the history.
#[test]
fn salvage_copies_what_a_truncated_file_has() {
    let specimen = specimen(Left::Closed, Values::Text);
    let stated = Reader::new(&specimen.bytes).stated();
    for len in (88..stated + 8).step_by(7) {
        let disk = SimDisk::new();
        disk.set_contents(STORE, specimen.bytes[..len as usize].to_vec());
        let Err(Error::Damaged { report, .. }) = verify_on(&disk, STORE.as_ref()) else { panic!("{len}: it is sound") };
        assert!(report.truncated && !report.is_sound(), "{len}: {report}");
        assert!(report.to_string().contains(&format!("{} of {len} bytes", report.log_end.min(len))), "{len}: {report}");
        let known = if len >= 216 { Some(stated) } else { report.synced_to };
        assert_eq!(report.synced_to, known, "{len}");
        let copied = salvage_on(&disk, STORE.as_ref(), "/rescued".as_ref()).unwrap();
        assert!(copied.truncated && copied.keys == report.keys, "{len}: {copied}");
        let rescued = Cask::open_on(Arc::new(disk.process()), "/rescued", &Config::new()).unwrap();
        assert_eq!(rescued.list("").unwrap().len() as u64, copied.keys, "{len}");
        drop(rescued);
        disk.remove("/rescued".as_ref()).unwrap();
    }
}

/// `cp` reads the head first, and what it says then is less than what the file has later.
#[test]
fn a_copy_beside_writers_is_never_truncated() {
    let mut opened = 0;
    for seed in 0..60 {
        let (disk, mut dice) = (SimDisk::from_seed(seed), Dice::new(seed));
        let open = || Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
        let (mut one, other) = (open(), open());
        let mut copy: Vec<u8> = Vec::new();
        for n in 0..40 {
            let cask = if n % 3 == 0 { &other } else { &one };
            cask.put(format!("key {}", n % 7), vec![7; dice.below(200) as usize]).unwrap();
            if n % 5 == 0 {
                one.close().unwrap();
                one = open();
            }
            let file = disk.contents(STORE).unwrap();
            let upto = file.len().min(copy.len() + dice.below(400) as usize);
            if upto > copy.len() {
                copy.extend_from_slice(&file[copy.len()..upto]);
            }
        }
        let file = disk.contents(STORE).unwrap();
        if file.len() > copy.len() {
            copy.extend_from_slice(&file[copy.len()..]);
        }
        let there = SimDisk::new();
        there.set_contents(STORE, copy);
        // Parts of different moments can look damaged.
        match Cask::open_on(Arc::new(there), STORE, &Config::new()) {
            Ok(_) => opened += 1,
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "seed {seed}: {error}"),
        }
    }
    assert!(opened > 5, "{opened}");
}
