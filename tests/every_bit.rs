//! Every truncation and every flipped bit of small files, one as a close leaves it and one as a crash does: right
//! values or a typed error, and a store that goes on. Never a wrong value, and never a key that was deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Durability, Error};

const PATH: &str = "/store";
const BUCKETS: [&str; 2] = ["", "bucket"];

/// All pairs of both buckets, with their indexes.
type State = BTreeMap<(usize, Vec<u8>), (Vec<u8>, u64)>;

fn state(cask: &Cask) -> caskfile::Result<State> {
    let mut state = State::new();
    for (number, name) in BUCKETS.iter().enumerate() {
        for pair in cask.bucket(name)?.list("")? {
            state.insert((number, pair.key), (pair.value, pair.last_index));
        }
    }
    Ok(state)
}

fn open(disk: &SimDisk, durability: Durability) -> caskfile::Result<Cask> {
    Cask::open_on(Arc::new(disk.process()), PATH, &Config::new().create(false).durability(durability))
}

/// A file with every kind of record that stays in a store, and the states that it went through.
struct Specimen {
    file: Vec<u8>,
    history: Vec<State>,
}

/// Two processes that take turns, so that their claims have to be stated; one more write at the end if nobody is to
/// close the store.
fn specimen(closed: bool) -> Specimen {
    let disk = SimDisk::new();
    let one = Cask::open_on(Arc::new(disk.process()), PATH, &Config::new()).unwrap();
    let mut history = vec![State::new()];
    let two = open(&disk, Durability::Sync).unwrap();
    let steps: [&dyn Fn(); 7] = [
        &|| one.put("deleted", "must not come back").unwrap(),
        &|| two.put("kept", "first").unwrap(),
        &|| one.delete("deleted").unwrap(),
        &|| two.put("kept", "second").unwrap(),
        &|| {
            let mut batch = Batch::new();
            batch.put("batch", "1").bucket("bucket").put("batch", "2").put("odd length", [9; 29]);
            one.write(&batch).unwrap();
        },
        &|| two.bucket("bucket").unwrap().delete("odd length").unwrap(),
        &|| one.put("last", "").unwrap(),
    ];
    for step in steps {
        step();
        history.push(state(&one).unwrap());
    }
    if closed {
        one.close().unwrap();
        two.close().unwrap();
    }
    let mut file = disk.contents(PATH).unwrap();
    if !closed {
        // What the file is extended by is zeros; a few of them stand for all.
        file.truncate(two.stats().unwrap().log_end as usize + 40);
    }
    Specimen { file, history }
}

/// Opens a file and goes on with it: write, close, reopen, read. Returns what was in it.
fn live_on(file: &[u8]) -> caskfile::Result<State> {
    let disk = SimDisk::new();
    disk.set_contents(PATH, file.to_vec());
    let first = open(&disk, Durability::Sync).and_then(|cask| Ok((state(&cask)?, cask)));
    let (found, cask) = match first {
        Ok(opened) => opened,
        Err(error) => {
            assert_eq!(disk.contents(PATH).as_deref(), Some(file), "a file that was refused has been changed: {error}");
            return Err(error);
        }
    };
    let mut expected = found.clone();
    let new = cask.atomic_put("after", "damage", None).unwrap();
    let highest = found.values().map(|(_, index)| *index).max().unwrap_or(0);
    assert!(new.last_index > highest, "an index was given out again");
    expected.insert((0, new.key), (new.value, new.last_index));
    cask.delete("kept").unwrap();
    expected.remove(&(0, b"kept".to_vec()));
    cask.close().unwrap();
    let again = open(&disk, Durability::Os).unwrap();
    assert_eq!(state(&again).unwrap(), expected);
    again.verify().unwrap();
    Ok(found)
}

fn is_typed(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::NotCaskfile { .. } | Error::UnsupportedVersion { .. })
}

/// Lives on with `file`: what is found is one of `allowed`, or the error is typed. Returns whether it opened.
fn check(file: &[u8], allowed: &[State], story: &dyn std::fmt::Display) -> bool {
    match live_on(file) {
        Ok(found) => {
            assert!(allowed.contains(&found), "{story}: no state of the history: {found:?}");
            true
        }
        Err(error) => {
            assert!(is_typed(&error), "{story}: {error:?}");
            false
        }
    }
}

#[test]
fn every_truncation_is_a_prefix_of_the_history_or_a_typed_error() {
    for closed in [true, false] {
        let Specimen { file, history } = specimen(closed);
        let opened = (0..file.len())
            .filter(|&len| check(&file[..len], &history, &format_args!("closed: {closed}, cut to {len} bytes")))
            .count();
        assert_eq!(opened, file.len() - 64, "whatever has a file header opens");
    }
}

#[test]
fn every_flipped_bit_of_a_closed_file_leaves_the_last_state_or_a_typed_error() {
    let Specimen { file, history } = specimen(true);
    let last = &history[history.len() - 1..];
    let mut refused = 0;
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let story = format!("bit {} of byte {} of {}", bit % 8, bit / 8, file.len());
        refused += usize::from(!check(&damaged, last, &story));
    }
    assert!(refused > file.len() * 8 / 2, "only padding and what stands behind the last proof may be damaged unseen");
}

#[test]
fn every_flipped_bit_of_a_file_as_a_crash_leaves_it_is_a_prefix_of_the_history_or_a_typed_error() {
    let Specimen { file, history } = specimen(false);
    let (mut opened, mut refused) = (0, 0);
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let story = format!("bit {} of byte {} of {}", bit % 8, bit / 8, file.len());
        if check(&damaged, &history, &story) { opened += 1 } else { refused += 1 }
    }
    assert!(opened > 0 && refused > opened, "{opened} opened, {refused} refused: most of it was proven durable");
}
