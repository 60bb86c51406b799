//! An import that goes on for long: mistakes, Ctrl-C, two of them at once, records that trickle in.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use caskfile::Cask;

use super::run::{Ran, Shell, signal};
use crate::common::patience::in_finite_time;

fn line(number: usize) -> String {
    format!("key{number:07}\tvalue of {number}\n")
}

/// Starts an import whose input the test writes.
fn start(shell: &Shell, arguments: &[&str]) -> Child {
    let arguments = [&["import", "s", "--format", "tsv"], arguments].concat();
    shell.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How many lines the store holds, which have to be the first ones.
fn stored_lines(shell: &Shell) -> usize {
    let Ok(cask) = Cask::open_with(shell.directory.join("s"), &caskfile::Config::new().read_only(true)) else {
        return 0;
    };
    cask.verify().unwrap();
    let pairs = cask.list("").unwrap();
    for (number, pair) in pairs.iter().enumerate() {
        assert_eq!([&pair.key[..], b"\t", &pair.value, b"\n"].concat(), line(number).as_bytes());
    }
    pairs.len()
}

/// The N of `--skip N` in what an import says that was stopped.
pub fn skip_of(stderr: &str) -> usize {
    stderr.split("--skip ").nth(1).unwrap_or_else(|| panic!("{stderr}")).trim().parse().unwrap()
}

#[test]
fn an_import_resumes_after_a_malformed_line() {
    let shell = Shell::new();
    let good: String = (0..1000).map(line).collect();
    let bad = format!("{good}no tab here\n{}", line(1000));
    let error = shell.feed(bad.as_bytes(), &["import", "s", "--format", "tsv"]).failed(7);
    assert!(error.contains("line 1001") && error.contains("on stable storage: 1,000 lines of the input"), "{error}");
    assert_eq!((skip_of(&error), stored_lines(&shell)), (1000, 1000));

    let corrected = format!("{good}{}", line(1000));
    let ran = shell.feed(corrected.as_bytes(), &["import", "s", "--format", "tsv", "--skip", "1000"]);
    assert!(ran.stderr.contains("imported 1 pair"), "{}", ran.stderr);
    assert_eq!(stored_lines(&shell), 1001);

    let ran = shell.feed(bad.as_bytes(), &["import", "t", "--format", "tsv", "--json"]);
    assert_eq!(ran.code, Some(7));
    let error: serde_json::Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["lines"], 1000);
}

#[test]
fn records_that_arrive_slowly_are_stored_at_once() {
    in_finite_time(|| {
        trickle("INT", 130, "Ctrl-C");
        trickle("TERM", 143, "SIGTERM");
        trickle("HUP", 129, "SIGHUP");
    });
}

