//! The results on the terminal.

use crate::engine::Result;
use crate::engines;
use crate::judge::standings;
use crate::results::Results;
use crate::rows::{GROUPS, Row};

/// Every row in which caskfile took part: with the best peer, the floor, both ratios, and the aim.
pub fn print(results: &Results, all_engines: bool) -> Result<()> {
    let run = &results.run;
    println!("{} keys, median of {} rounds, {}, {}", run.keys, run.rounds, run.date, run.commit);
    println!(
        "ratios: above 1 is good for rates, below 1 for everything else; a reached aim has a +, a missed one a -\n"
    );
    for group in GROUPS {
        let rows: Vec<&Row> = group
            .rows
            .iter()
            .filter(|row| !standings(results, row).is_empty() || all_engines && is_measured(results, row))
            .collect();
        if rows.is_empty() {
            continue;
        }
        println!(
            "{:<46}{:>16}  {:<30}{:>7}{:>17}{:>7}  aims",
            group.title, "caskfile", "best peer", "ratio", "floor", "ratio"
        );
        for row in rows {
            for standing in standings(results, row) {
                let mode = standing.mode().map(|mode| format!(" [{mode}]")).unwrap_or_default();
                let aims: Vec<String> = standing
                    .aims
                    .iter()
                    .map(|aim| {
                        let mark = match aim.reached {
                            Some(true) => "+",
                            Some(false) => "-",
                            None => "?",
                        };
                        format!("{mark} {}", aim.text)
                    })
                    .collect();
                let [figure, peer, to_peer, floor, to_floor] = standing.cells(row);
                println!(
                    "  {:<44}{figure:>16}  {peer:<30}{to_peer:>7}{floor:>17}{to_floor:>7}  {}",
                    format!("{}{mode}", row.title),
                    aims.join("; "),
                );
            }
            if all_engines {
                if standings(results, row).is_empty() {
                    println!("  {}", row.title);
                }
                others(results, row);
            }
        }
        println!();
    }
    for (family, engine, reason) in results.failures() {
        println!("{engine} failed in {family}: {reason}");
    }
    Ok(())
}

fn is_measured(results: &Results, row: &Row) -> bool {
    engines::all().iter().any(|kind| results.median(row.id, kind.name).is_some())
}

/// The figures of all engines, or the reason for an absent one, and how far apart the rounds were.
fn others(results: &Results, row: &Row) {
    for engine in results.engines(engines::all().iter().map(|kind| kind.name)) {
        let figure = results.median(row.id, engine).map(|figure| row.unit.show(figure));
        let spread = results.spread(row.id, engine).map(|spread| format!("  rounds {spread:.2} apart"));
        match (figure, results.missing(row.id, engine)) {
            (Some(figure), _) => println!("      {engine:<40}{figure:>16}{}", spread.unwrap_or_default()),
            (None, Some(reason)) => println!("      {engine:<40}{:>16}  {reason}", "-"),
            (None, None) => {}
        }
    }
}
