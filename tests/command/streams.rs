//! Pipes, bytes that are no text, and the formats of export and import.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use caskfile::{Batch, Cask};

use super::run::Shell;

/// A store with keys, values and buckets of all kinds of bytes, and what is in it.
type Pairs = Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>;

fn awkward_store(shell: &Shell, name: &str) -> Pairs {
    let all: Vec<u8> = (0..=255).collect();
    let strange: [&[u8]; 12] = [
        b"plain",
        "größer; 日本".as_bytes(),
        b"tab\there",
        b"two\nlines",
        b"\r\n",
        b"back\\slash \\n",
        b"\0",
        b"\xff\xfe",
        b"\xc3",
        "\u{85}\u{2028}".as_bytes(),
        b"\"quoted\" {\"key\":1}",
        &all,
    ];
    let mut pairs = Pairs::new();
    for bucket in [&b""[..], b"plain", b"b\t\n\\\xff", &all[1..]] {
        for bytes in strange {
            pairs.push((bucket.to_vec(), bytes.to_vec(), bytes.to_vec()));
            pairs.push((bucket.to_vec(), [b"empty ", bytes].concat(), Vec::new()));
        }
    }
    let cask = Cask::open(shell.directory.join(name)).unwrap();
    let mut batch = Batch::new();
    for (bucket, key, value) in &pairs {
        batch.bucket(bucket).put(key, value);
    }
    cask.write(&batch).unwrap();
    cask.close().unwrap();
    pairs.sort();
    pairs
}

fn contents(shell: &Shell, name: &str) -> Pairs {
    let cask = Cask::open(shell.directory.join(name)).unwrap();
    let mut pairs = Pairs::new();
    for bucket in cask.scan_buckets().unwrap() {
        let (name, scan) = bucket.unwrap();
        pairs.extend(scan.map(|pair| pair.unwrap()).map(|pair| (name.clone(), pair.key, pair.value)));
    }
    pairs.sort();
    pairs
}

#[test]
fn any_bytes_survive_export_and_import_buckets_included() {
    let shell = Shell::new();
    let pairs = awkward_store(&shell, "s");
    let formats: [&[&str]; 3] =
        [&[], &["--format", "tsv", "--bucket-column"], &["--format", "tsv", "--bucket-column", "--separator", ";"]];
    for (number, format) in formats.into_iter().enumerate() {
        let exported = shell.ok(&[&["export", "s"], format].concat());
        std::str::from_utf8(&exported).expect("an export is text");
        assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), pairs.len());
        let copy = format!("copy{number}");
        shell.feed(&exported, &[&["import", &copy], format].concat()).succeeded();
        assert!(contents(&shell, &copy) == pairs, "{format:?}");
        // The copy's own export is the same, but for the indexes, which only NDJSON has.
        if number > 0 {
            assert!(shell.ok(&[&["export", &copy], format].concat()) == exported);
        }
    }
}

#[test]
fn an_export_of_one_bucket_goes_into_any_other() {
    let shell = Shell::new();
    for (bucket, key) in [("", "a"), ("from", "b"), ("from", "c")] {
        shell.ok(&["put", "s", key, "v", "-b", bucket]);
    }
    for format in [&["--format", "ndjson"][..], &["--format", "tsv"]] {
        let exported = shell.ok(&[&["export", "s", "-b", "from"], format].concat());
        shell.feed(&exported, &[&["import", "s", "-b", "to"], format].concat()).succeeded();
        assert_eq!(shell.ok_text(&["list", "s", "-b", "to"]), "b\tv\nc\tv\n");
        shell.ok(&["delete-prefix", "s", "-b", "to", "--all"]);
    }
    // Without a choice, the names would be lost.
    let error = shell.fails(2, &["export", "s", "--format", "tsv"]);
    assert!(error.contains("--bucket-column"), "{error}");
    assert_eq!(shell.ok_text(&["export", "s", "--format", "tsv", "-b", ""]), "a\tv\n");
    // A line that names its bucket goes there.
    let lines = ["named", "", "named"].map(|name| format!("{{\"bucket\":\"{name}\",\"key\":\"k\",\"value\":\"v\"}}\n"));
    let unnamed = "{\"key\":\"k\",\"value\":\"v\"}\n";
    let lines = [&lines[0], &lines[1], &lines[2], unnamed].concat();
    shell.feed(lines.as_bytes(), &["import", "s", "-b", "to"]).succeeded();
    assert_eq!(shell.ok_text(&["buckets", "s"]), "\t2\nfrom\t2\nnamed\t1\nto\t1\n");
}

#[test]
fn a_column_of_buckets_names_the_chosen_one() {
    let shell = Shell::new();
    for bucket in ["", "log"] {
        shell.ok(&["put", "s", "k", "v", "-b", bucket]);
    }
    let format = ["--format", "tsv", "--bucket-column"];
    let exported = shell.ok(&[&["export", "s", "-b", "log"], &format[..]].concat());
    assert_eq!(exported, b"log\tk\tv\n");
    shell.feed(&exported, &[&["import", "copy"], &format[..]].concat()).succeeded();
    assert_eq!(shell.ok_text(&["buckets", "copy"]), "log\t1\n");
}

