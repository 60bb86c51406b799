//! `map`: what is drawn is to scale, and the legend says what the pieces say.

use std::collections::BTreeMap;

use caskfile::inspect::{Class, Inspection};

use super::golden;
use super::pty::on_terminal;
use super::run::Shell;

/// An element that is drawn: its attributes.
type Attributes<'t> = BTreeMap<&'t str, &'t str>;

/// Reads the picture as XML, which it has to be: tags that are closed in their order, attributes in quotes, and no
/// character in between that would have to be escaped. Returns elements with their attributes, and all text.
fn parse(svg: &str) -> (Vec<(&str, Attributes<'_>)>, String) {
    let (mut elements, mut open, mut text) = (Vec::new(), Vec::new(), String::new());
    let mut rest = svg;
    while let Some((before, after)) = rest.split_once('<') {
        assert!(!before.contains('>') && before.split('&').skip(1).all(is_entity), "{before}");
        text += before;
        let (tag, after) = after.split_once('>').unwrap();
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{name} is closed");
            continue;
        }
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut list) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Attributes::new();
        while let Some((key, value)) = list.split_once("=\"") {
            let (value, after) = value.split_once('"').unwrap();
            assert!(attributes.insert(key.trim(), value).is_none());
            list = after;
        }
        assert!(list.trim().is_empty(), "{tag}");
        if !empty {
            open.push(name);
        }
        elements.push((name, attributes));
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    (elements, text)
}

