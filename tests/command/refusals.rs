//! Every verb on a file that it cannot use, and writes that are refused: the exit code, a message that names the file, and
//! no change.

use caskfile::{Cask, Config, LockMode};

use super::golden;
use super::run::{Ran, Shell};
use crate::common::names;

/// What a verb does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Opens it read-only.
    Reads,
    /// Shows its bytes, in any state.
    Shows,
    /// Opens it to write.
    Writes,
    /// The same, and makes the store if it is not there.
    Makes,
    /// The same, and waits for a lock that the store has.
    Locks,
    /// Checks a file that need not open.
    Checks,
    /// Copies what is left of it.
    Rescues,
}

/// Every verb that has a store, and what is on its stdin.
const VERBS: [(Use, &str, &[&str]); 24] = [
    (Use::Reads, "", &["get", "d/s", "k"]),
    (Use::Reads, "", &["exists", "d/s", "k"]),
    (Use::Reads, "", &["list", "d/s"]),
    (Use::Reads, "", &["buckets", "d/s"]),
    (Use::Reads, "", &["sessions", "d/s"]),
    (Use::Reads, "", &["export", "d/s"]),
    (Use::Reads, "", &["stats", "d/s"]),
    (Use::Reads, "", &["backup", "d/s", "copy"]),
    (Use::Reads, "", &["backup", "d/s", "copy", "--compact"]),
    (Use::Reads, "", &["backup", "d/s", "-"]),
    (Use::Checks, "", &["verify", "d/s"]),
    (Use::Rescues, "", &["salvage", "d/s", "copy"]),
    (Use::Shows, "", &["dump", "d/s"]),
    (Use::Shows, "", &["hex", "d/s"]),
    (Use::Shows, "", &["map", "d/s"]),
    (Use::Shows, "", &["explore", "d/s"]),
    (Use::Makes, "", &["put", "d/s", "k", "v", "--timeout", "0"]),
    (Use::Makes, "", &["cas", "d/s", "new", "v", "--if-absent", "--timeout", "0"]),
    (Use::Writes, "", &["delete", "d/s", "k", "--timeout", "0"]),
    (Use::Writes, "", &["delete-prefix", "d/s", "k", "--timeout", "0"]),
    (Use::Makes, "{\"op\":\"put\",\"key\":\"k\",\"value\":\"\"}", &["batch", "d/s", "--timeout", "0"]),
    (Use::Makes, "{\"key\":\"k\",\"value\":\"\"}", &["import", "d/s", "--timeout", "0"]),
    (Use::Writes, "", &["compact", "d/s", "--timeout", "0"]),
    (Use::Locks, "", &["lock", "d/s", "k", "--timeout", "0", "--", "true"]),
];

/// A directory with the store `d/s` of these bytes, or without a store.
fn around(bytes: Option<&[u8]>) -> Shell {
    let shell = Shell::new();
    std::fs::create_dir(shell.directory.join("d")).unwrap();
    if let Some(bytes) = bytes {
        std::fs::write(shell.directory.join("d/s"), bytes).unwrap();
    }
    shell
}

/// All files of the directory of the store, with their bytes.
fn state(shell: &Shell) -> Vec<(String, Vec<u8>)> {
    let directory = shell.directory.join("d");
    let read = |name: String| (name.clone(), std::fs::read(directory.join(name)).unwrap_or_default());
    names(&directory).into_iter().map(read).collect()
}

/// Runs a verb, and expects that it names the store if it fails, and changes nothing.
fn run(shell: &Shell, stdin: &str, line: &[&str]) -> Ran {
    let before = state(shell);
    let ran = shell.feed(stdin.as_bytes(), line);
    assert!(state(shell) == before, "{line:?} has changed something");
    assert!(ran.code == Some(0) || ran.stderr.contains("d/s"), "{line:?} does not name the file: {}", ran.stderr);
    // After the verb: what comes last may be a command that is to be run.
    let json = shell.feed(stdin.as_bytes(), &[&line[..1], &["--json"], &line[1..]].concat());
    // The verbs with another form of output refuse it, and a copy is there already.
    if ran.code != Some(0) && json.code == ran.code {
        let error: serde_json::Value = serde_json::from_str(&json.stderr).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert_eq!(error["code"].as_i64(), ran.code.map(i64::from), "{line:?}");
        assert!(error["message"].as_str().unwrap().contains("d/s"), "{line:?}: {error}");
    }
    assert!(state(shell) == before, "{line:?} --json has changed something");
    ran
}

