//! The small worlds and their numbers.

use std::fmt;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Put,
    Delete,
    Batch,
    Swap,
    Compact,
    /// The other process writes a batch after the live records were copied.
    CompactMeanwhile,
    Reopen,
    Sync,
}

const OPS: [Op; 8] =
    [Op::Put, Op::Delete, Op::Batch, Op::Swap, Op::Compact, Op::CompactMeanwhile, Op::Reopen, Op::Sync];

/// How many processes there are.
pub const PROCESSES: usize = 2;

/// What there was before the first operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prelude {
    /// Nothing: the first process makes the store.
    Nothing,
    /// Both processes have the store open and have written.
    Running,
    /// The same, and a third one was killed while it wrote a batch.
    Torn,
    /// The same, and a fourth one was killed while it cut off what the third had left.
    HalfCut,
    /// The same as `Running`, and the second one's compaction has failed after the log was said to have moved.
    MovedInVain,
    /// The same as `Running`, and a third one's compaction has renamed its file, and it was killed before it synced the directory.
    Renamed,
    /// A third process has made the store and written, and the sync of its last write has failed: what it wrote is
    /// only in the cache, looks clean, and no sync will bring it to the disk.
    LostPages,
}

const PRELUDES: [Prelude; 7] = [
    Prelude::Nothing,
    Prelude::Running,
    Prelude::Torn,
    Prelude::HalfCut,
    Prelude::MovedInVain,
    Prelude::Renamed,
    Prelude::LostPages,
];

impl Prelude {
    /// How many operations may follow.
    fn most(self) -> u32 {
        match self {
            Prelude::Nothing | Prelude::Running => 4,
            _ => 3,
        }
    }

    /// Whether the processes are alike, so that the first operation may as well be the first one's.
    fn is_symmetric(self) -> bool {
        matches!(self, Prelude::Nothing | Prelude::LostPages)
    }
}

/// A few operations by one or two processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    pub prelude: Prelude,
    /// Which processes wait for what they write to be on stable storage.
    pub waits: [bool; PROCESSES],
    pub steps: Vec<(usize, Op)>,
}

/// Worlds of one prelude and length.
struct Family {
    prelude: Prelude,
    len: u32,
}

impl Family {
    /// Shorter worlds first: the calls in all operations but the last are theirs.
    fn all() -> impl Iterator<Item = Family> {
        let lens = 1..=PRELUDES.iter().map(|prelude| prelude.most()).max().unwrap_or(0);
        lens.flat_map(|len| {
            let longer = PRELUDES.into_iter().filter(move |prelude| len <= prelude.most());
            longer.map(move |prelude| Family { prelude, len })
        })
    }

    fn size(&self) -> u64 {
        let any = (OPS.len() * PROCESSES) as u64;
        let first = if self.prelude.is_symmetric() { OPS.len() as u64 } else { any };
        first * any.pow(self.len - 1) * (1 << PROCESSES)
    }

    fn world(&self, number: u64) -> World {
        // In an order that mixes them, so that any range of numbers is a sample: 999,983 is a prime that divides no
        // family's size.
        let mut rest = (u128::from(number) * 999_983 % u128::from(self.size())) as u64;
        let mut draw = |end: u64| {
            let drawn = rest % end;
            rest /= end;
            drawn as usize
        };
        let waits = [draw(2) == 0, draw(2) == 0];
        let mut steps = Vec::new();
        for at in 0..self.len {
            let process = if at == 0 && self.prelude.is_symmetric() { 0 } else { draw(PROCESSES as u64) };
            steps.push((process, OPS[draw(OPS.len() as u64)]));
        }
        World { prelude: self.prelude, waits, steps }
    }
}

/// How many worlds there are.
pub fn count() -> u64 {
    Family::all().map(|family| family.size()).sum()
}

/// How many worlds have one operation: those with the lowest numbers.
pub fn count_of_shortest() -> u64 {
    Family::all().filter(|family| family.len == 1).map(|family| family.size()).sum()
}

/// The world with this number.
pub fn world(mut number: u64) -> World {
    for family in Family::all() {
        if number < family.size() {
            return family.world(number);
        }
        number -= family.size();
    }
    panic!("there are {} worlds", count());
}

impl World {
    /// Whether another world is the same: nothing is done by a process that is not there.
    pub fn is_another(&self) -> bool {
        let acts = |process| self.steps.iter().any(|&(by, op)| by == process || op == Op::CompactMeanwhile);
        self.prelude.is_symmetric() && (0..PROCESSES).any(|process| !acts(process) && !self.waits[process])
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.waits.map(|waits| if waits { "Sync" } else { "Os" });
        write!(f, "{:?}, then (0: {one}, 1: {other})", self.prelude)?;
        self.steps.iter().try_for_each(|(process, op)| write!(f, " {process}:{op:?}"))
    }
}

#[test]
fn every_world_has_one_number() {
    for family in Family::all().filter(|family| family.len <= 3) {
        let mut worlds: Vec<_> = (0..family.size()).map(|number| family.world(number).to_string()).collect();
        worlds.sort();
        worlds.dedup();
        assert_eq!(worlds.len() as u64, family.size(), "{:?}, {} operations", family.prelude, family.len);
    }
}
