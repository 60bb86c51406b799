//! [`Report`]: named numbers, as a table for people, as lines for scripts, or as JSON.

use std::io::Write;

use serde_json::Value;

use crate::failure::Result;
use crate::numbers::{grouped, readable_bytes};
use crate::session::{Session, stdout_failure};

/// Figures in the order in which they are shown.
#[derive(Default)]
pub struct Report(Vec<(&'static str, Figure)>);

enum Figure {
    Count(u64),
    Bytes(u64),
}

impl Report {
    pub fn count(mut self, name: &'static str, count: u64) -> Report {
        self.0.push((name, Figure::Count(count)));
        self
    }

    pub fn bytes(mut self, name: &'static str, bytes: u64) -> Report {
        self.0.push((name, Figure::Bytes(bytes)));
        self
    }

    /// Writes the figures to stdout: as a table on a terminal, as JSON with `--json`, else as lines of name, tab, number.
    pub fn show(&self, session: &Session) -> Result<()> {
        if session.json {
            let object =
                self.0.iter().map(|(name, figure)| ((*name).to_owned(), Value::from(figure.plain()))).collect();
            return session.write_json(&Value::Object(object));
        }
        let mut output = session.output()?;
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, figure) in &self.0 {
            let written = if session.to_terminal {
                writeln!(output, "{:<width$}  {}", name.replace('_', " "), figure.readable())
            } else {
                writeln!(output, "{name}\t{}", figure.plain())
            };
            written.map_err(stdout_failure)?;
        }
        output.flush().map_err(stdout_failure)
    }
}

impl Figure {
    fn plain(&self) -> u64 {
        match self {
            Figure::Count(number) | Figure::Bytes(number) => *number,
        }
    }

    fn readable(&self) -> String {
        match self {
            Figure::Count(count) => grouped(*count),
            Figure::Bytes(bytes) => readable_bytes(*bytes),
        }
    }
}