fn whole_store() -> Vec<u8> {
    let shell = around(None);
    for (key, value) in [("first", "1"), ("k", "the value of k"), ("last", "3")] {
        shell.ok(&["put", "d/s", key, value]);
    }
    std::fs::read(shell.directory.join("d/s")).unwrap()
}

#[test]
fn no_verb_uses_or_changes_a_file_of_another_kind() {
    for (using, stdin, line) in VERBS {
        let shell =
            around(Some(b"Dear reader, this is a letter, and it is longer than the header of a store would be."));
        let ran = run(&shell, stdin, line);
        assert_eq!((ran.code, ran.stdout.len()), (Some(6), 0), "{using:?} {line:?}");
        assert!(!shell.directory.join("copy").exists(), "{line:?}");
    }
}

#[test]
fn no_verb_changes_a_file_of_a_later_version() {
    for (using, stdin, line) in VERBS {
        for name in ["future-major", "future-kind"] {
            let shell = around(Some(&golden::named(name).bytes));
            let ran = run(&shell, stdin, line);
            assert_eq!(ran.code, Some(6), "{using:?} {line:?} {name}: {}", ran.stderr);
            assert_eq!(!ran.stdout.is_empty(), using == Use::Shows, "{line:?} {name}");
            assert!(!shell.directory.join("copy").exists(), "{line:?} {name}");
        }
    }
}

#[test]
fn damage_stops_every_verb_but_those_that_look_for_it() {
    let mut damaged = whole_store();
    let at = damaged.windows(14).position(|window| window == b"the value of k").unwrap();
    damaged[at] ^= 1;
    for (using, stdin, line) in VERBS {
        let shell = around(Some(&damaged));
        let ran = run(&shell, stdin, line);
        let expected = if using == Use::Rescues { 0 } else { 5 };
        assert_eq!(ran.code, Some(expected), "{line:?}: {}", ran.stderr);
        let shows = matches!(using, Use::Shows | Use::Checks | Use::Rescues);
        assert_eq!(!ran.stdout.is_empty(), shows, "{line:?}");
        assert_eq!(shell.directory.join("copy").exists(), using == Use::Rescues, "{line:?}");
        assert_eq!(ran.stderr.contains("caskfile salvage"), using != Use::Rescues, "{line:?}: {}", ran.stderr);
    }
}

#[test]
fn a_locked_store_stops_the_verbs_that_write_and_no_other() {
    let bytes = whole_store();
    // A lock of the store waits for its writers too, for ten seconds.
    for (using, stdin, line) in VERBS.into_iter().filter(|verb| verb.0 != Use::Locks) {
        let shell = around(Some(&bytes));
        let exclusive = Config::new().lock_mode(LockMode::Exclusive);
        let holder = Cask::open_with(shell.directory.join("d/s"), &exclusive).unwrap();
        let ran = run(&shell, stdin, line);
        let writes = matches!(using, Use::Writes | Use::Makes);
        assert_eq!(ran.code, Some(if writes { 4 } else { 0 }), "{line:?}: {}", ran.stderr);
        assert_eq!(ran.stderr.contains("locked"), writes, "{line:?}: {}", ran.stderr);
        holder.close().unwrap();
    }
}

