//! The table of budgets, and how it is compared.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use super::cost::Cost;
use super::lab::{MODES, Mode};

/// What a call costs in some modes.
pub struct Row {
    call: String,
    modes: String,
    cost: Cost,
}

impl Row {
    /// One row for all modes in which a call costs the same.
    pub fn of_modes(call: &str, cost: impl Fn(Mode) -> Option<Cost>) -> Vec<Row> {
        let mut groups: Vec<(Cost, Vec<Mode>)> = Vec::new();
        for mode in MODES {
            let Some(cost) = cost(mode) else { continue };
            match groups.iter_mut().find(|(other, _)| *other == cost) {
                Some((_, modes)) => modes.push(mode),
                None => groups.push((cost, vec![mode])),
            }
        }
        let row = |(cost, modes): (Cost, Vec<Mode>)| Row { call: call.to_owned(), modes: names(&modes), cost };
        groups.into_iter().map(row).collect()
    }
}

/// What several modes are called together.
fn names(modes: &[Mode]) -> String {
    let all_with = |has: &dyn Fn(Mode) -> bool| MODES.into_iter().filter(|&mode| has(mode)).eq(modes.iter().copied());
    if all_with(&|_| true) {
        return "all".to_owned();
    }
    if all_with(&|mode| mode.is_mapped()) {
        return "map".to_owned();
    }
    if all_with(&|mode| !mode.is_mapped()) {
        return "pread".to_owned();
    }
    if all_with(&|mode| !mode.is_exclusive()) {
        return "shared".to_owned();
    }
    if all_with(&|mode| mode.is_exclusive()) {
        return "exclusive".to_owned();
    }
    modes.iter().map(|mode| mode.name()).collect::<Vec<_>>().join(", ")
}

const TABLE: &str = include_str!("table.md");

fn section(title: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "## {title}\n\n| call | handle | calls to the disk | written | read | of these with the lock |\n| --- | --- | --- | --- | --- | --- |\n"
    );
    for Row { call, modes, cost } in rows {
        let Cost { written, read, read_with_lock, .. } = *cost;
        writeln!(text, "| {call} | {modes} | {cost} | {written} | {read} | {read_with_lock} |").unwrap();
    }
    text
}

/// Compares a section of the table with what was counted.
pub fn check(title: &str, rows: Vec<Row>) {
    let counted = section(title, &rows);
    if std::env::var_os("CASKFILE_BUDGETS").is_some_and(|text| text == "write") {
        return replace(title, &counted);
    }
    let written = find(TABLE, title).unwrap_or_default();
    let missing = |there: &str, here: &str, sign: &str| {
        let lines = here.lines().filter(|line| !there.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let differences = missing(&counted, written, "-") + &missing(written, &counted, "+");
    assert!(
        differences.is_empty() && written.trim_end() == counted.trim_end(),
        "{title}: calls cost something else than the table of budgets says (- the table, + counted now):\n{differences}"
    );
}

/// The part of a text from the title to the next one.
fn find<'t>(text: &'t str, title: &str) -> Option<&'t str> {
    let start = text.find(&format!("## {title}\n"))?;
    let len = text[start + 3..].find("\n## ").map_or(text.len() - start, |next| next + 3 + 1);
    Some(&text[start..start + len])
}

fn replace(title: &str, counted: &str) {
    // One test at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/contract/budgets/table.md");
    let table = std::fs::read_to_string(&path).unwrap();
    let written = match find(&table, title) {
        Some(old) => table.replace(old, &format!("{counted}\n")),
        None => format!("{}\n\n{counted}", table.trim_end()),
    };
    std::fs::write(path, written.trim_end().to_owned() + "\n").unwrap();
}
