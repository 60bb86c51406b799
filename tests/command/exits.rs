//! Every exit code, and what is said with it. 130 and 143 are in `importing`.

use std::path::Path;

use caskfile::{Cask, Config, LockMode};

use super::run::Shell;

/// Flips a bit of the last place where these bytes stand in the file.
pub fn damage(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::read(path).unwrap();
    let at = file.windows(bytes.len()).rposition(|window| window == bytes).unwrap();
    file[at] ^= 1;
    std::fs::write(path, file).unwrap();
}

#[test]
fn an_absent_key_is_1() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let error = shell.fails(1, &["get", "s", "K", "-b", "log"]);
    assert!(error.contains("no key `K` in bucket `log`") && error.contains("caskfile buckets s"), "{error}");
    shell.fails(1, &["exists", "s", "K"]);
}

#[test]
fn an_unknown_command_line_exits_with_2() {
    let shell = Shell::new();
    for line in [
        &["put", "s", "k"][..],
        &["put", "s", "k", "v", "--file", "f"],
        &["put", "s", "k", "v", "--timeout", "soon"],
        &["put", "s", "k", "v", "--durability", "maybe"],
        &["cas", "s", "k", "v"],
        &["cas", "s", "k", "v", "--if-absent", "--if-last-index", "1"],
        &["get", "s"],
        &["get", "s", "k", "--durability", "os"],
        &["frobnicate", "s"],
        &["delete", "s"],
        &["import", "s", "--separator", ";"],
        &["import", "s", "--format", "tsv", "--separator", "ab"],
        &["import", "s", "--format", "tsv", "--separator", "x"],
        &["put", "-e", "s", r"\q", "v"],
        &[],
    ] {
        shell.fails(2, line);
    }
    assert_eq!(super::common::names(shell.directory.path()), [""; 0]);
    // It wrote lines that were no JSON.
    shell.ok(&["put", "t", "k", "v"]);
    shell.fails(2, &["export", "t", "--json", "--format", "tsv"]);
    let error = shell.fails(2, &["my.cask", "get", "k"]);
    assert!(error.contains("caskfile get my.cask"), "{error}");
}

#[test]
fn a_condition_that_does_not_hold_is_3() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for line in [
        &["cas", "s", "k", "w", "--if-absent"][..],
        &["cas", "s", "k", "w", "--if-last-index", "1"],
        &["cas", "s", "x", "w", "--if-last-index", "1"],
        &["delete", "s", "k", "--if-last-index", "1"],
    ] {
        let error = shell.fails(3, line);
        assert!(
            error.contains("nothing was written") && error.contains("hint: `caskfile get --last-index s"),
            "{error}"
        );
    }
    assert_eq!(shell.ok(&["get", "s", "k"]), b"v");
}

/// The hint left out the bucket and the escapes, and so led to another key.
#[test]
fn the_hint_after_a_lost_swap_names_the_key() {
    let shell = Shell::new();
    for (options, key) in [(&["-b", "a log"][..], "k"), (&["-e", "-b", r"l\x6fg"], r"k\t"), (&[], "-k")] {
        let line = [&["cas", "s t", "--if-absent"][..], options, &["--", key, "v"]].concat();
        shell.ok(&line);
        let error = shell.fails(3, &line);
        let hint = error.split('`').nth(1).unwrap().strip_prefix("caskfile ").unwrap();
        let script = format!("exec \"$0\" {hint}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_caskfile")]).current_dir(shell.directory.path());
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stdout.ends_with(b"\nv"), "{hint}: {output:?}");
    }
    let error = shell.fails(1, &["get", "s t", "x", "-b", "a log"]);
    assert!(error.contains("`caskfile list --bucket 'a log' 's t'`"), "{error}");
}

/// Whether the system lists this process's lock under the device that the file has. On btrfs it lists another one.
fn system_names_holder(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(file).unwrap();
    let (major, minor) = (libc::major(found.dev()), libc::minor(found.dev()));
    let lock = format!(" {} {major:02x}:{minor:02x}:{} ", std::process::id(), found.ino());
    std::fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.contains(&lock))
}

