//! How much memory it takes to read long values.

use std::ops::ControlFlow;

use crate::common::TempDir;
use crate::common::counted_memory::peak_during;
use caskfile::Cask;

/// Keys, positions, nodes of the index, and what is verified in pieces.
const SMALL: usize = 1 << 20;

/// Three values, each longer than the one before: a buffer that grows must not keep what it held.
const LENS: [usize; 3] = [8 << 20, 12 << 20, 16 << 20];

fn store(dir: &TempDir) -> Cask {
    let cask = Cask::open(dir.join("store")).unwrap();
    for (name, len) in ["a", "b", "c"].iter().zip(LENS) {
        cask.put(name, vec![7; len]).unwrap();
    }
    cask
}

#[test]
fn a_long_value_is_in_memory_once_while_read() {
    let dir = TempDir::new();
    let cask = store(&dir);
    let longest = LENS[2];
    let mut reused = Vec::new();
    let reads: [(&str, usize, &mut dyn FnMut()); 7] = [
        ("get", longest, &mut || assert_eq!(cask.get("c").unwrap().value.len(), longest)),
        ("get_into, again and again", longest, &mut || {
            reused = Vec::new();
            for key in ["a", "b", "c", "a"] {
                cask.get_into(key, &mut reused).unwrap();
            }
        }),
        ("list of one", longest, &mut || assert_eq!(cask.list("c").unwrap().len(), 1)),
        ("list of all", LENS.iter().sum(), &mut || assert_eq!(cask.list("").unwrap().len(), 3)),
        ("scan", longest, &mut || assert_eq!(cask.scan("").unwrap().filter(Result::is_ok).count(), 3)),
        ("visit", longest, &mut || {
            let mut seen = 0;
            let count = |_: caskfile::PairRef<'_>| {
                seen += 1;
                ControlFlow::Continue(())
            };
            cask.visit("", count).unwrap();
            assert_eq!(seen, 3);
        }),
        ("exists", 0, &mut || assert!(cask.exists("c").unwrap())),
    ];
    for (name, values, read) in reads {
        let peak = peak_during(read);
        assert!(peak <= values + SMALL, "{name}: {peak} bytes for {values} bytes of values");
    }
}

#[test]
fn an_owned_pair_of_a_scan_takes_its_value_twice() {
    let dir = TempDir::new();
    let cask = store(&dir);
    let peak = peak_during(|| assert_eq!(cask.scan_by_index().unwrap().filter(Result::is_ok).count(), 3));
    assert!(peak <= 2 * LENS[2] + SMALL, "{peak} bytes");
}
