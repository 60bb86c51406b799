//! What a store must hold: the reference that tests compare with, and what a power cut may leave of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use caskfile::Error;

use crate::common::ops::{BUCKETS, Copying, Filler, KEYS, Op, PREFIXES, Part, Place, Previous, Value, Whole};

/// A bucket, by its place in [`BUCKETS`], and a key in it.
pub type Key = (usize, Vec<u8>);
pub type Bytes = Arc<[u8]>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub value: Bytes,
    pub index: u64,
}

/// Everything in a store.
pub type State = BTreeMap<Key, Pair>;

/// What one record says: a key's new value, or that it is gone.
pub type Change = (Key, Option<Bytes>);

/// An operation with everything filled in that it depends on.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Get(Key, u8),
    List(usize, Vec<u8>, u8),
    Range(usize, Bound<Vec<u8>>, Bound<Vec<u8>>, u8),
    Buckets,
    Stats,
    /// Of one bucket.
    Len(usize),
    /// `Stats`, and `Len` of all buckets, one after the other: only where no other handle writes meanwhile.
    Counts,
    Verify,
    Whole(Whole),
    Copy(Copying),
    Sync,
    Compact,
    CompactUntil(u8),
    Reopen,
    Put(Key, Bytes),
    Delete(Key),
    AtomicPut(Key, Bytes, Option<u64>),
    AtomicDelete(Key, Option<u64>),
    Update(Key, Bytes),
    Write(Vec<BatchPart>),
    Group(Vec<Vec<BatchPart>>),
    DeletePrefix(usize, Vec<u8>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum BatchPart {
    Put(Key, Bytes),
    Delete(Key),
    ExpectSeq(Key, u64),
    ExpectAbsent(Key),
}

impl Call {
    /// Whether it waits in the queue of writers, though it may find nothing to write.
    pub fn commits(&self) -> bool {
        matches!(
            self,
            Call::Put(..)
                | Call::Delete(_)
                | Call::AtomicPut(..)
                | Call::AtomicDelete(..)
                | Call::Update(..)
                | Call::Write(_)
                | Call::Group(_)
                | Call::DeletePrefix(..)
        )
    }

    pub fn is_read(&self) -> bool {
        !self.commits() && !matches!(self, Call::Sync | Call::Compact | Call::CompactUntil(_) | Call::Reopen)
    }
}

/// The contract's ways to say no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    KeyNotFound,
    KeyExists,
    KeyModified,
    PreviousNotSpecified,
    ReadOnly,
    Conflict(usize, Box<Refusal>),
}

impl Refusal {
    pub fn of(error: &Error) -> Option<Refusal> {
        Some(match error {
            Error::KeyNotFound => Refusal::KeyNotFound,
            Error::KeyExists => Refusal::KeyExists,
            Error::KeyModified => Refusal::KeyModified,
            Error::PreviousNotSpecified => Refusal::PreviousNotSpecified,
            Error::ReadOnly { .. } => Refusal::ReadOnly,
            Error::BatchConflict { op, cause } => Refusal::Conflict(*op, Box::new(Refusal::of(cause)?)),
            _ => return None,
        })
    }
}

/// What a call that writes must do to a state: refuse, or write these records.
pub type Prediction = Result<Vec<Change>, Refusal>;