#[test]
fn a_locked_store_exits_with_4_and_can_be_read() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let exclusive = Config::new().lock_mode(LockMode::Exclusive);
    let holder = Cask::open_with(shell.directory.join("s"), &exclusive).unwrap();
    for line in [
        &["put", "s", "k", "w", "--timeout", "0"][..],
        &["delete", "s", "k", "--timeout", "10ms"],
        &["compact", "s", "--timeout", "0.01"],
        &["import", "s", "--timeout", "0"],
    ] {
        let error = shell.fails(4, line);
        assert!(error.contains("locked") && error.contains("--timeout none"), "{error}");
        let holder = format!("(process {})", std::process::id());
        assert_eq!(error.contains(&holder), system_names_holder(&shell.directory.join("s")), "{error}");
    }
    assert_eq!(shell.ok(&["get", "s", "k"]), b"v");
    holder.close().unwrap();
    shell.ok(&["put", "s", "k", "w", "--timeout", "0", "--exclusive"]);
}

#[test]
fn an_exclusive_writer_keeps_others_out_until_it_ends() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let mut import = shell.command(&["import", "s", "--exclusive"]);
    let mut import = import.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Until it has the lock, the others get it.
    while shell.run(&["put", "s", "k", "w", "--timeout", "0"]).code == Some(0) {
        assert!(import.try_wait().unwrap().is_none());
    }
    shell.fails(4, &["put", "s", "k", "w", "--timeout", "0"]);
    drop(import.stdin.take());
    assert!(import.wait().unwrap().success());
    shell.ok(&["put", "s", "k", "w", "--timeout", "0"]);
}

#[test]
fn damage_is_5_and_the_hint_can_be_pasted() {
    let shell = Shell::new();
    for key in ["first", "second", "third"] {
        shell.ok(&["put", "s t", key, "value"]);
    }
    damage(&shell.directory.join("s t"), b"second");
    let before = std::fs::read(shell.directory.join("s t")).unwrap();
    for line in [&["get", "s t", "first"][..], &["put", "s t", "k", "v"], &["export", "s t"]] {
        let error = shell.fails(5, line);
        assert!(error.contains("corrupt at offset"), "{error}");
        let hint = error.split('`').nth(1).unwrap();
        assert!(hint.starts_with("caskfile salvage '") && hint.ends_with("s t.salvaged'"), "{hint}");
    }
    // Verification shows all of the damage, as data.
    let ran = shell.run(&["verify", "s t"]);
    assert_eq!(ran.code, Some(5));
    assert!(String::from_utf8(ran.stdout).unwrap().contains("bytes are lost, in 1 range"));
    assert!(ran.stderr.contains("damaged in 1 range") && ran.stderr.contains("caskfile salvage"), "{}", ran.stderr);
    let ran = shell.run(&["verify", "s t", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.code, &report["sound"]), (Some(5), &false.into()));
    assert!(std::fs::read(shell.directory.join("s t")).unwrap() == before);
}

