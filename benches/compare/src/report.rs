//! Writes docs/BENCHMARKS.md and its plots. The reasons for lost rows are in `reasons.txt`.

use std::fmt::Write;
use std::path::Path;

use crate::engine::{Result, Role};
use crate::engines;
use crate::judge::{show_ratio, standings};
use crate::plot;
use crate::results::Results;
use crate::rows::{GROUPS, Group, Row};

/// Beside the page.
const PLOTS: &str = "benchmarks";
/// A line for a row: its name, a colon, the reason.
const REASONS: &str = include_str!("../reasons.txt");

pub fn write(results: &Results, larger: Option<&Results>, weight: Option<&str>, page: &Path) -> Result<()> {
    let plots = page.with_file_name(PLOTS);
    std::fs::create_dir_all(&plots)?;
    let mut text = String::new();
    introduction(&mut text, results)?;
    for group in GROUPS {
        let Some(svg) = plot::group(results, group) else { continue };
        std::fs::write(plots.join(group.id).with_extension("svg"), svg)?;
        section(&mut text, results, group)?;
    }
    if let Some(larger) = larger {
        growth(&mut text, results, larger)?;
    }
    if let Some(weight) = weight {
        writeln!(
            text,
            "## Weight\n\nA program that puts a pair and gets it, as `./weight` builds it:\n\n```text\n{weight}```\n"
        )?;
    }
    for (family, engine, reason) in results.failures() {
        writeln!(text, "{engine} failed in `{family}`: {reason}\n")?;
    }
    lost(&mut text, results)?;
    modes(&mut text, results)?;
    std::fs::write(page, text)?;
    println!("{} and {}", page.display(), plots.display());
    Ok(())
}

fn introduction(text: &mut String, results: &Results) -> Result<()> {
    let run = &results.run;
    let list = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    };
    writeln!(
        text,
        "# Benchmarks\n\n\
         caskfile beside other embedded stores, and beside floors: the least that any program must do for the same\n\
         purpose. `benches/compare` writes this page; its README says how each row is measured and what cannot be\n\
         compared.\n\n\
         - {} keys of 16 bytes with values of 100, unless a row says otherwise; medians of {} rounds. The engines took\n  \
           turns, each in a process of its own, and every value that was read was checked.\n\
         - Machine: {}.\n\
         - Versions: caskfile {}, {}.\n\
         - Date: {}.\n\
         - To repeat it: `cd benches/compare && cargo run --release -- {}`, then `cargo run --release -- report\n  results.jsonl`.\n\n\
         A ratio divides the figure of caskfile by the other one: above 1 is good for rates, below 1 for times and bytes.\n",
        run.keys,
        run.rounds,
        list(&run.machine),
        run.commit,
        list(&run.versions),
        run.date,
        run.command,
    )?;
    if let Some(note) = &run.note {
        writeln!(text, "{note}\n")?;
    }
    Ok(())
}

fn section(text: &mut String, results: &Results, group: &Group) -> Result<()> {
    writeln!(text, "## {}\n\n![{}]({PLOTS}/{}.svg)\n", group.title, group.title, group.id)?;
    writeln!(text, "| | caskfile | best peer | ratio | floor | ratio | aim |\n|---|---|---|---|---|---|---|")?;
    for row in group.rows {
        for standing in standings(results, row) {
            let mode = standing.mode().map(|mode| format!(" ({mode})")).unwrap_or_default();
            let aims: Vec<_> = standing.aims.iter().map(|aim| format!("{}: {}", aim.text, aim.verdict())).collect();
            let cells = standing.cells(row).join(" | ");
            writeln!(text, "| {}{mode} | {cells} | {} |", row.title, aims.join("; "))?;
        }
    }
    writeln!(text, "\n<details><summary>All engines</summary>\n")?;
    matrix(text, results, group)?;
    writeln!(text, "\n</details>\n")?;
    Ok(())
}

/// Rows down, engines across.
fn matrix(text: &mut String, results: &Results, group: &Group) -> Result<()> {
    let shown = |engine: &&str| group.rows.iter().any(|row| results.median(row.id, engine).is_some());
    let engines: Vec<_> =
        results.engines(engines::all().iter().map(|kind| kind.name)).into_iter().filter(shown).collect();
    writeln!(text, "| | {} |\n|---|{}", engines.join(" | "), "---|".repeat(engines.len()))?;
    for row in group.rows {
        let cell = |engine: &&str| match (results.median(row.id, engine), results.missing(row.id, engine)) {
            (Some(figure), _) => row.unit.show(figure),
            (None, Some(reason)) => reason.to_owned(),
            (None, None) => String::new(),
        };
        writeln!(text, "| {} | {} |", row.title, engines.iter().map(cell).collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}

/// Every row that both have, of caskfile and of the engine that is its best peer at the smaller size.
fn growth(text: &mut String, smaller: &Results, larger: &Results) -> Result<()> {
    let (few, many) = (smaller.run.keys, larger.run.keys);
    writeln!(text, "## From {few} to {many} keys\n\n| | engine | {few} | {many} | ratio |\n|---|---|---|---|---|")?;
    for row in GROUPS.iter().flat_map(|group| group.rows) {
        for engine in engines::all().iter().map(|kind| kind.name) {
            if let (Some(few), Some(many)) = (smaller.median(row.id, engine), larger.median(row.id, engine)) {
                let (shown_few, shown_many) = (row.unit.show(few), row.unit.show(many));
                let ratio = show_ratio(Some(many / few).filter(|ratio| ratio.is_finite()));
                writeln!(text, "| {} | {engine} | {shown_few} | {shown_many} | {ratio} |", row.title)?;
            }
        }
    }
    writeln!(text)?;
    Ok(())
}

/// The rows in which an aim was missed, or a peer is ahead.
fn lost(text: &mut String, results: &Results) -> Result<()> {
    writeln!(text, "## Rows that are lost\n\n| row | by how much | why |\n|---|---|---|")?;
    for row in GROUPS.iter().flat_map(|group| group.rows) {
        for standing in standings(results, row) {
            let mut misses: Vec<_> = standing
                .aims
                .iter()
                .filter(|aim| aim.reached == Some(false))
                .map(|aim| format!("aim: {}", aim.text))
                .collect();
            let is_worse = |ratio: &f64| if row.unit.more_is_better() { *ratio < 1.0 } else { *ratio > 1.0 };
            if let (Some(ratio), Some((peer, _))) = (standing.to_peer().filter(is_worse), standing.peer) {
                misses.insert(0, format!("{} × {peer}", show_ratio(Some(ratio))));
            }
            if !misses.is_empty() {
                writeln!(text, "| {} ({}) | {} | {} |", row.title, standing.engine, misses.join("; "), reason(row))?;
            }
        }
    }
    writeln!(text)?;
    Ok(())
}

fn reason(row: &Row) -> &'static str {
    let lines = REASONS.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(id, _)| *id == row.id).map(|(_, reason)| reason).next().unwrap_or("not looked into yet")
}

fn modes(text: &mut String, results: &Results) -> Result<()> {
    writeln!(
        text,
        "## What the modes are called\n\n| engine | without a sync | survives a power cut |\n|---|---|---|"
    )?;
    for kind in engines::all().into_iter().filter(|kind| kind.role != Role::Floor) {
        if let Some((unsynced, durable)) = results.run.modes.get(kind.name) {
            writeln!(text, "| {} | {unsynced} | {durable} |", kind.name)?;
        }
    }
    Ok(())
}
