//! What happens in one crash test: operations of several processes, and what goes wrong meanwhile.

use quickcheck::{Arbitrary, Gen};

use crate::common::ops::{Filler, Kept, Op, Part, Place, Setup, Value, below, one_in};

/// How many processes there are, each with one handle.
pub const HANDLES: usize = 3;

/// Something that a handle does.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Closes what the handle had open, and opens it in a new process.
    Open(Setup),
    Close,
    /// On a handle that is not open, opens it first with the default settings.
    Call(Op),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub handle: usize,
    pub act: Act,
}

/// How calls to the disk fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    InputOutput,
    NoSpace,
    TooLarge,
    Short(u16),
    /// A short write, and no space for the rest of it.
    ShortAndFull(u16),
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    Any,
    Writes,
    Lengths,
    Syncs,
    Reads,
    Names,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Calm(Move),
    /// The process is killed at the `at`-th of these calls, when it has written at most `written` bytes in that, or
    /// else at the end of the move.
    Kill {
        at: u8,
        calls: Calls,
        written: u16,
        during: Move,
    },
    /// The `at`-th of these calls fails, and those after it until the move is over, if `forever`.
    Fail {
        at: u8,
        calls: Calls,
        failure: Failure,
        forever: bool,
        during: Move,
    },
    /// Another process steps in right before the `at`-th call.
    Between {
        at: u8,
        during: Move,
        other: Move,
    },
    /// And everything starts over with what is left.
    PowerCut(u64),
    /// The kernel fails to write back unsynced data, and the next sync returns the error.
    WritebackFails,
    /// All processes are killed, and what only the cache held, and no sync will ever write, is gone.
    CachesDropped,
}

impl Act {
    /// Whether it leaves the store's file as it is.
    pub fn only_reads(&self) -> bool {
        match self {
            Act::Open(setup) => setup.read_only,
            Act::Close => false,
            Act::Call(op) => matches!(
                op,
                Op::Get { .. }
                    | Op::List { .. }
                    | Op::Range { .. }
                    | Op::Buckets
                    | Op::Whole(_)
                    | Op::Copy(_)
                    | Op::Stats
                    | Op::Verify
            ),
        }
    }
}