fn trickle(name: &str, code: i32, cause: &str) {
    let shell = Shell::new();
    let mut import = start(&shell, &[]);
    let mut input = import.stdin.take().unwrap();
    for number in 0..3 {
        input.write_all(line(number).as_bytes()).unwrap();
        // Others see it, though the import waits for more.
        while stored_lines(&shell) != number + 1 {
            assert!(import.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // Half a line is not a record yet.
    input.write_all(b"key0000003\tval").unwrap();
    signal(&import, name);
    let ran = Ran::from(import.wait_with_output().unwrap());
    let error = ran.failed(code);
    assert!(error.contains(&format!("stopped by {cause}; on stable storage: 3 lines")), "{error}");
    assert_eq!((skip_of(&error), stored_lines(&shell)), (3, 3));
    drop(input);
}

/// Gives an import its first line, and the second when another process has the store.
fn lock_out_after_a_line(shell: &Shell, import: &mut Child) -> (Cask, std::process::ChildStdin) {
    let mut input = import.stdin.take().unwrap();
    input.write_all(line(0).as_bytes()).unwrap();
    while stored_lines(shell) != 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let exclusive = caskfile::Config::new().lock_mode(caskfile::LockMode::Exclusive);
    let holder = Cask::open_with(shell.directory.join("s"), &exclusive).unwrap();
    input.write_all(line(1).as_bytes()).unwrap();
    (holder, input)
}

#[test]
fn ctrl_c_ends_an_import_that_waits_for_a_writer() {
    in_finite_time(|| {
        let shell = Shell::new();
        let mut import = start(&shell, &["--timeout", "none"]);
        let (holder, _input) = lock_out_after_a_line(&shell, &mut import);
        // Long enough, mostly, for it to wait for the lock with this line.
        std::thread::sleep(Duration::from_millis(200));
        signal(&import, "INT");
        let said = Ran::from(import.wait_with_output().unwrap()).failed(130);
        assert_eq!(skip_of(&said), 1);
        holder.close().unwrap();
        assert_eq!(stored_lines(&shell), 1);
    });
}

/// It said in one line that nothing was written, and how many lines were.
#[test]
fn an_import_that_finds_the_store_locked_exits_with_4() {
    in_finite_time(|| {
        let shell = Shell::new();
        let mut import = start(&shell, &["--timeout", "10ms"]);
        let (holder, _input) = lock_out_after_a_line(&shell, &mut import);
        let said = Ran::from(import.wait_with_output().unwrap()).failed(4);
        assert!(said.contains("/s: still locked") && !said.contains("nothing was written"), "{said}");
        assert_eq!(skip_of(&said), 1);
        holder.close().unwrap();
    });
}

#[test]
fn an_import_stopped_while_it_skips_keeps_its_place() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let said = loop {
        let mut import = start(&shell, &["--skip", "1000"]);
        let mut input = import.stdin.take().unwrap();
        input.write_all((0..10).map(line).collect::<String>().as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        signal(&import, "INT");
        let output = import.wait_with_output().unwrap();
        drop(input);
        // It may have died of the signal before it could catch it.
        if output.status.code().is_some() {
            break Ran::from(output).failed(130);
        }
    };
    assert_eq!(skip_of(&said), 1000);
}

/// It said that all was imported, and counted as many lines as it was to skip.
#[test]
fn skipping_more_lines_than_there_are_exits_with_7() {
    let shell = Shell::new();
    let input: String = (0..3).map(line).collect();
    for (skip, lines) in [("4", &input[..]), ("1", "")] {
        let error = shell.feed(lines.as_bytes(), &["import", "s", "--format", "tsv", "--skip", skip]).failed(7);
        assert!(error.contains("--skip passes over"), "{error}");
    }
    let ran = shell.feed(input.as_bytes(), &["import", "s", "--format", "tsv", "--skip", "3"]);
    assert!(ran.stderr.contains("imported 0 pairs"), "{}", ran.stderr);
    assert_eq!(stored_lines(&shell), 0);
}

#[test]
fn an_import_stopped_at_any_moment_can_be_completed() {
    const LINES: usize = 100_000;
    let input: String = (0..LINES).map(line).collect();
    // A machine that stands still at the wrong moments lets every signal come too early or too late.
    let interrupted = (0..20).any(|_| {
        let shell = Shell::new();
        std::fs::write(shell.directory.join("input"), &input).unwrap();
        let interrupted = import_with_interruptions(&shell);
        assert_eq!(stored_lines(&shell), LINES);
        interrupted > 0
    });
    assert!(interrupted, "no signal has stopped an import");
}

/// Imports the file `input` in as many runs as it takes, and returns how many were stopped while they were at it.
fn import_with_interruptions(shell: &Shell) -> usize {
    let (mut skip, mut interrupted) = (0, 0);
    // The pauses vary, so that the signal falls into opening, reading, writing and the end.
    for pause in (0..).map(|n| Duration::from_micros(500 + n * n * 2_000)) {
        let skip_now = skip.to_string();
        let arguments = ["import", "s", "input", "--format", "tsv", "--skip", &skip_now];
        let import = shell.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(pause);
        signal(&import, "INT");
        let output = import.wait_with_output().unwrap();
        let stored = stored_lines(shell);
        match output.status.code() {
            // It was done before the signal came.
            Some(0) => break,
            Some(130) => {
                interrupted += 1;
                skip = skip_of(&String::from_utf8(output.stderr).unwrap());
                assert_eq!(stored, skip, "it says what the store has");
            }
            // Before it could catch the signal: it died of it, and nothing of this run was written.
            None => assert_eq!(stored, skip),
            other => panic!("{other:?}"),
        }
    }
    interrupted
}

#[test]
fn two_imports_into_one_store_at_once_lose_nothing() {
    const LINES: usize = 20_000;
    let shell = Shell::new();
    let halves: [String; 2] = [(0..LINES).step_by(2).map(line).collect(), (1..LINES).step_by(2).map(line).collect()];
    std::thread::scope(|scope| {
        let imports = halves.map(|half| {
            let shell = &shell;
            scope.spawn(move || {
                let mut import = start(shell, &[]);
                let mut input = import.stdin.take().unwrap();
                // In pieces, so that the two take turns.
                for piece in half.as_bytes().chunks(10_000) {
                    input.write_all(piece).unwrap();
                }
                drop(input);
                Ran::from(import.wait_with_output().unwrap()).succeeded();
            })
        });
        imports.into_iter().for_each(|import| import.join().unwrap());
    });
    assert_eq!(stored_lines(&shell), LINES);
}

#[test]
fn of_several_swaps_at_once_exactly_one_wins() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "counter", "0"]);
    for round in 0..5 {
        let index = shell.ok_text(&["get", "s", "counter", "--last-index"]).lines().next().unwrap().to_owned();
        let codes: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|racer| {
                    let (shell, index) = (&shell, &index);
                    let value = format!("{round} {racer}");
                    scope.spawn(move || {
                        shell.run(&["cas", "s", "counter", &value, "--if-last-index", index]).code.unwrap()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == 3).count(), 3, "{codes:?}");
    }
}

#[test]
fn every_durability_and_lock_mode_stores_the_same() {
    let input: String = (0..5_000).map(line).collect();
    for options in [
        &["--durability", "sync"][..],
        &["--durability", "os"],
        &["--durability", "5ms"],
        &["--exclusive"],
        &["--timeout", "none"],
    ] {
        let shell = Shell::new();
        shell.feed(input.as_bytes(), &[&["import", "s", "--format", "tsv"], options].concat()).succeeded();
        assert_eq!(stored_lines(&shell), 5_000, "{options:?}");
    }
}

#[test]
fn the_later_of_two_lines_with_one_key_counts() {
    let shell = Shell::new();
    let input = b"{\"key\":\"k\",\"value\":\"1\"}\n\n  \n{\"key\":\"k\",\"value\":\"2\",\"last_index\":9}\r\n{\"key\":\"l\",\"value\":\"\"}";
    let ran = shell.feed(input, &["import", "s", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ran.succeeded()).unwrap();
    assert_eq!((&report["lines"], &report["records"]), (&5.into(), &3.into()));
    assert_eq!(shell.ok_text(&["list", "s"]), "k\t2\nl\t\n");
    // Nothing to import is no error, and makes the store.
    shell.feed(b"", &["import", "empty"]).succeeded();
    assert_eq!(shell.ok(&["export", "empty"]), b"");
}

#[test]
fn a_stopped_compaction_leaves_store_and_directory_unchanged() {
    let shell = Shell::new();
    const LINES: usize = 100_000;
    let input: String = (0..LINES).map(line).collect();
    shell.feed(input.as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    let (mut stopped, mut finished) = (0, 0);
    // How long a compaction takes is unknown: later and later, until one was stopped and one was not.
    for round in 0.. {
        assert!(round < 2_000, "{stopped} compactions were stopped, {finished} were not");
        let mut compact =
            shell.command(&["compact", "s"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(2 * round));
        signal(&compact, "INT");
        let mut said = String::new();
        compact.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = compact.wait().unwrap().code();
        assert_eq!(super::common::names(shell.directory.path()), ["s"], "{code:?}");
        match code {
            Some(0) => finished += 1,
            Some(130) => {
                stopped += 1;
                assert!(said.contains("stopped by Ctrl-C") && said.contains("as it was"), "{said}");
            }
            // Before it began.
            None => continue,
            other => panic!("{other:?}: {said}"),
        }
        assert_eq!(stored_lines(&shell), LINES);
        if stopped > 0 && finished > 0 {
            break;
        }
    }
}

#[test]
fn an_import_without_a_valid_pair_makes_no_store() {
    let shell = Shell::new();
    for (input, arguments) in [
        ("no tab here\n", &["--format", "tsv"][..]),
        ("\n\n{\"key\":1}\n", &[]),
        ("{\"key\":\"\",\"value\":\"\"}\n", &[]),
        ("{\"key\":\"a\",\"value\":\"\"}\n", &["--skip", "2"]),
    ] {
        let line = [&["import", "s"], arguments].concat();
        let error = shell.feed(input.as_bytes(), &line).failed(7);
        assert!(error.contains("nothing was"), "{error}");
        assert!(super::common::names(shell.directory.path()).is_empty(), "{input:?}: {error}");
    }
    shell.feed(b"", &["import", "s"]).succeeded();
    assert_eq!(super::common::names(shell.directory.path()), ["s"]);
    // A store that is there is opened at once, and says what it has.
    let error = shell.feed(b"no tab here\n", &["import", "s", "--format", "tsv"]).failed(7);
    assert!(error.contains("on stable storage: 0 lines"), "{error}");
}

#[test]
fn a_byte_order_mark_is_no_data() {
    let shell = Shell::new();
    let mark = "\u{feff}";
    shell.feed(format!("{mark}a\t1\n{mark}b\t2\n").as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    shell.feed(format!("{mark}{{\"key\":\"c\",\"value\":\"3\"}}\n").as_bytes(), &["import", "s"]).succeeded();
    let put = format!("{mark}{{\"op\":\"put\",\"key\":\"d\",\"value\":\"4\"}}\n");
    shell.feed(put.as_bytes(), &["batch", "s"]).succeeded();
    assert_eq!(shell.ok_text(&["list", "s"]), "a\t1\nc\t3\nd\t4\n\\xef\\xbb\\xbfb\t2\n");

    // A key that begins with one comes back, though it is the first.
    shell.feed(format!("{mark}{mark}e\t5\n").as_bytes(), &["import", "t", "--format", "tsv"]).succeeded();
    let export = shell.ok(&["export", "t", "--format", "tsv"]);
    shell.feed(&export, &["import", "u", "--format", "tsv"]).succeeded();
    assert_eq!(shell.ok(&["get", "u", &format!("{mark}e")]), b"5");
    shell.feed(format!("{mark}f\t6\n").as_bytes(), &["import", "v", "--format", "tsv", "--no-escapes"]).succeeded();
    assert_eq!(shell.ok(&["get", "v", &format!("{mark}f")]), b"6");

    let utf_16: Vec<u8> = "\u{feff}{}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = shell.feed(&utf_16, &["import", "w"]).failed(7);
    assert!(error.contains("line 1: this is UTF-16"), "{error}");
}

/// As `nohup` starts it.
#[test]
fn a_signal_that_is_ignored_stays_so() {
    let shell = Shell::new();
    let input: String = (0..10_000).map(line).collect();
    shell.feed(input.as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    let script = r#"trap '' HUP; "$0" backup s copy &
        n=0; while [ ! -e copy ] && [ $n -lt 100000 ]; do kill -HUP $!; n=$((n + 1)); done; wait $!"#;
    let status = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_caskfile")])
        .current_dir(shell.directory.path())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(super::common::names(shell.directory.path()), ["copy", "s"]);
}

/// They died of it, and left a temporary file.
#[test]
fn a_copy_that_is_stopped_leaves_nothing_of_itself() {
    in_finite_time(stop_copies);
}

fn stop_copies() {
    let shell = Shell::new();
    let input: String = (0..100_000).map(line).collect();
    shell.feed(input.as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    let copies = [&["backup", "s", "copy"][..], &["backup", "s", "copy", "--compact"], &["salvage", "s", "copy"]];
    let signals = [("INT", 130, "Ctrl-C"), ("TERM", 143, "SIGTERM"), ("HUP", 129, "SIGHUP")];
    for (line, (name, code, cause)) in copies.into_iter().zip(signals) {
        // It may be faster than the signal.
        let stopped = (0..1000).any(|_| {
            let mut copy = shell.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // From the moment on at which there is something to be left.
            while super::common::names(shell.directory.path()) == ["s"] {
                std::thread::sleep(Duration::from_micros(100));
            }
            signal(&copy, name);
            let mut said = String::new();
            copy.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            let ended = copy.wait().unwrap().code();
            if ended == Some(0) {
                std::fs::remove_file(shell.directory.join("copy")).unwrap();
                return false;
            }
            assert_eq!(ended, Some(code), "{line:?}: {said}");
            let why = format!("stopped by {cause}");
            assert!(said.contains(&why) && said.contains("nothing was made"), "{said}");
            assert_eq!(super::common::names(shell.directory.path()), ["s"], "{line:?}");
            true
        });
        assert!(stopped, "no signal has stopped {line:?}");
    }
}
