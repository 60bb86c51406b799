//! docs/INTERNALS.md draws which module imports which: the source has these arrows, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that any module may import. The table has no arrows to them.
const SMALL: [&str; 8] = ["config", "events", "fork", "limits", "memory", "prefetch", "progress", "sync"];

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table of the page: a module, and what it imports.
fn drawn() -> Arrows {
    let page = fs::read_to_string(root().join("docs/INTERNALS.md")).unwrap();
    let table = page.split_once("| module | imports |\n").expect("the page has the table").1;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        (names(cells[0]).pop_first().expect("a row begins with a module"), names(cells[1]))
    })
    .collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The path of a module in the crate: `["engine", "write", "turn"]`.
fn module_path(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut path: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib") {
        path.pop();
    }
    path
}

/// The module of the table that a path belongs to, if there is one.
fn module(path: &[String]) -> Option<String> {
    let first = path.first()?.as_str();
    // What `lib.rs` exports for users, by the module that it comes from.
    let first = match first {
        "Error" | "Result" => "error",
        "Config" => "config",
        "Cask" | "Batch" => "engine",
        "Change" | "Feed" | "Held" | "KvPair" | "Lock" | "LockOptions" | "OptionalExt" | "PutOptions" | "Stopper"
        | "Store" | "TreeEvent" => "store",
        first => first,
    };
    match (first, path.get(1).map(String::as_str)) {
        ("engine", Some(part @ ("context" | "deadline" | "read" | "write" | "maintain"))) => {
            Some(format!("engine/{part}"))
        }
        _ => Some(first.to_owned()),
    }
}

/// The source without comments and without its unit tests.
fn code(text: &str) -> String {
    let is_test = |line: &str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//")).peekable();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        if is_test(line) {
            let item = lines.next().unwrap_or_default();
            if item.ends_with('{') {
                lines.by_ref().find(|line| *line == "}");
            }
            continue;
        }
        code += line;
        code.push('\n');
    }
    code
}

/// The paths that begin with `crate::` or `super::`, in full, braces taken apart.
fn imports(own: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = &code.as_bytes()[..at];
            if before.last().is_some_and(|&byte| word(byte) || byte == b':' || byte == b'$') {
                continue;
            }
            let mut rest = &code[at..];
            let mut base = own.to_vec();
            let mut up = 0;
            while let Some(next) = rest.strip_prefix("super::") {
                (rest, up) = (next, up + 1);
            }
            if let Some(next) = rest.strip_prefix("crate::") {
                (rest, base) = (next, Vec::new());
            }
            base.truncate(own.len().saturating_sub(up).min(base.len()));
            expand(&base, rest, &mut found);
        }
    }
    found
}

/// Adds the first two parts of each path that `text` begins with.
fn expand(base: &[String], text: &str, found: &mut Vec<Vec<String>>) {
    if let Some(list) = text.strip_prefix('{') {
        let mut depth = 1;
        let end = list.find(|char| {
            depth += i32::from(char == '{') - i32::from(char == '}');
            depth == 0
        });
        let list = &list[..end.expect("a list of imports ends")];
        // Split at the commas that stand in no inner list.
        let mut depth = 0;
        let parts = list.split(|char| {
            depth += i32::from(char == '{') - i32::from(char == '}');
            char == ',' && depth == 0
        });
        parts.map(str::trim).filter(|part| !part.is_empty()).for_each(|part| expand(base, part, found));
        return;
    }
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len());
    if end == 0 {
        return;
    }
    let mut path = base.to_vec();
    path.push(text[..end].to_owned());
    match text[end..].strip_prefix("::") {
        Some(rest) if path.len() < 2 && rest.starts_with(|char: char| char == '{' || char.is_ascii_lowercase()) => {
            expand(&path, rest, found);
        }
        _ => found.push(path),
    }
}

/// The arrows of the source, and for each the files that have it.
fn found() -> (Arrows, BTreeMap<(String, String), BTreeSet<PathBuf>>) {
    let (mut files, mut arrows, mut why) = (Vec::new(), Arrows::new(), BTreeMap::<_, BTreeSet<_>>::new());
    sources(&root().join("src"), &mut files);
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let own = module_path(file);
        let is_test = |name: &String| ["tests", "testing", "groups", "interleaved", "scratch"].contains(&name.as_str());
        if own.iter().any(is_test) || own.first().is_none_or(|first| first == "bin") {
            continue;
        }
        let from = module(&own).unwrap();
        let to = arrows.entry(from.clone()).or_default();
        for path in imports(&own, &code(&fs::read_to_string(file).unwrap())) {
            let Some(target) = module(&path) else { continue };
            if target != from && !SMALL.contains(&target.as_str()) {
                why.entry((from.clone(), target.clone())).or_default().insert(file.clone());
                to.insert(target);
            }
        }
    }
    (arrows, why)
}

#[test]
fn the_table_has_the_arrows_of_the_source() {
    let (drawn, (found, why)) = (drawn(), found());
    let mut wrong = String::new();
    for (from, to) in &found {
        let Some(allowed) = drawn.get(from) else {
            wrong += &format!("{from} is not in the table; it imports {to:?}\n");
            continue;
        };
        for target in to.difference(allowed) {
            wrong += &format!("{from} imports {target} in {:?}\n", why[&(from.clone(), target.clone())]);
        }
        for target in allowed.difference(to) {
            wrong += &format!("{from} does not import {target}, which the table says\n");
        }
    }
    for from in drawn.keys().filter(|from| !found.contains_key(*from)) {
        wrong += &format!("there is no module {from}\n");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// No module is reached again from itself.
#[test]
fn the_arrows_have_no_circle() {
    let drawn = drawn();
    let mut settled = BTreeSet::new();
    while settled.len() < drawn.len() {
        let next = drawn.iter().find(|(from, to)| !settled.contains(*from) && to.iter().all(|to| settled.contains(to)));
        let Some((from, _)) = next else {
            panic!("in a circle: {:?}", drawn.keys().filter(|k| !settled.contains(*k)).collect::<Vec<_>>())
        };
        settled.insert(from);
    }
}

/// Each module stands in the picture below everything that it imports.
#[test]
fn the_picture_shows_the_order_of_the_table() {
    let page = fs::read_to_string(root().join("docs/INTERNALS.md")).unwrap();
    let picture = page.split_once("## The map").unwrap().1.split("```").nth(1).unwrap();
    let line_of = |module: &str| {
        let is_word = |char: char| char.is_ascii_alphanumeric() || char == '/';
        picture.lines().position(|line| line.split(|char| !is_word(char)).any(|word| word == module))
    };
    let mut compared = 0;
    for (from, to) in drawn() {
        let Some(own) = line_of(&from) else { continue };
        for other in to.iter().filter_map(|to| line_of(to)) {
            assert!(other < own, "{from} imports something that the picture has below it, or beside it");
            compared += 1;
        }
    }
    assert!(compared > 20, "only {compared} arrows of the picture were compared");
}
