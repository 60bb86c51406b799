//! [`Region`]s: how the walk over a file divides it, before it is shown piece by piece.

use super::Class;
use crate::format::Damage;

/// A part of the file that is read in one way. Each byte belongs to exactly one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// The record `ROOTS`.
    Roots,
    /// Records, all of which were read and verified.
    Sound,
    /// Bytes that may have the form of records, but do not count.
    Broken { class: Class, damage: Option<Damage> },
    /// One piece of this class.
    Plain(Class),
}

/// Regions that follow one another, from the start of the file.
pub(super) struct Layout {
    pub(super) regions: Vec<Region>,
    /// Where the last region ends.
    pub(super) at: u64,
    pub(super) file_len: u64,
}

impl Layout {
    pub(super) fn new(file_len: u64) -> Layout {
        Layout { regions: Vec::new(), at: 0, file_len }
    }

    /// Adds the region up to `end`, unless it has no bytes.
    pub(super) fn push(&mut self, end: u64, is: Is) {
        if end.min(self.file_len) > self.at {
            self.push_even_empty(end, is);
        }
    }

    pub(super) fn push_even_empty(&mut self, end: u64, is: Is) {
        let end = end.min(self.file_len);
        self.regions.push(Region { start: self.at, end, is });
        self.at = end;
    }
}
