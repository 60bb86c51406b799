//! The results file: one JSON object a line, first what was run and where, then every figure of every round.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::Result;

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "line", rename_all = "lowercase")]
pub enum Line {
    Run(Run),
    Figure(Figure),
}

#[derive(Serialize, Deserialize, Debug)]
pub struct Run {
    pub date: String,
    pub commit: String,
    pub command: String,
    pub keys: usize,
    pub rounds: usize,
    /// Other facts that a reader of the figures should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub machine: BTreeMap<String, String>,
    /// Of the engines, and of the compiler.
    pub versions: BTreeMap<String, String>,
    /// What each engine calls the two modes.
    pub modes: BTreeMap<String, (String, String)>,
}

/// Follows the name of a family in the name of a row that says that an engine failed in it.
pub const FAILED: &str = "-failed";

/// A value, or the reason for its absence.
#[derive(Serialize, Deserialize, Debug)]
pub struct Figure {
    pub round: usize,
    pub engine: String,
    pub row: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

pub struct Results {
    pub run: Run,
    figures: BTreeMap<(String, String), Vec<f64>>,
    missing: BTreeMap<(String, String), String>,
}

impl Results {
    pub fn read(path: &Path) -> Result<Results> {
        let mut run = None;
        let (mut figures, mut missing) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for line in BufReader::new(File::open(path)?).lines() {
            match serde_json::from_str(&line?)? {
                Line::Run(found) => run = Some(found),
                Line::Figure(Figure { engine, row, value, missing: reason, .. }) => {
                    if let Some(value) = value {
                        figures.entry((row, engine)).or_default().push(value);
                    } else if let Some(reason) = reason {
                        missing.insert((row, engine), reason);
                    }
                }
            }
        }
        let run = run.ok_or("the file does not begin with what was run")?;
        Ok(Results { run, figures, missing })
    }

    /// The median over the rounds.
    pub fn median(&self, row: &str, engine: &str) -> Option<f64> {
        let mut values = self.figures.get(&(row.to_owned(), engine.to_owned()))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// How far apart the rounds are: the highest over the lowest.
    pub fn spread(&self, row: &str, engine: &str) -> Option<f64> {
        let values = self.figures.get(&(row.to_owned(), engine.to_owned()))?;
        let lowest = values.iter().copied().min_by(f64::total_cmp)?;
        let highest = values.iter().copied().max_by(f64::total_cmp)?;
        Some(highest / lowest)
    }

    pub fn missing(&self, row: &str, engine: &str) -> Option<&str> {
        self.missing.get(&(row.to_owned(), engine.to_owned())).map(String::as_str)
    }

    /// Families in which an engine failed: the family, the engine, the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.missing
            .iter()
            .filter_map(|((row, engine), reason)| Some((row.strip_suffix(FAILED)?, engine.as_str(), reason.as_str())))
    }

    /// The names of all engines that took part, as `all` orders them.
    pub fn engines<'a>(&self, all: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        all.into_iter().filter(|engine| self.run.modes.contains_key(*engine)).collect()
    }
}
