//! The files in tests/golden: one for each situation, with its verdict and contents. Every later version must read them
//! alike, so a file that is there never changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::answer::{answer, records};
use super::files;
use crate::common::files::layout::crc32;
use crate::common::files::page;

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The list of files that must not change: CRC-32, length and name of each.
const FROZEN: &str = "FROZEN";

/// The names of all files, and their bytes.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let entries = directory().read_dir().expect("it is part of the sources");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let frozen = paths.filter(|path| path.extension().is_some_and(|ending| ending == "cask" || ending == "json"));
    let named = frozen.map(|path| {
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        (name, fs::read(&path).expect("it can be read"))
    });
    named.collect()
}

fn line((name, bytes): (&String, &Vec<u8>)) -> String {
    format!("{:08x} {:6} {name}\n", crc32(bytes), bytes.len())
}

/// The library's verdict, and the records that count.
fn expected(story: &str, file: &[u8]) -> Value {
    let mut expected = answer(file);
    if let Some(end) = expected["end"].as_u64() {
        expected["records"] = records(file, end).into();
    }
    expected["story"] = story.into();
    expected
}

#[test]
fn the_golden_files_are_the_ones_that_were_frozen() {
    let listed = fs::read_to_string(directory().join(FROZEN)).expect("it is part of the sources");
    let found: String = golden().iter().map(line).collect();
    assert_eq!(
        found, listed,
        "a golden file (left) is not what it was (right): restore it, and add another one instead"
    );
}

#[test]
fn the_library_says_of_every_golden_file_what_is_written_beside_it() {
    let golden = golden();
    let mut verdicts = BTreeMap::new();
    for (name, file) in golden.iter().filter(|(name, _)| name.ends_with(".cask")) {
        let written = golden.get(&name.replace(".cask", ".json")).unwrap_or_else(|| panic!("{name} has no .json"));
        let written: Value = serde_json::from_slice(written).expect("it is JSON");
        let story = written["story"].as_str().expect("it has a story");
        assert_eq!(expected(story, file), written, "{name}: {story}");
        *verdicts.entry(written["verdict"].to_string()).or_insert(0) += 1;
    }
    println!("golden files: {verdicts:?}");
    assert_eq!(verdicts.len(), 8, "a verdict that no golden file has: {verdicts:?}");
}

#[test]
fn the_pages_example_is_a_golden_file() {
    assert_eq!(golden()["worked-example.cask"], page::dump().0);
}

/// Writes the missing golden files, and adds them to the list:
/// `cargo test --test format -- --ignored write_the_golden_files_that_are_new`.
#[test]
#[ignore = "writes new golden files"]
fn write_the_golden_files_that_are_new() {
    let there = golden();
    for file in files::all() {
        let path = directory().join(file.name);
        // An earlier version may have made the file that is there.
        let bytes = there.get(&format!("{}.cask", file.name)).unwrap_or(&file.bytes);
        fs::write(path.with_extension("cask"), bytes).expect("it can be written");
        if !there.contains_key(&format!("{}.json", file.name)) {
            let text = serde_json::to_string_pretty(&expected(file.story, bytes)).expect("plain values");
            fs::write(path.with_extension("json"), text + "\n").expect("it can be written");
        }
    }
    let now = golden();
    assert!(there.iter().all(|(name, bytes)| now.get(name) == Some(bytes)), "what is there stays as it is");
    fs::write(directory().join(FROZEN), now.iter().map(line).collect::<String>()).expect("it can be written");
}
