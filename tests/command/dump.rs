//! `dump`: tables, JSON, where it begins, how values are shown.

use std::collections::BTreeSet;

use serde_json::Value;

use super::golden;
use super::pty::on_terminal;
use super::run::Shell;

const PAGE: &str = include_str!("../../docs/CLI.md");

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// What stands on the page between a command and the end of the next block.
pub fn on_the_page(command: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("`{command}`:\n\n```")).unwrap_or_else(|| panic!("no {command}"));
    rest.split_once('\n').unwrap().1.split_once("```").unwrap().0
}

#[test]
fn the_table_is_the_one_on_the_page() {
    let shell = Shell::new();
    let shown = golden::named("damaged-twice").shown(&shell, &["dump"]).unwrap();
    assert_eq!(shown, on_the_page("caskfile dump tests/golden/damaged-twice.cask"));
}

#[test]
fn the_records_of_every_golden_file_are_as_stated() {
    let shell = Shell::new();
    let (mut compared, mut fields) = (0, BTreeSet::new());
    for file in golden::all() {
        let Some(shown) = file.shown(&shell, &["dump", "--json"]) else { continue };
        let lines = objects(&shown);
        fields.extend(lines.iter().flat_map(|line| line.as_object().unwrap().keys().cloned()));
        let end = file.expected["end"].as_u64();
        let counted = lines.iter().filter(|line| line["class"] != "torn" && line["class"] != "roots");
        let records: Vec<Value> = counted
            .map(|line| {
                let mut record = serde_json::Map::new();
                for name in ["offset", "seq", "kind", "flags", "value_len"] {
                    record.insert(name.to_owned(), line[name].clone());
                }
                record.into()
            })
            .collect();
        let Some(written) = file.expected["records"].as_array().filter(|_| end.is_some()) else { continue };
        let mut written = written.clone();
        written.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("key_len")));
        assert_eq!(records, written, "{}", file.name);
        compared += records.len();
    }
    assert!(compared > 100, "{compared}");
    // Every field is on the page.
    let table = PAGE.split_once("`dump --json` writes one object").unwrap().1.split_once("All from `seq`").unwrap().0;
    for field in &fields {
        assert!(table.contains(&format!("`{field}`")), "docs/CLI.md lacks the field {field}");
    }
}

