//! Operations on a store as tests draw them: small, so that they collide, and apt to shrink.

use caskfile::{Config, Durability, LockMode, ReadMode};
use quickcheck::{Arbitrary, Gen};
use std::time::Duration;

/// The buckets that operations speak of, in the order of their names.
pub const BUCKETS: [&[u8]; 3] = [b"", b"b", b"other"];

/// Longer than what a full key may have without allocating.
const LONG: &[u8] = &[b'l'; 150];

/// The keys that operations speak of: prefixes of each other, the last byte there is, and a long one.
pub const KEYS: [&[u8]; 9] = [b"a", b"ab", b"abc", b"b", b"k/1", b"k/2", b"\xff", b"\xff\xff", LONG];

/// What listings ask for.
pub const PREFIXES: [&[u8]; 7] = [b"", b"a", b"ab", b"k/", b"\xff", LONG, b"zz"];

/// A key in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub bucket: usize,
    pub key: usize,
}

/// A value. A test makes its first bytes unique; others follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    pub len: u32,
    pub filler: Filler,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filler {
    Noise,
    /// What a hole, and an end mark, are made of.
    Zeros,
    /// The bytes of the store's own file, at their own offsets modulo 8: a log inside the log.
    Log,
}

/// Which pair a compare-and-swap starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Previous {
    None,
    Current,
    /// The pair with the n-th index, counted back, that was ever seen.
    Seen(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Put(Place, Value),
    Delete(Place),
    Expect(Place, Previous),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `how` chooses between the calls that read one key, or several in different ways.
    Get {
        place: Place,
        how: u8,
    },
    List {
        bucket: usize,
        prefix: usize,
        how: u8,
    },
    Range {
        bucket: usize,
        from: Option<(usize, bool)>,
        to: Option<(usize, bool)>,
        how: u8,
    },
    Buckets,
    Put(Place, Value),
    Delete(Place),
    AtomicPut(Place, Value, Previous),
    AtomicDelete(Place, Previous),
    Update(Place, Value),
    Write(Vec<Part>),
    /// Batches of several threads that are written in one group.
    Group(Vec<Vec<Part>>),
    DeletePrefix {
        bucket: usize,
        prefix: usize,
    },
    /// Everything in the store, in one call.
    Whole(Whole),
    Sync,
    Compact,
    /// It is cancelled when it reports its progress once more than this often.
    CompactUntil(u8),
    /// A store of its own is made beside this one.
    Copy(Copying),
    /// The handle opens its file once more.
    Reopen,
    Stats,
    Verify,
}

/// How everything in a store is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    ByIndex,
    ByBucket,
    /// A backup to a stream, which is opened as a store.
    Stream,
}

/// How a store is made from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    Backup,
    CompactTo,
    /// Of a file that others have open, without their knowledge.
    Salvage,
}

/// How a handle is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub durability: Kept,
    pub exclusive: bool,
    pub pread: bool,
    pub read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Sync,
    /// In the background, but not before the test is over.
    Hourly,
    Os,
}

impl Setup {
    pub const DEFAULT: Setup = Setup { durability: Kept::Sync, exclusive: false, pread: false, read_only: false };
    pub const READER: Setup = Setup { read_only: true, ..Setup::DEFAULT };

    /// No call waits for a lock: its holder cannot release it while the only thread waits.
    pub fn config(self) -> Config {
        Config::new()
            .connection_timeout(Duration::ZERO)
            .durability(match self.durability {
                Kept::Sync => Durability::Sync,
                Kept::Hourly => Durability::Interval(Duration::from_secs(3600)),
                Kept::Os => Durability::Os,
            })
            .lock_mode(if self.exclusive { LockMode::Exclusive } else { LockMode::PerWrite })
            .read_mode(if self.pread { ReadMode::Pread } else { ReadMode::Map })
            .read_only(self.read_only)
    }
}

/// A number below `end`.
pub fn below(g: &mut Gen, end: usize) -> usize {
    usize::arbitrary(g) % end
}

pub fn one_in(g: &mut Gen, n: usize) -> bool {
    below(g, n) == 0
}