pub fn predict(call: &Call, state: &State) -> Prediction {
    let expect = |key: &Key, previous: Option<u64>| match (state.get(key), previous) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(Refusal::KeyExists),
        (None, Some(_)) => Err(Refusal::KeyNotFound),
        (Some(pair), Some(index)) if pair.index != index => Err(Refusal::KeyModified),
        (Some(_), Some(_)) => Ok(()),
    };
    match call {
        Call::Put(key, value) | Call::Update(key, value) => Ok(vec![(key.clone(), Some(value.clone()))]),
        Call::AtomicPut(key, value, previous) => {
            expect(key, *previous)?;
            Ok(vec![(key.clone(), Some(value.clone()))])
        }
        Call::Delete(key) => Ok(state.contains_key(key).then(|| (key.clone(), None)).into_iter().collect()),
        Call::AtomicDelete(_, None) => Err(Refusal::PreviousNotSpecified),
        Call::AtomicDelete(key, previous) => {
            expect(key, *previous)?;
            Ok(vec![(key.clone(), None)])
        }
        Call::Write(parts) => {
            for (op, part) in parts.iter().enumerate() {
                let kept = match part {
                    BatchPart::ExpectSeq(key, index) => expect(key, Some(*index)),
                    BatchPart::ExpectAbsent(key) => expect(key, None),
                    BatchPart::Put(..) | BatchPart::Delete(_) => Ok(()),
                };
                kept.map_err(|refusal| Refusal::Conflict(op, Box::new(refusal)))?;
            }
            let mut changes = Vec::<Change>::new();
            for part in parts {
                match part {
                    BatchPart::Put(key, value) => changes.push((key.clone(), Some(value.clone()))),
                    BatchPart::Delete(key) => {
                        let earlier = changes.iter().rfind(|(other, _)| other == key);
                        if earlier.map_or(state.contains_key(key), |(_, value)| value.is_some()) {
                            changes.push((key.clone(), None));
                        }
                    }
                    BatchPart::ExpectSeq(..) | BatchPart::ExpectAbsent(_) => {}
                }
            }
            Ok(changes)
        }
        Call::DeletePrefix(bucket, prefix) => {
            Ok(listed(state, *bucket, prefix).map(|(key, _)| (key.clone(), None)).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// The pairs that a listing returns, in its order.
pub fn listed<'s>(
    state: &'s State,
    bucket: usize,
    prefix: &'s [u8],
) -> impl DoubleEndedIterator<Item = (&'s Key, &'s Pair)> {
    state.iter().filter(move |((at, key), _)| *at == bucket && key.starts_with(prefix))
}

pub fn ranged<'s>(
    state: &'s State,
    bucket: usize,
    from: &'s Bound<Vec<u8>>,
    to: &'s Bound<Vec<u8>>,
) -> impl DoubleEndedIterator<Item = (&'s Key, &'s Pair)> {
    use std::ops::RangeBounds;
    let range = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
    state.iter().filter(move |((at, key), _)| *at == bucket && RangeBounds::<[u8]>::contains(&range, key.as_slice()))
}

/// The index of a pair that was replaced before it was read.
pub const UNSEEN: u64 = u64::MAX;

/// Whether this state is the one that was found.
pub fn is_found(state: &State, found: &State) -> bool {
    let fits =
        |pair: &Pair, there: &Pair| pair.value == there.value && (pair.index == there.index || pair.index == UNSEEN);
    state.len() == found.len()
        && state.iter().zip(found).all(|((key, pair), (there, found))| key == there && fits(pair, found))
}

/// The state after one batch, whose last record has this index, if it is known.
pub fn apply(state: &State, changes: &[Change], last_index: Option<u64>) -> State {
    let mut next = state.clone();
    for (later, (key, value)) in changes.iter().rev().enumerate().rev() {
        match value {
            None => drop(next.remove(key)),
            Some(value) => {
                let index = last_index.map_or(UNSEEN, |last| last - later as u64);
                next.insert(key.clone(), Pair { value: value.clone(), index });
            }
        }
    }
    next
}

/// The states after each batch of a group that changes something, if nothing fails.
fn all_states(start: &State, batches: &[Vec<BatchPart>]) -> Vec<State> {
    let mut states = Vec::new();
    for batch in batches {
        let before = states.last().unwrap_or(start);
        match predict(&Call::Write(batch.clone()), before) {
            Ok(changes) if !changes.is_empty() => states.push(apply(before, &changes, None)),
            _ => {}
        }
    }
    states
}

/// All that happened to a store, and what of it must survive.
#[derive(Debug, Clone)]
pub struct History {
    /// The store after each change, the empty one first.
    states: Vec<Arc<State>>,
    /// The oldest of the states that a power cut may leave.
    pub durable: usize,
    /// What every index that anyone has seen stood for.
    seen: Arc<BTreeMap<u64, (Key, Bytes)>>,
    /// No index up to this one may be handed out any more.
    pub highest_seen: u64,
    /// How many values were made so far: what makes them different.
    serial: u64,
}

impl Default for History {
    fn default() -> History {
        History { states: vec![Arc::default()], durable: 0, seen: Arc::default(), highest_seen: 0, serial: 0 }
    }
}

impl History {
    /// How many changes there were.
    pub fn len(&self) -> usize {
        self.states.len() - 1
    }

    pub fn last(&self) -> &Arc<State> {
        &self.states[self.len()]
    }

    pub fn state(&self, at: usize) -> &Arc<State> {
        &self.states[at]
    }

    /// What an operation means now. `log` are the bytes of the store's file.
    pub fn call(&mut self, op: &Op, log: impl Fn() -> Vec<u8>) -> Call {
        let key = |place: &Place| (place.bucket, KEYS[place.key].to_vec());
        let bound = |end: &Option<(usize, bool)>| match end {
            None => Bound::Unbounded,
            Some((key, true)) => Bound::Included(KEYS[*key].to_vec()),
            Some((key, false)) => Bound::Excluded(KEYS[*key].to_vec()),
        };
        match op {
            Op::Get { place, how } => Call::Get(key(place), *how),
            Op::List { bucket, prefix, how } => Call::List(*bucket, PREFIXES[*prefix].to_vec(), *how),
            Op::Range { bucket, from, to, how } => Call::Range(*bucket, bound(from), bound(to), *how),
            Op::Buckets => Call::Buckets,
            Op::Stats => Call::Counts,
            Op::Verify => Call::Verify,
            Op::Whole(whole) => Call::Whole(*whole),
            Op::Copy(copying) => Call::Copy(*copying),
            Op::Sync => Call::Sync,
            Op::Compact => Call::Compact,
            Op::CompactUntil(reports) => Call::CompactUntil(*reports),
            Op::Reopen => Call::Reopen,
            Op::Put(place, value) => Call::Put(key(place), self.value(value, &log)),
            Op::Delete(place) => Call::Delete(key(place)),
            Op::AtomicPut(place, value, previous) => {
                Call::AtomicPut(key(place), self.value(value, &log), self.previous(&key(place), *previous))
            }
            Op::AtomicDelete(place, previous) => Call::AtomicDelete(key(place), self.previous(&key(place), *previous)),
            Op::Update(place, value) => Call::Update(key(place), self.value(value, &log)),
            Op::DeletePrefix { bucket, prefix } => Call::DeletePrefix(*bucket, PREFIXES[*prefix].to_vec()),
            Op::Write(parts) => Call::Write(self.batch(parts, &log)),
            Op::Group(batches) => Call::Group(batches.iter().map(|parts| self.batch(parts, &log)).collect()),
        }
    }

    fn batch(&mut self, parts: &[Part], log: &impl Fn() -> Vec<u8>) -> Vec<BatchPart> {
        let key = |place: &Place| (place.bucket, KEYS[place.key].to_vec());
        let part = |part: &Part| match part {
            Part::Put(place, value) => BatchPart::Put(key(place), self.value(value, log)),
            Part::Delete(place) => BatchPart::Delete(key(place)),
            Part::Expect(place, previous) => match self.previous(&key(place), *previous) {
                Some(index) => BatchPart::ExpectSeq(key(place), index),
                None => BatchPart::ExpectAbsent(key(place)),
            },
        };
        parts.iter().map(part).collect()
    }

    /// A value that no other has, unless it is too short for that.
    pub fn value(&mut self, value: &Value, log: &impl Fn() -> Vec<u8>) -> Bytes {
        self.serial += 1;
        let len = value.len as usize;
        let mut bytes = self.serial.to_le_bytes().to_vec();
        match value.filler {
            Filler::Noise => bytes.extend((8..len).map(|at| (at as u64 * 31 + self.serial * 7) as u8 | 1)),
            Filler::Zeros => {}
            Filler::Log => bytes.extend(log().into_iter().skip(64)),
        }
        bytes.resize(len, 0);
        bytes.into()
    }

    fn previous(&self, key: &Key, previous: Previous) -> Option<u64> {
        match previous {
            Previous::None => None,
            Previous::Current => self.last().get(key).map(|pair| pair.index),
            Previous::Seen(back) => self.seen.keys().rev().nth(usize::from(back)).copied().or(Some(1)),
        }
    }

    /// Takes a change in, whose indexes `index_of` has found in the store. Returns how many there were before it.
    pub fn commit(
        &mut self,
        changes: &[Change],
        index_of: impl Fn(&Key) -> Result<Option<u64>, String>,
    ) -> Result<usize, String> {
        let next = self.after(changes, index_of)?;
        for (key, pair) in &next {
            self.see(key, pair)?;
        }
        self.states.push(Arc::new(next));
        Ok(self.len())
    }

    /// The last state with a change applied.
    fn after(
        &self,
        changes: &[Change],
        index_of: impl Fn(&Key) -> Result<Option<u64>, String>,
    ) -> Result<State, String> {
        let mut next = State::clone(self.last());
        let mut last_index = self.highest_seen;
        for (at, (key, value)) in changes.iter().enumerate() {
            let again = changes[at + 1..].iter().any(|(other, _)| other == key);
            match value {
                _ if again => {}
                None => {
                    next.remove(key);
                }
                Some(value) => {
                    let index = index_of(key)?.ok_or_else(|| format!("{key:?} was put and is not there"))?;
                    if index <= last_index {
                        return Err(format!("{key:?} got index {index}, though {last_index} was handed out before"));
                    }
                    last_index = index;
                    next.insert(key.clone(), Pair { value: value.clone(), index });
                }
            }
        }
        Ok(next)
    }

    /// Notes that a pair was seen.
    pub fn see(&mut self, key: &Key, pair: &Pair) -> Result<(), String> {
        match self.seen.get(&pair.index) {
            Some((other, value)) if (other, value) != (key, &pair.value) => {
                return Err(format!("index {} stands for {key:?} now, and stood for {other:?} before", pair.index));
            }
            Some(_) => {}
            None => {
                Arc::make_mut(&mut self.seen).insert(pair.index, (key.clone(), pair.value.clone()));
            }
        }
        self.highest_seen = self.highest_seen.max(pair.index);
        Ok(())
    }

    /// Which state was found: one that a power cut may leave, or the last one with `pending` applied, which becomes
    /// part of the history if so.
    pub fn find(&mut self, found: &State, pending: Option<&Call>) -> Result<usize, String> {
        if let Some(at) = (self.durable..self.states.len()).rev().find(|&at| is_found(&self.states[at], found)) {
            if *self.states[at] != *found {
                self.states[at] = Arc::new(found.clone());
                found.iter().try_for_each(|(key, pair)| self.see(key, pair))?;
            }
            return Ok(at);
        }
        let why = match pending.map(|call| self.advance(found, call)) {
            Some(Ok(at)) => return Ok(at),
            Some(Err(why)) => why,
            None => String::from("nothing was under way"),
        };
        Err(format!(
            "the store is in none of its states from {} to {}.\nfrom the oldest: {}\nfrom the newest: {}\n{why}",
            self.durable,
            self.len(),
            difference(found, &self.states[self.durable]),
            difference(found, self.last()),
        ))
    }

    /// The last state with `pending` applied becomes part of the history, if that is what was found.
    pub fn advance(&mut self, found: &State, pending: &Call) -> Result<usize, String> {
        if let Call::Group(batches) = pending {
            return self.advance_group(found, batches);
        }
        let changes = predict(pending, self.last()).map_err(|refusal| format!("{refusal:?} was under way"))?;
        let next = self.after(&changes, |key| Ok(found.get(key).map(|pair| pair.index)))?;
        if next != *found {
            return Err(format!("with what was under way: {}", difference(found, &next)));
        }
        for (key, pair) in &next {
            self.see(key, pair)?;
        }
        self.states.push(Arc::new(next));
        Ok(self.len())
    }

    /// Takes in the first states of a group that was under way, if the last of these is what was found.
    fn advance_group(&mut self, found: &State, batches: &[Vec<BatchPart>]) -> Result<usize, String> {
        let mut states = all_states(self.last(), batches);
        let Some(at) = states.iter().rposition(|state| is_found(state, found)) else {
            let last = states.last().unwrap_or(self.last());
            return Err(format!("with the group that was under way: {}", difference(found, last)));
        };
        states.truncate(at + 1);
        self.take_in(states, found)
    }

    /// Takes in the states after each batch of a group, of which the last one was found in the store.
    pub fn take_in(&mut self, states: Vec<State>, found: &State) -> Result<usize, String> {
        let highest = self.highest_seen;
        for mut state in states {
            for (key, pair) in &mut state {
                let there = found.get(key).filter(|there| there.value == pair.value);
                if let Some(there) = there.filter(|_| pair.index == UNSEEN) {
                    if there.index <= highest {
                        return Err(format!("{key:?} got index {}, though {highest} was there before", there.index));
                    }
                    pair.index = there.index;
                }
                if pair.index != UNSEEN {
                    self.see(key, pair)?;
                }
            }
            self.states.push(Arc::new(state));
        }
        Ok(self.len())
    }

    /// The store was found in this state: what came later did not happen.
    pub fn settle_at(&mut self, at: usize) {
        self.states.truncate(at + 1);
    }

    /// This and all before must survive.
    pub fn durable_up_to(&mut self, at: usize) {
        self.durable = self.durable.max(at);
    }
}

/// What `found` has and `expected` has not, and the other way round.
pub fn difference(found: &State, expected: &State) -> String {
    let show = |key: &Key, pair: &Pair| {
        let start = &pair.value[..pair.value.len().min(8)];
        let name = String::from_utf8_lossy(BUCKETS[key.0]);
        format!("{name}:{}@{} {start:?}..{}", key.1.escape_ascii(), pair.index, pair.value.len())
    };
    let mut lines = Vec::new();
    for (key, pair) in found {
        if expected.get(key) != Some(pair) {
            lines.push(format!("found {}", show(key, pair)));
        }
    }
    for (key, pair) in expected {
        if found.get(key) != Some(pair) {
            lines.push(format!("missed {}", show(key, pair)));
        }
    }
    if lines.is_empty() { String::from("the same") } else { lines.join(", ") }
}