#[test]
fn damage_stands_in_its_place_with_the_failed_check() {
    let shell = Shell::new();
    let shown = objects(&golden::named("damaged-twice").shown(&shell, &["dump", "--json"]).unwrap());
    let classes: Vec<_> = shown.iter().map(|line| line["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["statement", "live", "live", "corrupt", "live", "corrupt", "statement"]);
    assert_eq!((&shown[3]["damage"], &shown[3]["body_holds"]), (&"body".into(), &false.into()));
    // Its lengths lead to the next record, so its body can be checked though its header is wrong.
    let verdicts = ["damage", "header_holds", "body_holds"].map(|name| &shown[5][name]);
    assert_eq!(verdicts, [&Value::from("header"), &false.into(), &true.into()]);
    for (name, class, damage) in [
        ("damaged-hole", "corrupt", "zeros"),
        ("torn-value", "torn", "body"),
        ("header-damaged", "file_header", "file_header"),
        ("torn-seq", "torn", "sequence"),
        ("torn-value-len", "torn", "lengths"),
    ] {
        let shown = objects(&golden::named(name).shown(&shell, &["dump", "--json"]).unwrap());
        let found = shown.iter().any(|line| line["class"] == class && line["damage"] == damage);
        assert!(found, "{name}: {shown:?}");
    }
    // As a table, too: after the line of what is damaged.
    for file in golden::all() {
        let (Some(table), Some(lines)) = (file.shown(&shell, &["dump"]), file.shown(&shell, &["dump", "--json"]))
        else {
            continue;
        };
        let damaged = objects(&lines).iter().filter(|line| !line["damage"].is_null()).count();
        let unread = objects(&lines).iter().filter(|line| line["class"] == "unread").count();
        assert_eq!(table.matches("        !!  ").count(), damaged.max(unread), "{}: {table}", file.name);
    }
}

#[test]
fn a_snapshot_is_shown_by_its_numbers() {
    let shell = Shell::new();
    let file = golden::named("snapshot");
    let table = file.shown(&shell, &["dump"]).unwrap();
    let line = |kind: &str| table.lines().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("{kind}: {table}"));
    assert!(line("ROOTS").ends_with("synced to 36976, snapshot at 36856"), "{table}");
    assert!(line(" IMAGE ").contains(" snapshot ") && line(" IMAGE ").ends_with("… (16,400 bytes)"), "{table}");
    assert!(line(" SNAPSHOT ").ends_with("2 keys, of the log up to 20368"), "{table}");
    let lines = objects(&file.shown(&shell, &["dump", "--json"]).unwrap());
    let of = |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap();
    assert_eq!(of("ROOTS")["snapshot"], of("SNAPSHOT")["offset"]);
    for (name, number) in [
        ("covered_to", 20368),
        ("covered_seq", 1048580),
        ("records", 5),
        ("keys", 2),
        ("live_bytes", 64),
        ("part_bits", 0),
        ("leaves", 0),
    ] {
        assert_eq!(of("SNAPSHOT")[name], number, "{name}");
    }
    for kind in ["IMAGE", "SNAPSHOT"] {
        assert!(["value", "value_base64", "value_hex"].iter().all(|name| of(kind)[name].is_null()), "{kind}");
    }
}

#[test]
fn it_begins_at_the_given_offset() {
    let shell = Shell::new();
    let path = golden::named("example").path;
    let path = path.to_str().unwrap();
    let offsets = |more: &[&str]| -> Vec<u64> {
        let shown = shell.ok_text(&[&["dump", "--json", path], more].concat());
        objects(&shown).iter().map(|line| line["offset"].as_u64().unwrap()).collect()
    };
    let all = offsets(&[]);
    assert_eq!(all, [64, 88, 120, 152, 184, 216]);
    assert_eq!(offsets(&["--from-offset", "120"]), all[2..]);
    // In the middle of a record, which ends after this.
    assert_eq!(offsets(&["--from-offset", "0x80"]), all[2..]);
    assert_eq!(offsets(&["--from-offset", "99999"]), [0; 0]);
    assert_eq!(offsets(&["--from-seq", "1048579"]), all[3..]);
    assert_eq!(offsets(&["--from-seq", "9000000"]), [0; 0]);
    shell.fails(2, &["dump", path, "--from-offset", "12k"]);
}

#[test]
fn values_never_control_a_terminal() {
    let shell = Shell::new();
    let value: Vec<u8> = (0..=255).collect();
    shell.feed(&value, &["put", "s", "k\x1b[31m", "-"]).succeeded();
    shell.ok(&["put", "s", "secret", "password"]);
    let line = |options: &[&str], key: &str| {
        let shown = shell.ok_text(&[&["dump", "--json", "s"], options].concat());
        objects(&shown).into_iter().find(|line| line["key"] == key || line["key_base64"] == key).unwrap()
    };
    assert_eq!(line(&[], "secret")["value"], "password");
    assert_eq!(line(&["--values", "hex"], "secret")["value_hex"], "70617373776f7264");
    assert_eq!(line(&["--values", "base64"], "secret")["value_base64"], "cGFzc3dvcmQ=");
    assert_eq!(line(&["--value-bytes", "4"], "secret")["value"], "pass");
    let binary = line(&["--values", "hex"], "axtbMzFt");
    assert_eq!((&binary["value_len"], binary["value_hex"].as_str().unwrap().len()), (&256.into(), 512));
    let redacted = line(&["--values", "redacted"], "secret");
    assert!(redacted["value_len"] == 8 && !redacted.to_string().contains("pass"), "{redacted}");

    let table = shell.ok_text(&["dump", "s"]);
    assert!(
        table.contains(r"k\x1b[31m") && table.contains("… (256 bytes)") && table.contains("  password\n"),
        "{table}"
    );
    assert!(table.lines().all(|line| !line.contains(|c: char| c.is_control())), "{table}");
    let redacted = shell.ok_text(&["dump", "s", "--values", "redacted"]);
    assert!(redacted.contains("(8 bytes)") && !redacted.contains("pass"), "{redacted}");
    assert!(shell.ok_text(&["dump", "s", "--values", "hex"]).contains("70617373776f7264"));
}

#[test]
fn it_has_colours_only_on_a_terminal_that_wants_them() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let plain = shell.ok_text(&["dump", "s"]);
    let colored = on_terminal(&shell, &["dump", "s"], &[]);
    assert!(!plain.contains('\x1b') && colored.contains("\x1b["));
    assert_eq!(on_terminal(&shell, &["dump", "s"], &[("NO_COLOR", "1")]), plain);
}

#[test]
fn a_file_that_is_no_store_is_an_error() {
    let shell = Shell::new();
    std::fs::write(shell.directory.join("text"), "Dear diary, this is no store. ".repeat(10)).unwrap();
    std::fs::write(shell.directory.join("empty"), "").unwrap();
    for verb in ["dump", "hex", "map"] {
        assert!(shell.fails(6, &[verb, "text"]).contains("not a caskfile"));
        assert!(shell.fails(6, &[verb, "empty"]).contains("empty"));
        assert!(shell.fails(8, &[verb, "absent"]).contains("absent"));
        shell.fails(8, &[verb, "."]);
    }
}
