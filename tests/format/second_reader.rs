//! The library and docs/reader/caskfile_reader.py agree on every file in tests/golden, and on some thousand that are
//! generated and damaged. The reader was written from docs/FORMAT.md alone. `CASKFILE_FORMAT_ROUNDS` is the number of
//! files that are damaged at random (2,000).

mod answer;
mod corpus;
mod files;
mod golden;
mod shown;

use std::path::Path;
use std::process::Command;

use crate::common::TempDir;
use crate::common::patience::with_a_deadline;
use corpus::Corpus;

#[test]
fn the_library_and_the_reader_in_docs_agree_on_every_file() {
    let Some(()) = with_a_deadline(the_library_and_the_reader_in_docs_agree_on_every_file) else { return };
    let python = "python3";
    if std::env::var_os("CI").is_none() && Command::new(python).arg("--version").output().is_err() {
        println!("no {python} here: nothing was compared");
        return;
    }
    let rounds = std::env::var("CASKFILE_FORMAT_ROUNDS").map_or(2_000, |rounds| rounds.parse().expect("a number"));
    let directory = TempDir::new();
    let corpus = Corpus::write(directory.path(), rounds);
    println!("{} files, the library says: {:?}", corpus.files, corpus.verdicts);
    for verdict in
        ["whole", "whole, but for its end mark", "torn", "Corrupt", "Truncated", "UnsupportedRecord", "NotCaskfile"]
    {
        // Each verdict is common enough to be a real test.
        assert!(corpus.verdicts.get(verdict).is_some_and(|&n| n >= 50), "{verdict}: {:?}", corpus.verdicts);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/second_reader/compare.py");
    let compared = Command::new(python).arg(script).args([&golden::directory(), directory.path()]).output();
    let compared = compared.expect("python3 is there");
    print!("{}", String::from_utf8_lossy(&compared.stdout));
    assert!(compared.status.success(), "they disagree:\n{}", String::from_utf8_lossy(&compared.stderr));
}
