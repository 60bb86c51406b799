//! `hex`: every byte with its name.

use caskfile::inspect::{Class, Inspection};

use super::dump::on_the_page;
use super::golden::{self, Golden};
use super::pty::on_terminal;
use super::run::Shell;

/// A row: where it starts, its bytes (`None` for those that are not shown), what is said of them.
type Row<'t> = (u64, Vec<Option<u8>>, &'t str);

fn rows(text: &str) -> Vec<Row<'_>> {
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    rows.map(|line| {
        let (row, said) = line.split_once(';').unwrap_or_else(|| panic!("{line}"));
        let (offset, bytes) = row.split_once("  ").unwrap();
        let bytes = bytes.split_whitespace().map(|byte| (byte != "..").then(|| u8::from_str_radix(byte, 16).unwrap()));
        (u64::from_str_radix(offset, 16).unwrap(), bytes.collect(), said.trim())
    })
    .collect()
}

fn shown(shell: &Shell, file: &Golden, options: &[&str]) -> Option<String> {
    file.shown(shell, &[&["hex"], options].concat())
}

#[test]
fn the_rows_are_those_on_the_page() {
    let shell = Shell::new();
    let options = ["--from-offset", "152", "--to-offset", "184"];
    let rows = shown(&shell, &golden::named("damaged-twice"), &options).unwrap();
    let command = format!("caskfile hex {} tests/golden/damaged-twice.cask", options.join(" "));
    assert_eq!(rows, on_the_page(&command));
}

#[test]
fn every_byte_of_every_golden_file_is_shown_once() {
    let shell = Shell::new();
    for file in golden::all() {
        let Some(text) = shown(&shell, &file, &["--all-rows"]) else { continue };
        let mut at = 0;
        for (offset, bytes, said) in rows(&text) {
            assert_eq!(offset, at, "{}: {said}", file.name);
            for byte in bytes {
                let secret = (16..32).contains(&at);
                assert_eq!(byte, (!secret).then(|| file.bytes[at as usize]), "{} at {at}: {said}", file.name);
                at += 1;
            }
        }
        assert_eq!(at, file.bytes.len() as u64, "{}", file.name);
    }
}

#[test]
fn every_field_has_a_name_and_every_record_verdicts() {
    let shell = Shell::new();
    for file in golden::all() {
        let Some(text) = shown(&shell, &file, &[]) else { continue };
        let inspection = Inspection::open(&file.path).unwrap();
        let mut rows = rows(&text).into_iter().peekable();
        for piece in inspection.pieces().map(Result::unwrap) {
            for field in piece.fields() {
                let (offset, _, said) = rows.next().unwrap();
                assert!(offset == field.start && said.starts_with(field.name), "{}: {offset} {said}", file.name);
                while rows.next_if(|(offset, ..)| *offset < field.end).is_some() {}
            }
            let Some(record) = &piece.record else { continue };
            let title = format!("; {}: {} ", piece.start, piece.class.name());
            let title = text.lines().find(|line| line.starts_with(&title)).unwrap_or_else(|| panic!("{title}: {text}"));
            let says = |holds| if holds { "checksum holds" } else { "checksum DOES NOT HOLD" };
            assert!(title.contains(&format!("header {}", says(record.header_holds))), "{title}");
            let body = record.body_holds.map_or("checksum not checked", says);
            let (title, slots) =
                title.split_once("; first slot ").map_or((title, None), |(title, slots)| (title, Some(slots)));
            assert!(title.ends_with(&format!("body {body}")), "{title}");
            assert_eq!(slots.is_some(), piece.class == Class::Roots, "{}: {title}", file.name);
        }
        assert!(rows.next().is_none(), "{}", file.name);
    }
}

/// What the title of `ROOTS` and the rows of both checksums say of the slots.
fn slots(shell: &Shell, store: &str) -> [String; 2] {
    let text = shell.ok_text(&["hex", store]);
    let title = text.lines().find(|line| line.starts_with("; 64: roots")).unwrap();
    let (first, second) = title.split_once("; first slot ").unwrap().1.split_once("; second slot ").unwrap();
    let found = [first, second].map(str::to_owned);
    let crcs = rows(&text).into_iter().filter(|(offset, _, said)| *offset > 64 && said.starts_with("crc"));
    let crcs: Vec<String> = crcs.map(|(.., said)| said.to_owned()).collect();
    assert_eq!(crcs, found.clone().map(|says| format!("crc: the slot {says}")));
    found
}