fn is_entity(after: &str) -> bool {
    ["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| after.starts_with(entity))
}

/// The rectangles of a path: x, y, width, height.
fn rectangles(path: &str) -> Vec<[f64; 4]> {
    let rectangle = |part: &str| {
        let numbers: Vec<f64> =
            part.split(['h', 'v', ' ']).map(|number| number.trim_end_matches('z').parse().unwrap()).collect();
        [numbers[0], numbers[1], numbers[2], numbers[3]]
    };
    path.split('M').skip(1).map(rectangle).collect()
}

/// What is drawn of each class between two places from left to right, as a part of all that is drawn there.
fn drawn(svg: &str, from: f64, to: f64) -> BTreeMap<String, f64> {
    let mut areas = BTreeMap::new();
    let (elements, _) = parse(svg);
    for (_, attributes) in
        elements.iter().filter(|(name, attributes)| *name == "path" && attributes.contains_key("class"))
    {
        let class = attributes["class"];
        // The legend's swatches stand at the margin, left of all files.
        for [x, _, width, height] in Some(attributes["d"]).filter(|_| named(class)).into_iter().flat_map(rectangles) {
            if x >= from && x < to {
                *areas.entry(class.to_owned()).or_insert(0.0) += width * height;
            }
        }
    }
    let all: f64 = areas.values().sum();
    areas.into_iter().map(|(class, area)| (class, area / all)).collect()
}

fn named(class: &str) -> bool {
    Class::ALL.iter().any(|known| known.name() == class)
}

fn parts(path: &std::path::Path) -> BTreeMap<String, f64> {
    let inspection = Inspection::open(path).unwrap();
    let mut totals = BTreeMap::new();
    for piece in inspection.pieces().map(Result::unwrap).filter(|piece| piece.end > piece.start) {
        *totals.entry(piece.class.name().to_owned()).or_insert(0.0) += (piece.end - piece.start) as f64;
    }
    totals.into_iter().map(|(class, bytes)| (class, bytes / inspection.file_len() as f64)).collect()
}

#[track_caller]
fn same(story: &str, drawn: &BTreeMap<String, f64>, parts: &BTreeMap<String, f64>, tolerance: f64) {
    for class in Class::ALL.map(Class::name) {
        let of = |parts: &BTreeMap<String, f64>| parts.get(class).copied().unwrap_or(0.0);
        assert!((of(drawn) - of(parts)).abs() <= tolerance, "{story}, {class}: {drawn:?} {parts:?}");
    }
}

const SWATCHES_END: f64 = 100.0;

#[test]
fn every_golden_file_is_drawn_to_scale() {
    let shell = Shell::new();
    for file in golden::all() {
        let Some(svg) = file.shown(&shell, &["map"]) else { continue };
        same(&file.name, &drawn(&svg, SWATCHES_END, f64::MAX), &parts(&file.path), 0.001);
        let (elements, text) = parse(&svg);
        let count = |element: &str| elements.iter().filter(|(name, _)| *name == element).count();
        assert!(count("title") >= 1 && count("desc") == 1 && svg.contains("role=\"img\""), "{}", file.name);
        assert!(text.contains(&format!("{}.cask", file.name)));
        // A triangle for whatever is broken.
        let broken = ["torn", "corrupt", "unread"].iter().any(|class| parts(&file.path).contains_key(*class));
        let empty = Inspection::open(&file.path).unwrap().pieces().any(|piece| {
            let piece = piece.unwrap();
            piece.start == piece.end
        });
        assert_eq!(svg.contains("something broken"), broken || empty, "{}", file.name);
    }
}

/// The bytes that the legend says of a class, for each file.
fn legend(svg: &str, called: &str) -> Vec<u64> {
    let line = svg
        .lines()
        .position(|line| line.contains("<text") && line.contains(&format!(">{called}")))
        .unwrap_or_else(|| panic!("{called}"));
    let figures = svg.lines().skip(line + 1).take_while(|line| line.contains("text-anchor=\"end\""));
    let text = |line: &str| line.split_once('>').unwrap().1.split(" byte").next().unwrap().replace(',', "");
    figures.map(|line| text(line).parse().unwrap()).collect()
}

#[test]
fn before_and_after_stand_side_by_side_at_one_scale() {
    let shell = Shell::new();
    let mut pairs = String::new();
    for number in 0..4000 {
        pairs += &format!("key{}\t{}\n", number % 700, "x".repeat(number % 90));
    }
    shell.feed(pairs.as_bytes(), &["import", "s", "--format", "tsv"]).succeeded();
    shell.ok(&["delete-prefix", "s", "key1"]);
    shell.ok(&["backup", "--compact", "s", "after"]);
    let svg = shell.ok_text(&["map", "s", "after"]);
    let (elements, _) = parse(&svg);
    let strips = elements.iter().filter(|(_, attributes)| attributes.get("class") == Some(&"strip"));
    // The legend's swatches have frames, too.
    let frames: Vec<_> =
        strips.map(|(_, attributes)| rectangles(attributes["d"])).filter(|frame| frame[0][0] > SWATCHES_END).collect();
    assert_eq!(frames.len(), 2);
    let lens = ["s", "after"].map(|name| shell.directory.join(name).metadata().unwrap().len() as f64);
    let width = |frame: &[[f64; 4]]| frame.iter().map(|rectangle| rectangle[2]).sum::<f64>();
    assert!((width(&frames[0]) / lens[0] - width(&frames[1]) / lens[1]).abs() < 0.0001, "{frames:?}");
    let between = frames[1][0][0] - 1.0;
    assert!(frames[0][0][0] + frames[0][0][2] < between);
    // Enough pieces that the first one is drawn in cells.
    assert!(Inspection::open(shell.directory.join("s")).unwrap().pieces().count() > 4000);
    same("before", &drawn(&svg, SWATCHES_END, between), &parts(&shell.directory.join("s")), 0.002);
    same("after", &drawn(&svg, between, f64::MAX), &parts(&shell.directory.join("after")), 0.002);
    let [dead, live, all] = ["dead records", "live records", "all"].map(|called| legend(&svg, called));
    assert!(dead[0] > 0 && dead[1] == 0 && live[0] == live[1], "{dead:?} {live:?}");
    assert_eq!(all, lens.map(|len| len as u64));
    assert!(svg.len() < 1 << 20, "{}", svg.len());
}

#[test]
fn the_picture_has_no_keys_and_no_values() {
    let shell = Shell::new();
    let name = "a<b>&\"c\u{1b}'.cask";
    shell.ok(&["put", name, "the-key", "the-value", "--bucket", "the-bucket"]);
    let svg = shell.ok_text(&["map", name]);
    let (_, text) = parse(&svg);
    assert!(text.contains("a&lt;b&gt;&amp;&quot;c\u{fffd}'.cask"), "{text}");
    assert!(!svg.contains("the-") && !svg.contains('\u{1b}'));
    let shown = on_terminal(&shell, &["map", name], &[]);
    assert!(shown.contains("no text for a terminal") && !shown.contains("<svg"), "{shown}");
    shell.fails(2, &["map", name, "--json"]);
    shell.fails(8, &["map", name, "absent"]);
}

/// In the legend the names of two files stood one over the other.
#[test]
fn long_names_are_shortened_and_whole_in_the_title() {
    let shell = Shell::new();
    let name = format!("{}.cask", "long-".repeat(40));
    shell.ok(&["put", &name, "k", "v"]);
    shell.ok(&["put", "s", "k", "v"]);
    let svg = shell.ok_text(&["map", &name, "s"]);
    assert!(svg.contains(&format!("<title id=\"title\">What the bytes are of {name} and s</title>")));
    let texts = svg.lines().filter(|line| line.starts_with("<text"));
    let widest = texts.map(|line| line.split(['>', '<']).nth(2).unwrap().chars().count()).max();
    assert_eq!(widest, Some(52), "what a column has room for");
    assert!(svg.contains(">long-long-long-long…<"), "what the legend has room for");
}

#[test]
fn the_picture_on_the_page_is_current() {
    let shell = Shell::new();
    let names = ["every-kind", "damaged-twice"];
    let paths = names.map(|name| golden::named(name).path.to_str().unwrap().to_owned());
    let ran = shell.run(&["map", &paths[0], &paths[1]]);
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    let [first, second] = names;
    let page = include_str!("../../docs/CLI.md");
    assert!(page.contains(&format!("`caskfile map tests/golden/{first}.cask tests/golden/{second}.cask`")));
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), include_str!("../../docs/map.svg"));
}

#[test]
fn a_file_of_any_length_has_few_rows() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for len in [1 << 20, 1 << 33] {
        std::fs::File::options().write(true).open(shell.directory.join("s")).unwrap().set_len(len).unwrap();
        let svg = shell.ok_text(&["map", "s"]);
        let (elements, _) = parse(&svg);
        let labels = elements.iter().filter(|(_, attributes)| attributes.get("text-anchor") == Some(&"end")).count();
        assert!(labels < 50, "{labels}");
        assert_eq!(legend(&svg, "all"), [len]);
    }
}
