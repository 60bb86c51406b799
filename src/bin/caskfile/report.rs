//! [`Report`]: named figures, as a table for people, as lines for scripts, or as JSON.

use std::io::Write;

use serde_json::Value;

use crate::failure::Result;
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

    /// Shows the figures on stdout: names and plain numbers with a tab between them, unless a person or `--json` reads
    /// them.
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

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size as a person reads it, and exactly.
pub fn readable_bytes(bytes: u64) -> String {
    match indicatif::BinaryBytes(bytes) {
        _ if bytes < 1024 => format!("{bytes} bytes"),
        rounded => format!("{rounded} ({} bytes)", grouped(bytes)),
    }
}

/// `1 key`, `2 keys`.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
