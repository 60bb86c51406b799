//! What each writer does: a function of its number and a sequence number.

use std::collections::BTreeMap;

use crate::dice::Dice;

pub const WRITERS: u64 = 4;

/// Each writer has this number of keys that come and go, and one for the sequence number.
const KEYS: u64 = 48;

pub const ACCOUNTS: u64 = 10;
pub const ENDOWMENT: u64 = 1000;
pub const COUNTER: &str = "shared/counter";

pub fn account(number: u64) -> String {
    format!("shared/account/{number}")
}

/// Where a writer keeps the sequence number of its last operation.
pub fn sequence_key(writer: u64) -> String {
    format!("writer/{writer}/sequence")
}

pub fn key(writer: u64, number: u64) -> String {
    format!("writer/{writer}/key/{number:02}")
}

/// Keys that are not recorded.
pub fn scratch(writer: u64) -> String {
    format!("scratch/{writer}/")
}

/// How an operation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The sequence number by itself, put.
    Put,
    /// The same, if it has not changed.
    Swap,
    /// Changes of other keys along with it, in a batch.
    Batch,
    /// The same, on the condition that the sequence number has not changed.
    BatchIf,
}

/// An operation: how it is written, and which keys it sets (`true`) or deletes besides the sequence number.
pub fn operation(writer: u64, sequence: u64) -> (Kind, Vec<(u64, bool)>) {
    let mut dice = Dice::new(writer << 56 ^ sequence);
    let kind = [Kind::Put, Kind::Swap, Kind::Batch, Kind::Batch, Kind::Batch, Kind::BatchIf][dice.below(6) as usize];
    let changes = match kind {
        Kind::Put | Kind::Swap => 0,
        Kind::Batch | Kind::BatchIf => dice.below(6),
    };
    (kind, (0..changes).map(|_| (dice.below(KEYS), dice.below(4) > 0)).collect())
}

/// The value that a key gets in an operation: it says where it comes from, and is as long as that says.
pub fn value(writer: u64, sequence: u64, key: &str) -> Vec<u8> {
    let mut value = format!("{sequence} of {writer} for {key} ").into_bytes();
    let len = Dice::new(sequence ^ writer << 40 ^ key.len() as u64).below(1500) as usize;
    let start = value.len();
    value.resize(start + len, b'a' + (sequence % 26) as u8);
    value
}

/// The sequence number that a value says it is of.
pub fn sequence_of(value: &[u8]) -> Option<u64> {
    let digits = value.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A writer's keys after a number of its operations.
pub struct Model {
    writer: u64,
    pub sequence: u64,
    /// For each key that is there, the operation that has set it.
    keys: BTreeMap<u64, u64>,
}

impl Model {
    pub fn new(writer: u64) -> Model {
        Model { writer, sequence: 0, keys: BTreeMap::new() }
    }

    pub fn advance_to(&mut self, sequence: u64) {
        while self.sequence < sequence {
            self.sequence += 1;
            for (key, is_set) in operation(self.writer, self.sequence).1 {
                match is_set {
                    true => drop(self.keys.insert(key, self.sequence)),
                    false => drop(self.keys.remove(&key)),
                }
            }
        }
    }

    /// Keys and values, in the order of a listing.
    pub fn pairs(&self) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
        self.keys.iter().map(|(number, sequence)| {
            let key = key(self.writer, *number);
            let value = value(self.writer, *sequence, &key);
            (key, value)
        })
    }
}
