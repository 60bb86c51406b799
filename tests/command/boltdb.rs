//! `import --format boltdb`.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use caskfile::{Cask, Config, LockMode};

use super::run::{Ran, Shell, signal};
use crate::common::patience::in_finite_time;

#[path = "../boltdb/writer.rs"]
#[allow(dead_code, reason = "shared with other tests, which use all of it")]
mod writer;

fn data(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/boltdb").join(name);
    path.into_os_string().into_string().unwrap()
}

#[test]
fn a_boltdb_file_is_imported_with_its_buckets() {
    let shell = Shell::new();
    let ran = shell.run(&["import", "s", &data("small.db"), "--format", "boltdb"]);
    assert!(ran.stderr.contains("imported 3 pairs of 2 buckets"), "{}", ran.stderr);
    assert_eq!(ran.code, Some(0));
    assert_eq!(shell.ok_text(&["list", "s", "--bucket", "fruit"]), "apple\tred\npear\tgreen\n");

    let json = shell.ok_text(&["import", "s", &data("small.db"), "--format", "boltdb", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["buckets"], &json["records"], &json["bytes"]), (&2.into(), &3.into(), &20.into()));
    shell.ok(&["verify", "s"]);
}

#[test]
fn a_network_store_is_imported_with_libkv() {
    let shell = Shell::new();
    shell.ok(&["import", "s", &data("libkv.db"), "--format", "boltdb", "--libkv"]);
    let listed = shell.ok_text(&["list", "s", "--bucket", "libnetwork", "docker/network/v1.0/network/"]);
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains("/\t{\"name\":\"net0\""), "{listed}");
}

#[test]
fn what_cannot_be_imported_leaves_no_store() {
    let shell = Shell::new();
    let cut = shell.directory.join("cut.db");
    let whole = std::fs::read(data("shapes.db")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let (cut, import) = (cut.to_str().unwrap(), ["import", "s", "--format", "boltdb"]);
    for (file, options, code, says) in [
        (cut, &[][..], 7, "its end is missing"),
        (&data("two-of-a-name.db"), &[], 7, "two buckets would have one name"),
        (&data("small.db"), &["--libkv"], 7, "a value has 3 bytes, and libkv's number alone"),
        (&data("README.md"), &[], 7, "not a BoltDB file"),
        ("absent", &[], 8, "absent: cannot open"),
        ("-", &[], 2, "cannot come from stdin"),
        (&data("small.db"), &["--skip", "1"], 2, "--skip and --bucket are for lines"),
        (&data("small.db"), &["--bucket", "b"], 2, "--skip and --bucket are for lines"),
        (&data("small.db"), &["--separator", ";"], 2, "belong to --format tsv"),
    ] {
        let error = shell.fails(code, &[&import[..2], &[file], &import[2..], options].concat());
        assert!(error.contains(says), "{error}");
        assert!(!shell.directory.join("s").exists(), "{error}");
    }
    let error = shell.fails(2, &["import", "s", &data("small.db"), "--libkv"]);
    assert!(error.contains("--libkv belongs to --format boltdb"), "{error}");
    shell.ok(&["put", "s", "key", "value"]);
    let error = shell.fails(2, &["export", "s", "--format", "boltdb"]);
    assert!(error.contains("only `import` knows"), "{error}");
}

#[test]
fn a_file_that_another_program_has_open_is_refused_in_time() {
    let shell = Shell::new();
    let path = shell.directory.join("locked.db");
    std::fs::copy(data("small.db"), &path).unwrap();
    let writer = std::fs::File::open(&path).unwrap();
    fs2::FileExt::try_lock_exclusive(&writer).unwrap();
    let error = shell.fails(4, &["import", "s", "locked.db", "--format", "boltdb", "--timeout", "20ms"]);
    assert!(error.contains("still open for writing in another process"), "{error}");
    assert!(!shell.directory.join("s").exists());
    drop(writer);
    shell.ok(&["import", "s", "locked.db", "--format", "boltdb", "--timeout", "20ms"]);
}

/// Starts an import, and locks it out after its first batch. `None` if it was faster.
fn locked_out(shell: &Shell, timeout: &str) -> Option<(Child, Cask)> {
    let (value, keys) = ([7; 16 << 10], (0..4000_u16).map(u16::to_be_bytes).collect::<Vec<_>>());
    let pairs = keys.iter().map(|key| (&key[..], &value[..])).collect();
    std::fs::write(shell.directory.join("large.db"), writer::buckets(&[(b"b", pairs)])).unwrap();
    let arguments = ["import", "s", "large.db", "--format", "boltdb", "--timeout", timeout];
    let mut import = shell.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while stored(shell) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let holder = Cask::open_with(shell.directory.join("s"), &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
    if import.try_wait().unwrap().is_some_and(|status| status.success()) {
        holder.close().unwrap();
        std::fs::remove_file(shell.directory.join("s")).unwrap();
        return None;
    }
    Some((import, holder))
}

/// How many pairs the store has.
fn stored(shell: &Shell) -> u64 {
    let cask = Cask::open_with(shell.directory.join("s"), &Config::new().read_only(true));
    cask.and_then(|cask| cask.bucket("b")?.len()).unwrap_or(0)
}

/// It said in one line that nothing was written, and how many pairs are in the store.
#[test]
fn an_import_that_finds_the_store_locked_says_how_many_pairs_it_has_written() {
    in_finite_time(|| {
        let shell = Shell::new();
        let (import, holder) = (0..100).find_map(|_| locked_out(&shell, "10ms")).expect("an import that takes longer");
        let said = Ran::from(import.wait_with_output().unwrap()).failed(4);
        assert!(said.contains("/s: still locked by another writer"), "{said}");
        holder.close().unwrap();
        let pairs = with_commas(stored(&shell));
        assert!(said.contains(&format!("on stable storage: {pairs} pairs")), "{said}");
        assert!(!said.contains("nothing was written"), "{said}");
    });
}

/// A number as the command prints it.
fn with_commas(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

#[test]
fn ctrl_c_ends_an_import_of_a_boltdb_file_that_waits_for_a_writer() {
    in_finite_time(|| {
        let shell = Shell::new();
        let (import, holder) = (0..100).find_map(|_| locked_out(&shell, "none")).expect("an import that takes longer");
        // Long enough, mostly, for it to wait for the lock.
        std::thread::sleep(Duration::from_millis(200));
        signal(&import, "INT");
        let said = Ran::from(import.wait_with_output().unwrap()).failed(130);
        assert!(said.contains("stopped by Ctrl-C") && said.contains("some of the pairs"), "{said}");
        holder.close().unwrap();
        shell.ok(&["verify", "s"]);
    });
}