#[test]
fn only_verbs_that_say_so_make_a_store() {
    for (using, stdin, line) in VERBS {
        let shell = around(None);
        let ran = shell.feed(stdin.as_bytes(), line);
        let made = shell.directory.join("d/s").exists();
        let makes = matches!(using, Use::Makes | Use::Locks);
        assert_eq!((ran.code, made), (Some(if makes { 0 } else { 8 }), makes), "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("d/s"), "{line:?}: {}", ran.stderr);
        assert_eq!(ran.stderr.starts_with("created d/s\n"), makes, "{line:?}: {}", ran.stderr);
        let how_to_make_one = ran.stderr.contains("d/s KEY VALUE` makes one");
        assert_eq!(how_to_make_one, matches!(using, Use::Reads | Use::Writes), "{line:?}: {}", ran.stderr);
        assert!(names(&shell.directory.join("d")).len() <= 1 && !shell.directory.join("copy").exists(), "{line:?}");
        // An empty file is as good as none.
        let shell = around(Some(b""));
        let ran = shell.feed(stdin.as_bytes(), line);
        let len = shell.directory.join("d/s").metadata().unwrap().len();
        assert_eq!((ran.code == Some(0), len > 0), (makes, makes), "{line:?}: {:?} {}", ran.code, ran.stderr);
        assert_eq!(ran.stderr.starts_with("created d/s\n"), makes, "{line:?}: {}", ran.stderr);
    }
}

#[test]
fn a_write_that_is_refused_or_changes_no_key_leaves_the_file_as_it_was() {
    let bytes = whole_store();
    let key_64k = "k".repeat(65_536);
    let lines: [(i32, &str, &[&str]); 19] = [
        (3, "", &["cas", "d/s", "k", "w", "--if-absent"]),
        (3, "", &["cas", "d/s", "k", "w", "--if-last-index", "7"]),
        (3, "", &["cas", "d/s", "absent", "w", "--if-last-index", "7"]),
        (3, "", &["delete", "d/s", "k", "--if-last-index", "7"]),
        (3, "", &["delete", "d/s", "absent", "--if-last-index", "7"]),
        (2, "", &["delete", "d/s", "k", "last", "--if-last-index", "7"]),
        (0, "", &["delete", "d/s", "absent", "absent too"]),
        (7, "", &["delete", "d/s", "k", ""]),
        (7, "", &["put", "d/s", "", "v"]),
        (7, "", &["put", "d/s", &key_64k, "v"]),
        (2, "", &["delete-prefix", "d/s", ""]),
        (0, "", &["delete-prefix", "d/s", "absent"]),
        (0, "", &["delete-prefix", "d/s", "--all", "-b", "no such bucket"]),
        (
            3,
            "{\"op\":\"put\",\"key\":\"new\",\"value\":\"\"}\n{\"op\":\"check\",\"key\":\"k\",\"if_absent\":true}",
            &["batch", "d/s"],
        ),
        (7, "{\"op\":\"put\",\"key\":\"new\",\"value\":\"\"}\n{\"op\":\"put\",\"key\":\"k\"}", &["batch", "d/s"]),
        (0, "{\"op\":\"check\",\"key\":\"absent\",\"if_absent\":true}", &["batch", "d/s"]),
        (7, "{\"key\":\"\",\"value\":\"\"}", &["import", "d/s"]),
        (0, "\n\n", &["import", "d/s"]),
        (7, "{\"key\":\"new\",\"value\":\"\"}", &["import", "d/s", "--skip", "2"]),
    ];
    for (code, stdin, line) in lines {
        let shell = around(Some(&bytes));
        let before = state(&shell);
        let ran = shell.feed(stdin.as_bytes(), line);
        assert_eq!(ran.code, Some(code), "{line:?}: {}", ran.stderr);
        assert!(state(&shell) == before, "{line:?} has changed something");
        assert!(code == 0 || ran.stdout.is_empty(), "{line:?}");
        if code == 3 && line[0] != "batch" {
            assert!(ran.stderr.starts_with(&format!("error: d/s: the key {} ", line[2])), "{line:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn copies_and_pages_are_made_for_new_names_only() {
    let bytes = whole_store();
    for line in [
        &["backup", "d/s", "d/new"][..],
        &["backup", "d/s", "d/new", "--compact"],
        &["salvage", "d/s", "d/new"],
        &["salvage", "d/s", "d/new", "--unfinished"],
        &["explore", "d/s", "-o", "d/new"],
    ] {
        let shell = around(Some(&bytes));
        std::fs::write(shell.directory.join("d/new"), b"somebody's").unwrap();
        let before = state(&shell);
        let error = shell.fails(8, line);
        assert!(error.contains("d/new") && error.contains("choose another name"), "{line:?}: {error}");
        assert!(state(&shell) == before, "{line:?} has changed something");
        std::fs::remove_file(shell.directory.join("d/new")).unwrap();
        shell.ok(line);
        assert!(std::fs::read(shell.directory.join("d/s")).unwrap() == bytes, "{line:?} has changed the store");
        assert_eq!(names(&shell.directory.join("d")), ["new", "s"], "{line:?}");
        assert!(shell.directory.join("d/new").metadata().unwrap().len() > 0);
    }
}
