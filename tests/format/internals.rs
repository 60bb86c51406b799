//! docs/INTERNALS.md leads through the source: every file and every function that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/INTERNALS.md")).expect("docs/INTERNALS.md is there")
}

/// The links of a page: their texts and where they lead.
fn links(page: &str) -> Vec<(&str, &str)> {
    let link = |(at, _): (usize, &str)| {
        let text = page[..at].rsplit_once('[').expect("a link has a text").1;
        (text, page[at + 2..].split_once(')').expect("a link has an end").0)
    };
    page.match_indices("](").map(link).collect()
}

/// All of `src/`, one file after the other.
fn all_sources() -> String {
    let (mut directories, mut text) = (vec![root().join("src")], String::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether `text` has `word` as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    let bytes = text.as_bytes();
    text.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !is_word(before) && !is_word(bytes.get(at + word.len()))
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.split("::").all(|part| part.bytes().all(|byte| is_word(Some(&byte))))
}

#[test]
fn every_file_that_the_page_leads_to_is_there() {
    let page = page();
    let mut sections = page.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    for (text, to) in links(&page) {
        if let Some(section) = to.strip_prefix('#') {
            let found = sections.clone().any(|line| line.to_lowercase().replace(' ', "-") == section);
            assert!(found, "[{text}] leads to a section {section}");
            continue;
        }
        let path: PathBuf = root().join("docs").join(to);
        assert!(path.exists(), "[{text}] leads to {to}");
    }
    assert!(sections.any(|line| line == "The life of a crash"));
}

#[test]
fn every_function_that_the_page_names_is_in_the_file_that_it_leads_to() {
    let page = page();
    let mut functions = 0;
    for (text, to) in links(&page) {
        let Some(name) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) else { continue };
        let source = fs::read_to_string(root().join("docs").join(to)).unwrap();
        let (owner, function) = name.rsplit_once("::").unwrap_or(("", name));
        let declared = |behind| source.contains(&format!("fn {function}{behind}"));
        assert!(declared("(") || declared("<"), "{to} has no function {function}");
        let of_a_type = owner.starts_with(|first: char| first.is_ascii_uppercase());
        let implemented = source.lines().any(|line| line.starts_with("impl") && has_word(line, owner));
        assert!(!of_a_type || implemented, "{to} implements nothing for {owner}");
        functions += 1;
    }
    assert!(functions > 50, "only {functions} functions were found in the page");
}

#[test]
fn every_other_name_on_the_page_is_a_word_of_the_source() {
    let (page, sources) = (page(), all_sources());
    let prose: String = page.split("```").step_by(2).collect();
    let mut names = 0;
    for name in prose.split('`').skip(1).step_by(2).filter(|span| is_name(span)) {
        for part in name.split("::") {
            assert!(has_word(&sources, part), "the page speaks of {name}, and the source has no {part}");
        }
        names += 1;
    }
    assert!(names > 80, "only {names} names were found in the page");
}
