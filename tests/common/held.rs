//! Scans and lent values that are held while the store goes on. What they show is the moment at which they were made, whatever
//! is done to the store, to its file, or to the handle that made them.

use std::ops::Bound;

use caskfile::{BucketScans, Cask, Error, IndexScan, KvPair, Scan, Slice};

use crate::common::dice::Dice;
use crate::common::history::{Call, State};
use crate::common::ops::{BUCKETS, KEYS, PREFIXES, Whole};
use crate::common::player::{Answer, answer, in_bucket};

/// A pair with the name of its bucket.
type Item = (Vec<u8>, KvPair);

enum Thing {
    Scan(Vec<u8>, Scan),
    Index(IndexScan),
    Buckets(BucketScans),
    Slice(Slice),
}

/// Something that is held, and what it may show.
pub struct Held {
    what: String,
    thing: Thing,
    /// What it shows if it is of the first, the second, … moment of the call that made it. Those that it contradicts are removed.
    moments: Vec<Vec<Item>>,
    /// How many pairs it has given from its front and from its back.
    taken: (usize, usize),
    turn: usize,
}

/// What becomes of something held after it was looked at.
pub enum Next {
    Held,
    /// It has given all that it has.
    Ended,
    /// It has given another thing, which is held too.
    Another(Box<Held>),
}

