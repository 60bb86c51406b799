//! [`Sample`]: which parts of a file are in a page.

use std::ops::Range;

use caskfile::inspect::{Class, Inspection, Piece};

use crate::look::is_broken;

/// A range of the file whose bytes are in the page.
pub type Window = Range<u64>;

/// A row of the page's hex pane: windows start at a multiple of it.
pub const HEX_ROW: u64 = 16;

/// How many bytes of a piece, beside its key, are held in a sample: a header and the beginning of a value.
const CLIPPED: u64 = 4096;

/// How many runs of records a sample has.
const RUNS: u64 = 64;

/// How many zeros at the end are held.
const ZEROS: u64 = 4096;

/// Which pieces are held, and how much of each.
///
/// All of them, if the file fits into the page. Else only the beginnings of long values; and if that is still too much,
/// runs of consecutive records at even distances, the first and the last ones included, and damaged pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many bytes of a piece are held.
    pub clip: u64,
    /// The bytes of all pieces, clipped.
    total: u64,
    room: u64,
    /// The bytes of the pieces that were decided on, clipped.
    passed: u64,
    /// The bytes of the damaged pieces outside the runs.
    taken_by_damage: u64,
}

impl Sample {
    /// A sample of about `room` bytes at most.
    pub fn for_room(inspection: &Inspection, room: u64) -> caskfile::Result<Sample> {
        let mut sample = Sample { clip: u64::MAX, total: 0, room, passed: 0, taken_by_damage: 0 };
        let mut clipped = Sample { clip: CLIPPED, ..sample };
        for piece in inspection.pieces() {
            let piece = piece?;
            sample.total += sample.bytes_of(&piece);
            clipped.total += clipped.bytes_of(&piece);
        }
        Ok(if sample.is_everything() { sample } else { clipped })
    }

    /// Whether all pieces are held, perhaps clipped.
    pub fn is_everything(&self) -> bool {
        self.total <= self.room
    }

    /// How many bytes of a piece are held, if the piece is.
    pub fn bytes_of(&self, piece: &Piece) -> u64 {
        let key_len = piece.record.as_ref().map_or(0, |record| u64::from(record.key_len));
        let most = match piece.class {
            Class::Zeros => ZEROS,
            _ => self.clip.saturating_add(key_len),
        };
        (piece.end - piece.start).min(most)
    }

    /// Whether a piece is held. Must be called for every piece, in order.
    pub fn takes(&mut self, piece: &Piece) -> bool {
        let bytes = self.bytes_of(piece);
        let at = self.passed;
        self.passed += bytes;
        if self.is_everything() || self.is_in_a_run(at) || matches!(piece.class, Class::FileHeader | Class::EndMark) {
            return true;
        }
        let is_taken = is_broken(piece.class) && self.taken_by_damage + bytes <= self.room / 4;
        self.taken_by_damage += if is_taken { bytes } else { 0 };
        is_taken
    }

    fn is_in_a_run(&self, at: u64) -> bool {
        let (distance, run) = (self.total / RUNS, self.room / RUNS);
        // The last run ends at the file's end.
        at % distance.max(1) < run || self.total - at <= run
    }
}