/// Whatever a command would do with it: nothing is read or written, and the message says what happened and what to do.
#[test]
fn every_command_on_a_truncated_file_exits_with_5() {
    let shell = Shell::new();
    for key in ["first", "second", "third"] {
        shell.ok(&["put", "whole", key, "value"]);
    }
    let whole = std::fs::read(shell.directory.join("whole")).unwrap();
    let stated = whole.windows(5).rposition(|window| window == b"third").unwrap();
    std::fs::write(shell.directory.join("lines"), "{\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    std::fs::write(shell.directory.join("operations"), "{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    let lines: [&[&str]; 16] = [
        &["get", "s t", "first"],
        &["exists", "s t", "first"],
        &["put", "s t", "k", "v"],
        &["delete", "s t", "first"],
        &["delete-prefix", "s t", "f"],
        &["cas", "s t", "k", "v", "--if-absent"],
        &["batch", "s t", "operations"],
        &["import", "s t", "lines"],
        &["list", "s t"],
        &["list", "s t", "--json"],
        &["export", "s t"],
        &["buckets", "s t"],
        &["stats", "s t"],
        &["compact", "s t"],
        &["backup", "s t", "copy"],
        &["backup", "s t", "-"],
    ];
    for (len, last) in [(stated, "cut"), (100, "in its head")] {
        std::fs::write(shell.directory.join("s t"), &whole[..len]).unwrap();
        for line in lines {
            let error = shell.fails(5, line);
            let what = format!("truncated: it has {len} bytes");
            assert!(error.contains(&what) && error.contains("copy the whole file again"), "{last}, {line:?}: {error}");
            let hint = error.split('`').nth(1).unwrap();
            assert!(hint.starts_with("caskfile salvage '") && hint.ends_with("s t.salvaged'"), "{hint}");
        }
        // These show what there is.
        for verb in ["verify", "dump", "hex", "map", "explore"] {
            let ran = shell.run(&[verb, "s t"]);
            assert_eq!(ran.code, Some(5), "{last}, {verb}: {}", ran.stderr);
            assert!(
                !ran.stdout.is_empty() && ran.stderr.contains("its end is missing"),
                "{last}, {verb}: {}",
                ran.stderr
            );
            assert!(ran.stderr.contains("copy the whole file again"), "{last}, {verb}: {}", ran.stderr);
        }
        assert!(std::fs::read(shell.directory.join("s t")).unwrap() == whole[..len], "{last}: changed");
        let said = shell.ok_text(&["salvage", "s t", last]);
        assert!(said.contains("its end is missing"), "{said}");
        let left = if len == 100 { "" } else { "first\nsecond\n" };
        assert_eq!(shell.ok_text(&["list", last, "--keys"]), left);
    }
    assert!(!shell.directory.join("copy").exists());
}

#[test]
fn a_wrong_snapshot_exits_with_5_and_compaction_is_the_way_out() {
    let shell = Shell::new();
    std::fs::copy(super::golden::named("snapshot-damaged-part").path, shell.directory.join("s t")).unwrap();
    // The store itself works as ever.
    assert_eq!(shell.ok_text(&["get", "s t", "d"]), "4");
    let ran = shell.run(&["verify", "s t"]);
    assert_eq!(ran.code, Some(5));
    let report = String::from_utf8(ran.stdout).unwrap();
    assert!(
        report.contains("the snapshot of the index at 928 is wrong") && report.contains("nothing is lost"),
        "{report}"
    );
    assert!(ran.stderr.contains("the snapshot of the index at 928 is wrong: part "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("salvage"), "{}", ran.stderr);
    let hint = ran.stderr.split('`').nth(1).unwrap();
    assert!(hint.starts_with("caskfile compact '") && hint.ends_with("s t'"), "{hint}");
    let ran = shell.run(&["verify", "s t", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["sound"], &report["losses"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(report["wrong_snapshot"]["offset"], 928);
    shell.ok(&["compact", "s t"]);
    assert!(shell.ok_text(&["verify", "s t", "--json"]).contains(r#""wrong_snapshot":null"#));
}

#[test]
fn an_incomplete_backup_or_salvage_exits_with_5() {
    let shell = Shell::new();
    let lines: String =
        (0..100).map(|n| format!("{{\"op\":\"put\",\"key\":\"key-{n:02}\",\"value\":\"v\"}}\n")).collect();
    std::fs::write(shell.directory.join("lines"), lines).unwrap();
    shell.ok(&["batch", "original", "lines"]);
    shell.ok(&["backup", "original", "copy"]);
    let cut = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(shell.directory.join(name)).unwrap();
        bytes.truncate(bytes.windows(6).position(|window| window == b"key-50").unwrap());
        change(&mut bytes);
        bytes
    };
    // As a killed process leaves it, which has stated nothing at the head.
    std::fs::write(shell.directory.join("s"), cut("original", &|bytes| bytes[88..216].fill(0))).unwrap();
    std::fs::write(shell.directory.join("copy"), cut("copy", &|_| {})).unwrap();
    for verb in [&["get", "copy", "key-01"][..], &["put", "copy", "k", "v"], &["backup", "copy", "second"]] {
        let error = shell.fails(5, verb);
        assert!(error.contains("truncated: it has") && error.contains("copy the whole file again"), "{error}");
        assert!(error.contains("hint: `caskfile salvage"), "{error}");
    }
    let ran = shell.run(&["verify", "copy", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.code, &report["sound"], &report["cut_off"]), (Some(5), &false.into(), &true.into()));
    assert!(ran.stderr.contains("a copy whose end is missing"), "{}", ran.stderr);
    shell.ok(&["salvage", "copy", "rescued"]);
    assert_eq!(shell.ok_text(&["list", "rescued", "--keys"]).lines().count(), 50);

    // A crash could have left this, so it is no damage. But it must not look as if nothing was there.
    assert!(shell.ok_text(&["verify", "s"]).contains("50 whole records of a batch that has no end"));
    let ran = shell.run(&["salvage", "s", "without"]);
    assert_eq!(ran.code, Some(5));
    assert!(ran.stderr.contains("50 whole records of a batch that has no end were left out"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`caskfile salvage --unfinished s NEW` copies them"), "{}", ran.stderr);
    assert_eq!(shell.ok_text(&["list", "without", "--keys"]), "");
    shell.ok(&["salvage", "s", "with", "--unfinished"]);
    assert_eq!(shell.ok_text(&["list", "with", "--keys"]).lines().count(), 50);
}

#[test]
fn a_file_that_is_no_store_exits_with_6() {
    let shell = Shell::new();
    std::fs::write(shell.directory.join("letter"), "Dear reader,").unwrap();
    for verb in [&["get", "letter", "k"][..], &["put", "letter", "k", "v"], &["salvage", "letter", "new"]] {
        let error = shell.fails(6, verb);
        assert!(error.contains("not a caskfile"), "{error}");
    }
    assert_eq!(std::fs::read(shell.directory.join("letter")).unwrap(), b"Dear reader,");
}

#[test]
fn a_key_or_bucket_too_long_exits_with_7() {
    let shell = Shell::new();
    let (long_key, long_name) = ("k".repeat(65_535), "b".repeat(256));
    for line in [
        &["put", "s", "", "v"][..],
        &["put", "s", &long_key, "v"],
        &["put", "s", "k", "v", "-b", &long_name],
        &["cas", "s", "", "v", "--if-absent"],
    ] {
        assert!(shell.fails(7, line).contains("this one has"));
    }
    assert_eq!(super::common::names(shell.directory.path()), [""; 0]);
}

#[test]
fn what_the_operating_system_refuses_is_8() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let error = shell.fails(8, &["get", "missing", "k"]);
    assert!(error.contains("caskfile put") && error.contains("makes one"), "{error}");
    assert!(shell.fails(8, &["put", "no/such/directory", "k", "v"]).contains("directory does not exist"));
    assert!(shell.fails(8, &["delete", "missing", "k"]).contains("makes one"));
    shell.fails(8, &["put", "s", "k", "--file", "missing"]);
    shell.fails(8, &["import", "s", "missing"]);
    shell.fails(8, &["import", "new", "."]);
    shell.fails(8, &["get", ".", "k"]);
    assert_eq!(super::common::names(shell.directory.path()), ["s"]);
}

/// They said how to make a store where there was none to be looked at, or to be rescued.
#[test]
fn a_missing_file_makes_a_verb_ask_for_the_path() {
    let shell = Shell::new();
    for line in [
        &["verify", "missing"][..],
        &["dump", "missing"],
        &["hex", "missing"],
        &["map", "missing"],
        &["explore", "missing"],
        &["salvage", "missing", "new"],
    ] {
        let error = shell.fails(8, line);
        assert!(error.contains("is this the path you meant?") && !error.contains("caskfile put"), "{error}");
    }
    assert_eq!(super::common::names(shell.directory.path()), [""; 0]);
}

/// `put new/ k v` made a file `new`.
#[test]
fn a_path_with_a_final_slash_exits_with_8() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for line in [
        &["put", "new/", "k", "v"][..],
        &["put", "s/", "k", "v"],
        &["get", "s/.", "k"],
        &["import", "new/"],
        &["backup", "s", "new/"],
        &["salvage", "s", "new/"],
    ] {
        let error = shell.fails(8, line);
        assert!(error.contains("ends in a slash"), "{error}");
    }
    assert_eq!(super::common::names(shell.directory.path()), ["s"]);
}

#[test]
fn a_full_disk_under_stdout_exits_with_8() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for line in [&["get", "s", "k"][..], &["list", "s"], &["export", "s"], &["stats", "s"], &["man"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = shell.command(line).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(8), "{line:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("stdout"));
    }
}

/// `get` took a stdout that it could not have for a pipe without a reader: 0, and no value.
#[test]
fn a_value_without_a_free_descriptor_exits_with_8() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let mut failed = 0;
    for descriptors in 3..16 {
        let script = format!("ulimit -n {descriptors}; exec \"$0\" get s k");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_caskfile")]).current_dir(shell.directory.path());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        match output.status.code() {
            Some(0) => assert_eq!(output.stdout, b"v", "with {descriptors}"),
            _ => failed += 1,
        }
    }
    assert!(failed > 0, "the limit did not bite");
}

/// With escapes a value is up to four times as large. The whole line was in memory, and the process aborted.
#[test]
fn a_large_value_is_printed_with_one_copy_in_memory() {
    const LEN: usize = 64 << 20;
    let shell = Shell::new();
    std::fs::write(shell.directory.path().join("zeros"), vec![0; LEN]).unwrap();
    shell.ok(&["put", "s", "k", "--file", "zeros"]);
    // The map has room for the file twice. Beside that and the value there are 40 MiB.
    let limit = (3 * LEN + (40 << 20)) >> 10;
    let (escaped, base64) = (4 * LEN, LEN.div_ceil(3) * 4);
    for (line, len) in [
        ("list s", escaped),
        ("list s --json", base64),
        ("get s k --json", base64),
        ("export s", base64),
        ("export s --format tsv", escaped),
    ] {
        let script = format!("ulimit -v {limit}; exec \"$0\" {line} > printed");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_caskfile")]).current_dir(shell.directory.path());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        let printed = std::fs::metadata(shell.directory.path().join("printed")).unwrap().len() as usize;
        assert!((len..len + 100).contains(&printed), "{line}: {printed} bytes");
    }
}

/// The standard library reads such a stdin as an empty one, and the key lost its value.
#[test]
fn an_unreadable_stdin_exits_with_8() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for line in [&["put", "s", "k", "-"][..], &["batch", "s"], &["import", "s"]] {
        let write_only = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let output = shell.command(line).stdin(write_only).output().unwrap();
        assert_eq!(output.status.code(), Some(8), "{line:?}");
    }
    assert_eq!(shell.ok(&["get", "s", "k"]), b"v");
}

#[test]
fn what_the_store_refuses_is_9() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    std::fs::hard_link(shell.directory.join("s"), shell.directory.join("other name")).unwrap();
    assert!(shell.fails(9, &["compact", "s"]).contains("hard links"));
}

#[test]
fn an_error_in_json_is_one_line() {
    let shell = Shell::new();
    for (code, name, line) in [
        (8, "io", &["get", "missing", "k", "--json"][..]),
        (7, "input", &["put", "s", "", "v", "--json"]),
        (2, "usage", &["delete-prefix", "s", "", "--json"]),
        (2, "usage", &["get", "--json"]),
    ] {
        let error: serde_json::Value = serde_json::from_str(&shell.fails(code, line)).unwrap();
        assert_eq!((&error["code"], &error["error"]), (&code.into(), &name.into()));
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}
