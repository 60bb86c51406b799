//! What a process has done, in a file that outlives it: numbers in the page cache survive the process's being killed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The numbers of a tally.
#[derive(Debug, Clone, Copy)]
pub enum Slot {
    /// The sequence number of the last operation that was acknowledged.
    Sequence,
    /// The highest index that was acknowledged to the process.
    LastIndex,
    /// Increments that were begun, and those that were acknowledged.
    Incrementing,
    Incremented,
    Transfers,
    /// How often a reader has looked, or a backup was made.
    Looks,
    /// Writes that a sleeper was woken for, and those of them that came late, or without a report.
    Woken,
    Late,
    Unreported,
    /// Watches that went on after another one had ended, and times that one began with a listing again.
    Resumed,
    BegunAgain,
}

const SLOTS: u64 = 11;

pub struct Tally(File);

impl Tally {
    pub fn open(path: &Path) -> io::Result<Tally> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < 8 * SLOTS {
            file.set_len(8 * SLOTS)?;
        }
        Ok(Tally(file))
    }

    pub fn get(&self, slot: Slot) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 8 * slot as u64)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub fn set(&self, slot: Slot, number: u64) -> io::Result<()> {
        self.0.write_all_at(&number.to_le_bytes(), 8 * slot as u64)
    }

    pub fn add(&self, slot: Slot) -> io::Result<()> {
        self.set(slot, self.get(slot)? + 1)
    }
}