impl Arbitrary for Place {
    fn arbitrary(g: &mut Gen) -> Place {
        // Few keys most of the time, so that they meet.
        let keys = if one_in(g, 3) { KEYS.len() } else { 4 };
        Place { bucket: if one_in(g, 3) { below(g, BUCKETS.len()) } else { 0 }, key: below(g, keys) }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Place>> {
        let Place { bucket, key } = *self;
        let plainer = (bucket > 0).then_some(Place { bucket: 0, key });
        let shorter = (key > 0).then_some(Place { bucket, key: 0 });
        Box::new(plainer.into_iter().chain(shorter))
    }
}

impl Arbitrary for Value {
    fn arbitrary(g: &mut Gen) -> Value {
        let filler = *g.choose(&[Filler::Noise, Filler::Noise, Filler::Zeros, Filler::Log]).unwrap();
        let len = match below(g, 40) {
            0 => 70_000,
            1..=3 => 3_000 + below(g, 3_000),
            4..=9 => 300 + below(g, 600),
            10 => 0,
            _ => 8 + below(g, 40),
        };
        Value { len: len as u32, filler }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Value>> {
        let Value { len, filler } = *self;
        let plain = (filler != Filler::Noise).then_some(Value { len, filler: Filler::Noise });
        let shorter = [8, 40, 600, len / 2, len.saturating_sub(1)].into_iter().filter(move |&shorter| shorter < len);
        Box::new(plain.into_iter().chain(shorter.map(move |len| Value { len, filler })))
    }
}

impl Arbitrary for Previous {
    fn arbitrary(g: &mut Gen) -> Previous {
        match below(g, 6) {
            0 | 1 => Previous::None,
            2..=4 => Previous::Current,
            _ => Previous::Seen(u8::arbitrary(g) % 16),
        }
    }
}

impl Arbitrary for Part {
    fn arbitrary(g: &mut Gen) -> Part {
        let place = Place::arbitrary(g);
        match below(g, 8) {
            0 => Part::Expect(place, Previous::arbitrary(g)),
            1 | 2 => Part::Delete(place),
            _ => Part::Put(place, Value::arbitrary(g)),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Part>> {
        match *self {
            Part::Put(place, value) => {
                let places = place.shrink().map(move |place| Part::Put(place, value));
                Box::new(places.chain(value.shrink().map(move |value| Part::Put(place, value))))
            }
            Part::Delete(place) => Box::new(place.shrink().map(Part::Delete)),
            Part::Expect(place, previous) => Box::new(place.shrink().map(move |place| Part::Expect(place, previous))),
        }
    }
}

impl Op {
    /// An operation that writes, or tries to.
    fn write(g: &mut Gen) -> Op {
        let place = Place::arbitrary(g);
        match below(g, 16) {
            0..=5 => Op::Put(place, Value::arbitrary(g)),
            6 | 7 => Op::Delete(place),
            8 => Op::AtomicPut(place, Value::arbitrary(g), Previous::arbitrary(g)),
            9 => Op::AtomicDelete(place, Previous::arbitrary(g)),
            10 => Op::Update(place, Value::arbitrary(g)),
            11 => Op::DeletePrefix { bucket: place.bucket, prefix: below(g, PREFIXES.len()) },
            _ => Op::Write((0..1 + below(g, 5)).map(|_| Part::arbitrary(g)).collect()),
        }
    }

    /// Two to four batches on two keys, so that they depend on each other.
    pub fn group(g: &mut Gen) -> Op {
        let part = |g: &mut Gen| {
            let place = Place { bucket: 0, key: below(g, 2) };
            match below(g, 8) {
                0..=2 => Part::Put(place, Value { len: 8 + below(g, 40) as u32, filler: Filler::Noise }),
                3..=5 => Part::Delete(place),
                _ => Part::Expect(place, Previous::arbitrary(g)),
            }
        };
        let batch = |g: &mut Gen| (0..if one_in(g, 3) { 2 } else { 1 }).map(|_| part(g)).collect();
        Op::Group((0..2 + below(g, 3)).map(|_| batch(g)).collect())
    }

    fn read(g: &mut Gen) -> Op {
        let place = Place::arbitrary(g);
        let bucket = place.bucket;
        let end = |g: &mut Gen| (!one_in(g, 3)).then(|| (below(g, KEYS.len()), bool::arbitrary(g)));
        match below(g, 7) {
            0 | 1 => Op::Get { place, how: u8::arbitrary(g) },
            2 => Op::List { bucket, prefix: below(g, PREFIXES.len()), how: u8::arbitrary(g) },
            3 => Op::Range { bucket, from: end(g), to: end(g), how: u8::arbitrary(g) },
            4 => Op::Buckets,
            5 => Op::Whole(*g.choose(&[Whole::ByIndex, Whole::ByBucket, Whole::Stream]).unwrap()),
            _ => Op::Stats,
        }
    }
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Op {
        match below(g, 18) {
            0 => Op::Sync,
            1 => Op::Compact,
            2 => Op::Verify,
            3 => Op::Copy(*g.choose(&[Copying::Backup, Copying::CompactTo, Copying::Salvage]).unwrap()),
            4 if bool::arbitrary(g) => Op::CompactUntil(below(g, 3) as u8),
            4 => Op::Reopen,
            5..=7 => Op::read(g),
            _ => Op::write(g),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Op>> {
        match self.clone() {
            Op::Write(parts) => {
                let single = parts.first().and_then(|part| match *part {
                    Part::Put(place, value) => Some(Op::Put(place, value)),
                    Part::Delete(place) => Some(Op::Delete(place)),
                    Part::Expect(..) => None,
                });
                Box::new(single.into_iter().chain(parts.shrink().map(Op::Write)))
            }
            Op::Group(batches) => Box::new(batches.shrink().map(Op::Group)),
            Op::Put(place, value) => {
                let places = place.shrink().map(move |place| Op::Put(place, value));
                Box::new(places.chain(value.shrink().map(move |value| Op::Put(place, value))))
            }
            Op::AtomicPut(place, value, _) | Op::Update(place, value) => {
                Box::new(std::iter::once(Op::Put(place, value)))
            }
            Op::AtomicDelete(place, _) => Box::new(std::iter::once(Op::Delete(place))),
            Op::Delete(place) => Box::new(place.shrink().map(Op::Delete)),
            Op::DeletePrefix { bucket, prefix } if bucket > 0 => {
                Box::new(std::iter::once(Op::DeletePrefix { bucket: 0, prefix }))
            }
            _ => quickcheck::empty_shrinker(),
        }
    }
}

impl Arbitrary for Setup {
    fn arbitrary(g: &mut Gen) -> Setup {
        Setup {
            durability: *g.choose(&[Kept::Sync, Kept::Sync, Kept::Hourly, Kept::Os, Kept::Os]).unwrap(),
            exclusive: one_in(g, 8),
            pread: one_in(g, 4),
            read_only: one_in(g, 8),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Setup>> {
        let was = *self;
        let simpler = [
            Setup { exclusive: false, ..was },
            Setup { pread: false, ..was },
            Setup { read_only: false, ..was },
            Setup { durability: Kept::Sync, ..was },
        ];
        Box::new(simpler.into_iter().filter(move |setup| *setup != was))
    }
}
