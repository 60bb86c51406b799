//! What verbs print, compared with what the library says of the same file: figures, indexes, order, escapes.

use std::collections::HashSet;

use caskfile::{Batch, Cask, Config};
use serde_json::{Value, json};

use super::pty::on_terminal;
use super::run::Shell;

/// Bytes, and how they stand in a line of fields and in JSON, by docs/CLI.md.
const BYTES: [(&[u8], &str, &str); 9] = [
    (b"Z", "Z", "\":\"Z\""),
    (b"a", "a", "\":\"a\""),
    (b"a\tb", r"a\tb", r#"":"a\tb""#),
    (b"a\\nb", r"a\\nb", r#"":"a\\nb""#),
    (b"a\r\nb", r"a\r\nb", r#"":"a\r\nb""#),
    (b"\x01\x7f", r"\x01\x7f", "_base64\":\"AX8=\""),
    ("\u{85}".as_bytes(), r"\xc2\x85", "_base64\":\"woU=\""),
    ("größer".as_bytes(), "größer", "\":\"größer\""),
    (b"\xff\xfe", r"\xff\xfe", "_base64\":\"//4=\""),
];

fn in_json(field: &str, (_, _, json): (&[u8], &str, &str)) -> String {
    format!("\"{field}{json}")
}

fn read_only(shell: &Shell, store: &str) -> Cask {
    Cask::open_with(shell.directory.join(store), &Config::new().read_only(true)).unwrap()
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Each pair with every key has a value of its own, and they were put from the last one to the first.
fn make_store(shell: &Shell) {
    let cask = Cask::open(shell.directory.join("s")).unwrap();
    for bucket in [b"".as_slice(), b"other"] {
        let mut batch = Batch::new();
        let batch = batch.bucket(bucket);
        for (at, (key, ..)) in BYTES.iter().enumerate().rev() {
            batch.put(key, BYTES[(at + bucket.len() + 1) % BYTES.len()].0);
        }
        cask.write(batch).unwrap();
    }
    cask.close().unwrap();
}

/// The bytes in the order of keys, with their value and last_index.
fn pairs_of(shell: &Shell) -> Vec<(usize, usize, u64)> {
    let cask = read_only(shell, "s");
    let mut order: Vec<usize> = (0..BYTES.len()).collect();
    order.sort_by_key(|&at| BYTES[at].0);
    let index = |at: usize| cask.get(BYTES[at].0).unwrap().last_index;
    order.into_iter().map(|at| (at, (at + 1) % BYTES.len(), index(at))).collect()
}

#[test]
fn each_figure_of_stats_stands_under_its_name() {
    let shell = Shell::new();
    make_store(&shell);
    for bucket in ["one more", "and one"] {
        shell.ok(&["put", "s", "k", &"x".repeat(3000), "-b", bucket]);
    }
    shell.ok(&["delete", "s", "k", "-b", "one more"]);
    shell.ok(&["put", "s", "a", "replaced"]);
    for key in ["b", "c"] {
        shell.ok(&["put", "s", key, "expires", "--ttl", "1h"]);
    }
    let stats = read_only(&shell, "s").stats().unwrap();
    let figures = [
        ("keys", stats.keys),
        ("expiring_keys", stats.expiring),
        ("expired_keys", stats.hidden),
        ("buckets", stats.buckets),
        ("records", stats.records),
        ("last_index", stats.last_index),
        ("file_bytes", stats.file_len),
        ("log_bytes", stats.log_end),
        ("live_bytes", stats.live_bytes),
        ("dead_bytes", stats.dead_bytes),
        ("index_memory_bytes", stats.index_bytes),
    ];
    let different: HashSet<u64> = figures.iter().map(|(_, figure)| *figure).collect();
    assert_eq!(different.len(), figures.len(), "exchanged figures would not be seen: {figures:?}");
    // Each index has a seed of its own, and so not exactly as much memory as another one of the same keys.
    let (memory, figures) = (figures[10].1, &figures[..10]);
    let is_memory = |figure: u64| (memory / 2..2 * memory).contains(&figure);
    assert!(!figures.iter().any(|(_, figure)| is_memory(*figure)), "{memory} {figures:?}");
    let lines: String = figures.iter().map(|(name, figure)| format!("{name}\t{figure}\n")).collect();
    let plain = shell.ok_text(&["stats", "s"]);
    let last = plain.strip_prefix(&lines).unwrap_or_else(|| panic!("{plain}, expected {lines}"));
    let last = last.strip_prefix("index_memory_bytes\t").unwrap();
    assert!(is_memory(last.trim_end().parse().unwrap()), "{last}");
    let mut object = json_of(&shell.ok(&["stats", "s", "--json"]));
    let last = object.as_object_mut().unwrap().remove("index_memory_bytes").unwrap();
    assert!(is_memory(last.as_u64().unwrap()), "{last}");
    assert_eq!(
        object,
        Value::Object(figures.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect())
    );
    let table = on_terminal(&shell, &["stats", "s"], &[]);
    assert_eq!(table.lines().count(), figures.len() + 1);
    assert!(table.lines().last().unwrap().starts_with("index memory bytes  "), "{table}");
    for (line, (name, figure)) in table.lines().zip(figures) {
        let (said, shown) = line.split_once("  ").unwrap();
        assert_eq!(said, name.replace('_', " "));
        let digits = |text: &str| text.replace(',', "");
        let exact = shown.rsplit_once('(').map_or(shown, |(_, bytes)| bytes).trim();
        let exact = digits(exact.split([' ', ')']).next().unwrap());
        assert_eq!(exact, figure.to_string(), "{line}");
        assert_eq!(shown.contains("byte"), name.ends_with("_bytes"), "{line}");
    }
}

#[test]
fn buckets_are_in_byte_order_with_their_counts_and_escapes() {
    let shell = Shell::new();
    let cask = Cask::open(shell.directory.join("s")).unwrap();
    // Each has another number of keys.
    let mut order: Vec<_> = BYTES.into_iter().zip(1..).collect();
    for ((name, ..), keys) in &order {
        let bucket = cask.bucket(name).unwrap();
        (0..*keys).for_each(|key| bucket.put(format!("{key}"), "").map(drop).unwrap());
    }
    cask.put("k", "").unwrap();
    cask.close().unwrap();
    order.sort();
    let lines: String = order.iter().map(|((_, escaped, _), keys)| format!("{escaped}\t{keys}\n")).collect();
    assert_eq!(shell.ok_text(&["buckets", "s"]), format!("\t1\n{lines}"));
    assert_eq!(on_terminal(&shell, &["buckets", "s"], &[]), format!("(default)\t1\n{lines}"));
    let objects: String =
        order.iter().map(|(name, keys)| format!("{{{},\"keys\":{keys}}}\n", in_json("bucket", *name))).collect();
    assert_eq!(shell.ok_text(&["buckets", "s", "--json"]), format!("{{\"bucket\":\"\",\"keys\":1}}\n{objects}"));
}

#[test]
fn a_list_has_the_columns_that_were_asked_for_in_every_form() {
    let shell = Shell::new();
    make_store(&shell);
    let mut pairs = pairs_of(&shell);
    for reverse in [false, true] {
        for choice in 0..6 {
            let (only, index) = (["", "--keys", "--values"][choice % 3], choice >= 3);
            let mut options = vec!["list", "s"];
            options.extend([only].iter().filter(|option| !option.is_empty()));
            options.extend(index.then_some("--last-index"));
            options.extend(reverse.then_some("--reverse"));
            let (mut lines, mut objects) = (String::new(), String::new());
            for &(key, value, last_index) in &pairs {
                let mut fields = Vec::new();
                fields.extend(index.then(|| last_index.to_string()));
                fields.extend((only != "--values").then(|| BYTES[key].1.to_owned()));
                fields.extend((only != "--keys").then(|| BYTES[value].1.to_owned()));
                lines += &(fields.join("\t") + "\n");
                let mut fields = Vec::new();
                fields.extend((only != "--values").then(|| in_json("key", BYTES[key])));
                fields.extend((only != "--keys").then(|| in_json("value", BYTES[value])));
                fields.push(format!("\"last_index\":{last_index}"));
                objects += &format!("{{{}}}\n", fields.join(","));
            }
            assert_eq!(shell.ok_text(&options), lines, "{options:?}");
            options.push("--json");
            assert_eq!(shell.ok_text(&options), objects, "{options:?}");
        }
        pairs.reverse();
    }
}

#[test]
fn get_shows_the_pair_of_its_bucket_with_its_index() {
    let shell = Shell::new();
    make_store(&shell);
    let cask = read_only(&shell, "s");
    for (name, cask) in [("", cask.clone()), ("other", cask.bucket("other").unwrap())] {
        let pair = cask.get("Z").unwrap();
        let line = ["get", "s", "Z", "-b", name];
        assert_eq!(shell.ok(&line), pair.value);
        let with_index = [format!("{}\n", pair.last_index).as_bytes(), &pair.value].concat();
        assert_eq!(shell.ok(&[&line[..], &["--last-index"]].concat()), with_index);
        let shown = BYTES.into_iter().find(|(bytes, ..)| *bytes == pair.value).unwrap();
        let object = format!("{{\"key\":\"Z\",{},\"last_index\":{}}}\n", in_json("value", shown), pair.last_index);
        assert_eq!(shell.ok_text(&[&line[..], &["--json"]].concat()), object);
        assert_eq!(shell.ok_text(&[&line[..], &["--json", "--last-index"]].concat()), object);
    }
}

#[test]
fn an_export_is_in_the_order_of_indexes_with_each_pairs_bucket() {
    let shell = Shell::new();
    make_store(&shell);
    shell.ok(&["put", "s", "Z", "newer than all"]);
    let (mut objects, mut of_other, mut lines) = (String::new(), String::new(), String::new());
    let cask = read_only(&shell, "s");
    let mut last = 0;
    for pair in cask.scan_by_index().unwrap() {
        let (bucket, pair) = pair.unwrap();
        assert!(pair.last_index > last);
        last = pair.last_index;
        let shown = |bytes: &[u8]| BYTES.into_iter().find(|known| known.0 == bytes);
        let newer = (&b""[..], "newer than all", "\":\"newer than all\"");
        let (key, value) = (shown(&pair.key).unwrap(), shown(&pair.value).unwrap_or(newer));
        let pair = format!("{},{},\"last_index\":{last}}}\n", in_json("key", key), in_json("value", value));
        let named = if bucket.is_empty() { "" } else { "\"bucket\":\"other\"," };
        objects += &format!("{{{named}{pair}");
        if !bucket.is_empty() {
            of_other += &format!("{{{pair}");
        }
        lines += &format!("{}\t{}\t{}\n", String::from_utf8(bucket).unwrap(), key.1, value.1);
    }
    let export = |options: &[&str]| {
        let ran = shell.run(&[&["export", "s"], options].concat());
        (ran.stderr.clone(), String::from_utf8(ran.succeeded()).unwrap())
    };
    assert_eq!(export(&[]), ("exported 18 pairs\n".into(), objects));
    assert_eq!(export(&["-b", "other"]), ("exported 9 pairs\n".into(), of_other));
    assert_eq!(export(&["--format", "tsv", "--bucket-column"]), ("exported 18 pairs\n".into(), lines));
    assert_eq!(export(&["-b", "none"]), ("exported 0 pairs\n".into(), String::new()));
}

#[test]
fn a_write_prints_the_index_that_the_store_has_given_it() {
    let shell = Shell::new();
    let index_of = |key: &str| read_only(&shell, "s").get(key).unwrap().last_index;
    let printed = |line: &[&str]| json_of(&shell.ok(&[line, &["--json"]].concat()));
    shell.ok(&["put", "s", "first", "v"]);
    assert_eq!(printed(&["put", "s", "k", "v"]), json!({ "last_index": index_of("k") }));
    assert_eq!(shell.ok(&["put", "s", "k", "v"]), b"");
    let swapped = shell.ok_text(&["cas", "s", "k", "w", "--if-last-index", &index_of("k").to_string()]);
    assert_eq!(swapped, format!("{}\n", index_of("k")));
    assert_eq!(printed(&["cas", "s", "l", "w", "--if-absent"]), json!({ "last_index": index_of("l") }));
    let batch = "{\"op\":\"put\",\"key\":\"m\",\"value\":\"\"}\n\n{\"op\":\"put\",\"key\":\"n\",\"value\":\"\"}\n";
    let ran = shell.feed(batch.as_bytes(), &["batch", "s", "--json"]);
    assert_eq!(ran.stderr, "applied 2 operations\n");
    assert_eq!(json_of(&ran.stdout), json!({ "operations": 2, "last_index": index_of("n") }));
    assert!(index_of("m") < index_of("n"));
    // That of the last tombstone is between the puts around it.
    let deleted = printed(&["delete", "s", "m", "n"])["last_index"].as_u64().unwrap();
    assert_eq!(shell.ok(&["delete", "s", "l"]), b"");
    shell.ok(&["put", "s", "after", ""]);
    assert!(deleted > index_of("k") + 2 && deleted < index_of("after"), "{deleted}");
    assert_eq!(printed(&["delete", "s", "nothing"]), json!({ "last_index": null }));
    assert_eq!(
        json_of(&shell.feed(b"", &["batch", "s", "--json"]).stdout),
        json!({ "operations": 0, "last_index": null })
    );
}

#[test]
fn notes_and_reports_count_what_was_done() {
    let shell = Shell::new();
    let lines = "a\t1\nb\t22\na\t3\n";
    let ran = shell.feed(lines.as_bytes(), &["import", "s", "--format", "tsv", "--json", "--skip", "1"]);
    assert!(ran.stderr.starts_with("created s\nimported 2 pairs in "), "{}", ran.stderr);
    assert_eq!(json_of(&ran.stdout), json!({ "lines": 3, "records": 2, "expired": 0, "bytes": lines.len() }));
    shell.ok(&["put", "s", "a", "x", "-b", "other"]);
    let ran = shell.run(&["delete-prefix", "s", "a", "--json"]);
    assert_eq!((ran.stderr.as_str(), json_of(&ran.stdout)), ("deleted 1 key\n", json!({ "deleted": 1 })));
    assert_eq!(shell.run(&["delete-prefix", "s", "none"]).stderr, "deleted 0 keys\n");
    assert_eq!(shell.ok(&["get", "s", "a", "-b", "other"]), b"x");

    let before = read_only(&shell, "s").stats().unwrap();
    for (copy, options) in [("copy", &[][..]), ("small", &["--compact"])] {
        let ran = shell.run(&[&["backup", "s", copy, "--json"], options].concat());
        let bytes = shell.directory.join(copy).metadata().unwrap().len();
        assert_eq!(ran.stderr, format!("copied 2 keys, {bytes} bytes\n"));
        assert_eq!(json_of(&ran.stdout), json!({ "keys": 2, "bytes": bytes }));
    }
    let ran = shell.run(&["compact", "s"]);
    let after = read_only(&shell, "s").stats().unwrap();
    assert!(after.log_end < before.log_end);
    // A handle writes a mark of 24 bytes before it compacts.
    let before = before.log_end + 24;
    let said = format!("keys\t2\nlog_bytes_before\t{before}\nlog_bytes_after\t{}\n", after.log_end);
    assert_eq!((ran.stderr.as_str(), String::from_utf8(ran.stdout).unwrap()), ("", said));
}

#[test]
fn verify_and_salvage_print_the_librarys_report() {
    let shell = Shell::new();
    make_store(&shell);
    super::exits::damage(&shell.directory.join("s"), "größer".as_bytes());
    let Err(caskfile::Error::Damaged { report, .. }) = caskfile::verify(shell.directory.join("s")) else { panic!() };
    let text = |ran: super::run::Ran| (ran.code, String::from_utf8(ran.stdout).unwrap());
    assert_eq!(text(shell.run(&["verify", "s"])), (Some(5), format!("{report}\n")));
    assert_eq!(text(shell.run(&["verify", "s", "--json"])), (Some(5), format!("{}\n", report.to_json())));
    let copied = caskfile::salvage(shell.directory.join("s"), shell.directory.join("library")).unwrap();
    assert_eq!(text(shell.run(&["salvage", "s", "new"])), (Some(0), format!("{copied}\n")));
    assert_eq!(text(shell.run(&["salvage", "s", "new 2", "--json"])), (Some(0), format!("{}\n", copied.to_json())));
    for verb in ["list", "buckets"] {
        assert_eq!(shell.ok(&[verb, "new"]), shell.ok(&[verb, "library"]));
    }
}
