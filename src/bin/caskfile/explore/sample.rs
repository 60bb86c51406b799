//! [`Sample`]: how much of a file a page holds.

use std::ops::Range;

use caskfile::inspect::{Class, Inspection, Piece};

use crate::look::is_broken;

/// A range of the file whose bytes are in the page.
pub type Window = Range<u64>;

/// A row of the page's hex pane: windows start at a multiple of it.
pub const HEX_ROW: u64 = 16;

/// How much of a piece is held where not everything is: a header, a key, and the beginning of a value, mostly.
const CLIPPED: u64 = 4096;

/// How many runs of records a sample is made of.
const RUNS: u64 = 64;

/// Zeros are the same wherever they stand.
const ZEROS: u64 = 4096;

/// Which pieces are held, and how much of each.
///
/// Of a file that has room in the page: all. Otherwise no more than the beginning of long values; and if that is still
/// too much, runs of consecutive records, the first and the last ones among them, at even distances, and whatever is
/// damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How much of a piece is held.
    pub clip: u64,
    /// What all pieces take, clipped.
    total: u64,
    room: u64,
    /// Pieces that were asked about: what they take, clipped.
    passed: u64,
    /// What damaged pieces outside of the runs have taken.
    taken_by_damage: u64,
}

impl Sample {
    /// The sample that takes no more than about `room` bytes.
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

    /// Whether all pieces are held, be it clipped.
    pub fn is_everything(&self) -> bool {
        self.total <= self.room
    }

    /// How many bytes of a piece are held, if it is.
    pub fn bytes_of(&self, piece: &Piece) -> u64 {
        let key_len = piece.record.as_ref().map_or(0, |record| u64::from(record.key_len));
        let most = match piece.class {
            Class::Zeros => ZEROS,
            _ => self.clip.saturating_add(key_len),
        };
        (piece.end - piece.start).min(most)
    }

    /// Whether a piece is held. To be asked about all of them, in their order.
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
        // The last run ends where the file does.
        at % distance.max(1) < run || self.total - at <= run
    }
}
