//! Verbs that only read change nothing: beside a living writer, on a file that may not be written, on a file system
//! that is mounted read-only.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use caskfile::{Cask, Config, Durability};

use super::run::Shell;
use crate::common::names;

const READING: [&[&str]; 18] = [
    &["get", "d/s", "k"],
    &["exists", "d/s", "k"],
    &["list", "d/s"],
    &["list", "d/s", "--reverse", "--json"],
    &["export", "d/s"],
    &["buckets", "d/s"],
    &["sessions", "d/s"],
    &["stats", "d/s"],
    &["backup", "d/s", "-"],
    &["verify", "d/s"],
    &["get", "d/s", "k", "--json"],
    &["dump", "d/s"],
    &["hex", "d/s"],
    &["map", "d/s"],
    &["explore", "d/s"],
    &["watch", "d/s", "--snapshot", "-n", "1"],
    &["watch", "d/s", "-n", "0"],
    &["wait", "d/s", "k"],
];

/// All that could show that the file was written.
fn state(directory: &Path) -> (Vec<u8>, Vec<String>, [i64; 6]) {
    let times = |metadata: Metadata| [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec()];
    let [file, around] = [directory.join("s"), directory.to_owned()].map(|path| times(path.metadata().unwrap()));
    let all = [file[0], file[1], file[2], around[0], around[1], around[2]];
    (std::fs::read(directory.join("s")).unwrap(), names(directory), all)
}

fn make_store(shell: &Shell) -> std::path::PathBuf {
    let directory = shell.directory.join("d");
    std::fs::create_dir(&directory).unwrap();
    for (key, value) in [("k", "v"), ("l", "w"), ("k", "x")] {
        shell.ok(&["put", "d/s", key, value]);
    }
    directory
}

#[test]
fn verbs_that_read_change_no_bytes_times_or_names() {
    let shell = Shell::new();
    let directory = make_store(&shell);
    let before = state(&directory);
    for line in READING {
        shell.ok(line);
    }
    // A torn tail is not mended either.
    let mut torn = before.0.clone();
    torn.extend_from_slice(&[7; 100]);
    std::fs::write(directory.join("s"), &torn).unwrap();
    let before = state(&directory);
    for line in READING {
        shell.ok(line);
    }
    assert!(state(&directory) == before);
}

#[test]
fn verbs_that_read_work_beside_an_exclusive_writer() {
    let shell = Shell::new();
    let directory = make_store(&shell);
    let config = Config::new().lock_mode(caskfile::LockMode::Exclusive).durability(Durability::Os);
    let writer = Cask::open_with(directory.join("s"), &config).unwrap();
    writer.put("k", "of the writer").unwrap();
    let before = state(&directory);
    for line in READING {
        shell.ok(line);
    }
    assert!(state(&directory) == before);
    assert_eq!(shell.ok(&["get", "d/s", "k"]), b"of the writer");
    writer.put("k", "later").unwrap();
    assert_eq!(shell.ok(&["get", "d/s", "k"]), b"later");
    writer.close().unwrap();
}

#[test]
fn verbs_that_read_need_no_permission_to_write() {
    let shell = Shell::new();
    let directory = make_store(&shell);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&directory.join("s"), 0o444);
    mode(&directory, 0o555);
    mode(shell.directory.path(), 0o755);
    // The superuser may write nevertheless; for others this is the whole test.
    for line in READING {
        shell.ok(line);
    }
    if std::fs::File::options().write(true).open(directory.join("s")).is_err() {
        assert!(shell.fails(8, &["put", "d/s", "k", "v"]).contains("denied"));
    }
    mode(&directory, 0o755);
}

/// In a mount namespace of its own, if that is allowed here.
#[test]
fn verbs_that_read_work_on_a_read_only_file_system() {
    let shell = Shell::new();
    let directory = make_store(&shell);
    let binary = env!("CARGO_BIN_EXE_caskfile");
    let reading: String =
        READING.iter().map(|line| format!("{binary} {} > /dev/null || exit 1\n", line.join(" "))).collect();
    let script = format!(
        "mount --bind d d && mount -o remount,bind,ro d || exit 77\n{reading}\
         {binary} put d/s k v 2> said; test $? = 8 && grep -q 'Read-only file system' said || exit 2\n\
         {binary} compact d/s 2> said; test $? = 8 || exit 3"
    );
    let before = state(&directory);
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .current_dir(shell.directory.path())
        .stdin(Stdio::null())
        .output();
    match ran {
        Ok(output) if output.status.code() == Some(0) => assert!(state(&directory) == before),
        // unshare itself ends with 1 when it is not allowed to, and says so.
        Ok(output)
            if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).starts_with("unshare:") =>
        {
            eprintln!("not tested: mounting is not allowed here");
        }
        Ok(output) => panic!("{output:?}"),
        Err(error) => eprintln!("not tested: unshare: {error}"),
    }
}
