//! [`Paths`]: the rows of a file as SVG paths.

use std::collections::BTreeMap;
use std::fmt::Write;

use caskfile::inspect::Class;

use super::{ROW, ROW_STEP, TOP};

/// One path for each class, over all rows of a file.
pub(super) struct Paths {
    pub(super) left: f64,
    pub(super) column: f64,
    pub(super) row_bytes: u64,
    pub(super) paths: BTreeMap<Class, String>,
}

impl Paths {
    fn x(&self, in_row: u64) -> f64 {
        self.left + self.column * in_row as f64 / self.row_bytes as f64
    }

    fn y(&self, row: u64) -> f64 {
        TOP + row as f64 * ROW_STEP
    }

    /// The part of each row in a range: the row, and from where to where.
    fn parts(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, u64)> + use<> {
        let bytes = self.row_bytes;
        (start / bytes..end.div_ceil(bytes)).map(move |row| {
            let base = row * bytes;
            (row, start.max(base) - base, end.min(base + bytes) - base)
        })
    }

    fn rectangle(&mut self, class: Class, (row, from, to): (u64, u64, u64), top: f64, height: f64) {
        let (x, y, width) = (self.x(from), self.y(row) + top, self.x(to) - self.x(from));
        let path = self.paths.entry(class).or_default();
        let _ = write!(path, "M{x:.2} {y:.2}h{width:.2}v{height:.2}h-{width:.2}z");
    }

    pub(super) fn whole(&mut self, start: u64, end: u64, class: Class) {
        self.parts(start, end).for_each(|part| self.rectangle(class, part, 0.0, ROW));
    }

    pub(super) fn cells(&mut self, cells: &[BTreeMap<Class, u64>], cell_bytes: u64) {
        let mut at = 0;
        while at < cells.len() {
            // Neighbours of one class become one rectangle.
            let alike = if cells[at].len() == 1 {
                cells[at..].iter().take_while(|cell| cell.keys().eq(cells[at].keys())).count()
            } else {
                1
            };
            let (start, end) = (at as u64 * cell_bytes, (at + alike) as u64 * cell_bytes);
            let all: u64 = cells[at].values().sum();
            let mut top = 0.0;
            for (class, bytes) in &cells[at] {
                let height = ROW * *bytes as f64 / all as f64;
                self.parts(start, end).for_each(|part| self.rectangle(*class, part, top, height));
                top += height;
            }
            at += alike;
        }
    }

    pub(super) fn outline(&self, len: u64) -> String {
        let mut outline = String::new();
        for (row, from, to) in self.parts(0, len) {
            let (x, y, width) = (self.x(from), self.y(row), self.x(to) - self.x(from));
            let _ = write!(outline, "M{x:.2} {y:.2}h{width:.2}v{ROW}h-{width:.2}z");
        }
        outline
    }

    /// Triangles below the rows, so that small broken pieces are seen.
    pub(super) fn marks(&self, places: &[u64]) -> String {
        let (mut marks, mut last) = (String::new(), None);
        for place in places {
            let (row, in_row) = (place / self.row_bytes, place % self.row_bytes);
            let (x, y) = (self.x(in_row), self.y(row) + ROW + 1.0);
            if last.is_none_or(|(last_row, last_x)| last_row != row || x - last_x > 3.0) {
                let _ = write!(marks, "M{x:.2} {y:.2}l4 7h-8z");
                last = Some((row, x));
            }
        }
        marks
    }
}