/// The first bucket may be a million pairs long: an export that broke off after them passed for a whole one to a program that
/// did not look at the exit code.
#[test]
fn an_export_that_cannot_name_buckets_is_refused_first() {
    let shell = Shell::new();
    // More than is kept back before it is written.
    let lines: String = (0..20_000).map(|n| format!("key{n:06}\tvalue\n")).collect();
    shell.feed(lines.as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    shell.ok(&["put", "s", "k", "v", "-b", "log"]);
    assert!(shell.fails(2, &["export", "s", "--format", "tsv"]).contains("--bucket-column"));
    // One bucket is enough, if it has a name.
    shell.ok(&["put", "named", "k", "v", "-b", "log"]);
    assert!(shell.fails(2, &["export", "named", "--format", "tsv"]).contains("--bucket-column"));
}

#[test]
fn a_value_goes_to_a_pipe_unchanged() {
    let shell = Shell::new();
    let bytes: Vec<u8> = (0..=255).rev().collect();
    shell.feed(&bytes, &["put", "s", "all", "-"]).succeeded();
    assert_eq!(shell.ok(&["get", "s", "all"]), bytes);
    // Bytes that are not UTF-8, in an argument.
    let key = OsStr::from_bytes(b"\xff\xfe");
    shell.ok(&[OsStr::new("put"), OsStr::new("s"), key, OsStr::from_bytes(b"\xc3")]);
    assert_eq!(shell.ok(&[OsStr::new("get"), OsStr::new("s"), key]), b"\xc3");
    // The same key with escapes, and one that no argument can hold.
    assert_eq!(shell.ok(&["get", "s", "-e", r"\xff\xfe"]), b"\xc3");
    shell.ok(&["put", "s", "-e", r"a\x00b\n", r"\\\t"]);
    assert_eq!(shell.ok(&["get", "s", "-e", r"a\x00b\n"]), b"\\\t");
    assert_eq!(shell.ok_text(&["list", "s", "a", "--limit", "1"]), "a\\x00b\\n\t\\\\\\t\n");
    assert_eq!(
        shell.ok_text(&["list", "s", "--json", "-e", r"\xff"]).split(",\"last").next().unwrap(),
        "{\"key_base64\":\"//4=\",\"value_base64\":\"ww==\""
    );
}

#[test]
fn a_pipe_that_is_closed_early_is_no_error() {
    let shell = Shell::new();
    // More than a pipe holds.
    let lines: String = (0..50_000).map(|n| format!("key{n:06}\tvalue\n")).collect();
    shell.feed(lines.as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    for line in [&["list", "s"][..], &["export", "s"], &["list", "s", "--json"]] {
        let mut running = shell.start(line);
        let first = running.line();
        assert!(first.contains("key000000"), "{first}");
        let ended = running.closed();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line:?}");
    }
}

#[test]
fn only_data_is_on_stdout_and_quiet_keeps_errors() {
    let shell = Shell::new();
    let ran = shell.feed(b"k\tv\n", &["import", "s", "--format", "tsv"]);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("imported 1 pair"), "{}", ran.stderr);
    let ran = shell.feed(b"k\tv\n", &["import", "s2", "--format", "tsv", "--quiet"]);
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{}", ran.stderr);
    assert!(shell.fails(1, &["get", "s", "x", "-q"]).contains("no key"));
}

#[test]
fn other_separators_and_key_columns_can_be_imported() {
    let shell = Shell::new();
    let lines = "0041;LATIN CAPITAL LETTER A;Lu\n005C;REVERSE SOLIDUS \\;Po\n";
    let raw = ["--format", "tsv", "--separator", ";", "--no-escapes"];
    shell.feed(lines.as_bytes(), &[&["import", "s"], &raw[..]].concat()).succeeded();
    assert_eq!(shell.ok(&["get", "s", "005C"]), b"REVERSE SOLIDUS \\;Po");
    assert_eq!(shell.ok_text(&[&["export", "s"], &raw[..]].concat()), lines);

    let by_name = [&["import", "names", "--key-field", "2"], &raw[..]].concat();
    shell.feed(lines.as_bytes(), &by_name).succeeded();
    assert_eq!(shell.ok(&["get", "names", "LATIN CAPITAL LETTER A"]), b"0041;Lu");

    // With escapes, the backslash of the second line means nothing.
    let error = shell.feed(lines.as_bytes(), &["import", "t", "--format", "tsv", "--separator", ";"]).failed(7);
    assert!(error.contains("line 2") && error.contains("backslash"), "{error}");

    shell.ok(&["put", "s", "-e", r"a\nb", "v"]);
    assert!(shell.run(&[&["export", "s"], &raw[..]].concat()).stderr.contains("leave --no-escapes away"));
}