impl Arbitrary for Act {
    fn arbitrary(g: &mut Gen) -> Act {
        match below(g, 12) {
            0 => Act::Open(Setup::arbitrary(g)),
            1 => Act::Close,
            _ => Act::Call(Op::arbitrary(g)),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Act>> {
        match self {
            Act::Open(setup) => Box::new(setup.shrink().map(Act::Open)),
            Act::Close => quickcheck::empty_shrinker(),
            Act::Call(op) => Box::new(op.shrink().map(Act::Call)),
        }
    }
}

impl Arbitrary for Move {
    fn arbitrary(g: &mut Gen) -> Move {
        Move { handle: below(g, HANDLES), act: Act::arbitrary(g) }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Move>> {
        let (handle, act) = (self.handle, self.act.clone());
        let first = (handle > 0).then(|| Move { handle: handle - 1, act: act.clone() });
        Box::new(first.into_iter().chain(act.shrink().map(move |act| Move { handle, act })))
    }
}

impl Step {
    /// A group, and what goes wrong with it.
    fn group(g: &mut Gen) -> Step {
        let during = Move { handle: below(g, 2), act: Act::Call(Op::group(g)) };
        match below(g, 12) {
            0..=5 => {
                let calls = *g.choose(&[Calls::Writes, Calls::Writes, Calls::Any, Calls::Syncs, Calls::Reads]).unwrap();
                let failure = match below(g, 6) {
                    0 => Failure::InputOutput,
                    1 => Failure::NoSpace,
                    2 => Failure::TooLarge,
                    _ => Failure::ShortAndFull(8 * (1 + below(g, 24)) as u16),
                };
                let at = 1 + below(g, if calls == Calls::Any { 16 } else { 2 }) as u8;
                Step::Fail { at, calls, failure, forever: one_in(g, 4), during }
            }
            6 => Step::Kill { at: 1 + below(g, 10) as u8, calls: Calls::Any, written: 8 * below(g, 24) as u16, during },
            7 => Step::Between { at: 1 + below(g, 12) as u8, during, other: Move::arbitrary(g) },
            8 => Step::arbitrary(g),
            9 => Step::Calm(Move { handle: during.handle, act: Act::Call(Op::Reopen) }),
            // So that there is something to delete.
            10 => Step::Calm(batch(during.handle, 8)),
            _ => Step::Calm(during),
        }
    }
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Step {
        let during = Move::arbitrary(g);
        let far = if one_in(g, 3) { 40 } else { 8 };
        let at = 1 + below(g, far) as u8;
        match below(g, 40) {
            0..=2 => {
                let written = *g.choose(&[0, 1, 7, 8, 9, 24, 25, 32, 40, 48, 56, 64, 72, 80, 96, 128, 1000]).unwrap();
                let calls = if one_in(g, 3) { Calls::Writes } else { Calls::Any };
                let at = if calls == Calls::Any { at } else { 1 + below(g, 3) as u8 };
                Step::Kill { at, calls, written, during }
            }
            3..=5 => {
                let all = [Calls::Any, Calls::Writes, Calls::Lengths, Calls::Syncs, Calls::Reads, Calls::Names];
                let calls = *g.choose(&all).unwrap();
                let at = if calls == Calls::Any { at } else { 1 + below(g, 3) as u8 };
                let failure = match below(g, 5) {
                    0 | 1 => Failure::InputOutput,
                    2 => Failure::NoSpace,
                    _ => Failure::Short(*g.choose(&[1, 7, 8, 24, 25, 40, 48, 56, 64, 72, 96, 700]).unwrap()),
                };
                Step::Fail { at, calls, failure, forever: bool::arbitrary(g), during }
            }
            6..=10 => Step::Between { at, during, other: Move::arbitrary(g) },
            11 => Step::PowerCut(u64::arbitrary(g) % 1000),
            12 if bool::arbitrary(g) => Step::CachesDropped,
            13 if bool::arbitrary(g) => Step::WritebackFails,
            _ => Step::Calm(during),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Step>> {
        match self.clone() {
            Step::Calm(act) => Box::new(act.shrink().map(Step::Calm)),
            Step::Kill { at, calls, written, during } => {
                let calm = std::iter::once(Step::Calm(during.clone()));
                Box::new(calm.chain(during.shrink().map(move |during| Step::Kill { at, calls, written, during })))
            }
            Step::Fail { at, calls, failure, forever, during } => {
                let calm = std::iter::once(Step::Calm(during.clone()));
                let again = move |during| Step::Fail { at, calls, failure, forever, during };
                Box::new(calm.chain(during.shrink().map(again)))
            }
            Step::Between { at, during, other } => {
                let calm = [Step::Calm(during.clone()), Step::Calm(other.clone())];
                let (again, this) = (during.clone(), other.clone());
                let outer = during.shrink().map(move |during| Step::Between { at, during, other: this.clone() });
                let inner = other.shrink().map(move |other| Step::Between { at, during: again.clone(), other });
                Box::new(calm.into_iter().chain(outer).chain(inner))
            }
            Step::PowerCut(_) | Step::CachesDropped | Step::WritebackFails => quickcheck::empty_shrinker(),
        }
    }
}

/// What a plan has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Kills, faults, interruptions and power cuts.
    Everything,
    /// Processes that take turns, and nothing that goes wrong.
    Peace,
    /// Groups of batches that depend on each other, most of which fail.
    Groups,
}

/// The steps that a seed stands for, `most` at most, and seldom one before them that brings the log near the place
/// where zeros are written ahead.
pub fn plan(seed: u64, most: usize, kind: Kind) -> Vec<Step> {
    let g = &mut Gen::from_size_and_seed(most, seed);
    let len = 1 + below(g, most);
    // Zeros are written ahead of the log where it passes a multiple of this.
    let ahead = 128 << 10;
    let near = one_in(g, 64).then(|| Step::Calm(put(0, ahead - 100 - below(g, 600) as u32)));
    let step = |_| match kind {
        Kind::Everything => Step::arbitrary(g),
        Kind::Peace => Step::Calm(Move::arbitrary(g)),
        Kind::Groups => Step::group(g),
    };
    near.into_iter().chain((0..len).map(step)).collect()
}

/// A batch of three puts of this length, on the same keys each time.
pub fn batch(handle: usize, len: u32) -> Move {
    let put = |key| Part::Put(Place { bucket: 0, key }, Value { len, filler: Filler::Noise });
    Move { handle, act: Act::Call(Op::Write((0..3).map(put).collect())) }
}

pub fn put(handle: usize, len: u32) -> Move {
    let value = Value { len, filler: Filler::Noise };
    Move { handle, act: Act::Call(Op::Put(Place { bucket: 0, key: 3 }, value)) }
}

pub fn open(handle: usize, durability: Kept) -> Move {
    Move { handle, act: Act::Open(Setup { durability, ..Setup::DEFAULT }) }
}

pub fn call(handle: usize, op: Op) -> Move {
    Move { handle, act: Act::Call(op) }
}

pub fn close(handle: usize) -> Move {
    Move { handle, act: Act::Close }
}
