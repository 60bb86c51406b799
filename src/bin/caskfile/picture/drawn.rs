//! [`Drawn`]: the pieces of a file, collected for a picture.

use std::collections::BTreeMap;

use caskfile::inspect::{Class, Piece};

use crate::look::is_broken;

/// The rows of the longest file, at most.
const MOST_ROWS: u64 = 32;
/// The bytes of a row, at least.
const LEAST_ROW_BYTES: u64 = 256;
/// A file with more pieces is drawn in cells.
const MOST_PIECES: usize = 4000;
/// The cells of a row.
const CELLS: u64 = 256;

/// The bytes of a row, in a picture whose longest file has this length. All its files have one scale.
pub fn row_bytes(longest: u64) -> u64 {
    longest.div_ceil(MOST_ROWS).next_power_of_two().max(LEAST_ROW_BYTES)
}

/// What the picture shows of a file.
pub struct Drawn {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) row_bytes: u64,
    pub(super) totals: BTreeMap<Class, u64>,
    /// All pieces, until there are too many.
    pub(super) pieces: Option<Vec<(u64, u64, Class)>>,
    /// The bytes of each class in each cell, from then on.
    pub(super) cells: Vec<BTreeMap<Class, u64>>,
    /// Where broken pieces begin, and the class of the last piece.
    pub(super) broken: Vec<u64>,
    last: Option<Class>,
}

impl Drawn {
    pub fn new(name: String, len: u64, row_bytes: u64) -> Drawn {
        let (totals, pieces) = (BTreeMap::new(), Some(Vec::new()));
        Drawn { name, len, row_bytes, totals, pieces, cells: Vec::new(), broken: Vec::new(), last: None }
    }

    /// Adds the next piece.
    pub fn add(&mut self, piece: &Piece) {
        let (start, end, class) = (piece.start, piece.end, piece.class);
        *self.totals.entry(class).or_default() += end - start;
        if is_broken(class) && self.last != Some(class) {
            self.broken.push(start);
        }
        self.last = Some(class);
        match &mut self.pieces {
            Some(pieces) if pieces.len() < MOST_PIECES => pieces.push((start, end, class)),
            None => self.add_to_cells(start, end, class),
            Some(pieces) => {
                let pieces = std::mem::take(pieces);
                self.pieces = None;
                self.cells = vec![BTreeMap::new(); self.len.div_ceil(self.cell_bytes()) as usize];
                pieces.into_iter().for_each(|(start, end, class)| self.add_to_cells(start, end, class));
                self.add_to_cells(start, end, class);
            }
        }
    }

    /// The bytes of a cell. With that many pieces, a row has more bytes than cells.
    pub(super) fn cell_bytes(&self) -> u64 {
        (self.row_bytes / CELLS).max(1)
    }

    fn add_to_cells(&mut self, start: u64, end: u64, class: Class) {
        let bytes = self.cell_bytes();
        for cell in start / bytes..end.div_ceil(bytes) {
            let part = end.min((cell + 1) * bytes) - start.max(cell * bytes);
            *self.cells[cell as usize].entry(class).or_default() += part;
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.len.div_ceil(self.row_bytes)
    }
}
