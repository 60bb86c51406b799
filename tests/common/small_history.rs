//! What a small world's store may hold.

use std::hash::{DefaultHasher, Hash, Hasher};

use caskfile::Cask;

pub const KEYS: [&str; 3] = ["a", "b", "c"];

/// For each key the number that is its value, no two of which are the same, and its index.
pub type State = [Option<(u64, u64)>; KEYS.len()];

/// What a write does: keys and their new values.
pub type Change = Vec<(usize, Option<u64>)>;

#[derive(Debug, Clone)]
pub struct History {
    /// The store after each change.
    states: Vec<State>,
    /// The oldest of them that a power cut may leave.
    durable: usize,
    /// No index up to this one may be handed out any more.
    highest: u64,
    /// That there is a store was acknowledged.
    pub created: bool,
    /// What is being written: it may be there, or not.
    pub pending: Option<Change>,
    /// What the last value was.
    pub serial: u64,
}

impl History {
    pub fn new() -> History {
        History::settled(State::default(), 0, 0, false)
    }

    /// A history that begins with a state that is on stable storage.
    fn settled(state: State, highest: u64, serial: u64, created: bool) -> History {
        History { states: vec![state], durable: 0, highest, created, pending: None, serial }
    }

    /// What remains of this history once `state` was found after a power cut.
    pub fn after(&self, state: State, created: bool) -> History {
        let seen = state.iter().flatten().map(|(_, index)| *index).max().unwrap_or(0);
        History::settled(state, self.highest.max(seen), self.serial, created)
    }

    pub fn last(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    /// Where the last state stands.
    pub fn position(&self) -> usize {
        self.states.len() - 1
    }

    /// This state and all before it must survive from now on.
    pub fn acknowledge(&mut self, position: usize) {
        self.durable = self.durable.max(position);
    }

    /// A value that no other has.
    pub fn fresh(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Whether a power cut at this moment may leave this.
    pub fn allows(&self, found: &State) -> Result<(), String> {
        if self.states[self.durable..].contains(found) {
            return Ok(());
        }
        let pending = self.pending.as_ref().map(|change| self.fits(change, found));
        match pending {
            Some(Ok(())) => Ok(()),
            why => Err(format!(
                "found {found:?}, allowed are {:?}, under way is {:?} ({why:?})",
                &self.states[self.durable..],
                self.pending
            )),
        }
    }

    /// Whether the last state with this change is what was found, and its indexes are new.
    fn fits(&self, change: &Change, found: &State) -> Result<(), String> {
        let mut expected = *self.last();
        let mut highest = self.highest;
        for &(key, value) in change {
            expected[key] = match (value, found[key]) {
                (None, _) => None,
                (Some(value), Some((_, index))) if index > highest => {
                    highest = index;
                    Some((value, index))
                }
                (Some(_), Some((_, index))) => return Err(format!("index {index} after {highest}")),
                (Some(_), None) => return Err(format!("{} is not there", KEYS[key])),
            };
        }
        if expected == *found { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}")) }
    }

    /// What was under way has happened, and this is what is there now.
    pub fn commit(&mut self, found: &State) -> Result<(), String> {
        let change = self.pending.take().unwrap_or_default();
        self.fits(&change, found)?;
        if !change.is_empty() {
            self.states.push(*found);
            self.highest = found.iter().flatten().map(|(_, index)| *index).fold(self.highest, u64::max);
        }
        Ok(())
    }

    /// A number for everything on which a verdict after a power cut depends, and for where the next one begins.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.states[self.durable..].hash(&mut hasher);
        (self.highest, self.created, &self.pending, self.serial).hash(&mut hasher);
        hasher.finish()
    }
}

pub fn read_all(cask: &Cask) -> Result<State, String> {
    let mut state = State::default();
    for pair in cask.list("").map_err(|error| error.to_string())? {
        let key = KEYS.iter().position(|key| key.as_bytes() == pair.key).ok_or("a key that was never written")?;
        let value = <[u8; 8]>::try_from(&*pair.value).map_err(|_| "a value that was never written")?;
        state[key] = Some((u64::from_le_bytes(value), pair.last_index));
    }
    Ok(state)
}