#[test]
fn each_slot_says_whether_it_holds_and_which_one_is_the_root() {
    let shell = Shell::new();
    shell.ok(&["import", "s", "/dev/null"]);
    shell.ok(&["put", "s", "k", "v"]);
    assert_eq!(slots(&shell, "s"), ["holds and is the root", "is empty"]);
    shell.ok(&["put", "s", "k", "w"]);
    let path = shell.directory.join("s");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(slots(&shell, "s"), ["holds", "holds and is the root"]);
    for (damaged, says) in [
        (&[152][..], ["holds and is the root", "DOES NOT HOLD"]),
        (&[88], ["DOES NOT HOLD", "holds and is the root"]),
        (&[151, 215], ["DOES NOT HOLD", "DOES NOT HOLD"]),
    ] {
        let mut bytes = whole.clone();
        damaged.iter().for_each(|&at: &usize| bytes[at] ^= 1);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(slots(&shell, "s"), says, "{damaged:?}");
    }
    // A file that ends in the second slot, all of whose bytes are zeros.
    let mut bytes = whole;
    bytes.truncate(200);
    bytes[88..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let text = String::from_utf8(shell.run(&["hex", "s"]).stdout).unwrap();
    assert!(text.contains("; first slot is empty; second slot DOES NOT HOLD\n"), "{text}");
}

#[test]
fn rows_that_are_alike_are_left_out_and_counted() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", &"x".repeat(16 * 100)]);
    let (short, long) = (shell.ok_text(&["hex", "s"]), shell.ok_text(&["hex", "s", "--all-rows"]));
    assert!(short.contains("; 1,568 bytes more of the same\n"), "{short}");
    let bytes = |text: &str| rows(text).iter().map(|row| row.1.len()).sum::<usize>();
    // Of the value, and of the reserved bytes of both slots, the first row and the last one are shown.
    let of_slots = 2 * 16;
    assert_eq!(bytes(&long) - bytes(&short), 1568 + of_slots);
    assert_eq!(bytes(&long) as u64, shell.directory.join("s").metadata().unwrap().len());
}

#[test]
fn a_range_has_the_rows_that_it_touches() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", &"0123456789".repeat(50)]);
    let all = shell.ok_text(&["hex", "s", "--all-rows"]);
    let all = rows(&all);
    for (from, to) in [(0, 64), (64, 65), (200, 300), (201, 217), (0x90, 0x91), (63, 64), (250, 250)] {
        let (from_offset, to_offset) = (from.to_string(), format!("{to:#x}"));
        let range = ["--from-offset", &from_offset, "--to-offset", &to_offset];
        let text = shell.ok_text(&[&["hex", "s", "--all-rows"], &range[..]].concat());
        let touched = all.iter().filter(|row| row.0 < to && row.0 + row.1.len() as u64 > from);
        let places = |rows: &[Row<'_>]| rows.iter().map(|row| (row.0, row.1.clone())).collect::<Vec<_>>();
        let expected: Vec<_> = touched.map(|row| (row.0, row.1.clone())).collect();
        assert_eq!(places(&rows(&text)), expected, "{from} to {to}");
    }
    for line in
        [&["--from-offset", "300", "--to-offset", "200"][..], &["--from-offset", "1000000"], &["--to-offset", "x"]]
    {
        shell.fails(2, &[&["hex", "s"], line].concat());
    }
    shell.fails(2, &["hex", "s", "--json"]);
}

#[test]
fn it_has_colours_only_on_a_terminal_that_wants_them() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let plain = shell.ok_text(&["hex", "s"]);
    let colored = on_terminal(&shell, &["hex", "s"], &[]);
    assert!(!plain.contains('\x1b') && colored.contains("\x1b[36m"), "{colored:?}");
    assert_eq!(on_terminal(&shell, &["hex", "s"], &[("NO_COLOR", "1")]), plain);
    // Without its colours it is the same.
    let mut bare = String::new();
    for (number, part) in colored.split('\x1b').enumerate() {
        bare.push_str(if number == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(bare, plain);
}
