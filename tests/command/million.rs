//! A million lines in and out again: `cargo test --release --features cli --test command million::`.

use std::fmt::Write;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::TempDir;
use crate::common::dice::Dice;

const LINES: usize = 1_000_000;

/// A directory with `input.tsv`: a million lines in the order of their keys, as an export has them, with values of
/// other lengths and some with bytes that need escapes.
fn directory_with_input() -> TempDir {
    let directory = TempDir::new();
    let mut dice = Dice::new(LINES as u64);
    let mut input = String::new();
    for number in 0..LINES {
        write!(input, "key{number:012}\t{:016x}", dice.roll()).unwrap();
        for _ in 0..dice.below(5) {
            input.push_str(dice.choose(&["some more of it ", "grün ", "\\n\\t", "\\xff\\x00", ";"]));
        }
        input.push('\n');
    }
    fs::write(directory.join("input.tsv"), input).unwrap();
    directory
}

fn command(directory: &TempDir, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caskfile"));
    command.args(line.split(' ')).current_dir(directory.path()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn succeeded(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Exports a store and compares the bytes with those that went in.
fn export_is_the_input(directory: &TempDir, store: &str) {
    let same = export(directory, store) == fs::read(directory.join("input.tsv")).unwrap();
    assert!(same, "the export of {store} is not what was imported");
}

fn export(directory: &TempDir, store: &str) -> Vec<u8> {
    succeeded(command(directory, &format!("export {store} --format tsv")).output().unwrap()).stdout
}

#[test]
fn a_million_lines_come_back_unchanged_in_either_format() {
    let directory = directory_with_input();
    succeeded(command(&directory, "import s input.tsv --format tsv").output().unwrap());
    export_is_the_input(&directory, "s");

    // One command's output is the other's input.
    let mut export = command(&directory, "export s").stderr(Stdio::null()).spawn().unwrap();
    let piped = export.stdout.take().unwrap();
    succeeded(command(&directory, "import copy").stdin(piped).output().unwrap());
    assert!(export.wait().unwrap().success());
    export_is_the_input(&directory, "copy");

    succeeded(command(&directory, "compact copy").output().unwrap());
    export_is_the_input(&directory, "copy");
    succeeded(command(&directory, "verify copy").output().unwrap());
}

/// Where the signal falls is left to chance; how often it does is not.
#[test]
fn a_million_lines_survive_ten_interruptions() {
    let directory = directory_with_input();
    let began = Instant::now();
    succeeded(command(&directory, "import whole input.tsv --format tsv").output().unwrap());
    let whole = began.elapsed();
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut skip = 0usize;
    for _ in 0..10 {
        let import = format!("import s input.tsv --format tsv --skip {skip}");
        let import = command(&directory, &import).spawn().unwrap();
        thread::sleep(Duration::from_micros(dice.below(whole.as_micros() as u64 / 2)));
        let signal = dice.choose(&["-INT", "-TERM"]);
        // It may have ended before.
        Command::new("kill").args([signal, &import.id().to_string()]).stderr(Stdio::null()).status().unwrap();
        let output = import.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if let Some((_, lines)) = said.split_once("--skip ") {
            skip = lines.trim().parse().unwrap();
        }
        if directory.join("s").exists() {
            // Whole, and no less than was said.
            let listed = succeeded(command(&directory, "verify s --json").output().unwrap());
            let report: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
            let keys = report["keys"].as_u64().unwrap() as usize;
            assert!(output.status.success() && keys == LINES || keys == skip, "{keys} keys, skip {skip}: {said}");
        }
        if output.status.success() {
            break;
        }
    }
    succeeded(command(&directory, &format!("import s input.tsv --format tsv --skip {skip}")).output().unwrap());
    export_is_the_input(&directory, "s");
}

/// Each has the odd or the even lines.
#[test]
fn two_imports_at_once_store_a_million_lines() {
    let directory = directory_with_input();
    let input = fs::read_to_string(directory.join("input.tsv")).unwrap();
    for (parity, name) in [(0, "even.tsv"), (1, "odd.tsv")] {
        let half: Vec<&str> = input.split_inclusive('\n').skip(parity).step_by(2).collect();
        fs::write(directory.join(name), half.concat()).unwrap();
    }
    let imports = ["even.tsv", "odd.tsv"]
        .map(|name| command(&directory, &format!("import s {name} --format tsv --timeout none")).spawn().unwrap());
    for import in imports {
        succeeded(import.wait_with_output().unwrap());
    }
    // The two took turns, so only the lines are the same, and not their order.
    let exported = String::from_utf8(export(&directory, "s")).unwrap();
    let mut lines: Vec<&str> = exported.split_inclusive('\n').collect();
    lines.sort_unstable();
    assert!(lines.concat() == input, "lines are missing, or there are more");
}