impl Held {
    /// Begins to hold something that the dice choose. `moments` are the states that it may be of. `None` if there is nothing to
    /// hold: a value of a key that is absent.
    pub fn begin(cask: &Cask, dice: &mut Dice, moments: &[&State]) -> Result<Option<Held>, Error> {
        let at = if dice.one_in(3) { dice.below(BUCKETS.len() as u64) as usize } else { 0 };
        let bucket = in_bucket(cask, at)?;
        let (call, thing) = match dice.below(8) {
            0 | 1 => {
                let prefix = if dice.one_in(2) { PREFIXES[0] } else { dice.choose(&PREFIXES) };
                let scan = bucket.scan(prefix)?;
                (Call::List(at, prefix.to_vec(), 0), Thing::Scan(BUCKETS[at].to_vec(), scan))
            }
            2 => {
                let range = (Bound::Unbounded, Bound::Excluded(dice.choose(&KEYS).to_vec()));
                let scan = bucket.range(range.clone())?;
                (Call::Range(at, range.0, range.1, 0), Thing::Scan(BUCKETS[at].to_vec(), scan))
            }
            3 => (Call::Whole(Whole::ByIndex), Thing::Index(cask.scan_by_index()?)),
            4 => (Call::Whole(Whole::ByBucket), Thing::Buckets(cask.scan_buckets()?)),
            _ => {
                let key = dice.choose(&KEYS[..5]);
                let call = Call::Get((at, key.to_vec()), 0);
                // SAFETY: only this library writes to the stores of tests that come here.
                match unsafe { bucket.mapped() }.get(key) {
                    Ok(slice) => (call, Thing::Slice(slice)),
                    Err(Error::KeyNotFound) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        let moments = moments.iter().map(|state| items(&call, answer(&call, state))).collect();
        Ok(Some(Held { what: format!("{call:?}"), thing, moments, taken: (0, 0), turn: dice.below(8) as usize }))
    }

    /// Takes the next pair from it, or looks at the value again.
    pub fn go_on(&mut self) -> Result<Next, String> {
        self.turn += 1;
        let (left, backward) = (self.left(), self.turn % 3 == 0);
        let failed = |error: Error| format!("{} is held, and gives: {error}", self.what);
        let given = match &mut self.thing {
            Thing::Slice(slice) => {
                let (value, index) = (slice.to_vec(), slice.last_index());
                self.moments.retain(|items| {
                    items.first().is_some_and(|(_, pair)| pair.value == value && pair.last_index == index)
                });
                return self.fits(format!("{} bytes of index {index}", value.len())).map(|()| Next::Held);
            }
            Thing::Buckets(buckets) => {
                let Some(next) = buckets.next() else { return self.ends() };
                let (name, scan) = next.map_err(failed)?;
                let turn = self.turn;
                let mut moments = self.moments.clone();
                moments.iter_mut().for_each(|items| items.retain(|(bucket, _)| *bucket == name));
                self.taken.0 += moments.iter().map(Vec::len).max().unwrap_or(0);
                let what = format!("bucket {:?} of {}", String::from_utf8_lossy(&name), self.what);
                let held = Held { what, thing: Thing::Scan(name, scan), moments, taken: (0, 0), turn };
                return Ok(Next::Another(Box::new(held)));
            }
            Thing::Scan(bucket, scan) => {
                if !left.contains(&scan.len()) {
                    return Err(format!("{} is held, and says that {} are left of {left:?}", self.what, scan.len()));
                }
                let next = match (backward, self.turn % 2 == 0) {
                    (false, false) => scan.next(),
                    (false, true) => scan.next_ref().map(|pair| pair.map(|pair| pair.to_pair())),
                    (true, false) => scan.next_back(),
                    (true, true) => scan.next_back_ref().map(|pair| pair.map(|pair| pair.to_pair())),
                };
                next.map(|pair| pair.map(|pair| (bucket.clone(), pair)))
            }
            Thing::Index(scan) => {
                if !left.contains(&scan.len()) {
                    return Err(format!("{} is held, and says that {} are left of {left:?}", self.what, scan.len()));
                }
                scan.next()
            }
        };
        let backward = backward && matches!(self.thing, Thing::Scan(..));
        let Some(given) = given else { return self.ends() };
        let given = given.map_err(failed)?;
        let (front, back) = self.taken;
        self.moments.retain(|items| {
            let at = if backward { items.len().checked_sub(back + 1) } else { Some(front) };
            front + back < items.len() && at.and_then(|at| items.get(at)) == Some(&given)
        });
        if backward {
            self.taken.1 += 1
        } else {
            self.taken.0 += 1
        }
        self.fits(format!("{:?} with index {}", String::from_utf8_lossy(&given.1.key), given.1.last_index))?;
        Ok(Next::Held)
    }

    /// Takes all that is left.
    pub fn finish(mut self) -> Result<(), String> {
        if let Thing::Slice(_) = self.thing {
            return self.go_on().map(drop);
        }
        loop {
            match self.go_on()? {
                Next::Held => {}
                Next::Ended => return Ok(()),
                Next::Another(other) => other.finish()?,
            }
        }
    }

    /// How many pairs are left, by moment.
    fn left(&self) -> Vec<usize> {
        self.moments.iter().map(|items| items.len().saturating_sub(self.taken.0 + self.taken.1)).collect()
    }

    fn ends(&self) -> Result<Next, String> {
        let left = self.left();
        if left.contains(&0) {
            Ok(Next::Ended)
        } else {
            Err(format!("{} is held, and ends before {left:?}", self.what))
        }
    }

    fn fits(&self, given: String) -> Result<(), String> {
        let Held { what, taken, .. } = self;
        if self.moments.is_empty() { Err(format!("{what} is held, and gives {given} after {taken:?}")) } else { Ok(()) }
    }
}

fn items(call: &Call, answer: Answer) -> Vec<Item> {
    match (call, answer) {
        (Call::List(bucket, ..) | Call::Range(bucket, ..), Answer::Pairs(pairs)) => {
            pairs.into_iter().map(|pair| (BUCKETS[*bucket].to_vec(), pair)).collect()
        }
        (Call::Get((bucket, key), _), Answer::Pair(Some((value, index)))) => {
            vec![(BUCKETS[*bucket].to_vec(), KvPair::new(key.clone(), value.to_vec(), index))]
        }
        (_, Answer::Whole(items)) => items,
        _ => Vec::new(),
    }
}

/// All that is held on one disk.
#[derive(Default)]
pub struct Holdings(Vec<Held>);

/// The number of things that are held at a time.
const MOST: usize = 6;

impl Holdings {
    /// Holds one thing more, and ends with the oldest if there are too many.
    pub fn add(&mut self, held: Held) -> Result<(), String> {
        self.0.push(held);
        if self.0.len() > MOST { self.0.remove(0).finish() } else { Ok(()) }
    }

    /// Looks at all of them.
    pub fn go_on(&mut self) -> Result<(), String> {
        for mut held in std::mem::take(&mut self.0) {
            match held.go_on()? {
                Next::Held => self.0.push(held),
                Next::Ended => {}
                Next::Another(other) => self.0.extend([held, *other]),
            }
        }
        Ok(())
    }

    pub fn finish(&mut self) -> Result<(), String> {
        std::mem::take(&mut self.0).into_iter().try_for_each(Held::finish)
    }

    pub fn drop_all(&mut self) {
        self.0.clear();
    }
}
